"""Handwritten digits: a small convolutional network forgets the digit 3 by SCRUB.

The digits come with scikit-learn. Three references are retrained without the digit; the result is audited and attacked by relearning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from unlearned.demo import demos
from unlearned.demo._demo import Demo
from unlearned.tasks._task import Bundle, ModelSource

FORGOTTEN_DIGIT = 3
_MODEL = "unlearned.demo:digits_network"


def digits_network() -> nn.Module:
    """A convolutional network from (B, 1, 8, 8) to 10 logits, with 0.1 million parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Conv2d(64, 96, 3, padding=1),
        nn.BatchNorm2d(96),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(384, 10),
    )


def digits_train() -> dict[str, Any]:
    """The first 1,297 digits of scikit-learn, 8 x 8, in [0, 1]."""
    return _digits(slice(None, 1297))


def digits_test() -> dict[str, Any]:
    """The last 500 digits, by other writers."""
    return _digits(slice(1297, None))


@demos.register("image-classification")
class Digits(Demo):
    """One of ten digits."""

    name: ClassVar[str] = "image-classification"
    original: ClassVar[str] = "a small network, on handwritten digits"

    def blank(self) -> Bundle:
        return Bundle(digits_network(), origin=ModelSource(source=_MODEL))

    def source(self, directory: Path) -> ModelSource:
        return ModelSource(source=_MODEL, weights=str(directory / "model.safetensors"))

    def recipe(self) -> dict[str, Any]:
        return {
            "task": "image-classification",
            "data": {"train": "unlearned.demo:digits_train", "test": "unlearned.demo:digits_test"},
            "forget": {"where": f"label == {FORGOTTEN_DIGIT}", "description": f"all images of the digit {FORGOTTEN_DIGIT}"},
            "method": {
                # The small-scale setting of the paper, shortened to three epochs.
                "name": "scrub",
                "optimizer": "adam",
                "epochs": 3,
                "max_epochs": 2,
                "gamma": 1.0,
                "alpha": 0.5,
                "temperature": 2.0,
                "lr": 1e-3,
                "batch_size": 64,
            },
            "training": {"optimizer": "adamw", "lr": 0.003, "weight_decay": 0.01, "batch_size": 64, "epochs": 30, "schedule": "cosine"},
            "references": {"count": 3},
            "audits": ["utility", "membership", "svc-mia", "output-distance", "cost"],
            "attacks": ["relearn"],
            # There are 48 test images of the digit: they cannot place an AUC more closely than within about 0.1.
            "verdict": {"membership_gap": 0.15},
        }


def _digits(part: slice) -> dict[str, Any]:
    digits = load_digits()
    images: Tensor = torch.from_numpy((digits.images[part] / 16).astype(np.float32))
    return {"image": images, "label": torch.from_numpy(digits.target[part]), "id": [f"digit-{i}" for i in range(*part.indices(len(digits.target)))]}
