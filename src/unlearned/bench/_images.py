"""Two image data sets at half their size, balanced and cut to few images per class, so that a hundred models can be trained on two cores.

They are read from a directory: `fashion-mnist/` with the four IDX files of Fashion-MNIST (Xiao et al. 2017), gzipped or not, and
`cifar10_small.npz` with `x_train, y_train, x_test, y_test` of CIFAR-10 (Krizhevsky 2009): uint8 images (N, 32, 32, 3) and labels 0 to 9, all of them or
some of each class. Where a directory lacks one, the hub is asked for it.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from numpy.typing import NDArray

from unlearned.data.samples import Samples
from unlearned.errors import Fault, InputError

DataName = Literal["fashion-mnist", "cifar10"]
Bytes = NDArray[np.uint8]

CLASSES = 10


class Arrays(NamedTuple):
    """Images (N, H, W) or (N, H, W, C) as bytes, with labels."""

    train: Bytes
    train_labels: NDArray[np.int64]
    test: Bytes
    test_labels: NDArray[np.int64]


class Images(NamedTuple):
    """Samples ready for a task, pixels in [0, 1]."""

    train: Samples
    test: Samples


def read_images(name: DataName, directory: Path | None, train_per_class: int, test_per_class: int, *, halved: bool = True) -> Images:
    """The first images of each class.

    Args:
        name: of the data set.
        directory: what `--data` names.
        train_per_class: training images of each of the ten classes.
        test_per_class: test images of each.
        halved: whether images are averaged over 2 x 2 pixels.

    Raises:
        InputError: if the data are not there, are damaged, or hold fewer images.
    """
    found = _local(name, directory)
    arrays = _from_hub(name) if found is None else _read(name, found)
    return Images(
        _samples(name, "train", arrays.train, arrays.train_labels, train_per_class, halved),
        _samples(name, "test", arrays.test, arrays.test_labels, test_per_class, halved),
    )


def require_images(name: DataName, directory: Path | None) -> None:
    """Check that the data are there, or that the hub may be asked.

    Raises:
        InputError: if neither.
    """
    if _local(name, directory) is None and os.environ.get("HF_HUB_OFFLINE", "") not in {"", "0"}:
        raise _absent(name, directory, "and the hub is switched off")


def read_idx(file: Path) -> Bytes:
    """An IDX file of bytes, gzipped or not.

    Raises:
        ValueError: if it is not one, or is cut off.
    """
    raw = file.read_bytes()
    data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    if data[:3] != b"\0\0\x08":
        raise ValueError("no IDX file of bytes")
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def whole(images: Bytes) -> torch.Tensor:
    """(N, C, H, W) float32 in [0, 1], from (N, H, W) or (N, H, W, C)."""
    pixels = torch.from_numpy(images.copy()).float() / 255
    return pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)


def half(images: Bytes) -> torch.Tensor:
    """Means over 2 x 2 pixels of `whole`, (N, C, H/2, W/2)."""
    return F.avg_pool2d(whole(images), 2)


def first_of_each(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Positions of the first `count` of each label, label by label.

    Raises:
        ValueError: if one has fewer.
    """
    chosen = [np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]
    if any(len(positions) < count for positions in chosen):
        raise ValueError(f"a class has fewer than {count} images")
    return np.concatenate(chosen)


_IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def _local(name: DataName, directory: Path | None) -> list[Path] | None:
    if directory is None:
        return None
    if name == "cifar10":
        file = directory / "cifar10_small.npz"
        return [file] if file.exists() else None
    folder = directory / "fashion-mnist"
    found = [next((file for file in (folder / stem, folder / f"{stem}.gz") if file.exists()), None) for stem in _IDX_FILES]
    return None if None in found else [file for file in found if file is not None]


def _read(name: DataName, files: list[Path]) -> Arrays:
    read: Callable[[list[Path]], Arrays] = _npz if name == "cifar10" else _idx
    try:
        return read(files)
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise InputError(Fault("--data", f"{str(files[0])!r} or a file beside it is damaged ({error}).", "Fetch it again.")) from error


def _idx(files: list[Path]) -> Arrays:
    train, train_labels, test, test_labels = (read_idx(file) for file in files)
    return Arrays(train, train_labels.astype(np.int64), test, test_labels.astype(np.int64))


def _npz(files: list[Path]) -> Arrays:
    with files[0].open("rb") as opened, np.load(opened, allow_pickle=False) as held:
        return Arrays(held["x_train"], held["y_train"].astype(np.int64), held["x_test"], held["y_test"].astype(np.int64))


_HUB: Mapping[DataName, tuple[str, str]] = {"fashion-mnist": ("zalando-datasets/fashion_mnist", "image"), "cifar10": ("uoft-cs/cifar10", "img")}


def _from_hub(name: DataName) -> Arrays:
    hub_id, column = _HUB[name]
    try:
        from datasets import load_dataset

        sets: Any = load_dataset(hub_id)
    except Exception as error:  # the hub and its client raise many kinds
        raise _absent(name, None, f"and {hub_id} cannot be fetched from the hub ({type(error).__name__})") from error
    parts = [(np.stack([np.asarray(image) for image in sets[split][column]]), np.asarray(sets[split]["label"], np.int64)) for split in ("train", "test")]
    return Arrays(*parts[0], *parts[1])


def _absent(name: DataName, directory: Path | None, why: str) -> InputError:
    files = "cifar10_small.npz" if name == "cifar10" else "fashion-mnist/ with the four IDX files"
    where = "no directory was given" if directory is None else f"{str(directory)!r} has no {files}"
    return InputError(Fault("--data", f"{name} is needed: {where}, {why}.", f"Give a directory that holds {files}."))


def _samples(name: DataName, part: str, images: Bytes, labels: NDArray[np.int64], count: int, halved: bool) -> Samples:
    try:
        chosen = first_of_each(labels, count)
    except ValueError as error:
        raise InputError(Fault("--data", f"the {part} part of {name} is too small ({error}).", "Ask for fewer images per class, or give more.")) from error
    pixels, classes = (half if halved else whole)(images[chosen]), torch.from_numpy(labels[chosen])
    rows = [{"pixel_values": image, "labels": label} for image, label in zip(pixels, classes, strict=True)]
    return Samples(rows, [f"{part}-{i}" for i in chosen], {"label": classes.tolist()})
