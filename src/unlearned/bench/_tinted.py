"""Samples of images that are each shown in one colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from unlearned.bench._colours import coloured, luminance
from unlearned.bench._images import DataName, read_images
from unlearned.data.samples import ColumnRows, MappedRows, Row, Rows, Samples


class Greys(NamedTuple):
    """Luminance in [0, 1], (N, 1, H, W), and classes, (N,)."""

    images: Tensor
    labels: Tensor


class Parts(NamedTuple):
    """The images of a suite."""

    train: Greys
    validation: Greys
    test: Greys


@lru_cache(maxsize=2)
def greys_of(name: DataName, directory: Path | None, halved: bool, train: int, validation: int, test: int) -> Parts:
    """The first images of each class; of the test part first those for validation, then those that are reported.

    Args:
        name: of the data set.
        directory: what `--data` names.
        halved: whether images are averaged over 2 x 2 pixels.
        train: training images of each class.
        validation: test images of each class, to choose settings on.
        test: test images of each class, to report.

    Raises:
        InputError: if the data are not there or hold fewer images.
    """
    images = read_images(name, directory, train, validation + test, halved=halved)
    held = torch.arange(len(images.test)) % (validation + test) < validation  # they come class by class
    both = _greys(images.test)
    return Parts(_greys(images.train), *(Greys(*(column[chosen] for column in both)) for chosen in (held, ~held)))


def _greys(samples: Samples) -> Greys:
    pixels = torch.stack([samples[i]["pixel_values"] for i in range(len(samples))])
    return Greys(luminance(pixels), torch.tensor(samples.fact("label")))


@dataclass(frozen=True)
class _Show:
    """Makes a row: an image in a colour."""

    images: Tensor

    def __call__(self, row: Row) -> Row:
        answers = {name: value for name, value in row.items() if name not in {"position", "tint"}}
        return {"pixel_values": coloured(self.images[row["position"]], row["tint"])} | answers


def tinted_rows(images: Tensor, positions: Sequence[int], tints: Tensor, answers: Mapping[str, Tensor]) -> Rows:
    """Images in one colour each, made when they are first asked for.

    Args:
        images: luminance, (N, 1, H, W).
        positions: which image each of M rows shows.
        tints: its colour in 0..255, (M, 3).
        answers: what the heads should say of it, (M,) by column.
    """
    return MappedRows(ColumnRows({"position": list(positions), "tint": tints, **answers}), _Show(images))


def tinted(images: Tensor, positions: Sequence[int], tints: Tensor, answers: Mapping[str, Tensor], names: Sequence[str]) -> Samples:
    """Samples over `tinted_rows`.

    Args:
        images: as there.
        positions: as there.
        tints: as there.
        answers: as there; among them `labels`.
        names: how each row shows its image; ids say which image it is and this.
    """
    ids = [f"image-{position}-{name}" for position, name in zip(positions, names, strict=True)]
    return Samples(tinted_rows(images, positions, tints, answers), ids, {"label": answers["labels"].tolist()})
