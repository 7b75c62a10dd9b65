"""Frozen settings: what every part that a user can configure is made of."""

from __future__ import annotations

import copy
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression ({error}); give one that matches parameter names") from error
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]
"""A regular expression for names of parameters, matched anywhere in a name."""


class Settings(BaseModel):
    """Frozen, refuses unknown fields and values that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def field(cls, name: str, default: Any) -> Any:
        """The field of that name with another default: its range and description stay."""
        changed = copy.copy(cls.model_fields[name])
        changed.default = default
        return changed
