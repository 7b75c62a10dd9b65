"""The whole way on embedded defaults, one file per demo: data and a model that need no network, and the recipe that makes the model forget."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from unlearned.registry import Registry

if TYPE_CHECKING:
    from unlearned.demo._demo import Demo, run_demo
    from unlearned.demo.image_classification import digits_network, digits_test, digits_train

demos: Registry[Demo] = Registry("demo", "unlearned.demo", "unlearned.demo._demo:Demo")

# What recipes, examples and other programs name as `unlearned.demo:...`, loaded on first use: a list of demos must not import torch.
_HOMES = {
    "Demo": "_demo",
    "digits_network": "image_classification",
    "digits_test": "image_classification",
    "digits_train": "image_classification",
    "people_test": "text_generation",
    "people_train": "text_generation",
    "run_demo": "_demo",
    "strangers": "text_generation",
}

__all__ = ["Demo", "demos", "digits_network", "digits_test", "digits_train", "run_demo"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unlearned.demo' has no attribute {name!r}")
    return getattr(importlib.import_module(f"unlearned.demo.{_HOMES[name]}"), name)
