"""TOFU at small scale: forget one fictitious author of twenty.

Paper: Maini et al. 2024, TOFU, arXiv 2401.06121. `forget_quality`: p of a Kolmogorov-Smirnov test between the truth ratios of the model and of a retrained one
on the forget set, large if they cannot be told apart; `model_utility`: harmonic mean of probability, ROUGE-L and truth ratio on the retain set and world facts.
Model: `llama-small`, a Llama of three blocks trained from nothing on twenty authors with twenty questions each (so that one author is 5 %, as in the
paper's forget05), the world facts, and refusals of questions that nobody can answer.
Rows: setting MODEL/forget05; `original`, `retrain` (against the other retrained models) and methods by their names. Settings of each method are
chosen from six by the deviation score (see `pistol`) on another author, with the first seed.
What differs from the paper: the model, twenty authors in the place of two hundred, utility without real authors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from pydantic import Field

from unlearned.bench import suites
from unlearned.bench._lessons import FOR_CHOICE, FORGOTTEN, Authors
from unlearned.bench._suite import Cell, Place, Suite
from unlearned.bench._text_cells import Taught, TextBaselines, TextChoice, TextContest
from unlearned.bench._text_grids import CONTENDERS, first
from unlearned.bench._text_scene import Pupil
from unlearned.bench.pistol import SIZE, SMALL_TRAINING


@suites.register("tofu")
class TofuSuite(Suite):
    """A fictitious author is forgotten by a small language model: forget quality and model utility."""

    name: ClassVar[str] = "tofu"
    methods: tuple[str, ...] = Field(tuple(CONTENDERS["llama-small"]), min_length=1, description="Methods that are compared.")
    attempts: int = Field(6, ge=1, le=6, description="Settings of each method that are tried.")
    forgotten: int = Field(1, ge=1, le=10, description="Authors that are to be forgotten.")
    retained: int = Field(18, ge=1, le=19, description="Authors that are retained in all cases; one more is forgotten where settings are chosen.")
    refusals: int = Field(100, ge=10, le=199, description="Questions that models are taught to decline.")
    epochs: int = Field(36, ge=1, description="Passes over the data in the training of the model.")
    references: int = Field(2, ge=2, description="Models retrained without the author, for each seed.")

    @classmethod
    def quick(cls) -> Self:
        return cls(seeds=1, methods=("grad-diff",), attempts=1, retained=2, refusals=20, epochs=6)

    def require(self, place: Place) -> None:
        self._lesson().pairs(place.data)

    def cells(self) -> Sequence[Cell]:
        pupil = Pupil("llama-small", SMALL_TRAINING.model_copy(update={"epochs": self.epochs}), SIZE, max_new_tokens=80)
        choices = [TextChoice(pupil, self._lesson(), (FOR_CHOICE,), first(CONTENDERS["llama-small"][name], self.attempts)) for name in self.methods]
        found: list[Cell] = [Taught(pupil, self._lesson(), seed) for seed in range(self.seeds)]
        found += [each for each in choices if each.contender.undecided]
        for seed in range(self.seeds):
            found.append(TextBaselines(pupil, self._lesson(), seed, FORGOTTEN, self.references))
            found += [TextContest(choice, seed, FORGOTTEN, self.references) for choice in choices]
        return found

    def _lesson(self) -> Authors:
        return Authors(self.forgotten, 1, self.retained, self.refusals)
