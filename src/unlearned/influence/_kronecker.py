"""Eigenvalue-corrected Kronecker factors (EKFAC) of the Gauss-Newton matrix of linear layers and convolutions.

Paper: George et al. 2018, arXiv 1806.03884; for influence, Grosse et al. 2023, arXiv 2308.03296. Convolutions as in Grosse and Martens 2016.
Formula: the gradient of a layer is G = Σ_t δ_t a_tᵀ, a what the layer reads (with a 1 where it has a bias), δ the derivative by what it says, t over
positions. A = E Σ_t a aᵀ = U_A D_A U_Aᵀ, S = E Σ_t δ δᵀ = U_S D_S U_Sᵀ; λ_ij = E (U_Sᵀ G U_A)²_ij.
H⁻¹G = U_S ((U_Sᵀ G U_A) / (λ + damping)) U_Aᵀ. Expectations are over points and over answers drawn from
the model (`sampled`), or over all answers by their probability (`expected`: exact, one backward pass for each class).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine, evaluating
from unlearned.tasks._task import Choices

LARGEST = 4096
"""Layers that read or say more numbers are left out: a factor of theirs is a square matrix of that size."""

Signals = Callable[[Choices], Iterator[Tensor]]
"""Derivatives by the logits, (B, M, C), one for each backward pass."""


def covered(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """Layers that factors are made of, by name: those whose weight is among the names."""
    wanted = set(names)
    return {name: layer for name, layer in model.named_modules() if f"{name}.weight" in wanted and _fits(layer)}


def _fits(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        size = layer.weight[0].numel() + 1
        return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str) and max(size, layer.out_channels) <= LARGEST
    return isinstance(layer, nn.Linear) and max(layer.in_features + 1, layer.out_features) <= LARGEST


def errors(choices: Choices) -> Iterator[Tensor]:
    """W (p − e_y): the derivative of the loss itself."""
    p = choices.logits.softmax(dim=-1)
    yield choices.weights[..., None] * (p - F.one_hot(choices.targets, p.shape[-1]).to(p))


def drawn(generator: torch.Generator) -> Signals:
    """√w (p − e_ŷ) with ŷ drawn from p: its outer product is w (diag(p) − p pᵀ) on average."""

    def signals(choices: Choices) -> Iterator[Tensor]:
        p = choices.logits.softmax(dim=-1)
        answers = torch.multinomial(p.detach().cpu().flatten(0, -2), 1, generator=generator).view(p.shape[:-1]).to(p.device)
        yield choices.weights.sqrt()[..., None] * (p - F.one_hot(answers, p.shape[-1]).to(p))

    return signals


def all_answers(choices: Choices) -> Iterator[Tensor]:
    """√(w p_c) (p − e_c) for each class c: the sum of the outer products is w (diag(p) − p pᵀ)."""
    p = choices.logits.softmax(dim=-1)
    for c in range(p.shape[-1]):
        one = F.one_hot(torch.tensor(c, device=p.device), p.shape[-1]).to(p)
        yield (choices.weights * p[..., c]).sqrt()[..., None] * (p - one)


class Part(NamedTuple):
    """What a layer has of a batch: inputs a (B, T, in) and derivatives δ (B, T, out)."""

    inputs: Tensor
    derivatives: Tensor

    @property
    def gradients(self) -> Tensor:
        """G, (B, out, in)."""
        return self.derivatives.transpose(1, 2) @ self.inputs


def parts(engine: Engine, model: nn.Module, samples: Samples, layers: dict[str, nn.Module], signals: Signals, batch_size: int) -> Iterator[dict[str, Part]]:
    """For each batch in order, and each backward pass of it, what the layers have; in eval mode."""
    with evaluating(model), torch.enable_grad():
        for batch in engine.batches(samples, batch_size):
            with _watched(layers) as seen:
                choices = engine.task.choices(model, batch)
            names = [name for name in layers if name in seen]
            passes = list(signals(Choices(choices.logits.detach(), choices.targets, choices.weights)))
            for number, signal in enumerate(passes):
                outputs = [seen[name][1] for name in names]
                found = torch.autograd.grad(choices.logits, outputs, signal, retain_graph=number + 1 < len(passes), materialize_grads=True)
                yield {name: _part(layers[name], seen[name][0], delta) for name, delta in zip(names, found, strict=True)}
            engine.meter.count(len(choices.logits))


@contextmanager
def _watched(layers: dict[str, nn.Module]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str) -> Callable[..., None]:
        return lambda _, inputs, output: seen.__setitem__(name, (inputs[0].detach(), output))

    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _part(layer: nn.Module, inputs: Tensor, delta: Tensor) -> Part:
    if isinstance(layer, nn.Conv2d):
        a = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride).transpose(1, 2)  # type: ignore[arg-type]
        delta = delta.flatten(2).transpose(1, 2)
    else:
        a, delta = (tensor.reshape(len(tensor), -1, tensor.shape[-1]) for tensor in (inputs, delta))
    if getattr(layer, "bias", None) is not None:
        a = torch.cat([a, a.new_ones(*a.shape[:2], 1)], dim=2)
    return Part(a, delta)


class Factor(NamedTuple):
    """One layer's part of the curvature."""

    inputs: Tensor
    """U_A, (in, in)."""
    outputs: Tensor
    """U_S, (out, out)."""
    eigenvalues: Tensor
    """λ, (out, in)."""

    def rotated(self, gradients: Tensor) -> Tensor:
        """U_Sᵀ G U_A, (B, out, in)."""
        return self.outputs.T @ gradients @ self.inputs


def factors(
    engine: Engine, model: nn.Module, samples: Samples, layers: dict[str, nn.Module], signals: Callable[[], Signals], batch_size: int
) -> dict[str, Factor]:
    """Eigenvectors from one pass over the samples, eigenvalues from another.

    Args:
        engine: computes.
        model: on the engine's device.
        samples: over which expectations are taken.
        layers: from `covered`.
        signals: makes the same signals for each pass.
        batch_size: samples at once.
    """
    moments: dict[str, list[Tensor]] = {}
    for found in parts(engine, model, samples, layers, signals(), batch_size):
        for name, part in found.items():
            products = [tensor.flatten(0, 1).T @ tensor.flatten(0, 1) for tensor in part]
            moments[name] = [old + new for old, new in zip(moments[name], products, strict=True)] if name in moments else products
    bases = {name: [torch.linalg.eigh(matrix / matrix.diagonal().mean().clamp_min(1e-30)).eigenvectors for matrix in both] for name, both in moments.items()}
    blank = {name: Factor(a, s, a.new_zeros(len(s), len(a))) for name, (a, s) in bases.items()}
    for found in parts(engine, model, samples, layers, signals(), batch_size):
        for name, part in found.items():
            blank[name].eigenvalues.add_(blank[name].rotated(part.gradients).square().sum(dim=0))
    return {name: factor._replace(eigenvalues=factor.eigenvalues / len(samples)) for name, factor in blank.items()}
