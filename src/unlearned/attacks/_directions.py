"""Directions in the residual stream along which forgetting may have moved a model."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.errors import InputError
from unlearned.evidence.subject import Subject
from unlearned.tasks._decoders import blocks_of, down_projection, last_prompt_token, matrix_of, projection_inputs, prompt_states
from unlearned.tasks._task import Batch, exactly


def mean_states(subject: Subject, model: nn.Module, samples: Samples, at: Literal["input", "output"] = "output") -> Tensor:
    """Mean residual stream at the last prompt token in front of each block or behind it, (L, q), in float64 on the CPU."""
    return subject.engine.evaluate(model, samples, partial(prompt_states, at=at)).mean(dim=0)


def edited_layers(original: nn.Module, unlearned: nn.Module) -> dict[int, Tensor]:
    """What was added to the down-projection of each block, (q, p), where the two models differ in some of these and in nothing else; else nothing."""
    before, after = (dict(model.named_parameters()) for model in (original, unlearned))
    if before.keys() != after.keys():
        return {}
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name].to(weight.device))}
    names = {id(weight): name for name, weight in before.items()}
    found: dict[int, Tensor] = {}
    for layer in range(len(blocks_of(original))):
        try:
            projections = [down_projection(model, layer) for model in (original, unlearned)]
        except InputError:
            return {}
        name = names[id(projections[0].weight)]
        if name in changed:
            changed.remove(name)
            found[layer] = (matrix_of(projections[1]).cpu() - matrix_of(projections[0]).cpu()).detach()
    return {} if changed else found


def directions_of_the_edit(subject: Subject) -> dict[int, Tensor]:
    """By how much the edit moves the residual stream behind each edited block at the last token of a forget prompt, on average: mean ΔW h, (q,).

    Of an edit of rank one, ΔW = c r uᵀ, it is c r times the mean of u · h, which is 1 where the least squares are exact.
    """
    added = edited_layers(subject.problem.original.model, subject.unlearned.model)

    def moved(model: nn.Module, batch: Batch) -> Tensor:
        rows = projection_inputs(model, list(added), batch)
        inputs = [exactly(last_prompt_token(rows[layer], batch["prompt_length"])) for layer in added]
        return torch.stack([h @ change.to(h).T for h, change in zip(inputs, added.values(), strict=True)], dim=1)

    if not added:
        return {}
    return dict(zip(added, subject.engine.evaluate(subject.unlearned.model, subject.problem.forget, moved).mean(dim=0), strict=True))
