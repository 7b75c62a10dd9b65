"""Inner solvers of min–max objectives: what is done to a decoder's activations while its forget loss is taken, so that it has to forget also then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine, evaluating
from unlearned.engine.loop import Step
from unlearned.engine.randomness import derive_seed
from unlearned.methods._method import Measure
from unlearned.problem import Problem
from unlearned.tasks._decoders import changed_states
from unlearned.tasks._directions import Direction, Positions, ablated, at_last, block_inputs, directions_between, last_prompt_inputs
from unlearned.tasks._task import Batch


class Adversary(Protocol):
    """An inner solver."""

    def begin(self, model: nn.Module, now: Step) -> None:
        """Called before each step with the model as it is then."""

    def attacking(self, model: nn.Module, batch: Batch) -> AbstractContextManager[None]:
        """While it lasts the model runs attacked on this batch; afterwards nothing is left of it, also after an exception."""


class RefusalFeature(Adversary):
    """Removes the direction along which forget prompts differ from retain prompts, measured anew every few steps on fresh samples.

    Trackers are given the mean over blocks of ‖r‖ / mean ‖h‖ over the retain prompts, and of the cosine between r̂ and what it was before: where the model
    treats both kinds of prompts alike, the first is small and the second wanders, and what is removed is noise.

    Args:
        problem: has the prompts.
        engine: computes; its seed decides which prompts.
        memory: keeps the directions between refreshes and through interruptions.
        layers: blocks whose inputs are changed.
        every: steps between refreshes.
        count: prompts of either kind, as far as there are.
        positions: which tokens.
        keep_retain: the component becomes that of the retain prompts on average, in the place of 0.
        title: for trackers.
    """

    def __init__(
        self,
        problem: Problem,
        engine: Engine,
        memory: dict[str, Tensor],
        *,
        layers: Sequence[int],
        every: int,
        count: int,
        positions: Positions,
        keep_retain: bool,
        title: str,
    ) -> None:
        self._problem, self._engine, self._memory = problem, engine, memory
        self._layers, self._every, self._count, self._positions, self._keep_retain = layers, every, count, positions, keep_retain
        self._title = title

    def begin(self, model: nn.Module, now: Step) -> None:
        if now.done % self._every:
            return
        forget = self._states(model, "forget", self._problem.forget, now.done)
        retain = self._states(model, "retain", self._problem.retain, now.done)
        found = directions_between(forget, retain, keep_second=self._keep_retain)
        units, before = torch.stack([direction.unit for direction in found]), self._memory.get("refusal/unit")
        told = {"feature_size": _apart(forget.detach().float(), retain.detach().float())}
        if before is not None:
            told["feature_cosine"] = float((units.float() * before.to(units).float()).sum(dim=-1).mean())
        self._engine.track(self._title, told, now.done + 1)
        self._memory["refusal/unit"] = units
        self._memory["refusal/level"] = torch.stack([direction.level for direction in found])

    def attacking(self, model: nn.Module, batch: Batch) -> AbstractContextManager[None]:
        units, levels = self._memory["refusal/unit"], self._memory["refusal/level"]
        directions = {layer: Direction(units[i], levels[i]) for i, layer in enumerate(self._layers)}
        return ablated(model, directions, self._positions, batch["prompt_length"])

    def _states(self, model: nn.Module, name: str, samples: Samples, step: int) -> Tensor:
        """Of the model as it is now, on as many random prompts, (N, L, q)."""
        random = np.random.default_rng(derive_seed(self._engine.seed, "refusal feature", name, step))
        some = samples.subset(random.permutation(len(samples))[: self._count])
        with evaluating(model):
            return torch.cat([last_prompt_inputs(model, self._layers, batch) for batch in self._engine.batches(some)])


def _apart(first: Tensor, second: Tensor) -> float:
    """‖mean(first) − mean(second)‖ / mean ‖second‖, mean over places, of (N, L, q) and (M, L, q)."""
    sizes = torch.linalg.vector_norm(second, dim=-1).mean(dim=0).clamp_min(1e-30)
    return float((torch.linalg.vector_norm(first.mean(dim=0) - second.mean(dim=0), dim=-1) / sizes).mean())


class ProjectedGradient(Adversary):
    """Adds to the input of one block what raises the forget loss the most, within a ball around each token's hidden state.

    Args:
        losses: of model and batch, (B,).
        layer: the block; in front of block 0 are the embeddings.
        radius: of each ball, as a share of the norm of the hidden state at its centre.
        steps: of the ascent.
        positions: which tokens.
    """

    def __init__(self, losses: Measure, *, layer: int, radius: float, steps: int, positions: Positions) -> None:
        self._losses, self._layer, self._radius, self._steps, self._positions = losses, layer, radius, steps, positions

    def begin(self, model: nn.Module, now: Step) -> None:
        del model, now

    @contextmanager
    def attacking(self, model: nn.Module, batch: Batch) -> Iterator[None]:
        def loss(delta: Tensor) -> Tensor:
            with changed_states(model, {self._layer: lambda hidden: hidden + delta}, at="input"):
                return self._losses(model, batch).sum()

        with evaluating(model):
            hidden = block_inputs(model, [self._layer], batch)[:, :, 0]
            mask = batch["attention_mask"].bool()
            if self._positions == "last":
                mask = at_last(mask, batch["prompt_length"])
            radii = self._radius * torch.linalg.vector_norm(hidden, dim=-1) * mask
            delta = ascend(loss, torch.zeros_like(hidden), radii, self._steps)
        with changed_states(model, {self._layer: lambda hidden: hidden + delta}, at="input"):
            yield


def ascend(loss: Callable[[Tensor], Tensor], start: Tensor, radii: Tensor, steps: int) -> Tensor:
    """Projected gradient ascent on δ with ‖δ_t‖ ≤ radius_t: δ_t ← projection of δ_t + η radius_t g_t / ‖g_t‖, with η = 2.5 / steps. Detached, (B, T, q).

    Args:
        loss: of δ, a scalar; what is raised.
        start: δ at the start, (B, T, q).
        radii: (B, T).
        steps: of the ascent.
    """
    delta = start
    for _ in range(steps):
        asked = delta.detach().requires_grad_()
        with torch.enable_grad():
            [gradient] = torch.autograd.grad(loss(asked), [asked])
        norm = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
        moved = delta + 2.5 / steps * radii[..., None] * torch.where(norm > 0, gradient / torch.where(norm > 0, norm, 1), 0)
        length = torch.linalg.vector_norm(moved, dim=-1)
        delta = moved * torch.where(length > radii, radii / torch.where(length > 0, length, 1), 1)[..., None]
    return delta.detach()
