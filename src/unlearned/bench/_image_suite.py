"""The settings that image suites share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Self

from pydantic import Field, model_validator

from unlearned.bench._cells import Baselines, Choice, Contest, Oracle, Originals, Preparation
from unlearned.bench._forget_sets import ForgetSet
from unlearned.bench._grids import CONTENDERS
from unlearned.bench._images import DataName, require_images
from unlearned.bench._scene import Scale
from unlearned.bench._suite import Cell, Place, Suite
from unlearned.errors import Fault, collecting, raise_faults


class Pair(NamedTuple):
    """A forget set that is reported, and another of its kind that settings are chosen on."""

    reported: ForgetSet
    chosen_on: ForgetSet


class ImageSuite(Suite):
    """Small images, a small network, many models."""

    data: tuple[DataName, ...] = Field(("fashion-mnist", "cifar10"), min_length=1, description="Data sets.")
    methods: tuple[str, ...] = Field(tuple(CONTENDERS), min_length=1, description="Methods that are compared, by their names in the tables.")
    train_per_class: int = Field(250, ge=10, description="Training images of each class.")
    test_per_class: int = Field(200, ge=10, description="Test images of each class.")
    epochs: int = Field(12, ge=1, description="Passes over the data in the training of originals and references.")
    references: int = Field(10, ge=3, description="Models retrained without each forget set.")
    choice_references: int = Field(4, ge=1, description="Models retrained without the forget set that settings are chosen on.")
    shadows: int = Field(2, ge=1, description="Originals beyond one per seed: from what a method makes of the others, attacks learn what it leaves.")
    oracle: bool = Field(True, description="Also the settings that are best on the reported forget set itself.")

    @model_validator(mode="after")
    def _knows_its_methods(self) -> Self:
        unknown = [name for name in self.methods if name not in CONTENDERS]
        if unknown:
            raise ValueError(f"{unknown[0]!r} does not take part; those that do are {', '.join(CONTENDERS)}")
        return self

    def scale(self, data: DataName) -> Scale:
        """The scale for reported forget sets."""
        return Scale(data, self.train_per_class, self.test_per_class, self.epochs, self.seeds + self.shadows, self.references)

    def for_choice(self, scale: Scale) -> Scale:
        """The scale for the forget set that settings are chosen on."""
        return replace(scale, references=self.choice_references)

    def require(self, place: Place) -> None:
        faults: list[Fault] = []
        for data in self.data:
            with collecting(faults):
                require_images(data, place.data)
        raise_faults(faults)

    def contest_cells(self, pairs: Sequence[Pair]) -> list[Cell]:
        """All cells, in an order in which those that run at the same time do not wait for each other's models."""
        scales = [self.scale(data) for data in self.data]
        contenders = [CONTENDERS[name] for name in self.methods]
        kinds = list(dict.fromkeys(pair.chosen_on for pair in pairs))
        choices = {(scale, kind, c.name): Choice(self.for_choice(scale), kind, c) for kind in kinds for scale in scales for c in contenders}
        cells: list[Cell] = [Originals(scale) for scale in scales]
        cells += [Preparation(self.for_choice(scale), kind) for kind in kinds for scale in scales]
        cells += [Baselines(scale, reported, self.seeds) for reported, _ in pairs for scale in scales]
        cells += choices.values()
        for scale in scales:
            for reported, kind in pairs:
                cells += [Contest(scale, reported, choices[scale, kind, c.name], self.seeds) for c in contenders]
        if self.oracle:
            cells += [Oracle(scale, reported, c) for scale in scales for reported, _ in pairs for c in contenders]
        return cells
