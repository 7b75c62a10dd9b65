"""Files in the form of Fashion-MNIST and CIFAR-10, with a few images that a network learns in a few steps."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRAIN, TEST = 12, 10


def write_fashion(directory: Path, *, packed: bool = True) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images and labels of the training part."""
    folder = directory / "fashion-mnist"
    folder.mkdir(parents=True, exist_ok=True)
    parts = [_images(count, 28, (), seed) for seed, count in enumerate((TRAIN, TEST))]
    for name, (images, labels) in zip(("train", "t10k"), parts, strict=True):
        _write_idx(folder / f"{name}-images-idx3-ubyte", images, packed)
        _write_idx(folder / f"{name}-labels-idx1-ubyte", labels.astype(np.uint8), packed)
    return parts[0]


def write_cifar(directory: Path) -> None:
    (train, train_labels), (test, test_labels) = (_images(count, 32, (3,), seed) for seed, count in enumerate((TRAIN, TEST)))
    np.savez(directory / "cifar10_small.npz", x_train=train, y_train=train_labels, x_test=test, y_test=test_labels)


def _images(per_class: int, side: int, channels: tuple[int, ...], seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    labels = random.permutation(np.repeat(np.arange(10), per_class))
    images = random.integers(0, 90, (len(labels), side, side, *channels))
    for image, label in zip(images, labels, strict=True):  # each class has a bright bar at its own height
        image[2 * label : 2 * label + 4] += 150
    return images.astype(np.uint8), labels


def _write_idx(file: Path, values: Any, packed: bool) -> None:
    raw = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape) + values.tobytes()
    file.with_name(file.name + ".gz" * packed).write_bytes(gzip.compress(raw) if packed else raw)
