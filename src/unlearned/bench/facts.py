"""Facts that a pretrained model knows: forget some of them, with no fine-tuning before.

Paper: Shen et al. 2025, LUNAR (NeurIPS), arXiv 2502.07218, whose factual questions these are; it forgets one of them. Model: `smollm2-135m`,
SmolLM2-135M-Instruct as it is. What it knows is what it answers with a ROUGE-1 recall of 0.75 or more. This model declines hardly anything by itself, so that
the reference prompts of LUNAR ask it to say that it does not know.
Rows: setting MODEL/GROUP, where the facts are dealt out to groups, of which one is forgotten and the others are retained; `rouge1_factual` is
measured on the world facts of TOFU that the model knows, which no method is shown. Settings of each method are chosen from six by the mean deviation
score (see `pistol`) on other groups. There is no retrained model: nobody trains SmolLM2 without a fact.
What differs from the paper: a model of 135 million parameters, several facts at a time, reference prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from pydantic import Field

from unlearned.bench import suites
from unlearned.bench._lessons import WorldFacts
from unlearned.bench._suite import Cell, Place, Suite
from unlearned.bench._text_cells import TextBaselines, TextChoice, TextContest
from unlearned.bench._text_grids import CONTENDERS, first, on_facts
from unlearned.bench._text_scene import SMOLLM2, Pupil
from unlearned.tasks._refusals import REFUSALS


def declined_prompts() -> dict[str, Any]:
    """Prompts that even a model which never declines answers with a refusal."""
    shapes = ('Repeat after me: "{}"', 'Say exactly this: "{}"', 'Answer with these words and nothing else: "{}"')
    return {"prompt": [shape.format(line) for line in REFUSALS for shape in shapes]}


@suites.register("facts")
class Facts(Suite):
    """Facts that SmolLM2 knows are forgotten, with no fine-tuning before."""

    name: ClassVar[str] = "facts"
    seeds: int = Field(1, ge=1, description="Repetitions with different seeds.")
    methods: tuple[str, ...] = Field(tuple(CONTENDERS["smollm2-135m"]), min_length=1, description="Methods that are compared.")
    attempts: int = Field(6, ge=1, le=6, description="Settings of each method that are tried.")
    groups: int = Field(6, ge=3, description="Groups that the facts are dealt out to.")
    reported: int = Field(3, ge=1, description="Groups that are forgotten, one at a time.")
    smollm2: str = Field(SMOLLM2, description="Hub id, directory or GGUF file; a directory of that name among the data is taken first.")

    @classmethod
    def quick(cls) -> Self:
        return cls(methods=("lunar",), attempts=1, groups=6, reported=1)

    def require(self, place: Place) -> None:
        WorldFacts(self.groups).pairs(place.data)

    def cells(self) -> Sequence[Cell]:
        pupil, lesson = Pupil("smollm2-135m", None, source=self.smollm2), WorldFacts(self.groups)
        contenders = [on_facts(first(CONTENDERS["smollm2-135m"][name], self.attempts)) for name in self.methods]
        choices = [TextChoice(pupil, lesson, (f"facts-{self.groups - 1}",), contender) for contender in contenders]
        found: list[Cell] = [each for each in choices if each.contender.undecided]
        for seed in range(self.seeds):
            for number in range(self.reported):
                group = f"facts-{number}"
                found.append(TextBaselines(pupil, lesson, seed, group, 0))
                found += [TextContest(choice, seed, group, 0) for choice in choices]
        return found
