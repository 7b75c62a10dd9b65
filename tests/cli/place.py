"""A tiny problem on disk, and the command line run inside this process."""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from unlearned.cli import app
from unlearned.cli._shell import guarded

NETWORK = """
from torch import nn

def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))

def forgetful():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Dropout(0.2), nn.Linear(12, 3))

def wide():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 20), nn.ReLU(), nn.Linear(20, 3))

def deep():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 12), nn.Linear(12, 3))

def colour():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

def flat():
    return nn.Flatten(0)

def broken():
    raise RuntimeError("no network today")

def number():
    return 42

constant = 7
"""

RECIPE: dict[str, Any] = {
    "task": "image-classification",
    "model": {"source": "tiny:network", "weights": "original.safetensors"},
    "data": {"train": "train.npz", "test": "test.npz"},
    "forget": {"where": "label == 2"},
    "method": {"name": "neg-grad-plus", "alpha": 0.9, "epochs": 2, "lr": 0.05, "batch_size": 12},
    "training": {"optimizer": "adam", "lr": 0.02, "batch_size": 12, "epochs": 2},
    "references": {"count": 2},
    "audits": ["utility", "membership"],
    "attacks": [{"name": "relearn", "steps": 3, "batch_size": 4}],
    "compute": {"device": "cpu", "threads": 1},
    "seed": 1,
}

OPTIONS = {
    "--before": "tiny:network@original.safetensors",
    "--after": "tiny:network@after.safetensors",
    "--train": "train.npz",
    "--test": "test.npz",
    "--forget": "label == 2",
    "--device": "cpu",
    "--threads": "1",
}


class Answer(NamedTuple):
    """How the command line ended and what it printed."""

    code: int
    out: str
    err: str


class Place:
    """A directory with a network, its weights, data and a recipe; the command line is run in it.

    Args:
        root: the directory.
        monkeypatch: puts back what the command line changes of this process.
        capture: reads what it prints.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self.root, self.monkeypatch, self.capture = root, monkeypatch, capture
        self.recipe = copy.deepcopy(RECIPE)
        fill(root)

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    def unlearned(self, *arguments: str | Path) -> Answer:
        """Run `unlearned ARGUMENTS` in this process."""
        # What the shell sets by default, set here first: the patch takes it back after the test.
        for name, value in (("TRANSFORMERS_VERBOSITY", "error"), ("HF_HUB_DISABLE_PROGRESS_BARS", "1"), ("TOKENIZERS_PARALLELISM", "false")):
            self.monkeypatch.setenv(name, value)
        quiet()
        self.monkeypatch.setattr(sys, "argv", ["unlearned", *map(str, arguments)])
        self.capture.readouterr()
        try:
            guarded(app)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        out, err = self.capture.readouterr()
        return Answer(code, out, err)

    def change(self, changes: Mapping[str, Any]) -> None:
        """Change the recipe; keys are dotted paths, `...` removes a field."""
        for path, value in changes.items():
            *parents, last = path.split(".")
            target = self.recipe
            for parent in parents:
                target = target[parent]
            if value is ...:
                del target[last]
            else:
                target[last] = value

    def write_recipe(self, changes: Mapping[str, Any] | None = None, name: str = "recipe.yaml") -> Path:
        """Write the recipe, with changes."""
        self.change(changes or {})
        (self / name).write_text(yaml.safe_dump(self.recipe), encoding="utf-8")
        return self / name

    def options(self, changes: Mapping[str, str | None] | None = None) -> list[str]:
        """Options of `audit` and `attack`, with changes; None removes one."""
        chosen = {**OPTIONS, **(changes or {})}
        return [text for option, value in chosen.items() if value is not None for text in (option, value)]

    def tree(self) -> dict[str, str]:
        """Every file and directory with its content's hash."""
        return {str(path.relative_to(self.root)): _hash(path) for path in sorted(self.root.rglob("*"))}


def quiet() -> None:
    """What the variables above do to transformers, if an earlier test imported it without them."""
    if "transformers" in sys.modules:
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()


def fill(root: Path) -> None:
    """Write network, weights and data."""
    (root / "tiny.py").write_text(NETWORK, encoding="utf-8")
    save_file(weights(0), root / "original.safetensors")
    save_file(weights(1), root / "after.safetensors")
    save_columns(root / "train.npz", columns(36, 0))
    save_columns(root / "test.npz", columns(18, 1))


def weights(seed: int) -> dict[str, torch.Tensor]:
    """Weights of `tiny:network`."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"1.weight": (12, 16), "1.bias": (12,), "3.weight": (3, 12), "3.bias": (3,)}
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def columns(n: int, seed: int) -> dict[str, np.ndarray]:
    """Images of 1 x 4 x 4 in three classes that differ in brightness of a corner."""
    random = np.random.default_rng(seed)
    label = np.arange(n) % 3
    image = random.normal(0.3, 0.1, (n, 1, 4, 4)).astype(np.float32)
    for i, one in enumerate(label):
        image[i, 0, one, one] += 0.6
    return {"image": image, "label": label, "site": np.array(["north", "south"])[random.integers(0, 2, n)]}


def save_columns(path: Path, arrays: dict[str, Any]) -> None:
    """Write a .npz file."""
    save: Any = np.savez  # columns are keywords there, among others that mypy checks
    save(path, **arrays)


def resave(path: Path, **changes: Any) -> None:
    """Change columns of a .npz file; None removes one."""
    with np.load(path) as arrays:
        merged = {name: arrays[name] for name in arrays.files} | changes
    save_columns(path, {name: column for name, column in merged.items() if column is not None})


def retensor(path: Path, **changes: Any) -> None:
    """Change tensors of a safetensors file; names have `_` for the dot, None removes one."""
    merged = load_file(path) | {name.replace("_", ".").lstrip("."): tensor for name, tensor in changes.items()}
    save_file({name: tensor for name, tensor in merged.items() if tensor is not None}, path)


def tiny_resnet(directory: Path, *, processor: bool, channels: int = 3, seed: int = 0) -> Any:
    """A residual network with three classes as transformers saves it, by itself, without this package."""
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

    torch.manual_seed(seed)
    config = ResNetConfig(
        num_channels=channels, embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=3, id2label={0: "ant", 1: "bee", 2: "cat"}
    )
    model = ResNetForImageClassification(config)
    model.save_pretrained(directory)
    if processor:
        ViTImageProcessor(size={"height": 12, "width": 12}).save_pretrained(directory)
    return model


def pictures(root: Path, side: int = 12, count: int = 3) -> None:
    """A folder of images, in the three classes of `tiny_resnet`."""
    random = np.random.default_rng(0)
    for name in ("ant", "bee", "cat"):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(root / name / f"{i}.png")


def read_json(path: Path) -> Any:
    """The JSON value of a file."""
    return json.loads(path.read_text(encoding="utf-8"))


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "directory" if path.is_dir() else "special"
