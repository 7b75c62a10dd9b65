"""The settings that the suites on coloured images share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from unlearned.bench._colour_cells import ColourScale, Controls, Experiment, Sweep
from unlearned.bench._images import DataName, require_images
from unlearned.bench._rivals import NAMES, Rival
from unlearned.bench._suite import Cell, Place, Suite
from unlearned.engine.settings import Optimisation
from unlearned.errors import Fault, collecting, raise_faults


class ColourSuite(Suite):
    """Small images in colours, a small network, budgets of a few steps."""

    experiment: ClassVar[type[Experiment]]

    seeds: int = Suite.field("seeds", 5)
    data: tuple[DataName, ...] = Field(("fashion-mnist", "cifar10"), min_length=1, description="Data sets.")
    budgets: tuple[tuple[float, int], ...] = Field(
        ((1, 5),), min_length=1, description="What methods may use: accessible retain images for each forget image, and epochs over the forget set."
    )
    methods: tuple[str, ...] = Field(NAMES, min_length=1, description="Methods that are compared, and variants of MinNorm-OG.")
    halved: bool = Field(True, description="Images are averaged over 2 x 2 pixels.")
    train_per_class: int = Field(200, ge=2, description="Training images of each class.")
    validation_per_class: int = Field(25, ge=1, description="Test images of each class on which settings are chosen.")
    test_per_class: int = Field(25, ge=1, description="Further test images of each class, which are reported.")
    forget_percent: float = Field(5, gt=0, le=50, description="Coloured copies of so many percent of the training images are to be forgotten.")
    network: Literal["small", "resnet18"] = Field("small", description="A residual network of two blocks, or ResNet-18 for small images.")
    width: int = Field(32, ge=1, description="Channels of the small network.")
    batch_size: int = Field(64, ge=2, description="Images in a batch, of training and of unlearning.")
    lr: float = Field(0.1, gt=0, description="Learning rate of training, SGD with momentum 0.9 and weight decay 5e-4.")
    epochs: int = Field(40, ge=1, description="Epochs of training.")
    decay_every: int = Field(30, ge=1, description="Epochs after which the learning rate falls to a tenth, again and again.")
    warm_epochs: int = Field(0, ge=0, description="Epochs on gray images before that.")

    @classmethod
    @abstractmethod
    def rivals(cls, epochs: int) -> Sequence[Rival]:
        """Everybody who takes part, with the settings that are tried at T epochs."""

    @model_validator(mode="after")
    def _knows_its_methods(self) -> Self:
        known = [rival.name for rival in self.rivals(self.budgets[0][1])]
        unknown = [name for name in self.methods if name not in known]
        if unknown:
            raise ValueError(f"{unknown[0]!r} does not take part; those that do are {', '.join(known)}")
        return self

    def scale(self, data: DataName) -> ColourScale:
        """How large everything is on a data set."""
        training = Optimisation(lr=self.lr, batch_size=self.batch_size, epochs=self.epochs)
        sizes = (self.train_per_class, self.validation_per_class, self.test_per_class, self.forget_percent)
        return ColourScale(data, self.halved, *sizes, self.network, self.width, training, self.decay_every, self.warm_epochs)

    def require(self, place: Place) -> None:
        faults: list[Fault] = []
        for data in self.data:
            with collecting(faults):
                require_images(data, place.data)
        raise_faults(faults)

    def cells(self) -> list[Cell]:
        columns = {data: tuple(self.experiment(self.scale(data), ratio, epochs) for ratio, epochs in self.budgets) for data in self.data}
        cells: list[Cell] = [Controls(columns[data], seed) for seed in range(self.seeds) for data in self.data]
        for experiments in columns.values():
            for experiment in experiments:
                cells += [Sweep(experiment, rival, self.seeds) for rival in self.rivals(experiment.epochs) if rival.name in self.methods]
        return cells
