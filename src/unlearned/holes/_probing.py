"""What both modalities hand over: probes with the scores of all models, and which of them are holes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from unlearned.evidence.statistics import Array
from unlearned.holes._agreement import Agreement
from unlearned.records import SubjectName

Kind = Literal["adjacent", "latent"]


@dataclass(frozen=True)
class Probed:
    """Probes of one kind. All of them are valid, and the support checker found none that the forget set would answer."""

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
    answers: Mapping[SubjectName, Sequence[str]] = field(default_factory=dict)
    """What original, unlearned and the first reference said to each; empty where models say nothing that can be read."""
    overlaps: Array | None = None
    """(N,): how much of each question the forget text has that has most of it, in [0, 1], by the weight of its words; None: not about texts."""
    known: Sequence[bool] = ()
    """Of each: whether it stands in a set that is not to be forgotten, word for word."""
    fair: Sequence[str] = ()
    """Everything valid and unsupported that was found, before near duplicates were dropped and the cut: what a repair can retain."""
    sound: bool = False
    """Whether all of `fair` passed a search that has found the original's answers to be good."""
    read: bool = True
    """Whether any answer to what was tried has a score: where none has, that nothing was found says nothing."""

    def answered(self, good: float) -> dict[SubjectName, list[Array]]:
        """1 where a model's score is good, 0 where it is not, NaN where it could not be read."""
        return {who: [np.where(np.isnan(each), np.nan, each >= good) for each in several] for who, several in self.scores.items()}

    def holes(self, good: float, bad: float) -> dict[SubjectName, list[Array]]:
        """1 where the original's score is good and the model's bad, and the probe is valid and unsupported, as all of them are; 0 elsewhere.

        NaN where one of the two scores could not be read. NaN is true in Python: compare with 1.
        """
        own = self.scores["original"][0]
        return {who: [np.where(np.isnan(own + each), np.nan, (own >= good) & (each <= bad)) for each in several] for who, several in self.scores.items()}


@dataclass(frozen=True)
class Probing:
    """Everything that one look for holes brought."""

    probed: Sequence[Probed]
    backends: Mapping[str, str]
    """Which backend did what."""
    unread: int
    """Answers of chat models that ask and judge which were missing or could not be read."""
    asked: int
    """Answers that were wanted of them."""
    agreement: Agreement | None = None
    """Of the judge with a second one; None: none was asked."""
    ask: Callable[[Sequence[str]], Probed] | None = None
    """Puts further questions to all models and has them judged like the probes; None: probes are no questions."""
