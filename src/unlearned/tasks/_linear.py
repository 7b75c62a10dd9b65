"""What counts as a linear layer."""

from __future__ import annotations

import sys

from torch import nn


def linear_layers() -> tuple[type[nn.Module], ...]:
    """All kinds of layers that say x Wᵀ + b or x W + b."""
    return (nn.Linear, *transposed_linear_layers())


def transposed_linear_layers() -> tuple[type[nn.Module], ...]:
    """What GPT-2 has in the place of nn.Linear: its weight goes from input to output. None of them exists before transformers has made one."""
    loaded = sys.modules.get("transformers.pytorch_utils")
    return () if loaded is None else (loaded.Conv1D,)
