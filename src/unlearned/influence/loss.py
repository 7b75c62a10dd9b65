"""Loss: a control. Points that the model answers well are taken for points that matter little.

Paper: none; a usual baseline.
Formula: s(z) = ℓ(z; θ).
Defaults: none.
Deviations: none.
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


@dataclass(frozen=True)
class _Losses:
    model: nn.Module

    def __call__(self, engine: Engine, samples: Samples, start: int) -> Tensor:
        del start
        return engine.evaluate(self.model, samples, engine.task.losses)


@scores.register("loss")
class Loss(Score):
    """Loss of each point."""

    name: ClassVar[str] = "loss"

    def rate(self, grounds: Grounds, engine: Engine) -> Values:
        return Values(over_pieces(engine, grounds.points, _Losses(grounds.original.model), engine.compute.batch_size))
