"""Multi-class label erasure: can a model lose what it knows of colours, and keep what it knows of classes?

Paper: Block, Mokhtari, Shakkottai 2025, "Machine Unlearning under Overparameterization" (MinNorm-OG), NeurIPS 2025, arXiv 2505.22601, multi-class label
erasure; details that the text leaves open from the authors' code (commit cff65b2). Its results are figures; no number of the paper stands beside ours. Its
text says that MinNorm-OG comes closest to the ground truth in both measures.
Formula: a network with two heads, class and colour, is trained by the sum of their cross-entropies on gray images (D_r) and on red and green copies of a few
of them (D_f). Each method then has T epochs over D_f and a few images of D_r. `retain_quality`: share of gray test images with the right class and the right
colour. `forget_error`: mean of (p_gray - 1)² over the test images in gray, red and green; who never saw another colour calls everything gray.
Columns: DATA/ratio/T; a ratio of `0.5 D_f` is one accessible retain image for two to be forgotten, the paper's 1 % of D_r (its D_f is 2 %: 1 % of each colour);
`0.05 D_f` is its 0.1 %. The same with `, recomputed` has the statistics of batch normalisation recomputed on the accessible images after unlearning, which the
paper does not do: what running statistics hide comes back so, without a step of training.
Metrics: both measures for each setting of each method by seed, and `on_front`: 1 where no setting of any method has as good means over seeds in both and a
better one in one. `front_share` of a method: how often it has such a setting when seeds are drawn anew. `area`: how much of the unit square the settings of a
method dominate, of all (quality, error); 1 is ideal. `area_lead` is by how much MinNorm-OG is ahead, seed by seed, with the 95 % t interval of its mean.
Under the names of methods: `retain_quality` and `forget_error` of the setting closest to the ideal point (1, 0) by the means over seeds, an oracle; with
`_validated` those of a setting that is chosen by what anybody can measure: of those whose quality on held-out gray images is not more than 0.02 below the
original's, the one that gives the labels of D_f the least probability. `chosen` and `chosen_validated` mark the settings.
Controls: `original`; `retrain-full` was trained on D_r as long as the original was on everything; `retrain` has T epochs, from fresh weights.
Deviations: everything is small. 2,000 images of half the size for 50,000; 5 % of them in each of two colours, 200 in all, for 1 %, 1,000; batches of 64 for
256, so that an epoch has four steps as there; a network of 78,000 parameters with batch normalisation for ResNet-18. It is trained for 40 epochs with lr 0.1,
a tenth after 20 (100, 0.03, 50). Grids are thinned (`_rivals`). Fashion-MNIST is not in the paper; its Tiny-ImageNet with a pretrained ResNet-50 is not here:
it has other images and other training. Luminance is that of BT.601. Ours of the paper's size, not run here: unlearned bench erasure --device cuda
--set data=[cifar10] --set halved=false --set network=resnet18 --set train_per_class=5000 --set test_per_class=975 --set forget_percent=1
--set batch_size=256 --set lr=0.03 --set epochs=100 --set decay_every=50
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from unlearned.bench import suites
from unlearned.bench._choice import area, front, front_shares
from unlearned.bench._colour_cells import EACH, ColourScale, Experiment, Scene, engine_of, leads, mean_of, models_of, rows_of
from unlearned.bench._colour_suite import ColourSuite
from unlearned.bench._colours import GRAY, GREEN, RED
from unlearned.bench._headed import CLASSES, HeadedImages
from unlearned.bench._rivals import Axes, Rival, rivals
from unlearned.bench._suite import Place
from unlearned.bench._taught import Taught
from unlearned.bench._tinted import Greys, tinted
from unlearned.data.samples import Samples, union
from unlearned.engine.randomness import derive_seed
from unlearned.evidence.statistics import Array
from unlearned.problem import Problem
from unlearned.records import BenchRow
from unlearned.tasks._task import Batch

COLOURS = {"gray": GRAY, "red": RED, "green": GREEN}
"""What the second head may answer, in this order."""


def in_one_colour(greys: Greys, positions: Sequence[int], name: str) -> Samples:
    """These images in one colour, which the second head should name."""
    labels = greys.labels[list(positions)]
    answers = {"labels": labels, "colours": torch.full_like(labels, list(COLOURS).index(name))}
    return tinted(greys.images, positions, torch.tensor(COLOURS[name]).expand(len(labels), 3), answers, [name] * len(labels))


def gray_errors(task: HeadedImages, model: nn.Module, batch: Batch) -> Tensor:
    """(p_gray − 1)² of each sample, (B,): p_gray is what the second head gives to gray, whatever the colour."""
    _, colours = task.heads(task.outputs(model, batch).double())
    return (colours.softmax(dim=1)[:, 0] - 1) ** 2


@dataclass(frozen=True)
class ErasureExperiment(Experiment):
    """One of the paper's figures."""

    headline: ClassVar[tuple[str, ...]] = ("retain_quality", "forget_error")

    @staticmethod
    def scene(scale: ColourScale, seed: int, place: Place) -> Scene:
        parts, task, like = scale.parts(place), HeadedImages(colours=len(COLOURS)), scale.bundle(CLASSES + len(COLOURS))
        engine = engine_of(task, seed, place)
        train, test = range(len(parts.train.labels)), range(len(parts.test.labels))
        random = np.random.default_rng(derive_seed(seed, "forget set"))
        each = max(1, round(scale.forget_percent / 100 * len(train)))
        retain = in_one_colour(parts.train, train, "gray")
        forget = union(*(in_one_colour(parts.train, random.permutation(len(train))[:each].tolist(), name) for name in ("red", "green")))
        original, retrained = models_of(
            engine,
            place,
            Taught(like, seed, retain, forget, scale.training, scale.decay_every),
            Taught(like, derive_seed(seed, "reference"), retain, None, scale.training, scale.decay_every),
        )
        validation = in_one_colour(parts.validation, range(len(parts.validation.labels)), "gray")
        problem = Problem(task, original, forget, retain, in_one_colour(parts.test, test, "gray"), validation)
        coloured = [in_one_colour(parts.test, test, name) for name in COLOURS]

        def errors(model: nn.Module, batch: Batch) -> Tensor:
            return gray_errors(task, model, batch)

        metrics: Mapping[str, Callable[[nn.Module], float]] = {
            "retain_quality": lambda model: mean_of(engine, task.utility, model, problem.test),
            "forget_error": lambda model: sum(mean_of(engine, errors, model, samples) for samples in coloured) / len(coloured),
        }
        return Scene(problem, retrained, engine, metrics)

    @staticmethod
    def score(reported: Mapping[str, float]) -> float:
        """Minus the distance to the ideal point: quality 1, error 0."""
        return -float(np.hypot(1 - reported["retain_quality"], reported["forget_error"]))


@suites.register("erasure")
class Erasure(ColourSuite):
    """Retain quality against what is left of the colours, every setting of every method a point."""

    name: ClassVar[str] = "erasure"
    experiment: ClassVar[type[Experiment]] = ErasureExperiment
    budgets: tuple[tuple[float, int], ...] = ColourSuite.field("budgets", ((0.5, 2), (0.5, 1), (0.05, 2), (0.05, 5)))
    decay_every: int = ColourSuite.field("decay_every", 20)

    @classmethod
    def rivals(cls, epochs: int) -> Sequence[Rival]:
        return rivals(
            Axes(
                fresh_lr=(2e-3, 5e-3, 2e-2),
                only_lr=(1e-3, 5e-3, 1e-2, 2e-2),
                lr=(1e-3, 5e-3, 2e-2),
                slow_lr=(3e-4, 1e-3, 3e-3),
                lambda_ga=(1e-2, 1e-1),
                kappa=(1e-2, 1e-1, 3e-1),
                ridge=(1e-2, 1e-1),
                l1=(1e-3, 1e-2),
                beta=(0.1, 0.5),
                sigma=(0.1, 1.0),
                gamma=(0.4, 0.8),
                descent_epochs=0 if epochs <= 2 else 2,
            )
        )

    @classmethod
    def quick(cls) -> Self:
        return cls(
            seeds=2,
            data=("fashion-mnist",),
            budgets=((0.5, 2),),
            methods=("retrain", "minnorm-og", "fine-tune", "neg-grad-plus"),
            train_per_class=100,
            epochs=15,
            decay_every=8,
        )

    def derived(self, rows: Sequence[BenchRow]) -> Sequence[BenchRow]:
        found = list(fronts(rows))
        return [*found, *leads(found, "area")]


class Points(NamedTuple):
    """Settings of one method with their quality and error."""

    names: list[str]
    values: Array
    """(seeds, settings, 2)."""


def points_of(rows: Sequence[BenchRow]) -> dict[str, dict[str, Points]]:
    """Points by column of the tables and method. Settings that diverged with a seed are none."""
    found: dict[str, dict[str, dict[str, dict[tuple[str, int], float]]]] = {}
    for row in rows:
        if row.split == EACH and row.seed is not None:
            numbers = found.setdefault(row.setting, {}).setdefault(row.method.partition(" (")[0], {}).setdefault(row.method, {})
            numbers[row.metric, row.seed] = float("nan") if row.value is None else row.value
    points: dict[str, dict[str, Points]] = {}
    for column, methods in found.items():
        for method, settings in methods.items():
            whole = {name: numbers for name, numbers in settings.items() if not np.isnan(list(numbers.values())).any()}
            by_metric = [[[numbers[metric, seed] for seed in _seeds(numbers)] for numbers in whole.values()] for metric in ErasureExperiment.headline]
            if whole:
                points.setdefault(column, {})[method] = Points(list(whole), np.array(by_metric).transpose(2, 1, 0))
    return points


def _seeds(numbers: Mapping[tuple[str, int], float]) -> list[int]:
    return sorted({seed for _, seed in numbers})


def fronts(rows: Sequence[BenchRow]) -> Iterator[BenchRow]:
    """What the points of all methods say together.

    `on_front` of each setting: 1 where no setting of any method has as good means over seeds in both measures and a better one; else 0.
    `front_share` of each method: how often it has such a setting when seeds are drawn anew. `area` of each method and seed: how much of the unit square its
    settings dominate.
    """
    for column, points in points_of(rows).items():
        on = iter(front(np.concatenate([each.values.mean(axis=0) for each in points.values()])))
        for each in points.values():
            for name in each.names:
                yield from rows_of(name, column, None, EACH, {"on_front": float(next(on))})
        for method, share in zip(points, front_shares([each.values for each in points.values()], seed=0), strict=True):
            yield from rows_of(method, column, None, "test", {"front_share": share})
        for method, each in points.items():
            for seed, own in enumerate(each.values):
                yield from rows_of(method, column, seed, "test", {"area": area(own)})
