"""What the small diffusion models draw: digits of scikit-learn, or Fashion-MNIST; and who judges what was drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn

from unlearned.bench._drawers import drawer
from unlearned.bench._images import CLASSES, read_images
from unlearned.bench._suite import Place
from unlearned.data.samples import Samples
from unlearned.engine.bank import Bank
from unlearned.engine.engine import Engine
from unlearned.engine.randomness import seeded
from unlearned.engine.training import Trained, Training
from unlearned.tasks import tasks
from unlearned.tasks._judges import judging_network
from unlearned.tasks._models import WEIGHTS
from unlearned.tasks._task import Bundle, ModelSource
from unlearned.tasks.image_generation import ImageGeneration

PicturesName = Literal["digits", "fashion-mnist"]
DIGITS = 1297
"""Of scikit-learn, that models are trained on at most."""
HELD_OUT = 500
"""Those after them, by other writers."""


class Pictures(NamedTuple):
    """A bed's data, with the task that reads them and knows their judge."""

    task: ImageGeneration
    drawer: Bundle
    train: Samples
    held_out: Samples
    turned: Samples
    """The held out ones, each by a quarter: the same shapes, but nothing that the model has seen."""


def pictures(name: PicturesName, place: Place, train: int, held_out: int, judged: int, sampling_steps: int) -> Pictures:
    """The data of a bed, ready for its models.

    Args:
        name: of the data set.
        place: where the data and the cache are.
        train: images that models are trained on.
        held_out: images for fine-tuning: by other writers, or of the test part.
        judged: images of each class of Fashion-MNIST, other than those, that its judge is trained on.
        sampling_steps: of DDIM.

    Raises:
        InputError: if there are no such data.
    """
    if name == "digits":
        return digits(train, held_out, sampling_steps)
    return _fashion(place, train // CLASSES, held_out // CLASSES, judged, sampling_steps)


def digits(train: int = DIGITS, held_out: int = HELD_OUT, sampling_steps: int = 50) -> Pictures:
    """Those of scikit-learn, with the judge that the package has."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels, labels = torch.from_numpy((found.images / 16).astype(np.float32)), torch.from_numpy(found.target)
    task = ImageGeneration.model_validate({"judge": "digits", "sampling_steps": sampling_steps})
    parts = {"train": range(train), "held out": range(DIGITS, DIGITS + held_out)}
    return _read(task, {name: (pixels[part], labels[part], [f"digit-{i}" for i in part]) for name, part in parts.items()})


def _fashion(place: Place, train: int, held_out: int, judged: int, sampling_steps: int) -> Pictures:
    found = read_images("fashion-mnist", place.data, train + judged, held_out)
    ranks = [i % (train + judged) for i in range(len(found.train))]
    drawn, others = (found.train.subset(i for i, rank in enumerate(ranks) if (rank < train) == own) for own in (True, False))
    judge = ModelSource(source=f"{__name__}:fashion_judge", weights=str(_weights_of_judge(others, place)))
    task = ImageGeneration.model_validate({"judge": judge, "sampling_steps": sampling_steps})
    parts = {"train": drawn, "held out": found.test}
    return _read(task, {name: (_bordered(part), torch.tensor(part.fact("label")), part.ids) for name, part in parts.items()})


def _read(task: ImageGeneration, parts: Mapping[str, tuple[Tensor, Tensor, Sequence[str]]]) -> Pictures:
    """From images (N, H, W) or (N, 1, H, W) in [0, 1], labels and names."""
    like = drawer(parts["train"][0].shape[-1])

    def read(images: Tensor, labels: Tensor, names: Sequence[str]) -> Samples:
        return task.read({"image": images, "label": labels, "id": list(names)}, like, "data")

    images, labels, names = parts["held out"]
    turned = read(images.rot90(dims=(-2, -1)).contiguous(), labels, [f"turned-{name}" for name in names])
    return Pictures(task, like, read(*parts["train"]), read(images, labels, names), turned)


def _bordered(samples: Samples) -> Tensor:
    """Images of 14 x 14 pixels with a black border: 16 x 16, so that a UNet can halve them."""
    return F.pad(torch.stack([samples[i]["pixel_values"] for i in range(len(samples))]), (1, 1, 1, 1))


def fashion_judge() -> nn.Module:
    """The judge of Fashion-MNIST at 16 x 16, with new weights."""
    return judging_network(16, 32)


def _weights_of_judge(samples: Samples, place: Place) -> Path:
    """Where the judge's weights lie; it is trained once and kept."""
    engine = Engine(tasks.get("image-classification")(), place.compute.model_copy(update={"workers": 1}))
    rows = [{"pixel_values": image, "labels": samples[i]["labels"]} for i, image in enumerate(_bordered(samples))]
    with seeded(0):
        like = Bundle(fashion_judge().eval())
    how = Training(optimizer="adamw", lr=2e-3, weight_decay=0.01, batch_size=64, epochs=8, schedule="cosine")
    making = Trained(like, 0, Samples(rows, samples.ids, {"label": samples.fact("label")}), how, "judge")
    bank = Bank(engine, place.cache / "models")
    bank.get([making], "judge")
    return bank.entry(making) / "model" / WEIGHTS
