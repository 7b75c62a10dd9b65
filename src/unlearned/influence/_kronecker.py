"""Eigenvalue-corrected Kronecker factors (EKFAC) of the Gauss-Newton matrix of linear layers and convolutions.

Paper: George et al. 2018, arXiv 1806.03884; for influence, Grosse et al. 2023, arXiv 2308.03296. Convolutions as in Grosse and Martens 2016.
Formula: the gradient of a layer is G = Σ_t δ_t a_tᵀ, a what the layer reads (with a 1 where it has a bias), δ the derivative by what it says, t over
positions without padding. A = E Σ_t a aᵀ = U_A D_A U_Aᵀ, S = E Σ_t δ δᵀ = U_S D_S U_Sᵀ; λ_ij = E (U_Sᵀ G U_A)²_ij.
H⁻¹G = U_S ((U_Sᵀ G U_A) / (λ + damping)) U_Aᵀ. Expectations are over points and over answers drawn from
the model (`sampled`), or over all answers by their probability (`expected`: exact, one backward pass for each class).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine, evaluating
from unlearned.engine.layer_parts import Part, derivatives, has_parts, part_of, watched
from unlearned.tasks._decoders import language_model_in
from unlearned.tasks._linear import transposed_linear_layers
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
    if isinstance(layer, nn.Embedding) or not has_parts(layer):
        return False
    weight = layer.get_parameter("weight")
    says, reads = len(weight), weight[0].numel()
    if isinstance(layer, transposed_linear_layers()):
        says, reads = reads, says
    return max(says, reads + (getattr(layer, "bias", None) is not None)) <= LARGEST


def errors(choices: Choices) -> Iterator[Tensor]:
    """W (p − e_y): the derivative of the loss itself."""
    p = choices.logits.softmax(dim=-1)
    yield choices.weights[..., None] * (p - F.one_hot(choices.targets, p.shape[-1]).to(p))


def drawn(seed: int) -> Signals:
    """√w (p − e_ŷ) with ŷ drawn from p: its outer product is w (diag(p) − p pᵀ) on average.

    Batch after batch in order, only positions that count take part in drawing: what a sample's answers are does not depend on which samples share its batch,
    nor on how far that is padded.
    """
    random = np.random.default_rng(seed)

    def signals(choices: Choices) -> Iterator[Tensor]:
        p = choices.logits.softmax(dim=-1)
        counted = choices.weights > 0
        reached = p.detach()[counted].cpu().double().cumsum(dim=-1)
        level = torch.from_numpy(random.random((len(reached), 1))) * reached[:, -1:]
        answers = torch.zeros_like(choices.targets)
        answers[counted] = torch.searchsorted(reached, level, right=True)[:, 0].clamp(max=p.shape[-1] - 1).to(answers)
        yield choices.weights.sqrt()[..., None] * (p - F.one_hot(answers, p.shape[-1]).to(p))

    return signals


def all_answers(choices: Choices) -> Iterator[Tensor]:
    """√(w p_c) (p − e_c) for each class c: the sum of the outer products is w (diag(p) − p pᵀ)."""
    p = choices.logits.softmax(dim=-1)
    for c in range(p.shape[-1]):
        one = F.one_hot(torch.tensor(c, device=p.device), p.shape[-1]).to(p)
        yield (choices.weights * p[..., c]).sqrt()[..., None] * (p - one)


def parts(engine: Engine, model: nn.Module, samples: Samples, layers: dict[str, nn.Module], signals: Signals, batch_size: int) -> Iterator[dict[str, Part]]:
    """For each batch in order, and each backward pass of it, what the layers have, at least in float32; in eval mode."""
    final = _output_layers(model)
    with evaluating(model), torch.enable_grad():
        for batch in engine.batches(samples, batch_size):
            with watched(layers) as seen:
                choices = engine.task.choices(model, batch)
            last = {name: seen[name][-1] for name in layers if name in seen}
            passes = list(signals(Choices(choices.logits.detach(), choices.targets, choices.weights)))
            for number, signal in enumerate(passes):
                found = derivatives(choices.logits, list(last.values()), signal, again=number + 1 < len(passes))
                every = {name: part_of(layers[name], call.inputs, delta) for (name, call), delta in zip(last.items(), found, strict=True)}
                yield {name: _counted(part, batch.get("attention_mask"), final=layers[name] in final) for name, part in every.items()}
            engine.meter.count(len(choices.logits))


def _output_layers(model: nn.Module) -> set[nn.Module]:
    """What says the logits of a language model, with an adapter's layers in it; none of other models."""
    asked = language_model_in(model)
    layer = None if asked is None else asked.get_output_embeddings()  # type: ignore[operator]
    return set(layer.modules()) if isinstance(layer, nn.Module) else set()


def _counted(part: Part, mask: Tensor | None, *, final: bool) -> Part:
    """The part at least in float32, the least that eigenvectors can be had of, with a = 0 at positions that do not count.

    No loss depends on padding, so that δ = 0 there, but a is not 0: A would depend on which texts share a batch. An output layer reads from the first answer
    of its batch on, which depends on the batch, too: there only positions that the loss depends on count.

    Args:
        part: of one layer.
        mask: 0 on padding, (B, T); None: there is no padding.
        final: whether the layer is one of `_output_layers`.
    """
    a, delta = (tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in part)
    if mask is not None:
        counted = delta.any(dim=2) if final else mask.bool()
        if counted.shape == a.shape[:2]:  # else the layer reads something other than the batch's tokens
            a = a.masked_fill(~counted[..., None], 0)
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
