"""What the suites on coloured images share: scale, models, the sweep over a method's grid, and what follows from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import fmean
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from torch import Tensor, nn

from unlearned.api import forget
from unlearned.bench._choice import careful
from unlearned.bench._grids import words
from unlearned.bench._images import DataName
from unlearned.bench._networks import resnet18, small_resnet
from unlearned.bench._rivals import Rival
from unlearned.bench._statistics import recomputed
from unlearned.bench._suite import Cell, Place
from unlearned.bench._taught import Taught
from unlearned.bench._tinted import Parts, greys_of
from unlearned.data.samples import Samples
from unlearned.engine.bank import Bank
from unlearned.engine.engine import Engine
from unlearned.engine.randomness import derive_seed
from unlearned.engine.settings import Optimisation
from unlearned.errors import DivergedError
from unlearned.evidence.statistics import t_interval
from unlearned.problem import Problem
from unlearned.records import BenchRow
from unlearned.tasks._task import Batch, Bundle, Task

TOLERANCE = 0.02
"""How far the utility on validation data may lie below the original's, for a setting to be chosen without test data."""
EACH = "each setting"
"""The split of rows that are about one setting of a grid."""


@dataclass(frozen=True)
class ColourScale:
    """How large everything is: it decides every model."""

    data: DataName
    halved: bool
    """Whether images are averaged over 2 x 2 pixels."""
    train_per_class: int
    validation_per_class: int
    test_per_class: int
    forget_percent: float
    """How many coloured copies are to be forgotten, in percent of the training images."""
    network: Literal["small", "resnet18"]
    width: int
    """Channels of the small network."""
    training: Optimisation
    decay_every: int
    """Epochs after which the learning rate falls to a tenth, again and again."""
    warm_epochs: int

    def parts(self, place: Place) -> Parts:
        """The images.

        Raises:
            InputError: if they are not there.
        """
        return greys_of(self.data, place.data, self.halved, self.train_per_class, self.validation_per_class, self.test_per_class)

    def bundle(self, answers: int) -> Bundle:
        """The architecture, with so many logits."""
        return Bundle(resnet18(3, answers) if self.network == "resnet18" else small_resnet(3, self.width, answers))


class Measured(NamedTuple):
    """What is known of one model."""

    reported: Mapping[str, float]
    """By metric, on test images."""
    utility: float
    """On validation images."""
    knowledge: float
    """Of the forget set."""


class Seen(NamedTuple):
    """A model as its method left it, and with statistics of batch normalisation that are recomputed on the accessible retain images."""

    left: Measured
    recomputed: Measured


VIEWS: Mapping[str, Callable[[Seen], Measured]] = {"": lambda seen: seen.left, ", recomputed": lambda seen: seen.recomputed}
"""How models are looked at, by what is added to the name of a column."""


class Scene(NamedTuple):
    """One seed: a problem, and what is measured of models."""

    problem: Problem
    """Its retain set is all of D_r."""
    retrained: nn.Module
    """Trained on D_r for as long as the original was trained on everything."""
    engine: Engine
    metrics: Mapping[str, Callable[[nn.Module], float]]

    def measured(self, model: nn.Module) -> Measured:
        """All measures of a model."""
        task, validation = self.problem.task, self.problem.validation
        assert validation is not None
        reported = {name: measure(model) for name, measure in self.metrics.items()}
        return Measured(reported, mean_of(self.engine, task.utility, model, validation), mean_of(self.engine, task.knowledge, model, self.problem.forget))

    def seen(self, model: nn.Module, retain: Samples) -> Seen:
        """All measures in both views; `retain` are the accessible images."""
        return Seen(self.measured(model), self.measured(recomputed(self.engine, model, retain)))

    def accessible(self, ratio: float) -> Problem:
        """The problem with a random part of D_r: `ratio` samples for each forget sample."""
        whole = self.problem.retain
        count = min(len(whole), max(2, round(ratio * len(self.problem.forget))))
        order = np.random.default_rng(derive_seed(self.engine.seed, "accessible")).permutation(len(whole))
        return replace(self.problem, retain=whole.subset(order[:count].tolist()))


def mean_of(engine: Engine, function: Callable[[nn.Module, Batch], Tensor], model: nn.Module, samples: Samples) -> float:
    """Mean over samples."""
    return float(engine.evaluate(model, samples, function).mean())


def models_of(engine: Engine, place: Place, original: Taught, retrained: Taught) -> tuple[Bundle, nn.Module]:
    """Both, made once and kept."""
    first, second = Bank(engine, place.cache / "models").get([original, retrained], "models")
    return first.bundle, second.bundle.model


def engine_of(task: Task, seed: int, place: Place) -> Engine:
    """Of one cell, which is one of several processes: it starts no others."""
    return Engine(task, place.compute.model_copy(update={"workers": 1}), seed)


@dataclass(frozen=True)
class Experiment(ABC):
    """One column of the tables: how much data may be used, and for how long."""

    scale: ColourScale
    ratio: float
    """Accessible retain samples for each forget sample."""
    epochs: int
    """T."""

    headline: ClassVar[tuple[str, ...]]
    """Metrics that are reported of each setting of a grid."""

    @property
    def setting(self) -> str:
        """In the rows."""
        return f"{self.scale.data}/{self.ratio:g} D_f/T={self.epochs}"

    @staticmethod
    @abstractmethod
    def scene(scale: ColourScale, seed: int, place: Place) -> Scene:
        """Data and models of a seed."""

    @staticmethod
    @abstractmethod
    def score(reported: Mapping[str, float]) -> float:
        """What the best of a grid has most of, when settings are chosen by the reported numbers themselves."""


@lru_cache(maxsize=32)
def scene_of(kind: type[Experiment], scale: ColourScale, seed: int, place: Place) -> Scene:
    """`Experiment.scene`, kept while its cells are computed."""
    return kind.scene(scale, seed, place)


@dataclass(frozen=True)
class Controls(Cell):
    """What does not unlearn: the original, and a model that never saw the forget set. Its models are those that the other cells need."""

    experiments: tuple[Experiment, ...]
    """Of one scale."""
    seed: int

    @property
    def title(self) -> str:
        return f"{self.experiments[0].scale.data}: original and retrained model of seed {self.seed}"

    def run(self, place: Place) -> Sequence[BenchRow]:
        first = self.experiments[0]
        scene = scene_of(type(first), first.scale, self.seed, place)
        rows: list[BenchRow] = []
        for name, model in (("original", scene.problem.original.model), ("retrain-full", scene.retrained)):
            by_ratio = {ratio: scene.seen(model, scene.accessible(ratio).retain) for ratio in dict.fromkeys(e.ratio for e in self.experiments)}
            for ending, look in VIEWS.items():
                for experiment in self.experiments:
                    rows += rows_of(name, experiment.setting + ending, self.seed, "test", look(by_ratio[experiment.ratio]).reported)
        return rows


@dataclass(frozen=True)
class Sweep(Cell):
    """A method's grid on all seeds."""

    experiment: Experiment
    rival: Rival
    seeds: int

    @property
    def title(self) -> str:
        return f"{self.experiment.setting}: {self.rival.name}"

    def run(self, place: Place) -> Sequence[BenchRow]:
        by_seed = [self._of_seed(seed, place) for seed in range(self.seeds)]
        by_setting = list(zip(*by_seed, strict=True))
        originals = [self._original(seed, place) for seed in range(self.seeds)]
        rows: list[BenchRow] = []
        for ending, look in VIEWS.items():
            tried = [[None if seen is None else look(seen) for seen in several] for several in by_setting]
            floor = fmean(look(seen).utility for seen in originals) - TOLERANCE
            rows += self._told(self.experiment.setting + ending, tried, floor)
        return rows

    def _of_seed(self, seed: int, place: Place) -> list[Seen | None]:
        """One for each setting; None where it diverges."""
        scene = scene_of(type(self.experiment), self.experiment.scale, seed, place)
        problem = scene.accessible(self.experiment.ratio)
        found: list[Seen | None] = []
        for setting in self.rival.grid:
            method = self.rival.made(setting, self.experiment.epochs, self.experiment.scale.training.batch_size)
            try:
                found.append(scene.seen(forget(problem, method, scene.engine).model, problem.retain))
            except DivergedError:
                found.append(None)
        return found

    def _original(self, seed: int, place: Place) -> Seen:
        scene = scene_of(type(self.experiment), self.experiment.scale, seed, place)
        return scene.seen(scene.problem.original.model, scene.accessible(self.experiment.ratio).retain)

    def _told(self, where: str, tried: Sequence[Sequence[Measured | None]], floor: float) -> Iterator[BenchRow]:
        """Rows of a column, from what each setting reached with each seed."""
        name = self.rival.name
        for setting, several in zip(self.rival.grid, tried, strict=True):
            for seed, measured in enumerate(several):
                called = f"{name} ({words(setting)})"
                if measured is None:
                    yield BenchRow(method=called, setting=where, seed=seed, split=EACH, metric=self.experiment.headline[0], reason="diverged")
                else:
                    yield from rows_of(called, where, seed, EACH, {metric: measured.reported[metric] for metric in self.experiment.headline})
        whole = {i: [m for m in several if m is not None] for i, several in enumerate(tried) if None not in several}
        if not whole:
            yield from (BenchRow(method=name, setting=where, split="test", metric=metric, reason="diverged") for metric in self.experiment.headline)
            return
        by_score = max(whole, key=lambda i: fmean(self.experiment.score(m.reported) for m in whole[i]))
        utilities, knowledge = ([fmean(getattr(m, part) for m in several) for several in whole.values()] for part in ("utility", "knowledge"))
        by_care = list(whole)[careful(utilities, knowledge, floor)]
        for chosen, ending in ((by_score, ""), (by_care, "_validated")):
            for seed, measured in enumerate(whole[chosen]):
                yield from rows_of(name, where, seed, "test", {metric + ending: value for metric, value in measured.reported.items()})
            yield from rows_of(f"{name} ({words(self.rival.grid[chosen])})", where, None, EACH, {f"chosen{ending}": 1.0})


def leads(rows: Sequence[BenchRow], metric: str, leader: str = "minnorm-og") -> Iterator[BenchRow]:
    """By how much the leader is ahead of each other method in a metric of which more is better: by seed, and the t interval of the mean.

    Args:
        rows: with values of `metric` by seed.
        metric: of the rows.
        leader: who is compared with the others.
    """
    values: dict[tuple[str, str], dict[int, float]] = {}
    for found in rows:
        if found.metric == metric and found.split == "test" and found.seed is not None and found.value is not None:
            values.setdefault((found.setting, found.method), {})[found.seed] = found.value
    for (setting, method), others in values.items():
        own = values.get((setting, leader), {})
        ahead = {seed: own[seed] - value for seed, value in others.items() if seed in own}
        if method in {leader, "original", "retrain-full"} or not ahead:
            continue
        for seed, value in ahead.items():
            yield BenchRow(method=method, setting=setting, seed=seed, split="test", metric=f"{metric}_lead", value=value)
        interval = t_interval(list(ahead.values()), "seeds")
        if interval is not None:
            yield from rows_of(method, setting, None, "test", {f"{metric}_lead_low": interval.low, f"{metric}_lead_high": interval.high})


def rows_of(method: str, setting: str, seed: int | None, split: str, values: Mapping[str, float]) -> list[BenchRow]:
    """One row for each metric."""
    return [BenchRow(method=method, setting=setting, seed=seed, split=split, metric=metric, value=value) for metric, value in values.items()]
