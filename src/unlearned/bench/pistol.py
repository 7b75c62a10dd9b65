"""PISTOL: forget one contract of twenty that a language model learnt by heart, and keep the others.

Paper: Shen et al. 2025, LUNAR (NeurIPS), arXiv 2502.07218; data: PISTOL sample 1, twenty contracts ("edges") with twenty questions each, many of them
between the same companies. `deviation_score` is 100 · √(R_forget² + (1 − R_retain)²), R the mean ROUGE-1 recall of greedy answers: 0 is best. The paper
reports one 2.9 to 11.7 times lower than that of the methods it compares with.
Models: `llama-small`, a Llama of three blocks trained from nothing, with models retrained without the contract (`retrain`); `smollm2-135m`,
SmolLM2-135M-Instruct, fine-tuned. Both are also taught to decline questions that nobody can answer (those of the authors; methods that need such questions
make up others), and the short facts about the world on which `rouge1_factual` is measured and which no method is shown.
Rows: setting MODEL/EDGE. Settings of each method are chosen from six by the mean deviation score on other edges, with the first seed. `seconds` is processor
time, `peak_mib` the largest memory of the process. Setting MODEL/in turn: five requests, one after the other: `deviation_score` of each at the end
(`lunar, N in turn`) beside that of the request alone.
What differs from the paper: models of 0.9 and 135 million parameters, not 7 billion; full weights trained, not adapters; settings chosen from a grid for every
method.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from pydantic import Field, model_validator

from unlearned.bench import suites
from unlearned.bench._lessons import Contracts, Lesson
from unlearned.bench._small_llama import LlamaSize
from unlearned.bench._suite import Cell, Place, Suite
from unlearned.bench._text_cells import InTurn, Taught, TextBaselines, TextChoice, TextContest
from unlearned.bench._text_grids import CONTENDERS, first
from unlearned.bench._text_scene import SMOLLM2, ModelName, Pupil, fine_tuned
from unlearned.engine.training import Training

EDGES = (
    *("A_B", "A_C", "A_C2", "A_C3", "B_D", "B_D2", "B_D3", "E1_F1", "E2_F2", "E3_F3"),
    *("A_m", "A_n", "A_n2", "A_n3", "B_p", "B_p2", "B_p3", "E1_q1", "E2_q2", "E3_q3"),
)
"""Contracts of the sample: of sales, then of employment."""
IN_TURN = ("lunar", "margin-redirect")
"""Methods that take requests in turn."""
SMALL_TRAINING = Training(optimizer="adamw", lr=2e-3, weight_decay=0.01, batch_size=16, schedule="cosine", max_grad_norm=1.0)
SIZE = LlamaSize(vocabulary=1000, width=96, inner=768, layers=3, heads=4)


@suites.register("pistol")
class Pistol(Suite):
    """One contract of twenty is forgotten by language models that know them by heart."""

    name: ClassVar[str] = "pistol"
    models: tuple[ModelName, ...] = Field(("llama-small", "smollm2-135m"), min_length=1, description="Models that learn the contracts.")
    edges: tuple[str, ...] = Field(("A_B", "A_C", "E1_F1"), min_length=1, description="Contracts that are forgotten, one at a time.")
    choice_edges: tuple[str, ...] = Field(("B_D", "A_n"), min_length=1, description="Contracts on which settings are chosen.")
    taught_edges: tuple[str, ...] = Field(EDGES, min_length=3, description="Contracts that llama-small learns.")
    smollm2_edges: tuple[str, ...] = Field(EDGES, min_length=3, description="Contracts that smollm2-135m learns.")
    methods: tuple[str, ...] = Field(tuple(CONTENDERS["llama-small"]), min_length=1, description="Methods that are compared.")
    smollm2_methods: tuple[str, ...] = Field(tuple(CONTENDERS["smollm2-135m"]), description="Methods that are compared on smollm2-135m.")
    in_turn: tuple[str, ...] = Field(("A_B", "A_C", "E1_F1", "B_D2", "A_m"), description="Requests that are made one after the other; none: left out.")
    attempts: int = Field(6, ge=1, le=6, description="Settings of each method that are tried.")
    smollm2_attempts: int = Field(6, ge=1, le=6, description="The same on smollm2-135m.")
    refusals: int = Field(100, ge=10, le=199, description="Questions that models are taught to decline.")
    epochs: int = Field(36, ge=1, description="Passes over the data in the training of llama-small.")
    smollm2: str = Field(SMOLLM2, description="Hub id, directory or GGUF file; a directory of that name among the data is taken first.")
    smollm2_epochs: int = Field(10, ge=1, description="Passes over the data in the fine-tuning of smollm2-135m.")
    smollm2_lr: float = Field(3e-4, gt=0, description="Learning rate of that fine-tuning.")
    smollm2_seeds: int = Field(1, ge=1, description="Fine-tuned models.")
    smollm2_retrain: bool = Field(False, description="Whether smollm2-135m is also fine-tuned without each contract.")
    retrained: int = Field(3, ge=0, description="For how many seeds a reference is retrained.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        unknown = sorted({*self.methods, *self.smollm2_methods} - set(CONTENDERS["llama-small"]))
        if unknown:
            raise ValueError(f"{unknown[0]!r} does not take part; those that do are {', '.join(CONTENDERS['llama-small'])}")
        both = sorted(set(self.edges) & set(self.choice_edges))
        if both:
            raise ValueError(f"{both[0]!r} is reported, so that no settings may be chosen on it")
        return self

    @classmethod
    def quick(cls) -> Self:
        few = ("A_B", "B_D", "E1_F1", "A_m")
        return cls(
            seeds=1,
            models=("llama-small",),
            edges=("A_B",),
            choice_edges=("B_D",),
            taught_edges=few,
            methods=("lunar", "grad-diff"),
            in_turn=(),
            attempts=2,
            refusals=30,
            epochs=12,
            retrained=0,
        )

    def pupil(self, name: ModelName) -> Pupil:
        """The model and its training."""
        if name == "llama-small":
            return Pupil(name, SMALL_TRAINING.model_copy(update={"epochs": self.epochs}), SIZE)
        return fine_tuned(self.smollm2, self.smollm2_epochs, self.smollm2_lr)

    def lesson(self, name: ModelName) -> Lesson:
        """What it is taught."""
        return Contracts(self.taught_edges if name == "llama-small" else self.smollm2_edges, self.refusals)

    def require(self, place: Place) -> None:
        for name in self.models:
            self.lesson(name).pairs(place.data)

    def cells(self) -> Sequence[Cell]:
        found: list[Cell] = []
        for name in self.models:
            small = name == "llama-small"
            pupil, lesson = self.pupil(name), self.lesson(name)
            seeds = self.seeds if small else self.smollm2_seeds
            methods, count = (self.methods, self.attempts) if small else (self.smollm2_methods, self.smollm2_attempts)
            contenders = [first(CONTENDERS[name][each], count) for each in methods]
            choices = [TextChoice(pupil, lesson, self.choice_edges, contender) for contender in contenders]
            found += [Taught(pupil, lesson, seed) for seed in range(seeds)]
            found += [each for each in choices if each.contender.undecided]
            for seed in range(seeds):
                for edge in self.edges:
                    found.append(TextBaselines(pupil, lesson, seed, edge, int(seed < self.retrained if small else self.smollm2_retrain)))
                    found += [TextContest(choice, seed, edge, 0) for choice in choices]
                if self.in_turn and small:
                    found += [InTurn(choice, seed, self.in_turn) for choice in choices if choice.contender.name in IN_TURN]
        return found
