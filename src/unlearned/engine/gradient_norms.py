"""Norms of the loss gradients of single samples, by one forward and one backward pass for a batch of them.

What linear layers, convolutions and embeddings read, and the derivative by what they say, hold the gradient of each sample in two factors, of which the norm
is to be had (Goodfellow 2015, arXiv 1510.01799; Li et al. 2022, arXiv 2110.05679, "ghost norms"; see `layer_parts`). Of other layers (normalisations) the
gradients of each sample's δ · f(x) are computed layer by layer. No gradient of the whole model is held for any sample.

Nothing is taken on trust: on the first two samples each layer is held against plain backward passes. A weight that fails (it is used in a way that no call of a
layer shows, or its layer mixes samples) is left to `sample_gradients`, slower and right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine, evaluating
from unlearned.engine.layer_parts import Call, Part, derivatives, has_parts, part_of, watched
from unlearned.engine.sample_gradients import HELD, sample_gradients
from unlearned.tasks._task import Batch

_PROBES = 2
_AGREES = 1e-3
"""Relative difference of a squared norm that rounding explains."""


class Group(NamedTuple):
    """Layers whose gradients are one: a single layer, or several that share their weight."""

    layers: dict[str, nn.Module]
    names: tuple[str, ...]
    """Of the parameters."""
    numbers: int
    """In the parameters."""


def gradient_norms(engine: Engine, model: nn.Module, samples: Samples, names: Sequence[str]) -> Tensor:
    """‖∂ℓ_z/∂θ‖₂ in eval mode for each sample z in order, (N,): the parameters of these names together. Unchanged: the model.

    Args:
        engine: computes and counts.
        model: on the engine's device.
        samples: in order.
        names: of parameters that require gradients.
    """
    with evaluating(model), torch.enable_grad():
        groups = _confirmed(engine, model, samples, names)
        found = []
        for batch in engine.batches(samples):
            squares = [part for part in _squares(engine, model, batch, groups) if part is not None]
            count = len(next(iter(batch.values())))
            found.append(torch.stack(squares).sum(dim=0) if squares else torch.zeros(count, device=engine.device))
            engine.meter.count(count)
    total = torch.cat(found)
    done = {name for group in groups for name in group.names}
    left = [name for name in names if name not in done]
    if left:
        total = total + torch.cat([rows.square().sum(dim=1) for rows in sample_gradients(engine, model, samples, left)])
    return total.sqrt()


def _confirmed(engine: Engine, model: nn.Module, samples: Samples, names: Sequence[str]) -> list[Group]:
    """Groups whose norms are those of plain backward passes, on the first samples."""
    if len(samples) < _PROBES:
        return []
    groups = _grouped(model, names)
    [batch] = engine.batches(samples.subset(range(_PROBES)))
    own = dict(model.named_parameters())
    found = _squares(engine, model, batch, groups, trying=True)
    truth = torch.zeros(len(groups), _PROBES, dtype=torch.float64)
    for i in range(_PROBES):
        loss = engine.task.losses(model, {name: tensor[i : i + 1] for name, tensor in batch.items()})[0]
        gradients = dict(zip(names, torch.autograd.grad(loss, [own[name] for name in names], materialize_grads=True), strict=True))
        truth[:, i] = torch.tensor([sum(float(gradients[name].square().sum()) for name in group.names) for group in groups])
    least = 1e-12 * float(truth.sum())
    pairs = zip(groups, found, truth, strict=True)
    return [group for group, squares, true in pairs if squares is not None and torch.allclose(squares.cpu().double(), true, rtol=_AGREES, atol=least)]


def _grouped(model: nn.Module, names: Sequence[str]) -> list[Group]:
    """Layers that have parameters of these names themselves; those with the same weight together."""
    own = dict(model.named_parameters())
    called = {id(own[name]): name for name in names}
    together: dict[str, dict[str, nn.Module]] = {}
    for name, layer in model.named_modules():
        direct = [called[id(p)] for p in layer.parameters(recurse=False) if id(p) in called]
        if direct:
            together.setdefault(direct[0], {})[name] = layer
    groups = []
    for layers in together.values():
        held = dict.fromkeys(called[id(p)] for layer in layers.values() for p in layer.parameters(recurse=False) if id(p) in called)
        groups.append(Group(layers, tuple(held), sum(own[name].numel() for name in held)))
    return groups


def _squares(engine: Engine, model: nn.Module, batch: Batch, groups: Sequence[Group], *, trying: bool = False) -> list[Tensor | None]:
    """‖∂ℓ_z/∂θ_g‖² of each group g, (B,); `trying`: None where it is not to be had."""
    if not groups:
        return []
    with watched({name: layer for group in groups for name, layer in group.layers.items()}) as seen:
        losses = engine.task.losses(model, batch)
    calls = [call for several in seen.values() for call in several]
    deltas = dict(zip(map(id, calls), derivatives(losses.sum(), calls), strict=True))
    found: list[Tensor | None] = []
    for group in groups:
        read = [(layer, call, deltas[id(call)]) for name, layer in group.layers.items() for call in seen.get(name, [])]
        try:
            found.append(_of_group(read, len(losses), group.numbers))
        except (RuntimeError, ValueError, TypeError, AttributeError):  # torch cannot map this layer over samples, or its shapes are of another kind
            if not trying:
                raise
            found.append(None)
    return found


def _of_group(read: Sequence[tuple[nn.Module, Call, Tensor]], count: int, numbers: int) -> Tensor:
    """‖G‖² of a group from all its calls, (B,).

    Raises:
        ValueError: if it is not to be had from them.
    """
    if not read or any(len(call.inputs) != count or len(delta) != count for _, call, delta in read):
        raise ValueError("not called, or not with one entry for each sample")
    factored = all(has_parts(layer) for layer, _, _ in read)
    if not factored and len(read) > 1:
        raise ValueError("called several times")
    pieces = []
    size = max(1, HELD // max(numbers, *(_held(*each) for each in read)))
    for first in range(0, count, size):
        inside = [(layer, call.inputs[first : first + size], delta[first : first + size]) for layer, call, delta in read]
        if factored:
            parts = [part_of(*each) for each in inside]
            whole = parts[0] if len(parts) == 1 else Part(*(torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True)))
            pieces.append(whole.squares)
        else:
            layer, inputs, delta = inside[0]
            pieces.append(_normalised(layer, inputs, delta) if isinstance(layer, _BatchNorm) else _mapped(layer, inputs, delta))
    return torch.cat(pieces) if len(pieces) > 1 else pieces[0]


def _held(layer: nn.Module, call: Call, delta: Tensor) -> int:
    """Numbers that are held for a sample, about."""
    if isinstance(layer, nn.Embedding):
        return call.inputs[0].numel() * layer.num_embeddings
    return call.inputs[0].numel() * (layer.weight[0, 0].numel() if isinstance(layer, nn.Conv2d) else 1) + delta[0].numel()


def _normalised(layer: _BatchNorm, inputs: Tensor, delta: Tensor) -> Tensor:
    """Of y = w x̂ + b with x̂ = (x − μ) / √(σ² + ε) by fixed statistics: ‖Σ δ x̂‖² + ‖Σ δ‖², sums over positions, (B,).

    Raises:
        ValueError: if statistics are of the batch.
    """
    if layer.running_mean is None or layer.running_var is None:
        raise ValueError("statistics of the batch mix samples")
    x, slope = inputs.flatten(2) if inputs.dim() > 2 else inputs[..., None], delta.flatten(2) if delta.dim() > 2 else delta[..., None]
    by_bias = slope.sum(dim=2)
    along: Tensor = torch.linalg.vecdot(slope, x)
    by_weight = (along - layer.running_mean * by_bias) * (layer.running_var + layer.eps).rsqrt()
    return by_weight.square().sum(dim=1) + by_bias.square().sum(dim=1)


def _mapped(layer: nn.Module, inputs: Tensor, delta: Tensor) -> Tensor:
    """‖∂(δ · f(x))/∂θ‖² of each sample by the layer's own parameters, (B,)."""
    weights = {name: p.detach() for name, p in layer.named_parameters(recurse=False)}

    def along(weights: dict[str, Tensor], x: Tensor, slope: Tensor) -> Tensor:
        said: Tensor = functional_call(layer, weights, (x[None],))
        return (said[0] * slope).sum()

    with torch.no_grad():
        gradients = vmap(grad(along), in_dims=(None, 0, 0))(weights, inputs, delta)
    return torch.stack([rows.flatten(1).square().sum(dim=1) for rows in gradients.values()]).sum(dim=0)
