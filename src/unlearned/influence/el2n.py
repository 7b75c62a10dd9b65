"""EL2N: how far the predicted distribution is from the label.

Paper: Paul et al. 2021, arXiv 2107.07075.
Formula: s(z) = ‖p − e_y‖₂, p the predicted distribution.
Defaults of the authors: the mean over networks early in their training.
Deviations: of the original model alone. For a text: the root of the mean of ‖p − e_y‖² over the tokens of its answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.engine.sample_gradients import over_pieces
from unlearned.influence import scores
from unlearned.influence._score import Grounds, Score, Values
from unlearned.tasks._task import Batch, finest


def el2n(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """√(Σ_m w_m ‖p_m − e_y‖²), (B,).

    Args:
        logits: (B, M, C).
        targets: (B, M).
        weights: (B, M).
    """
    p = logits.to(finest(logits.device)).softmax(dim=-1)
    true = p.gather(-1, targets[..., None])[..., 0]
    squares = p.square().sum(dim=-1) - 2 * true + 1
    return (weights * squares).sum(dim=1).clamp_min(0).sqrt()


@dataclass(frozen=True)
class _Distances:
    model: nn.Module

    def __call__(self, engine: Engine, samples: Samples, start: int) -> Tensor:
        del start

        def distance(model: nn.Module, batch: Batch) -> Tensor:
            return el2n(*engine.task.choices(model, batch))

        return engine.evaluate(self.model, samples, distance)


@scores.register("el2n")
class El2n(Score):
    """Distance of the prediction from the label."""

    name: ClassVar[str] = "el2n"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-classification", "text-generation"})

    def rate(self, grounds: Grounds, engine: Engine) -> Values:
        return Values(over_pieces(engine, grounds.points, _Distances(grounds.original.model), engine.compute.batch_size))
