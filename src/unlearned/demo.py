"""The whole way on an embedded default: handwritten digits, a small convolutional network, one class to forget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.engine.files import atomic_directory
from unlearned.engine.settings import Compute
from unlearned.engine.training import train
from unlearned.pipeline import Say, default_cache, run
from unlearned.recipe import Recipe, parse_recipe
from unlearned.records import AuditRecord
from unlearned.tasks._task import Bundle, DataSource, ModelSource

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


def demo_recipe() -> dict[str, Any]:
    """The recipe of the demo, without the weights of its model."""
    return {
        "task": "image-classification",
        "model": {"source": _MODEL},
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
        "seed": 0,
    }


def run_demo(out: Path, *, seed: int = 0, compute: Compute | None = None, show_progress: bool = False, say: Say = lambda _: None) -> AuditRecord:
    """Train the original (kept in the cache), unlearn, audit, attack and report.

    Args:
        out: the run directory.
        seed: of everything random.
        compute: where and how to compute.
        show_progress: draw progress bars.
        say: is told what happens.

    Raises:
        InputError: if a directory cannot be written.
    """
    settings = compute or Compute(threads=2)
    recipe = parse_recipe(demo_recipe() | {"seed": seed, "compute": settings.model_dump()})
    weights = _original(recipe, seed, show_progress, say)
    model = {"source": _MODEL, "weights": str(weights)}
    return run(parse_recipe(demo_recipe() | {"seed": seed, "compute": settings.model_dump(), "model": model}), out, show_progress=show_progress, say=say)


def _original(recipe: Recipe, seed: int, show_progress: bool, say: Say) -> Path:
    assert recipe.file.training is not None
    task = recipe.task
    engine = Engine(task, recipe.file.compute, seed, None, show_progress)
    bundle = task.load(ModelSource(source=_MODEL), "model")
    samples: Samples = task.read(DataSource(source="unlearned.demo:digits_train"), bundle, "data.train")
    key = _key(task.architecture(bundle), samples.fingerprint, recipe, seed)
    directory = default_cache() / "demo" / key
    if not directory.exists():
        say("training the original model on handwritten digits")
        trained: Bundle = train(engine, bundle, samples, recipe.file.training, seed, title="original")
        with atomic_directory(directory) as fresh:
            task.save(trained, fresh)
    return directory / "model.safetensors"


def _key(architecture: str, data: str, recipe: Recipe, seed: int) -> str:
    from unlearned.data.fingerprints import of_json

    assert recipe.file.training is not None
    return of_json([architecture, data, recipe.file.training.model_dump(), seed])[:32]


def _digits(part: slice) -> dict[str, Any]:
    digits = load_digits()
    images: Tensor = torch.from_numpy((digits.images[part] / 16).astype(np.float32))
    return {"image": images, "label": torch.from_numpy(digits.target[part]), "id": [f"digit-{i}" for i in range(*part.indices(len(digits.target)))]}
