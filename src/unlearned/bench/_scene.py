"""What the cells of an image suite stand on: data, original models, and references for one forget set, each made once and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from unlearned.bench._images import DataName, Images, first_of_each, read_images
from unlearned.bench._suite import Place
from unlearned.data.samples import Samples
from unlearned.engine.bank import Bank, Kept
from unlearned.engine.engine import Engine
from unlearned.engine.randomness import derive_seed
from unlearned.engine.settings import Compute
from unlearned.engine.training import Trained, Training
from unlearned.evidence.subject import Measure, Subject
from unlearned.methods._bank import Unlearned
from unlearned.methods._method import Method
from unlearned.problem import Problem
from unlearned.tasks import tasks
from unlearned.tasks._task import Bundle, ModelSource

NETWORKS: Mapping[DataName, str] = {
    "fashion-mnist": "unlearned.bench._networks:fashion_network",
    "cifar10": "unlearned.bench._networks:cifar_network",
}


@dataclass(frozen=True)
class Scale:
    """How large everything is: it decides every model."""

    data: DataName
    train_per_class: int
    test_per_class: int
    epochs: int
    originals: int
    """Models trained on everything. Every method starts from each of them."""
    references: int
    """Models trained without the forget set."""

    @property
    def audited_per_class(self) -> int:
        """Retained images of each class that audits see: the retain set is large, and its mean is close by then."""
        return min(100, self.train_per_class // 2)

    @property
    def training(self) -> Training:
        """How originals and references are trained."""
        return Training(optimizer="adamw", lr=4e-3, weight_decay=0.01, batch_size=128, epochs=self.epochs, schedule="cosine")


class RememberingEngine(Engine):
    """An engine that evaluates models of a bank once on each set: they do not change, and every method is compared with them."""

    def __init__(self, compute: Compute, seed: int = 0) -> None:
        super().__init__(tasks.get("image-classification")(), compute, seed)
        self._banked: dict[int, nn.Module] = {}
        self._values: dict[tuple[int, str, str], Tensor] = {}

    def remember(self, models: Sequence[Kept]) -> None:
        """Remember what is measured of these from now on."""
        self._banked |= {id(kept.bundle.model): kept.bundle.model for kept in models}

    def evaluate(self, model: nn.Module, samples: Samples, function: Measure) -> Tensor:
        """As `Engine.evaluate`."""
        if id(model) not in self._banked or getattr(function, "__self__", None) is not self.task:
            return super().evaluate(model, samples, function)
        key = (id(model), samples.fingerprint, function.__name__)
        if key not in self._values:
            self._values[key] = super().evaluate(model, samples, function)
        return self._values[key]


class Scene(NamedTuple):
    """One forget set with everything that methods are given and measured against."""

    scale: Scale
    problems: list[Problem]
    """With each original."""
    seen: list[Problem]
    """The same with a part of the retain set: what audits see."""
    engine: RememberingEngine
    bank: Bank
    originals: list[Kept]
    references: list[Kept]
    reference_makings: list[Trained]

    def unlearn(self, method: Method, number: int) -> Kept:
        """What the method makes of that original.

        Raises:
            DivergedError: if it diverges.
        """
        making = Unlearned(self.originals[0].bundle, number, self.problems[number], method)
        return self.bank.get([making], method.name)[0]

    def subject(self, number: int, unlearned: Kept, references: Sequence[Kept], shadows: Sequence[Kept] = ()) -> Subject:
        """What audits are given of the model that was made from that original."""
        return Subject(self.seen[number], unlearned.bundle, references, self.engine, unlearned.cost, shadows)

    def weights_of_reference(self, number: int) -> ModelSource:
        """Where a reference lies: for methods that are told the answer."""
        entry = self.bank.entry(self.reference_makings[number])
        return ModelSource(source=NETWORKS[self.scale.data], weights=str(entry / "model" / "model.safetensors"))


@lru_cache(maxsize=2)
def images_of(data: DataName, directory: Path | None, train_per_class: int, test_per_class: int) -> Images:
    """`read_images`, kept while its cells are computed."""
    return read_images(data, directory, train_per_class, test_per_class)


def originals_of(scale: Scale, place: Place) -> tuple[Images, Bundle, Bank, RememberingEngine, list[Kept]]:
    """Data, architecture, bank, engine, and the original models.

    Raises:
        InputError: if the data are not there.
    """
    images = images_of(scale.data, place.data, scale.train_per_class, scale.test_per_class)
    # A cell is one job among several that run at the same time; it starts no further processes.
    engine = RememberingEngine(place.compute.model_copy(update={"workers": 1}))
    like = engine.task.load(ModelSource(source=NETWORKS[scale.data]), "model")
    bank = Bank(engine, place.cache / "models")
    originals = bank.get([Trained(like, seed, images.train, scale.training, "original") for seed in range(scale.originals)], "originals")
    engine.remember(originals)
    return images, like, bank, engine, originals


def scene_of(scale: Scale, forget: Sequence[int], place: Place) -> Scene:
    """The scene in which these positions of the training data are to be forgotten; kept while its cells are computed.

    Raises:
        InputError: if the data are not there.
    """
    return _scene(scale, tuple(forget), place)


@lru_cache(maxsize=2)
def _scene(scale: Scale, forget: tuple[int, ...], place: Place) -> Scene:
    images, like, bank, engine, originals = originals_of(scale, place)
    chosen = set(forget)
    retain = images.train.subset(i for i in range(len(images.train)) if i not in chosen)
    forget_set = images.train.subset(forget)
    problems = [Problem(engine.task, original.bundle, forget_set, retain, images.test) for original in originals]
    few = retain.subset(first_of_each(np.array(retain.fact("label")), scale.audited_per_class))
    seen = [replace(problem, retain=few) for problem in problems]
    # Seeds of their own: a reference that shared its first weights with an original would look closer to it than it is.
    makings = [Trained(like, derive_seed(i, "reference"), retain, scale.training) for i in range(scale.references)]
    references = bank.get(makings, "references")
    engine.remember(references)
    return Scene(scale, problems, seen, engine, bank, originals, references, makings)
