from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.bench.small_images import write_cifar, write_fashion
from unlearned.bench._images import first_of_each, half, read_idx, read_images, require_images
from unlearned.errors import InputError


def test_halving_is_the_mean_over_two_by_two_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 4, 3), dtype=np.uint8)
    found = half(images)
    assert found.shape == (3, 3, 3, 2)
    for n, c, i, j in np.ndindex(3, 3, 3, 2):
        naive = sum(int(images[n, 2 * i + a, 2 * j + b, c]) for a in (0, 1) for b in (0, 1)) / 4 / 255
        assert float(found[n, c, i, j]) == pytest.approx(naive, abs=1e-6)
    assert half(images[..., 0]).shape == (3, 1, 3, 2)
    assert torch.equal(half(images[..., 0])[:, 0], found[:, 0])


def test_the_first_of_each_class_come_class_by_class() -> None:
    labels = np.array([2, 0, 0, 2, 1, 0, 1, 2])
    assert first_of_each(labels, 2).tolist() == [1, 2, 4, 6, 0, 3]
    with pytest.raises(ValueError, match="fewer than 3"):
        first_of_each(labels, 3)


@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist_is_read_gzipped_or_not(tmp_path: Path, packed: bool) -> None:
    images, labels = write_fashion(tmp_path, packed=packed)
    found = read_images("fashion-mnist", tmp_path, 2, 1)
    assert found.train.fact("label") == [label for label in range(10) for _ in range(2)]
    assert found.test.fact("label") == list(range(10))
    chosen = int(found.train.ids[5].removeprefix("train-"))
    assert labels[chosen] == 2
    row = found.train[5]
    assert torch.equal(row["pixel_values"], half(images[chosen : chosen + 1])[0])
    assert int(row["labels"]) == 2


def test_cifar10_is_read_from_arrays(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    found = read_images("cifar10", tmp_path, 3, 2)
    assert found.train[0]["pixel_values"].shape == (3, 16, 16)
    assert 0 <= float(found.train[0]["pixel_values"].min()) <= float(found.train[0]["pixel_values"].max()) <= 1
    assert (len(found.train), len(found.test)) == (30, 20)


def test_what_is_damaged_or_too_small_is_said(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    with pytest.raises(InputError, match=r"--data: the test part of cifar10 is too small"):
        read_images("cifar10", tmp_path, 3, 1000)
    (tmp_path / "cifar10_small.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"--data: .* is damaged"):
        read_images("cifar10", tmp_path, 3, 2)
    write_fashion(tmp_path)
    (tmp_path / "fashion-mnist" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x0d\1"))
    with pytest.raises(InputError, match=r"damaged \(no IDX file of bytes\)"):
        read_images("fashion-mnist", tmp_path, 3, 2)


def test_an_idx_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    write_fashion(tmp_path, packed=False)
    file = tmp_path / "fashion-mnist" / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="reshape"):
        read_idx(file)


def test_without_files_the_hub_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    images, labels = write_fashion(tmp_path)
    asked: list[str] = []

    def load_dataset(name: str) -> dict[str, Any]:
        asked.append(name)
        return {split: {"image": list(images), "label": labels.tolist()} for split in ("train", "test")}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = read_images("fashion-mnist", None, 2, 1)
    assert asked == ["zalando-datasets/fashion_mnist"]
    assert torch.equal(found.train[5]["pixel_values"], read_images("fashion-mnist", tmp_path, 2, 1).train[5]["pixel_values"])


def test_what_is_missing_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"--data: fashion-mnist is needed: .* and the hub is switched off. Give a directory"):
        require_images("fashion-mnist", tmp_path)
    write_fashion(tmp_path)
    require_images("fashion-mnist", tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    require_images("cifar10", tmp_path)
