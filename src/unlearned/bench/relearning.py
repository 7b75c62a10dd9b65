"""Relearning: how much of its forgetting each method keeps when somebody trains the model on.

Paper: Sui et al. 2025, ERU (NeurIPS), of which abstract and reviews were available to us: ERU keeps 83 % of its effect after relearning with 1,000 samples,
measured on models and data that are not these. `eru` is our reconstruction, `eru-elastic` its elastic reference alone, `eru-rfa` refusal-feature ablation
alone, `eru-pgd` gradient ascent in the place of the ablation: the ablations that the reviews asked for.
Data: PISTOL sample 1, contracts with twenty questions each, some of which are forgotten; questions that nobody can answer, with refusals; short facts about
the world, which no method is shown. Models: a Llama trained from nothing; `smollm2-135m`, SmolLM2-135M-Instruct, fine-tuned, where it is asked for.
Rows: setting MODEL/ATTACK, BUDGET. `forget-part`: the attacker has one half of the forget set, and knowledge is measured on the other; `related`, `benign`:
they have retained contracts that are worded alike, or plain sentences, and it is measured on all of the forget set. `knowledge` is the ROUGE-1 recall of
greedy answers. `retention` is (original − most that came back within the budget) / (original − before the attack): 1 is best, 0 means that all came back.
`utility` is the mean of the recalls of retained contracts and of facts. `retrain` never knew the forgotten contracts: its curve is what relearning teaches
anybody.
Choice of settings: equally many for each method, on other contracts, with the first seed: the one after whose unlearning the attack `forget-part` brings back
least, among those that keep 95 % of the original's utility; the most useful one where none does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import ClassVar, Self

from pydantic import Field, model_validator

from unlearned.attacks.relearn import Kind
from unlearned.bench import suites
from unlearned.bench._grids import Contender, Setting
from unlearned.bench._lessons import Contracts, Lesson
from unlearned.bench._relearning_cells import Attacker, RelearningChoice, Resistance
from unlearned.bench._small_llama import LlamaSize
from unlearned.bench._suite import Cell, Place, Suite
from unlearned.bench._text_cells import Taught
from unlearned.bench._text_grids import CONTENDERS, first
from unlearned.bench._text_scene import SMOLLM2, ModelName, Pupil, fine_tuned
from unlearned.bench.pistol import SMALL_TRAINING

VARIANTS: Mapping[str, tuple[str, Setting]] = {
    "eru": ("eru", {}),
    "eru-elastic": ("eru", {"inner": "none"}),
    "eru-rfa": ("eru", {"elasticity": 0.0}),
    "eru-pgd": ("eru", {"solver": "pgd"}),
    "adv-npo": ("adv-npo", {}),
}
BASELINES = ("npo", "simnpo", "rmu", "grad-diff", "dpo", "lunar")
NAMES = (*VARIANTS, *BASELINES)


def contender(model: ModelName, name: str, blocks: int) -> Contender:
    """A method as it takes part: with the grid of the other suites, which the variants of ERU and AdvNPO share with NPO. RMU steers behind the middle block."""
    known = CONTENDERS[model]
    shared, grid = known["npo"].shared, known["npo"].grid
    if name == "rmu":
        return replace(known[name], shared={**shared, "layer": blocks // 2})
    if name not in VARIANTS:
        return known[name]
    method, changed = VARIANTS[name]
    return Contender(name, method, {**shared, **changed}, grid)


@suites.register("relearning")
class Relearning(Suite):
    """What comes back of what language models forgot, when they are trained on."""

    name: ClassVar[str] = "relearning"
    models: tuple[ModelName, ...] = Field(("llama-small",), min_length=1, description="Models that learn the contracts.")
    edges: tuple[str, ...] = Field(("A_B", "E1_F1"), min_length=1, description="Contracts that are forgotten, together.")
    choice_edges: tuple[str, ...] = Field(("B_D", "A_m"), min_length=1, description="Contracts on which settings are chosen, together.")
    taught_edges: tuple[str, ...] = Field(("A_B", "E1_F1", "B_D", "A_m", "A_C"), min_length=3, description="Contracts that models learn.")
    methods: tuple[str, ...] = Field(NAMES, min_length=1, description="Methods that are compared.")
    attempts: int = Field(6, ge=1, le=6, description="Settings of each method that are tried.")
    attacks: tuple[Kind, ...] = Field(("forget-part", "related", "benign"), min_length=1, description="What the attacker has; the first decides settings.")
    budgets: tuple[int, ...] = Field((5, 20, 50), min_length=1, description="Steps of the attacker after which knowledge is reported: of 1, 2, 5, 10, 20, ...")
    attack_lr: float | None = Field(None, gt=0, description="Learning rate of the attacker; None: by the size of the model.")
    attack_batch_size: int = Field(10, ge=1, description="Samples in each of the attacker's steps.")
    floor: float = Field(0.95, ge=0, le=1, description="Share of the original's utility that a chosen setting keeps.")
    refusals: int = Field(20, ge=10, le=199, description="Questions that models are taught to decline.")
    epochs: int = Field(30, ge=1, description="Passes over the data in the training of llama-small.")
    lr: float = Field(5e-3, gt=0, description="Learning rate of that training.")
    vocabulary: int = Field(600, ge=300, description="Of llama-small.")
    width: int = Field(64, ge=8, description="Of llama-small.")
    inner: int = Field(256, ge=8, description="Width of its MLPs.")
    blocks: int = Field(2, ge=1, description="Of llama-small.")
    smollm2: str = Field(SMOLLM2, description="Hub id, directory or GGUF file; a directory of that name among the data is taken first.")
    smollm2_epochs: int = Field(10, ge=1, description="Passes over the data in the fine-tuning of smollm2-135m.")
    smollm2_lr: float = Field(3e-4, gt=0, description="Learning rate of that fine-tuning.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        unknown = sorted(set(self.methods) - set(NAMES))
        if unknown:
            raise ValueError(f"{unknown[0]!r} does not take part; those that do are {', '.join(NAMES)}")
        both = sorted(set(self.edges) & set(self.choice_edges))
        if both:
            raise ValueError(f"{both[0]!r} is reported, so that no settings may be chosen on it")
        untaught = sorted({*self.edges, *self.choice_edges} - set(self.taught_edges))
        if untaught:
            raise ValueError(f"{untaught[0]!r} is not among `taught_edges`: what was never taught cannot be forgotten")
        measured = self.attacker.attack("forget-part").budgets()
        between = [budget for budget in self.budgets if budget not in measured]
        if between or any(a >= b for a, b in pairwise(self.budgets)):
            raise ValueError(f"budgets are among {', '.join(map(str, measured))}, and grow")
        return self

    @classmethod
    def quick(cls) -> Self:
        few = ("A_B", "B_D", "A_C")
        given = {"edges": few[:1], "choice_edges": few[1:2], "taught_edges": few, "attacks": ("forget-part",), "budgets": (5, 10)}
        return cls.model_validate({**given, "seeds": 1, "attempts": 1, "methods": ("eru", "npo"), "refusals": 10, "epochs": 8})

    @property
    def attacker(self) -> Attacker:
        """As the cells have it."""
        return Attacker(self.attacks, self.budgets, self.attack_lr, self.attack_batch_size)

    def pupil(self, name: ModelName) -> Pupil:
        """The model and its training."""
        if name == "llama-small":
            size = LlamaSize(self.vocabulary, self.width, self.inner, self.blocks, 4)
            return Pupil(name, SMALL_TRAINING.model_copy(update={"epochs": self.epochs, "lr": self.lr}), size, max_new_tokens=16)
        return fine_tuned(self.smollm2, self.smollm2_epochs, self.smollm2_lr)

    def lesson(self) -> Lesson:
        """What they are taught."""
        return Contracts(self.taught_edges, self.refusals)

    def require(self, place: Place) -> None:
        self.lesson().pairs(place.data)

    def cells(self) -> Sequence[Cell]:
        found: list[Cell] = []
        lesson, attacker = self.lesson(), self.attacker
        for name in self.models:
            pupil = self.pupil(name)
            blocks = self.blocks if name == "llama-small" else 30
            tried = [first(contender(name, each, blocks), self.attempts) for each in self.methods]
            choices = [RelearningChoice(pupil, lesson, self.choice_edges, each, attacker, self.floor) for each in tried]
            found += [Taught(pupil, lesson, seed) for seed in range(self.seeds)]
            found += [each for each in choices if each.contender.undecided]
            for seed in range(self.seeds):
                found.append(Resistance(pupil, lesson, seed, self.edges, attacker))
                found += [Resistance(pupil, lesson, seed, self.edges, attacker, choice) for choice in choices]
        return found
