from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from unlearned.errors import InputError
from unlearned.tasks._images import plain_pixels
from unlearned.tasks._task import Bundle, DataSource
from unlearned.tasks.image_classification import ImageClassification

TASK, NETWORK = ImageClassification(), Bundle(nn.Sequential(nn.Flatten(), nn.Linear(16, 4)))


def folder(root: Path, classes: str, mode: str = "L") -> DataSource:
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        value = 40_000 if mode.startswith("I") else 10 * number
        Image.fromarray(np.full((4, 4), value, dtype=np.uint16 if mode.startswith("I") else np.uint8)).save(root / name / "0.png")
    return DataSource(source=str(root))


def test_a_test_set_that_lacks_a_class_is_numbered_as_the_training_data(tmp_path: Path) -> None:
    train = TASK.read(folder(tmp_path / "train", "abcd"), NETWORK, "data.train")
    test = TASK.read(folder(tmp_path / "test", "acd"), NETWORK, "data.test", train)
    assert train.fact("label") == [0, 1, 2, 3]
    assert test.fact("label") == [0, 2, 3]
    assert [int(test[i]["labels"]) for i in range(3)] == [0, 2, 3]


def test_a_class_that_training_lacks_is_refused(tmp_path: Path) -> None:
    train = TASK.read(folder(tmp_path / "train", "ab"), NETWORK, "data.train")
    with pytest.raises(InputError, match="class 'z' does not appear in the training data"):
        TASK.read(folder(tmp_path / "test", "az"), NETWORK, "data.test", train)


def test_sixteen_bit_pictures_keep_their_range(tmp_path: Path) -> None:
    samples = TASK.read(folder(tmp_path / "deep", "ab", "I;16"), NETWORK, "data.train")
    assert torch.allclose(samples[0]["pixel_values"], torch.tensor((40_000 >> 8) / 255))


def test_whole_numbers_above_255_are_no_pixels() -> None:
    with pytest.raises(ValueError, match=r"outside 0\.\.255"):
        plain_pixels(np.full((4, 4), 300))
