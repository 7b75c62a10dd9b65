"""Activations computed anew in the backward pass instead of kept: less memory for more work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from unlearned.errors import Fault, InputError
from unlearned.tasks._decoders import recomputed_alike


@contextmanager
def recomputing(model: nn.Module, wanted: bool) -> Iterator[None]:
    """While it lasts, the layers of a transformers model keep no activations, if that is `wanted`.

    Gradients also reach adapters beside frozen layers: the non-reentrant form does not ask whether the input requires one.

    Raises:
        InputError: if the model cannot do this.
    """
    if not wanted:
        yield
        return
    inner: Any = model
    if not getattr(inner, "supports_gradient_checkpointing", False):
        what = f"{type(model).__name__} does not support gradient checkpointing."
        raise InputError(Fault("compute.gradient_checkpointing", what, "Leave it out, or lower the batch size."))
    # Transformers has renamed it.
    word = "activation" if hasattr(inner, "activation_checkpointing_enable") else "gradient"
    getattr(inner, f"{word}_checkpointing_enable")(**{f"{word}_checkpointing_kwargs": {"use_reentrant": False, "context_fn": recomputed_alike}})
    try:
        yield
    finally:
        getattr(inner, f"{word}_checkpointing_disable")()
