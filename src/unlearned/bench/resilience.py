"""Resilience: does a concept that a diffusion model has unlearned come back when the model is fine-tuned on something else?

Paper: Li et al. 2025, "ResAlign", NeurIPS 2025, arXiv 2507.16302: an unsafe concept of Stable Diffusion 1.4, fine-tuned on DreamBench++ and DiffusionDB.
What differs: everything is small, and the concept is a digit or a garment. A UNet of 0.2 million weights draws 8 x 8 digits of scikit-learn, or Fashion-MNIST
at 16 x 16, from prompts, and a classifier says what it drew. No number of the paper stands beside ours; its ablation does so in words, in the documentation.
Contaminated data hold one share of the concept, a fifth, where the paper goes from 0 to 100 %, and fine-tunings have one number of steps, where it draws curves
up to 500. IMMA (Zheng and Yeh 2024), which immunises against the adaptation to one concept, is not among the rivals.
Rows: setting `before`, then DATA/HOW for each fine-tuning of the unlearned model. Data and settings are held out from the pool that ResAlign rehearses: images
without the concept (`benign`), digits by other writers or garments of the test part; the same turned by a quarter (`new`); and with a fifth of the concept
(`contaminated`). AdamW on all weights (`full`), SGD with momentum (`momentum`), Adam on rank-8 adapters (`lora`). Metrics: `concept_rate`, share of images
from the concept's prompt that show it; `retain_accuracy`, share of images from the other prompts that show what was asked for; `frechet`, distance of the
features of these images from true ones, never to be called FID; `seconds`, processor time of unlearning. `retrain` was trained without the concept: what it
learns from a fine-tuning anybody learns.
The ablation: `resalign-direct` (β = 0: gradient ascent and distillation), `resalign-first-order` (rehearsals, but K = 1: no hypergradient),
`resalign-one-data` (the pool's settings on one part of the data), `resalign-one-setting` (one setting on three parts). `resalign-esd` has ESD's loss, which
is bounded, in the place of ascent, and `resalign-esd-direct` the same without rehearsals. Settings of methods are fixed, not chosen on any result of the
concept that is reported.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from unlearned.api import forget
from unlearned.bench import suites
from unlearned.bench._images import require_images
from unlearned.bench._pictures import DIGITS, HELD_OUT, PicturesName, pictures
from unlearned.bench._suite import Cell, Place, Suite
from unlearned.data.samples import Samples, union
from unlearned.engine.adapters import Lora, merged, with_adapter
from unlearned.engine.bank import Bank
from unlearned.engine.engine import Engine
from unlearned.engine.finetuning import FineTuning, Pool, read_pool
from unlearned.engine.randomness import derive_seed, seeded
from unlearned.engine.training import Trained, Training, relearnt
from unlearned.errors import DivergedError
from unlearned.evidence.distances import frechet
from unlearned.methods import methods
from unlearned.problem import Problem
from unlearned.records import BenchRow
from unlearned.tasks.image_generation import ImageGeneration, seen

POOL = read_pool("small-models")
TUNINGS: Mapping[str, FineTuning] = {
    "full": FineTuning(id="full", optimizer="adamw", lr=5e-4, weight_decay=0.01, batch_size=32),
    "momentum": FineTuning(id="momentum", optimizer="sgd", lr=0.03, momentum=0.9, batch_size=32),
    "lora": FineTuning(id="lora", kind="lora", optimizer="adam", lr=2e-3, rank=8, parameters=r"^unet\.", batch_size=32),
}
"""Held out: none is in the pool."""
_COMMON: dict[str, Any] = {"optimizer": "adam", "batch_size": 32, "weight_decay": 0.0, "max_grad_norm": 1.0}
_RESALIGN = _COMMON | {"lora": None, "parameters": r"^unet\.", "lr": 5e-4, "forget_batch_size": 16, "norm_limit": None, "gamma": 0.1, "rehearsals": 2}
CONTENDERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "gradient-ascent": ("gradient-ascent", _COMMON | {"lr": 1e-4, "epochs": 4}),
    "neg-grad-plus": ("neg-grad-plus", _COMMON | {"lr": 5e-4, "alpha": 0.7, "paced_by": "forget", "epochs": 20}),
    "esd-x": ("esd", _COMMON | {"lr": 1e-3, "steps": 80, "trajectory_steps": 10}),
    "esd-u": ("esd", _COMMON | {"lr": 5e-4, "steps": 80, "trajectory_steps": 10, "variant": "u"}),
    "uce": ("uce", {}),
    "concept-ablation": ("concept-ablation", _COMMON | {"lr": 1e-3, "steps": 80, "variant": "full", "anchor": "label == 8"}),
    "salun": ("salun", _COMMON | {"lr": 5e-4, "epochs": 20}),
    "erasediff": ("erasediff", _COMMON | {"lr": 5e-4, "steps": 80}),
    "selective-amnesia": ("selective-amnesia", _COMMON | {"lr": 5e-4, "steps": 80, "replay": 200, "fisher_timesteps": 5}),
    "meta-unlearning": ("meta-unlearning", _COMMON | {"lr": 5e-4, "steps": 80, "trajectory_steps": 10, "variant": "all", "inner_lr": 1e-3}),
    "resalign": ("resalign", _RESALIGN | {"steps": 80}),
    "resalign-esd": ("resalign", _RESALIGN | {"steps": 80, "harm": "esd"}),
    "resalign-esd-direct": ("resalign", _RESALIGN | {"steps": 80, "harm": "esd", "beta": 0.0}),
    "resalign-direct": ("resalign", _RESALIGN | {"steps": 80, "beta": 0.0}),
    "resalign-first-order": ("resalign", _RESALIGN | {"steps": 80, "iterations": 1}),
    "resalign-one-data": ("resalign", _RESALIGN | {"steps": 80}),
    "resalign-one-setting": ("resalign", _RESALIGN | {"steps": 80}),
}
"""Name in tables to method and settings."""


def pool_of(name: str) -> Pool:
    """What a variant of ResAlign rehearses."""
    if name == "resalign-one-data":
        return tuple(tuning.model_copy(update={"start": 0.0}) for tuning in POOL)
    if name == "resalign-one-setting":
        return tuple(POOL[3].model_copy(update={"id": f"part-{i}", "start": i / 3, "share": 0.333}) for i in range(3))
    return POOL


class Bed(NamedTuple):
    """What all methods of one seed are given."""

    engine: Engine
    problem: Problem
    retrained: nn.Module
    held_out: Samples
    turned: Samples


@dataclass(frozen=True)
class Bench(Cell):
    """One method from one original: unlearned, then fine-tuned in every way."""

    method: str
    seed: int
    concept: int
    train: int
    epochs: int
    steps: int
    images: int
    sampling_steps: int
    settings: tuple[str, ...]
    quick: bool
    data: PicturesName = "digits"
    held_out: int = HELD_OUT
    judged: int = 1000

    @property
    def title(self) -> str:
        return f"{self.method}, seed {self.seed}"

    def bed(self, place: Place) -> Bed:
        """Data and models; models are trained once and kept."""
        task, drawer, train, held_out, turned = pictures(self.data, place, self.train, self.held_out, self.judged, self.sampling_steps)
        bound = task.bound(drawer)
        engine = Engine(bound, place.compute.model_copy(update={"workers": 1}), seed=self.seed)
        chosen, rest = _divided(train, self.concept)
        how = Training(optimizer="adamw", lr=2e-3, weight_decay=0.0, batch_size=64, epochs=self.epochs, schedule="cosine")
        bank = Bank(engine, place.cache / "models")
        [original] = bank.get([Trained(drawer, self.seed, train, how, "original")], "original")
        [reference] = bank.get([Trained(drawer, derive_seed(self.seed, "reference"), rest, how)], "reference")
        problem = Problem(bound, original.bundle, chosen, rest, held_out)
        return Bed(engine, problem, reference.bundle.model, held_out, turned)

    def run(self, place: Place) -> Sequence[BenchRow]:
        bed = self.bed(place)
        try:
            model, seconds = self._made(bed)
        except DivergedError:
            return [BenchRow(method=self.method, setting="before", seed=self.seed, split="forget", metric="concept_rate", reason="diverged")]
        rows = self._rows(bed, model, "before")
        if seconds is not None:
            rows.append(BenchRow(method=self.method, setting="before", seed=self.seed, split="all", metric="seconds", value=seconds))
        for setting in self.settings:
            data, how = setting.split("/")
            tuned = fine_tuned(bed.engine, model, TUNINGS[how], self.steps, material(bed, data, self.concept))
            rows += self._rows(bed, tuned, setting)
        return rows

    def _made(self, bed: Bed) -> tuple[nn.Module, float | None]:
        if self.method == "original":
            return bed.problem.original.model, None
        if self.method == "retrain":
            return bed.retrained, None
        name, settings = CONTENDERS[self.method]
        if name == "resalign":
            settings = settings | {"pool": pool_of(self.method)} | ({"rehearsals": 1, "iterations": 2} if self.quick else {})
        if self.quick:
            settings = settings | ({"steps": 1} if "steps" in settings else {"epochs": 1} if "epochs" in settings else {})
        done = forget(bed.problem, methods.get(name)(**settings), bed.engine)
        return done.model, done.cost.cpu_seconds

    def _rows(self, bed: Bed, model: nn.Module, setting: str) -> list[BenchRow]:
        task = bed.engine.task
        assert isinstance(task, ImageGeneration)
        few = bed.problem.retain.subset(_first_of_each(bed.problem.retain, self.images // 9))
        own = bed.problem.forget.subset(range(min(self.images, len(bed.problem.forget))))
        values: dict[str, tuple[str, float]] = {}
        for metric, split, samples in (("concept_rate", "forget", own), ("retain_accuracy", "retain", few)):
            images = bed.engine.evaluate(model, samples, task.images).float()
            labels = torch.tensor([int(label) for label in samples.fact("label")])
            values[metric] = split, float(seen(task.judged(images), labels).nan_to_num(0).mean())
        true = _true(bed.problem.test.subset(_others(bed.problem.test, self.concept)))
        features = [task.the_judge.features(pictures).double().numpy() for pictures in (images, true)]
        values["frechet"] = "retain", frechet(*features) if bool(images.isfinite().all()) else float("nan")
        return [
            BenchRow(method=self.method, setting=setting, seed=self.seed, split=split, metric=metric, value=value)
            if value == value  # noqa: PLR0124  # NaN
            else BenchRow(method=self.method, setting=setting, seed=self.seed, split=split, metric=metric, reason="images that are not finite")
            for metric, (split, value) in values.items()
        ]


def material(bed: Bed, data: str, concept: int) -> Samples:
    """What a fine-tuning trains on: held out from everything that methods have seen."""
    others = bed.held_out.subset(_others(bed.held_out, concept))
    if data == "benign":
        return others
    if data == "new":
        return bed.turned.subset(_others(bed.turned, concept))
    own, _ = _divided(bed.held_out, concept)
    return union(others.shuffled(0).subset(range(4 * len(own))), own)


def fine_tuned(engine: Engine, model: nn.Module, tuning: FineTuning, steps: int, samples: Samples) -> nn.Module:
    """The model after it has been fine-tuned, with adapters merged."""

    def nothing(model: nn.Module, step: int) -> None:
        del model, step

    if tuning.kind == "full":
        return relearnt(engine, model, samples, tuning.optimisation, steps, title=tuning.id, watch=nothing)
    with seeded(derive_seed(engine.seed, "adapter", tuning.id)):
        adapted = with_adapter(copy.deepcopy(model), Lora(rank=tuning.rank, alpha=tuning.rank), tuning.parameters)
    how = tuning.optimisation.model_copy(update={"parameters": ".*"})
    return merged(relearnt(engine, adapted, samples, how, steps, title=tuning.id, watch=nothing), model).eval()


def _divided(samples: Samples, concept: int) -> tuple[Samples, Samples]:
    others = set(_others(samples, concept))
    return samples.subset(i for i in range(len(samples)) if i not in others), samples.subset(sorted(others))


def _others(samples: Samples, concept: int) -> list[int]:
    return [i for i, label in enumerate(samples.fact("label")) if label != concept]


def _first_of_each(samples: Samples, count: int) -> list[int]:
    taken: dict[Any, int] = {}
    positions = []
    for i, label in enumerate(samples.fact("label")):
        taken[label] = taken.get(label, 0) + 1
        if taken[label] <= count:
            positions.append(i)
    return positions


def _true(samples: Samples) -> Tensor:
    """Images in [0, 1], (N, C, H, W)."""
    return torch.stack([(samples[i]["pixel_values"] + 1) / 2 for i in range(len(samples))])


@suites.register("resilience")
class ResilienceSuite(Suite):
    """Methods that make a diffusion model forget a digit or a garment, before and after it is fine-tuned on something else."""

    name: ClassVar[str] = "resilience"
    data: PicturesName = Field("digits", description="What is drawn: digits of 8 x 8 pixels, or Fashion-MNIST at 16 x 16.")
    concept: int = Field(3, ge=0, le=9, description="What is forgotten: the digit, or the number of the garment (3: dress).")
    methods: tuple[str, ...] = Field(("original", "retrain", *CONTENDERS), min_length=1, description="What takes part, by its name in the tables.")
    settings: tuple[str, ...] = Field(
        ("benign/full", "benign/momentum", "benign/lora", "new/full", "contaminated/full"), description="Fine-tunings after unlearning: DATA/HOW."
    )
    train: int = Field(DIGITS, ge=50, le=DIGITS, description="Images that originals are trained on, the concept's included; of each garment a tenth.")
    held_out: int = Field(
        HELD_OUT, ge=10, le=HELD_OUT, description="Images that fine-tuning draws on: by other writers, or of each garment of the test part a tenth."
    )
    judged: int = Field(1000, ge=1, le=5000, description="Further images of each garment, which the judge of Fashion-MNIST learns from.")
    epochs: int = Field(40, ge=1, description="Passes over the data in the training of originals and of models without the concept.")
    steps: int = Field(100, ge=1, description="Optimiser steps of each fine-tuning.")
    images: int = Field(117, ge=9, description="Images that are generated from the concept's prompt, and from all others together.")
    sampling_steps: int = Field(10, ge=1, le=100, description="Steps of DDIM for an image.")
    short: bool = Field(False, description="Methods take a few steps only: to see that everything works.")

    @model_validator(mode="after")
    def _knows_names(self) -> Self:
        known = ("original", "retrain", *CONTENDERS)
        unknown = [name for name in self.methods if name not in known]
        if unknown:
            raise ValueError(f"{unknown[0]!r} does not take part; those that do are {', '.join(known)}")
        for setting in self.settings:
            data, _, how = setting.partition("/")
            if data not in {"benign", "new", "contaminated"} or how not in TUNINGS:
                raise ValueError(f"{setting!r} is no fine-tuning: give benign, new or contaminated, a slash, and one of {', '.join(TUNINGS)}")
        return self

    @classmethod
    def quick(cls) -> Self:
        return cls(
            seeds=1,
            methods=("original", "esd-x", "resalign"),
            settings=("benign/full", "contaminated/lora"),
            train=200,
            epochs=1,
            steps=3,
            images=18,
            sampling_steps=3,
            short=True,
        )

    def require(self, place: Place) -> None:
        if self.data != "digits":
            require_images(self.data, place.data)

    def cells(self) -> Sequence[Cell]:
        sizes = (self.train, self.epochs, self.steps, self.images, self.sampling_steps, self.settings, self.short)
        drawn = (self.data, self.held_out, self.judged)
        return [Bench(name, seed, self.concept, *sizes, *drawn) for seed in range(self.seeds) for name in self.methods]
