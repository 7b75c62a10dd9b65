"""Frozen settings: what every part that a user can configure is made of."""

from __future__ import annotations

import copy
from typing import Any

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Frozen, refuses unknown fields and values that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def field(cls, name: str, default: Any) -> Any:
        """The field of that name with another default: its range and description stay."""
        changed = copy.copy(cls.model_fields[name])
        changed.default = default
        return changed
