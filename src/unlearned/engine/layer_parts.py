"""Gradients of layers in two factors: what a layer reads, and the derivative by what it says.

The gradient of a sample with respect to a weight matrix is G = Σ_t δ_t a_tᵀ: a what the layer reads (with a 1 where it has a bias), δ the derivative by what it
says, t over positions. One forward and one backward pass over a batch give the factors of all samples at once. Convolutions read patches (Grosse and Martens
2016, arXiv 1602.01407); an embedding reads the derivative and says which token it was, so that a matrix which is shared with a linear layer (the output of many
language models) is a matter of more positions. Where a weight is kept from input to output (GPT-2), G is the transpose of its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from unlearned.tasks._linear import linear_layers


class Part(NamedTuple):
    """What a layer has of a batch: a (B, T, in) and δ (B, T, out)."""

    inputs: Tensor
    derivatives: Tensor

    @property
    def gradients(self) -> Tensor:
        """G, (B, out, in)."""
        return self.derivatives.transpose(1, 2) @ self.inputs

    @property
    def squares(self) -> Tensor:
        """‖G‖² = Σ_{t,s} (a_t · a_s) (δ_t · δ_s), (B,): by this sum where positions are fewer than the matrix is large, else from G itself."""
        _, positions, reads = self.inputs.shape
        says = self.derivatives.shape[2]
        if positions * (reads + says) < reads * says:
            pairs = (self.inputs @ self.inputs.transpose(1, 2)) * (self.derivatives @ self.derivatives.transpose(1, 2))
            return pairs.sum(dim=(1, 2)).clamp_min(0)  # rounding may take it below
        norms: Tensor = torch.linalg.vector_norm(self.gradients.flatten(1), dim=1)
        return norms.square()


class Call(NamedTuple):
    """A layer was called: what it read, and where the derivative by what it said is to be had."""

    inputs: Tensor
    output: GradientEdge
    shape: torch.Size
    """Of the output."""


@contextmanager
def watched(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Call]]]:
    """The calls of layers while it lasts, by name: of those that read a tensor first and said a tensor with a gradient."""
    seen: dict[str, list[Call]] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            if isinstance(output, Tensor) and output.requires_grad and inputs and isinstance(inputs[0], Tensor):
                # The edge and not the tensor: what comes next may write into it.
                seen.setdefault(name, []).append(Call(inputs[0].detach(), get_gradient_edge(output), output.shape))

        return hook

    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def derivatives(of: Tensor, calls: Sequence[Call], along: Tensor | None = None, *, again: bool = False) -> list[Tensor]:
    """∂⟨of, along⟩/∂(what was said) for each call; zeros where nothing depends on it.

    Args:
        of: a scalar, or a tensor of the shape of `along`.
        calls: from `watched`.
        along: None: of is a scalar.
        again: whether another backward pass follows.
    """
    found: Sequence[Tensor | None] = torch.autograd.grad(of, [call.output for call in calls], along, retain_graph=again, allow_unused=True)
    return [of.new_zeros(call.shape) if slope is None else slope for call, slope in zip(calls, found, strict=True)]


def has_parts(layer: nn.Module) -> bool:
    """Whether its gradients are in two factors."""
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    if isinstance(layer, nn.Embedding):
        return layer.max_norm is None and not layer.scale_grad_by_freq
    return isinstance(layer, linear_layers())


def part_of(layer: nn.Module, inputs: Tensor, delta: Tensor) -> Part:
    """The two factors, of a layer that `has_parts`; the bias is the last column of a, and columns of a convolution are in the order of `patches`.

    Args:
        layer: a linear layer, a convolution or an embedding.
        inputs: what it read, samples first.
        delta: the derivative by what it said.
    """
    if isinstance(layer, nn.Embedding):
        tokens = F.one_hot(inputs.reshape(len(inputs), -1), layer.num_embeddings).to(delta)
        if layer.padding_idx is not None:
            tokens[..., layer.padding_idx] = 0
        return Part(delta.reshape(len(delta), -1, delta.shape[-1]), tokens)
    if isinstance(layer, nn.Conv2d):
        a = patches(layer, inputs)
        delta = delta.flatten(2).transpose(1, 2)
    else:
        a, delta = (tensor.reshape(len(tensor), -1, tensor.shape[-1]) for tensor in (inputs, delta))
    if getattr(layer, "bias", None) is not None:
        a = torch.cat([a, a.new_ones(*a.shape[:2], 1)], dim=2)
    return Part(a, delta)


def patches(layer: nn.Conv2d, inputs: Tensor) -> Tensor:
    """What a convolution reads at each position, (B, T, kh · kw · C), channels fastest: copied in long runs, several times faster than by `unfold`."""
    (kh, kw), (sh, sw), (dh, dw) = layer.kernel_size, layer.stride, layer.dilation
    ph, pw = (int(n) for n in layer.padding)
    count, channels, height, width = inputs.shape
    padded = inputs.new_zeros(count, height + 2 * ph, width + 2 * pw, channels)
    padded[:, ph : ph + height, pw : pw + width] = inputs.permute(0, 2, 3, 1)
    windows = padded.unfold(1, dh * (kh - 1) + 1, sh).unfold(2, dw * (kw - 1) + 1, sw)[..., ::dh, ::dw]
    return windows.permute(0, 1, 2, 4, 5, 3).reshape(count, -1, kh * kw * channels)
