"""Class unlearning: how close do methods come to retraining without a class, and does TRW close the gap that the others leave?

Paper: Ebrahimpour-Boroojeny, Wang, Sundaram, "On the Necessity of Output Distribution Reweighting for Effective Class Unlearning", arXiv 2506.20893.
Its result tables are not known to us, so that no number of the paper stands beside ours. Its abstract says: on CIFAR-10 TRW reduces the gap to retrained
models by 19 % (U-LiRA) and 46 % (MIA-NN) against the best other method of each.
What differs: everything is small. Fashion-MNIST and CIFAR-10 at half their size with 250 images of each class, a residual network of 44,000 parameters,
12 epochs; the paper has full data sets and ResNet-18.
Rows: setting DATA/CLASS; `original`, `retrain` (a retrained model against the others: what chance leaves), and methods by their names. `trw` has its similarity
from the weights of the last layer. Its ladder, one step at a time: `delete` (no tilt, no retain term), `trw-beta0` (with the retain term), then tilted by
similarity: `trw`, `trw-features`, `trw-confusion`, and `trw-oracle`, which is told a retrained model.
Settings of methods are chosen from six for each, by the distance to retrained models on *another* class (`selection_error`), and then used for all classes.
Metrics that end in `_oracle` are those of the setting that is best on the reported class itself: an upper bound that nobody can choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from pydantic import Field, model_validator

from unlearned.bench import suites
from unlearned.bench._forget_sets import OneClass
from unlearned.bench._image_suite import ImageSuite, Pair
from unlearned.bench._suite import Cell


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
        return self.contest_cells([Pair(OneClass(label), OneClass(self.choice_class)) for label in self.classes])
