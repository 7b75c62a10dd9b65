"""Regeneration: is what a method made a model forget asleep or gone? MemoRa on diffusion models, language models and classifiers.

Paper: Polowczyk et al. 2025, "Memory Self-Regeneration", arXiv 2510.03263. No number of it stands beside ours: it has no measure, and its tables are not ours
to compare with. What differs: everything is small, the concepts are a digit, a digit and a contract, and every curve stands beside models that never knew.
Rows: split is the task, settings are ATTACK, N steps. Metrics: `knowledge` after N steps, `reference_knowledge` the same of models trained without the forget
set (mean); over the whole budget `recovery`, `half_recovery_steps`, `recovery_area` and `label_long_term_probability`, near 0 asleep, near 1 gone.
`relearn_retention` is what the attack `relearn` leaves of the forgetting. Controls: `hidden` (a renamed word, a lowered bias, a refusal on top) only hides;
`retrain` never knew. Ablations (`one-pair`, `ten-pairs`, `deep`, `shallow`, `no-slerp`, `aligned`, `full`, and the companions `textual-inversion` and
`prompt-search`) and cycles of unlearning and regeneration are for some methods on diffusion models. `rank_correlation_with_relearn`: Spearman's, over methods
of a task, of the label with `relearn_retention`, means over seeds. Settings of methods are fixed, not chosen on any result.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from scipy import stats

from unlearned.bench import resilience, suites
from unlearned.bench._lessons import Contracts
from unlearned.bench._regeneration_cells import CLASSIFIERS, CONTROLS, TEXTS, VARIANTS, Classified, Cycled, Drawn, Written
from unlearned.bench._small_llama import LlamaSize
from unlearned.bench._suite import Cell, Place, Suite
from unlearned.bench._text_scene import Pupil
from unlearned.bench.pistol import SMALL_TRAINING
from unlearned.records import LABEL, BenchRow

TaskName = Literal["image-generation", "image-classification", "text-generation"]
COMPANIONS = ("textual-inversion", "prompt-search")


@suites.register("regeneration")
class RegenerationSuite(Suite):
    """Whether what was forgotten is asleep or gone."""

    name: ClassVar[str] = "regeneration"
    tasks: tuple[TaskName, ...] = Field(("image-generation", "image-classification", "text-generation"), min_length=1, description="Which models take part.")
    drawing: tuple[str, ...] = Field((*CONTROLS, *resilience.CONTENDERS), min_length=1, description="Methods for diffusion models.")
    classifying: tuple[str, ...] = Field((*CONTROLS, *CLASSIFIERS), min_length=1, description="Methods for classifiers.")
    writing: tuple[str, ...] = Field((*CONTROLS, *TEXTS), min_length=1, description="Methods for language models.")
    references: int = Field(3, ge=1, le=100, description="Models that never knew.")
    steps: int = Field(500, ge=1, description="Steps of each attack.")
    ablated: tuple[str, ...] = Field(("hidden", "retrain", "esd-x", "salun"), description="Methods for diffusion models under the other attacks.")
    attacks: tuple[str, ...] = Field((*tuple(VARIANTS)[1:], *COMPANIONS), description="The other attacks.")
    cycles: int = Field(3, ge=0, le=20, description="Rounds of unlearning and regeneration; 0: none.")
    cycled: tuple[str, ...] = Field(("esd-x", "salun"), description="Methods for diffusion models that go through them.")
    train: int = Field(1297, ge=60, le=1297, description="Images of digits that models are trained on.")
    epochs: int = Field(40, ge=1, description="Passes over them in the training of diffusion models; classifiers take half as many.")
    images: int = Field(117, ge=4, description="Images of the concept that are generated to measure a model.")
    sampling_steps: int = Field(10, ge=1, le=100, description="Steps of DDIM for an image.")
    edges: tuple[str, ...] = Field(
        ("A_B", "E1_F1", "B_D", "A_m", "A_C"), min_length=2, description="Contracts that language models learn; the first is forgotten."
    )
    text_epochs: int = Field(30, ge=1, description="Passes over them.")
    short: bool = Field(False, description="Methods and attacks take a few steps only: to see that everything works.")

    @model_validator(mode="after")
    def _knows_names(self) -> Self:
        known = {
            "drawing": (*CONTROLS, *resilience.CONTENDERS),
            "classifying": (*CONTROLS, *CLASSIFIERS),
            "writing": (*CONTROLS, *TEXTS),
            "ablated": (*CONTROLS, *resilience.CONTENDERS),
            "cycled": tuple(resilience.CONTENDERS),
            "attacks": (*VARIANTS, *COMPANIONS),
        }
        for field, names in known.items():
            unknown = [name for name in getattr(self, field) if name not in names]
            if unknown:
                raise ValueError(f"{unknown[0]!r} is not among `{field}`; those that are: {', '.join(names)}")
        return self

    @classmethod
    def quick(cls) -> Self:
        return cls(
            seeds=1,
            tasks=("image-generation", "image-classification"),
            drawing=("hidden", "esd-x"),
            classifying=("hidden", "salun"),
            references=1,
            steps=10,
            ablated=("esd-x",),
            attacks=("textual-inversion",),
            cycles=1,
            cycled=("esd-x",),
            train=200,
            epochs=2,
            images=8,
            sampling_steps=3,
            short=True,
        )

    def require(self, place: Place) -> None:
        if "text-generation" in self.tasks:
            self._lesson().pairs(place.data)

    def _lesson(self) -> Contracts:
        return Contracts(self.edges, 20)

    def cells(self) -> Sequence[Cell]:
        found: list[Cell] = []
        pupil = Pupil(
            "llama-small", SMALL_TRAINING.model_copy(update={"epochs": self.text_epochs, "lr": 5e-3}), LlamaSize(600, 64, 256, 2, 4), max_new_tokens=16
        )
        for seed in range(self.seeds):
            if "image-generation" in self.tasks:
                sizes = (self.train, self.epochs, self.images, self.sampling_steps)
                wanted = [(name, "memora") for name in self.drawing] + [(name, attack) for name in self.ablated for attack in self.attacks]
                found += [Drawn(name, seed, self.references, attack, self.steps, self.short, *sizes) for name, attack in wanted]
                if self.cycles:
                    found += [Cycled(name, seed, self.references, "memora", self.steps, self.short, *sizes, self.cycles) for name in self.cycled]
            if "image-classification" in self.tasks:
                half = max(1, self.epochs // 2)
                found += [Classified(name, seed, self.references, "memora", self.steps, self.short, self.train, half) for name in self.classifying]
            if "text-generation" in self.tasks:
                lesson, edge = self._lesson(), self.edges[0]
                found += [Written(name, seed, self.references, "memora", self.steps, self.short, pupil, lesson, edge) for name in self.writing]
        return found

    def derived(self, rows: Sequence[BenchRow]) -> Sequence[BenchRow]:
        return [row for task in self.tasks for row in self._correlation(rows, task)]

    def _correlation(self, rows: Sequence[BenchRow], task: str) -> list[BenchRow]:
        """Of the label with what `relearn` leaves, over methods of which both are known."""
        values: dict[str, dict[str, list[float]]] = {}
        for row in rows:
            usual = row.metric == "relearn_retention" or row.setting == f"memora, {self.steps} steps"
            if row.split == task and row.metric in {LABEL, "relearn_retention"} and usual and row.value is not None:
                values.setdefault(row.method, {}).setdefault(row.metric, []).append(row.value)
        pairs = [(fmean(of[LABEL]), fmean(of["relearn_retention"])) for of in values.values() if len(of) == 2]
        what = {"method": "all methods", "setting": f"memora, {self.steps} steps", "split": task, "metric": "rank_correlation_with_relearn"}
        if len(pairs) < 3 or any(len({pair[i] for pair in pairs}) < 2 for i in (0, 1)):
            return [BenchRow(**what, reason="fewer than three methods that differ have both numbers")]
        return [BenchRow(**what, value=float(stats.spearmanr([a for a, _ in pairs], [b for _, b in pairs]).statistic))]
