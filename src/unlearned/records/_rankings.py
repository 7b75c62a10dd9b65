"""The outcome of a ranking by influence."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from unlearned.records._costs import Cost, Environment
from unlearned.records._record import Document

RANK_SCHEMA: Literal["unlearned.rank/1"] = "unlearned.rank/1"


class RankRecord(Document):
    """How the influence of a model's training points is distributed: what `unlearned rank --json` prints. It names none of them."""

    schema_: Literal["unlearned.rank/1"] = Field(RANK_SCHEMA, alias="schema")
    environment: Environment
    score: dict[str, Any]
    """Name and settings."""
    queries: str
    """What the score was asked about, in words; empty for a score that asks nothing."""
    notes: tuple[str, ...]
    """What must be known to read it."""
    points: dict[str, int]
    """How many points of each set."""
    quantiles: dict[str, tuple[float, ...]]
    """Of each set: the distance of the scores from 0 at 0, 1, ..., 100 percent of its points, lowest first."""
    bounds: tuple[float, ...] | None
    """What leaving out the lowest 0, 1, ..., 99 percent of both sets changes at most, to first order; None if the score bounds no effect."""
    bound_of: str | None
    """What changes."""
    cost: Cost
