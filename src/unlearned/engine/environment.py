"""Where numbers were made: versions, platform, device."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from unlearned.engine.engine import Engine
from unlearned.records import Environment

_PACKAGES = ("torch", "transformers", "diffusers", "accelerate", "datasets", "numpy", "scikit-learn", "safetensors")


def environment(engine: Engine) -> Environment:
    """The environment of this process."""
    return Environment(
        unlearned=_version("unlearned") or "not installed",
        python=platform.python_version(),
        platform=platform.platform(),
        packages={name: found for name in _PACKAGES if (found := _version(name))},
        device=torch.cuda.get_device_name(engine.device) if engine.device.type == "cuda" else str(engine.device),
        threads=torch.get_num_threads(),
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
