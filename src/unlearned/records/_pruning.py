"""Which points a run left out, and whether that could be seen in trainings without them."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import model_validator

from unlearned.records._record import Record

PRUNING = "pruning.json"
"""The file beside a model that says what was left out of its unlearning."""


class Removal(Record):
    """What a training without some points differs in from a training on all of them: one number of the gate."""

    removed: Literal["low", "random", "high"]
    """Which points were left out: those that were dropped, as many at random, or as many of the highest scores."""
    metric: str
    """`utility`, `total_variation` of the predictions, or `confidence`: the mean change of a sample's probability. On the validation set, else on test data."""
    value: float
    """Models that were trained without the points."""
    full: float
    """Models that were trained on everything, held against each other in the same way."""
    low: float
    """Lower end of the interval of the difference."""
    high: float
    """Upper end of it."""
    interval: str
    """How it was got."""
    told_apart: bool
    """Whether the difference is beyond the noise of seeds."""

    @property
    def half_width(self) -> float:
        """Of the interval: how large a difference must be to be told from none."""
        return (self.high - self.low) / 2


class Pruning(Record):
    """Which points were left out of the unlearning, because a score says that they matter little."""

    score: dict[str, Any]
    """Name and settings of the score."""
    of: Literal["forget", "retain", "both"]
    """From which sets."""
    rule: str
    """How it was decided how many, in words."""
    dropped: dict[str, int]
    """How many points of each set were left out."""
    total: dict[str, int]
    """Of how many."""
    queries: str
    """What the score was asked about, in words; empty for a score that asks nothing."""
    bound: float | None = None
    """To first order, leaving all dropped points out of the training changes at most so much; None if the score bounds no effect."""
    bound_of: str | None = None
    """What changes."""
    deletion_request: bool = False
    """Whether the forget set is a request for deletion, which skipping never satisfies."""
    notes: tuple[str, ...] = ()
    """What must be known to read it."""
    gate: tuple[Removal, ...] = ()
    """Trainings without the dropped, random and highest points; empty if none was made."""
    gate_words: str = "the gate was not asked for"
    """What the gate found."""
    statement: str = ""
    """What every report says of it; given by what was dropped."""

    @property
    def skipped(self) -> int:
        """Points of the forget set that were not unlearned."""
        return self.dropped.get("forget", 0)

    @model_validator(mode="after")
    def _states(self) -> Self:
        object.__setattr__(self, "statement", self._said())
        return self

    def _said(self) -> str:
        if not any(self.dropped.values()):
            return "No point was left out: every point of the forget set was unlearned, with the whole retain set."
        if not self.skipped:
            return "Every point of the forget set was unlearned; the retain set was thinned."
        return (
            f"{self.skipped} of {self.total['forget']} points of the forget set were skipped: they were not unlearned. "
            "Skipping is not deletion, and never satisfies a request for it."
        )
