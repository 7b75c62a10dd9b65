"""The parts of the search that can be exchanged. Each says by `label` what it is, and every report repeats it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from unlearned.evidence.statistics import Array
from unlearned.holes._rows import Rows


class TermExtractor(Protocol):
    """Finds what a text is about."""

    label: str

    def terms(self, texts: Sequence[str], count: int) -> list[list[str]]:
        """Up to `count` key terms of each text."""


class QuestionWriter(Protocol):
    """Asks about a term."""

    label: str

    def questions(self, terms: Sequence[str]) -> list[str]:
        """One harmless question of general knowledge about each term; empty where none can be asked."""


class Rater(Protocol):
    """Says how good an answer is. Scores are in 1 … 10, 10 for a good one; None where it said nothing that can be read."""

    label: str

    def scores(self, questions: Sequence[str], answers: Sequence[str]) -> list[float | None]:
        """Of each answer to its question."""


class Judge(Rater, Protocol):
    """Rates answers, and says which questions are any."""

    asked: int
    """Answers that were wanted of a chat model so far, for whatever it does here; 0 where there is none."""
    unread: int
    """Those of them that were missing or could not be read."""

    def valid(self, questions: Sequence[str]) -> list[bool]:
        """Whether each can be understood and asks for something."""


class SupportChecker(Protocol):
    """Says whether a text would answer a question."""

    label: str

    def supported(self, questions: Sequence[str], texts: Sequence[str]) -> list[bool]:
        """Of each question: whether any of the texts would answer it. More texts never make a question unsupported."""


class Embedder(Protocol):
    """Turns texts into directions."""

    label: str

    def embed(self, texts: Sequence[str]) -> Rows:
        """Rows of length 1, (N, D)."""


class GibberishScorer(Protocol):
    """Tells language from noise."""

    label: str

    def gibberish(self, texts: Sequence[str]) -> Array:
        """P(not clean) of each, (N,), in [0, 1]."""


class Searcher(Protocol):
    """Proposes questions and learns from what they were worth. The same proposals and rewards bring it into the same state."""

    label: str
    rounds: int
    """Of how many proposals it has learnt. One that keeps its state starts from there."""

    def propose(self, count: int) -> list[str]:
        """So many questions."""

    def learn(self, rewards: Sequence[float]) -> None:
        """What the questions of the last proposal were worth, in their order."""


@dataclass(frozen=True)
class Parts:
    """Everything but the searcher."""

    terms: TermExtractor
    writer: QuestionWriter
    judge: Judge
    support: SupportChecker
    embedder: Embedder
    gibberish: GibberishScorer

    @property
    def labels(self) -> dict[str, str]:
        """What each part is, by its name here."""
        return {name: getattr(self, name).label for name in ("terms", "writer", "judge", "support", "embedder", "gibberish")}
