"""Forget sets of image suites: a class, a random share, or what the models had to memorise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from unlearned.bench._images import CLASSES
from unlearned.bench._scene import Scale, originals_of
from unlearned.bench._suite import Place
from unlearned.engine.randomness import derive_seed
from unlearned.engine.training import Trained


class ForgetSet(ABC):
    """Which training images are to be forgotten. A frozen dataclass, as cells are."""

    whole_class: bool = False

    @property
    @abstractmethod
    def name(self) -> str:
        """In the setting of a row, after the data set."""

    @abstractmethod
    def positions(self, scale: Scale, place: Place) -> list[int]:
        """Positions in the training data."""


@dataclass(frozen=True)
class OneClass(ForgetSet):
    """All images of a class."""

    label: int
    whole_class = True

    @property
    def name(self) -> str:
        return str(self.label)

    def positions(self, scale: Scale, place: Place) -> list[int]:  # noqa: ARG002
        first = self.label * scale.train_per_class  # the training data come class by class
        return list(range(first, first + scale.train_per_class))


@dataclass(frozen=True)
class RandomShare(ForgetSet):
    """A random share of all images; another one for each number, and no image in two of them."""

    percent: int
    number: int

    @property
    def name(self) -> str:
        return f"random{self.percent}"

    def positions(self, scale: Scale, place: Place) -> list[int]:  # noqa: ARG002
        count = CLASSES * scale.train_per_class
        size = round(self.percent / 100 * count)
        order = np.random.default_rng(derive_seed(0, "random forget set")).permutation(count)
        return sorted(order[self.number * size : (self.number + 1) * size].tolist())


@dataclass(frozen=True)
class Memorised(ForgetSet):
    """A half of the most memorised images, every second one of them in the order of `memorisation`; number 0 and 1 are the two halves.

    Both halves together are 2 `percent` of the images.
    """

    percent: int
    number: int
    folds: int
    repeats: int

    @property
    def name(self) -> str:
        return "memorised"

    def positions(self, scale: Scale, place: Place) -> list[int]:
        order = memorisation(scale, self.folds, self.repeats, place).argsort(descending=True, stable=True)
        size = round(self.percent / 100 * len(order))
        return sorted(order[: 2 * size][self.number :: 2].tolist())


@lru_cache(maxsize=4)
def memorisation(scale: Scale, folds: int, repeats: int, place: Place) -> Tensor:
    """How much of an image only those models know that were trained on it, (N,): the memorisation of Feldman and Zhang 2020 (arXiv 2008.03703), by folds.

    mean over originals of p(y|x) − mean over `repeats` models of p(y|x) that were trained without the fold which x is in.
    """
    images, like, bank, engine, originals = originals_of(scale, place)
    count = len(images.train)
    inside = torch.stack([engine.evaluate(kept.bundle.model, images.train, engine.task.knowledge) for kept in originals]).mean(dim=0)
    outside = torch.zeros(count, dtype=torch.float64)
    for fold, left_out in enumerate(_folds(count, folds)):
        without = set(left_out)
        rest = images.train.subset(i for i in range(count) if i not in without)
        makings = [Trained(like, derive_seed(i, "fold", fold), rest, scale.training, f"without fold {fold}") for i in range(repeats)]
        models = [kept.bundle.model for kept in bank.get(makings, "folds")]
        held_out = images.train.subset(left_out)
        outside[left_out] = torch.stack([engine.evaluate(model, held_out, engine.task.knowledge) for model in models]).mean(dim=0)
    return inside - outside


def _folds(count: int, folds: int) -> list[list[int]]:
    order = np.random.default_rng(derive_seed(0, "folds")).permutation(count)
    return [sorted(order[fold::folds].tolist()) for fold in range(folds)]
