"""A direction in the residual stream along which two kinds of prompts differ, and a model that runs without it.

The direction is a difference of means: what makes a model decline some prompts lies largely along one (Arditi et al. 2024, arXiv 2406.11717).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from unlearned.tasks._decoders import Change, changed_states, prompts_alone, run_batch, without_component
from unlearned.tasks._task import Batch, exactly

Positions = Literal["all", "last"]
"""Tokens at which a direction is removed: all, or the last of the prompt."""


class Direction(NamedTuple):
    """What is removed in front of one block. Detached: no gradient reaches it."""

    unit: Tensor
    """r̂ = r / ‖r‖, (q,); 0 where the two means are equal."""
    level: Tensor
    """What the component along r̂ becomes, ()."""


def directions_between(first: Tensor, second: Tensor, *, keep_second: bool = False) -> list[Direction]:
    """r̂ of r = mean(first) − mean(second) for each of L places, detached.

    Args:
        first: hidden states, (N, L, q).
        second: hidden states, (M, L, q).
        keep_second: the component becomes that of mean(second), so that what is removed is the difference alone; else 0.
    """
    here, there = exactly(first.detach()).mean(dim=0), exactly(second.detach()).mean(dim=0)
    r = here - there
    norm = torch.linalg.vector_norm(r, dim=-1, keepdim=True)
    # Means of equal states differ by rounding, which has no direction.
    real = norm > 1e-9 * (torch.linalg.vector_norm(here, dim=-1, keepdim=True) + torch.linalg.vector_norm(there, dim=-1, keepdim=True))
    units = torch.where(real, r / torch.where(real, norm, 1), 0)
    levels = (units * there).sum(dim=-1) if keep_second else torch.zeros_like(norm[..., 0])
    return [Direction(u.to(first), level.to(first)) for u, level in zip(units, levels, strict=True)]


@contextmanager
def ablated(model: nn.Module, directions: Mapping[int, Direction], positions: Positions = "all", prompt_length: Tensor | None = None) -> Iterator[None]:
    """While it lasts, each block of these numbers reads the residual stream without its direction; the hooks are gone afterwards, whatever happens.

    Args:
        model: a decoder.
        directions: by number of the block, from 0.
        positions: which tokens.
        prompt_length: for `last`, (B,).
    """

    def change(direction: Direction) -> Change:
        def without(hidden: Tensor) -> Tensor:
            changed = without_component(hidden, direction.unit.to(hidden), direction.level.to(hidden))
            if positions == "all":
                return changed
            assert prompt_length is not None
            return torch.where(at_last(hidden, prompt_length)[..., None], changed, hidden)

        return without

    with changed_states(model, {layer: change(direction) for layer, direction in directions.items()}, at="input"):
        yield


def at_last(tokens: Tensor, prompt_length: Tensor) -> Tensor:
    """Where the last token of each prompt stands, (B, T), in (B, T, ...)."""
    return torch.arange(tokens.shape[1], device=tokens.device)[None] == prompt_length[:, None] - 1


def block_inputs(model: nn.Module, layers: Sequence[int], batch: Batch) -> Tensor:
    """The residual stream in front of these blocks, (B, T, L, q), without gradients."""
    seen: dict[int, Tensor] = {}

    def keep(layer: int) -> Change:
        return lambda hidden: seen.setdefault(layer, hidden)

    with torch.no_grad(), changed_states(model, {layer: keep(layer) for layer in layers}, at="input"):
        run_batch(model, batch)
    return torch.stack([seen[layer] for layer in layers], dim=2)


def last_prompt_inputs(model: nn.Module, layers: Sequence[int], batch: Batch) -> Tensor:
    """What these blocks read at the last token of each prompt, (B, L, q), without gradients. Nothing behind the prompts is computed."""
    hidden = block_inputs(model, layers, prompts_alone(batch))
    return hidden[torch.arange(len(hidden), device=hidden.device), batch["prompt_length"] - 1]
