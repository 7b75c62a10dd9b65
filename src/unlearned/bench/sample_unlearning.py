"""Sample unlearning: forget a random tenth of the training data, or as many of those images that the models had to memorise.

Paper: none of its own. The measures are those of `class-unlearning`. Why two forget sets: models that never saw a random tenth answer on it almost as the
original does, so that a method which does nothing scores well; what was memorised is where forgetting shows (Zhao et al. 2024, RUM, arXiv 2406.01257).
Memorised: by the measure of Feldman and Zhang 2020 (arXiv 2008.03703), estimated in five folds: mean over originals of the probability of the true class,
minus the same over two models that were trained without the image's fold. Of the fifth of the images where it is largest, every second one is forgotten;
on the others settings are chosen.
Rows: setting DATA/random10 and DATA/memorised; `original`, `retrain` (a retrained model against the others) and methods by their names. Methods that
forget whole classes do not take part. Settings are chosen from six for each, by the distance to retrained models on *another* forget set of the same kind.
Metrics that end in `_oracle` are those of the setting that is best on the reported forget set itself.
What differs from work at full size: as in `class-unlearning`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from pydantic import Field, model_validator

from unlearned.bench import suites
from unlearned.bench._forget_sets import ForgetSet, Memorised, RandomShare
from unlearned.bench._grids import CONTENDERS
from unlearned.bench._image_suite import ImageSuite, Pair
from unlearned.bench._suite import Cell

_SAMPLES = tuple(name for name, contender in CONTENDERS.items() if not contender.whole_classes)


@suites.register("sample-unlearning")
class SampleUnlearning(ImageSuite):
    """Methods that forget a random tenth or what was memorised, against retrained models."""

    name: ClassVar[str] = "sample-unlearning"
    methods: tuple[str, ...] = Field(_SAMPLES, min_length=1, description="Methods that are compared, by their names in the tables.")
    percent: int = Field(10, ge=1, le=25, description="Share of the training data in a forget set, in percent.")
    folds: int = Field(5, ge=2, description="Parts of the training data that models are trained without, to see what was memorised.")
    fold_models: int = Field(2, ge=1, description="Models for each part.")

    @model_validator(mode="after")
    def _forgets_samples(self) -> Self:
        whole = [name for name in self.methods if name in CONTENDERS and CONTENDERS[name].whole_classes]
        if whole:
            raise ValueError(f"{whole[0]!r} forgets whole classes: leave it out of `methods`")
        return self

    @classmethod
    def quick(cls) -> Self:
        return cls(
            seeds=2,
            data=("fashion-mnist",),
            methods=("fine-tune", "neg-grad-plus"),
            train_per_class=100,
            epochs=6,
            references=4,
            choice_references=2,
            shadows=2,
            folds=3,
            fold_models=1,
            oracle=False,
        )

    def cells(self) -> Sequence[Cell]:
        def memorised(number: int) -> ForgetSet:
            return Memorised(self.percent, number, self.folds, self.fold_models)

        pairs = (Pair(RandomShare(self.percent, 0), RandomShare(self.percent, 1)), Pair(memorised(0), memorised(1)))
        return self.contest_cells(pairs)
