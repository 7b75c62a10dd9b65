"""Class unlearning: how close do methods come to retraining without a class, and does TRW close the gap that the others leave?

Paper: Ebrahimpour-Boroojeny, Wang, Sundaram, "On the Necessity of Output Distribution Reweighting for Effective Class Unlearning", arXiv 2506.20893.
Its result tables are not known to us, so that no number of the paper stands beside ours. Its abstract says: on CIFAR-10 TRW reduces the gap to retrained
models by 19 % (U-LiRA) and 46 % (MIA-NN) against the best other method of each.
What differs: everything is small. Fashion-MNIST and CIFAR-10 at half their size with 250 images of each class, a residual network of 20,000 parameters,
12 epochs; the paper has full data sets and ResNet-18.
Rows: setting DATA/CLASS; `original`, `retrain` (a retrained model against the others: what chance leaves), and methods by their names. `trw` has its similarity
from the weights of the last layer. Its ladder, one step at a time: `delete` (no tilt, no retain term), `trw-beta0` (with the retain term), then tilted by
similarity: `trw`, `trw-features`, `trw-confusion`, and `trw-oracle`, which is told a retrained model.
Settings of methods are chosen from six for each, by the distance to retrained models on *another* class (`selection_error`), and then used for all classes.
`target_tv` is the distance of what TRW teaches, by similarity, τ and β, from what retrained models answer, before anything is trained.
Metrics that end in `_oracle` are those of the setting that is best on the reported class itself: an upper bound that nobody can choose.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unlearned.bench import suites
from unlearned.bench._forget_sets import OneClass
from unlearned.bench._image_suite import ImageSuite, Pair
from unlearned.bench._scene import Scale, Scene, scene_of
from unlearned.bench._suite import Cell, Place
from unlearned.evidence.distances import total_variation
from unlearned.methods.trw import TRW, forgotten_classes, reweighted
from unlearned.records import BenchRow
from unlearned.tasks._task import ModelSource


@dataclass(frozen=True)
class Targets(Cell):
    """How far what TRW teaches is from what a retrained model answers, before anything is trained: the target can be no better than that."""

    scale: Scale
    forget: OneClass
    seeds: int

    @property
    def title(self) -> str:
        return f"{self.scale.data}/{self.forget.name}: targets"

    def run(self, place: Place) -> Sequence[BenchRow]:
        scene = scene_of(self.scale, self.forget.positions(self.scale, place), place)
        setting = f"{self.scale.data}/{self.forget.name}"
        rows = []
        for name, method in sweep(scene.weights_of_reference(0)).items():
            for seed in range(self.seeds):
                target = target_of(scene, method, seed)
                value = float(torch.stack([total_variation(target, answer).mean() for answer in answers_of(scene)]).mean())
                rows.append(BenchRow(method=name, setting=setting, seed=seed, split="forget", metric="target_tv", value=value))
        return rows


def sweep(retrained: ModelSource) -> dict[str, TRW]:
    """TRW by a name that says its similarity, β and τ."""
    found = {"beta 0": TRW(beta=0.0)}
    for similarity in ("logit-weights", "features"):
        for temperature, beta in itertools.product((0.1, 0.5, 1.0, None), (1.0, 3.0, 10.0)):
            sharpness = "raw cosine" if temperature is None else f"τ {temperature}"
            found[f"{similarity}, {sharpness}, β {beta:g}"] = TRW(similarity=similarity, temperature=temperature, beta=beta)
    for beta in (1.0, 3.0, 10.0):
        found[f"confusion, β {beta:g}"] = TRW(similarity="confusion", beta=beta)
        found[f"oracle, β {beta:g}"] = TRW(similarity="oracle", retrained=retrained, beta=beta)
    return found


def target_of(scene: Scene, method: TRW, seed: int) -> Tensor:
    """Q(y|x) on the forget set, (N, K), with that original."""
    problem = scene.problems[seed]
    similarity, forgotten = method.similarities(problem, scene.engine, forgotten_classes(problem))
    logits = scene.engine.evaluate(problem.original.model, problem.forget, scene.engine.task.outputs)
    return reweighted(logits, similarity[0], forgotten, method.beta)


def answers_of(scene: Scene) -> list[Tensor]:
    """What each reference answers on the forget set, (N, K)."""
    task, forget = scene.engine.task, scene.problems[0].forget
    return [scene.engine.evaluate(kept.bundle.model, forget, task.outputs).softmax(dim=1) for kept in scene.references]


@suites.register("class-unlearning")
class ClassUnlearning(ImageSuite):
    """Methods that forget a class of Fashion-MNIST and of CIFAR-10, against retrained models."""

    name: ClassVar[str] = "class-unlearning"
    classes: tuple[int, ...] = Field((1, 3, 5, 7, 9), min_length=1, description="Classes that are forgotten, one at a time.")
    choice_class: int = Field(0, ge=0, le=9, description="The class on which settings are chosen; not one of `classes`.")

    @model_validator(mode="after")
    def _chooses_elsewhere(self) -> Self:
        if self.choice_class in self.classes:
            raise ValueError(f"settings are chosen on class {self.choice_class}, so that it cannot be reported: leave it out of `classes`")
        return self

    @classmethod
    def quick(cls) -> Self:
        return cls(
            seeds=2,
            data=("fashion-mnist",),
            classes=(7,),
            methods=("fine-tune", "neg-grad-plus", "delete", "trw"),
            train_per_class=100,
            epochs=6,
            references=4,
            choice_references=2,
            shadows=2,
            oracle=False,
        )

    def cells(self) -> Sequence[Cell]:
        pairs = [Pair(OneClass(label), OneClass(self.choice_class)) for label in self.classes]
        targets = [Targets(self.scale(data), OneClass(label), self.seeds) for data in self.data for label in self.classes]
        return [*self.contest_cells(pairs), *targets]
