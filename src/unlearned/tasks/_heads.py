"""The last linear layer of a classifier, and what it reads."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from unlearned.errors import Fault, InputError


class Head(NamedTuple):
    """logits = features · weightᵀ + bias."""

    name: str
    layer: nn.Linear
    features: Tensor
    """(B, D), of the batch that was given; differentiable."""


def head_of(model: nn.Module, pixel_values: Tensor) -> Head:
    """The linear layer whose output is the model's logits, found by running the model on `pixel_values`.

    Raises:
        InputError: if the logits are not the output of a linear layer on vectors.
    """
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}

    def watch(name: str) -> object:
        return layers[name].register_forward_hook(lambda _, inputs, output: seen.__setitem__(name, (inputs[0], output)))

    handles = [watch(name) for name in layers]
    try:
        out = model(pixel_values)
    finally:
        for handle in handles:
            handle.remove()  # type: ignore[attr-defined]
    logits = getattr(out, "logits", out)
    for name, (features, output) in reversed(seen.items()):
        if output is logits and features.ndim == 2:
            return Head(name, layers[name], features)
    raise InputError(
        Fault("model", "its logits are not the output of a linear layer.", "Use a classifier that ends with nn.Linear, or leave out what reads its features.")
    )
