"""Pruning: remove the smallest weights and watch what the model still shows of the forget set.

Unlearning often adds small changes on top of weights that still hold the knowledge; an attacker may cut them off. A retrained model, pruned in the same way,
shows how much of a rise is chance; the original's curve shows when pruning destroys the knowledge itself.
Paper: magnitude pruning, Han et al. 2015, arXiv 1506.02626; here in one step, without training afterwards.
Formula: of all N chosen weights together, the round(share · N) smallest in magnitude become 0, and with them those that tie with the largest of these.
`channels`: the same for whole output channels, ranked by the root mean square of their weights, so that channels of different size can be compared; a channel's
bias becomes 0, too. The layer that runs last is left alone: its channels are the model's answer.
Findings: `knowledge` on split `forget`, with the share pruned in percent as the budget, for all models, and `retention`. A weight that layers share counts as
that of the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.attacks import attacks
from unlearned.attacks._attack import Attack
from unlearned.attacks._curves import curves_of, findings_of_knowledge, knowledge_of
from unlearned.attacks._weights import Kind, Weight, altered, weight_of, weights_of
from unlearned.evidence.comparison import absent
from unlearned.evidence.statistics import Array
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Finding

_TENTHS = tuple(i / 10 for i in range(10))


def largest(tensors: Sequence[Tensor], share: float) -> list[Tensor]:
    """Masks of what stays: True for all entries but the round(share · N) smallest in magnitude of the N in all tensors together, and what ties with these.

    Args:
        tensors: of any shapes, at least one entry.
        share: of the entries to leave out, in [0, 1).
    """
    magnitudes = torch.cat([tensor.abs().flatten() for tensor in tensors])
    count = round(share * len(magnitudes))
    if count == 0:
        return [torch.ones_like(tensor, dtype=torch.bool) for tensor in tensors]
    threshold = magnitudes.kthvalue(count).values
    return [tensor.abs() > threshold for tensor in tensors]


def channel_sizes(weight: Tensor, channels: int) -> Tensor:
    """Root mean square over each output channel, (C,); `channels` is the dimension that counts them."""
    return weight.movedim(channels, 0).flatten(1).square().mean(dim=1).sqrt()


@attacks.register("prune")
class Prune(Attack):
    """Remove the smallest weights, or whole channels; measure knowledge of the forget set."""

    name: ClassVar[str] = "prune"
    shares: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = Field(_TENTHS, min_length=1, description="Shares of the weights to remove, each in [0, 1).")
    structure: Literal["weights", "channels"] = Field("weights", description="Remove single weights, or whole output channels.")
    layers: tuple[Kind, ...] = Field(
        ("linear", "convolution"), min_length=1, description="Layers whose weights are pruned: linear, convolution, embedding. Embeddings have no channels."
    )

    def measure(self, subject: Subject) -> list[Finding]:
        original = subject.problem.original.model
        names = [weight.name for weight in weights_of(original, self.layers)]
        if self.structure == "channels":
            spared = {_last_to_run(subject), *(weight.name for weight in weights_of(original, ("embedding",)))}
            names = [name for name in names if name not in spared]
        if not names:
            what = "channels" if self.structure == "channels" else "weights"
            reason = f"the model has no {what} of {' or '.join(self.layers)} layers to remove"
            return [absent(self.name, "knowledge", "forget", reason, unit="share", kind="attack")]
        shares = sorted({0.0, *self.shares})

        def curve(model: nn.Module) -> list[Array]:
            pruned = (altered(model, partial(self._prune, names, share)) if share else model for share in shares)
            return [knowledge_of(subject, each, subject.problem.forget) for each in pruned]

        return findings_of_knowledge(subject, self.name, "forget", curves_of(subject, curve), [round(100 * share, 6) for share in shares], "% pruned")

    def evaluations(self, problem: Problem) -> int:
        del problem
        return len({0.0, *self.shares})

    def _prune(self, names: list[str], share: float, weights: list[Weight]) -> None:
        chosen = [weight for weight in weights if weight.name in names]
        if self.structure == "weights":
            for weight, stays in zip(chosen, largest([weight.tensor for weight in chosen], share), strict=True):
                weight.tensor.mul_(stays)
            return
        for weight, stays in zip(chosen, largest([channel_sizes(weight.tensor, weight.channels) for weight in chosen], share), strict=True):
            weight.tensor.movedim(weight.channels, -1).mul_(stays)
            if isinstance(weight.layer.bias, nn.Parameter):
                weight.layer.bias.mul_(stays)


def _last_to_run(subject: Subject) -> str:
    """The layer with a weight that runs last in the original."""
    ran: list[str] = []
    model, one = subject.problem.original.model, subject.problem.forget.subset(range(1))
    layers = {name: layer for name, layer in model.named_modules() if weight_of(name, layer) is not None}
    handles = [layer.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, layer in layers.items()]
    try:
        subject.engine.evaluate(model, one, subject.engine.task.losses)
    finally:
        for handle in handles:
            handle.remove()
    return ran[-1]
