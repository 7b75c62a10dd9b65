"""The part of the weights that lies in the span of a few gradients, found from their inner products.

With G = [g_1 … g_n], d × n: M = GᵀG, a = Gᵀθ and P_G θ = G M⁺ a. Only n × n numbers and a small buffer are ever float64; a QR decomposition would need G in
float64 twice. M and a are sums over the entries of the weights: over tensors here, and over shards where each process holds a part of the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unlearned.engine.engine import Engine
from unlearned.engine.output_gradients import Ask, numbers_of
from unlearned.errors import DivergedError
from unlearned.tasks._task import Batch

CUT = 1e-14
"""Directions whose eigenvalue of M is below this share of the largest are left out: gradients that are 1e-7 times as long as others are rounding in float32."""
ROWS_LIMIT = 2**28
"""Numbers of gradients that are held at once; above it, tensors are taken in groups and the backward passes repeated for each. A tensor is never divided."""
_BUFFER = 2**18
"""Numbers in float64 on a CPU: they fit into its cache."""
_BUFFER_ELSEWHERE = 2**24


class Inner(NamedTuple):
    """Inner products of n gradients with each other and with the weights, in float64."""

    gram: Tensor
    """M, (n, n)."""
    along: Tensor
    """a, (n,)."""


def inner_products(rows: Iterable[Tensor], weights: Iterable[Tensor]) -> Inner:
    """M = GᵀG and a = Gᵀθ.

    Args:
        rows: for each tensor of the weights its n gradients, (n, ...): all tensors, or those of a shard.
        weights: the tensors, (...).

    Returns:
        Sums over what is given. The sums of shards add up to those of the whole.
    """
    total: Inner | None = None
    for row, weight in zip(rows, weights, strict=True):
        pieces = torch.split(weight.detach().flatten(), _width(row))
        for part, piece in zip(_in_float64(row), pieces, strict=True):
            total = total or Inner(part.new_zeros(len(part), len(part)), part.new_zeros(len(part)))
            total.gram.addmm_(part, part.T)
            total.along.addmv_(part, piece.to(part))
    assert total is not None
    return total


def coefficients(inner: Inner, cut: float = CUT) -> Tensor:
    """M⁺ a, (n,): the weights of the gradients whose sum is P_G θ.

    Args:
        inner: M and a of all weights. A common factor on both changes nothing.
        cut: relative eigenvalue below which a direction of G counts as rounding, in [0, 1).

    Raises:
        DivergedError: if a gradient is not finite.
    """
    if not bool(torch.isfinite(inner.gram).all() & torch.isfinite(inner.along).all()):
        raise DivergedError("The gradients of the outputs are not finite: the weights have grown too large. Lower `lr`.")
    values, vectors = torch.linalg.eigh(inner.gram)
    kept = values > cut * values[-1].clamp_min(0)
    inverse = torch.where(kept, 1 / torch.where(kept, values, 1.0), 0.0)
    solution: Tensor = vectors @ (inverse * (vectors.T @ inner.along))
    return solution


def combined(rows: Tensor, coefficients: Tensor) -> Tensor:
    """Σ_i c_i g_i for one tensor of the weights, summed in float64.

    Args:
        rows: (n, ...).
        coefficients: c, (n,) float64.

    Returns:
        (...), in the type of `rows`.
    """
    return torch.cat([(coefficients @ part).to(rows) for part in _in_float64(rows)]).view(rows.shape[1:])


def step_towards(weights: Sequence[Tensor], projected: Sequence[Tensor], kappa: float) -> None:
    """θ ← θ − κ (θ − P_G θ) in place, κ in [0, 1].

    It minimises ‖θ + Δ‖² + λ ‖Δ‖² over Δ ⊥ G, with κ = 1 / (1 + λ).
    """
    for weight, target in zip(weights, projected, strict=True):
        # Through .data: a graph that was made before must still go backward, through the new weights, where a caller wants that.
        weight.data.lerp_(target, kappa)


def project(engine: Engine, model: nn.Module, ask: Ask, batch: Batch, kappa: float, *, joint: bool = False, cut: float = CUT) -> int:
    """θ ← θ − κ (θ − P_G θ) in place, where G is spanned by the gradients of what `ask` says about a batch, and θ is all that requires gradients.

    With several processes that hold the same weights, G is spanned by the samples of all of them, and all make the same step.

    Args:
        engine: its processes.
        model: what is changed; perhaps wrapped.
        ask: numbers per sample, (B, K), of model and batch.
        batch: the samples.
        kappa: κ in [0, 1].
        joint: batch normalisation takes its statistics from the batch, as far as its layers are in train mode, and follows them; else its own.
        cut: see `coefficients`.

    Returns:
        How many gradients span G.

    Raises:
        DivergedError: if a gradient is not finite.
    """
    plain = engine.accelerator.unwrap_model(model)
    named = {name: parameter for name, parameter in plain.named_parameters() if parameter.requires_grad}
    numbers = numbers_of(plain, ask, batch, joint=joint)
    most = int(_gathered(engine, torch.tensor([numbers.count], device=engine.device)).max())  # processes may have different numbers of samples
    groups = list(_groups(named, most * engine.accelerator.num_processes))
    held: dict[str, Tensor] = {}
    parts = []
    for group in groups:
        held = {name: _gathered(engine, rows) for name, rows in numbers.gradients(group).items()}
        parts.append(inner_products(held.values(), [named[name] for name in group]))
    # Over the processes too: a sum over their shards of the weights or, where all hold the same, a common factor, which changes nothing.
    inner = Inner(*(_summed(engine, torch.stack(sums).sum(dim=0)) for sums in zip(*parts, strict=True)))
    solution = coefficients(inner, cut)
    if len(groups) == 1:
        projected = [combined(rows, solution) for rows in held.values()]
    else:
        del held
        own = solution[engine.accelerator.process_index * most :][: numbers.count]
        projected = [_summed(engine, tensor) for tensor in numbers.weighted(own, list(named)).values()]
    step_towards(list(named.values()), projected, kappa)
    return len(solution)


def _groups(named: dict[str, nn.Parameter], n: int) -> Iterator[list[str]]:
    """Names in order, so many together that n gradients of them stay below the limit."""
    group: list[str] = []
    size = 0
    for name, parameter in named.items():
        if group and size + n * parameter.numel() > ROWS_LIMIT:
            yield group
            group, size = [], 0
        group.append(name)
        size += n * parameter.numel()
    yield group


def _gathered(engine: Engine, rows: Tensor) -> Tensor:
    """The gradients of all processes; a process with fewer adds gradients of 0, which span nothing."""
    if engine.accelerator.num_processes == 1:
        return rows
    gathered = engine.accelerator.gather(engine.accelerator.pad_across_processes(rows, dim=0))
    assert isinstance(gathered, Tensor)
    return gathered


def _summed(engine: Engine, tensor: Tensor) -> Tensor:
    if engine.accelerator.num_processes == 1:
        return tensor
    summed = engine.accelerator.reduce(tensor, reduction="sum")
    assert isinstance(summed, Tensor)
    return summed


def _in_float64(rows: Tensor) -> Iterator[Tensor]:
    """Pieces (n, c) of n gradients, side by side, each in the same buffer."""
    buffer = torch.empty(len(rows) * _width(rows), dtype=torch.float64, device=_place(rows.device))
    for part in torch.split(rows.detach().flatten(1), _width(rows), dim=1):
        yield buffer[: part.numel()].view(part.shape).copy_(part)


def _width(rows: Tensor) -> int:
    most = _BUFFER if rows.device.type in {"cpu", "mps"} else _BUFFER_ELSEWHERE
    return max(1, min(rows[0].numel(), most // len(rows)))


def _place(device: torch.device) -> torch.device:
    """Where there is float64: not on Apple's graphics processors."""
    return torch.device("cpu") if device.type == "mps" else device
