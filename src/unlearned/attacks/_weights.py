"""The weights that attacks on weights change: those of linear layers, convolutions and embeddings."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from torch import nn, no_grad
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from unlearned.tasks._linear import linear_layers, transposed_linear_layers

Kind = Literal["linear", "convolution", "embedding"]
KINDS: tuple[Kind, ...] = ("linear", "convolution", "embedding")


class Weight(NamedTuple):
    """The weight of a layer."""

    name: str
    """Of the layer."""
    layer: nn.Module
    kind: Kind
    tensor: nn.Parameter
    channels: int
    """The dimension that counts output channels (of an embedding: its entries)."""


def weights_of(model: nn.Module, kinds: Sequence[Kind] = KINDS) -> list[Weight]:
    """The weights of all layers of these kinds, in order. A tensor that layers share is there once, as that of the first."""
    found: dict[int, Weight] = {}
    for name, layer in model.named_modules():
        weight = weight_of(name, layer)
        if weight is not None:
            found.setdefault(id(weight.tensor), weight)
    return [weight for weight in found.values() if weight.kind in kinds]


def weight_of(name: str, layer: nn.Module) -> Weight | None:
    """The weight of a layer, if it is of one of the kinds and has a weight of its own."""
    tensor = getattr(layer, "weight", None)
    if not isinstance(tensor, nn.Parameter):
        return None
    if isinstance(layer, linear_layers()):
        return Weight(name, layer, "linear", tensor, int(isinstance(layer, transposed_linear_layers())))
    if isinstance(layer, _ConvNd):
        return Weight(name, layer, "convolution", tensor, int(isinstance(layer, _ConvTransposeNd)))
    return Weight(name, layer, "embedding", tensor, 0) if isinstance(layer, nn.Embedding) else None


def altered(model: nn.Module, change: Callable[[list[Weight]], None]) -> nn.Module:
    """A copy of the model in which `change` changed the weights in place."""
    copied = copy.deepcopy(model)
    with no_grad():
        change(weights_of(copied))
    return copied
