"""What both modalities hand over: probes with the scores of all models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from unlearned.evidence.statistics import Array
from unlearned.records import SubjectName

Kind = Literal["adjacent", "latent"]


@dataclass(frozen=True)
class Probed:
    """Probes of one kind."""

    kind: Kind
    names: Sequence[str]
    """One for each probe: a question, or what was done to which sample."""
    scores: Mapping[SubjectName, Sequence[Array]]
    """In 1 … 10, (N,), one for original and unlearned, one per reference; NaN where the judge said nothing that can be read."""
    directions: Array
    """(N, D), rows of length 1: how alike probes are."""
    calls: int
    """Answers of the unlearned model that were paid for to find these."""
    tried: int
    """How many there were before the filters."""


@dataclass(frozen=True)
class Probing:
    """Everything that one look for holes brought."""

    probed: Sequence[Probed]
    backends: Mapping[str, str]
    """Which backend did what."""
    unread: int
    """Answers of a judge that could not be read."""
