"""TracIn: how much steps on a point lowered the loss on the queries, over the checkpoints of a training.

Paper: Pruthi et al. 2020, NeurIPS, arXiv 2002.08484, TracInCP.
Formula: TracIn(z, q) = Σ_i η_i ∇ℓ(z; θ_i) · ∇ℓ(q; θ_i), η_i the learning rate at checkpoint i. Here: the mean over queries.
Defaults of the authors: checkpoints at equal steps of the training.
Deviations: the checkpoints are of the original's training, repeated with another seed. η_i is the mean over the checkpoint's epoch. Gradients are whole:
no random projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine, on_device
from unlearned.engine.sample_gradients import mean_gradient, over_pieces, sample_gradients, trained_names
from unlearned.errors import Fault
from unlearned.influence import scores
from unlearned.influence._score import Grounds, Score, Values, needs_training
from unlearned.influence.less import trajectory_of
from unlearned.settings import Pattern


@dataclass(frozen=True)
class Along:
    """⟨∇ℓ(z), v⟩ of each point, for one or several directions v."""

    model: nn.Module
    names: tuple[str, ...]
    directions: Tensor
    """(d,) or (d, Q)."""

    def __call__(self, engine: Engine, samples: Samples, start: int) -> Tensor:
        """(N,) or (N, Q)."""
        del start
        with on_device(self.model, engine.device):
            directions = self.directions.to(engine.device)
            return torch.cat([(rows @ directions.to(rows)).cpu() for rows in sample_gradients(engine, self.model, samples, self.names)])


@scores.register("tracin")
class TracIn(Score):
    """Inner products of gradients over checkpoints."""

    name: ClassVar[str] = "tracin"
    signed: ClassVar[bool] = True
    checkpoints: int = Field(4, ge=1, le=1000, description="States of the training that are looked at, in equal steps; the last is its end.")
    parameters: Pattern = Field(".*", description="A regular expression for the names of the parameters whose gradients count.")

    @property
    def asks(self) -> bool:
        return True

    def rate(self, grounds: Grounds, engine: Engine) -> Values:
        total = torch.zeros(len(grounds.points), dtype=torch.float64)
        with trajectory_of(grounds, engine, self.checkpoints, 1.0, None) as path:
            for snapshot in path:
                model = snapshot.model
                names = trained_names(model, self.parameters, "parameters")
                with on_device(model, engine.device):
                    query = mean_gradient(engine, model, grounds.queries, names).cpu()
                total = total + snapshot.lr * over_pieces(engine, grounds.points, Along(model, tuple(names), query))
        return Values(total)

    def faults(self, grounds: Grounds) -> list[Fault]:
        return needs_training(grounds, self.name)
