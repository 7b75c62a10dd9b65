"""Gradient norm: points whose loss hardly pulls at the weights.

Paper: Kleiman et al. 2025, arXiv 2512.05254, name "Lowest Gradients" as one of three scores; which norm they mean is not known to us.
Formula: s(z) = ‖∇ℓ(z; θ)‖₂, of all parameters, which costs a forward and a backward pass for a batch of
samples, or of the last layer alone, where it is ‖p − e_y‖ ‖[h, 1]‖ and costs a forward pass.
Defaults of the authors: not known.
Deviations: none known. In a network that fits its training data all gradients are near 0, and the lowest are those of easy, typical points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine, on_device
from unlearned.engine.gradient_norms import gradient_norms as norms_of_samples
from unlearned.engine.sample_gradients import over_pieces, trained_names
from unlearned.influence import scores
from unlearned.influence._last_layer import gradient_norms, seen
from unlearned.influence._score import Grounds, Score, Values
from unlearned.settings import Pattern


@dataclass(frozen=True)
class _Last:
    model: nn.Module

    def __call__(self, engine: Engine, samples: Samples, start: int) -> Tensor:
        del start
        with on_device(self.model, engine.device):
            return torch.cat([gradient_norms(part.residuals, part.inputs).cpu() for part in seen(engine, self.model, samples)])


@dataclass(frozen=True)
class _All:
    model: nn.Module
    names: tuple[str, ...]

    def __call__(self, engine: Engine, samples: Samples, start: int) -> Tensor:
        del start
        with on_device(self.model, engine.device):
            return norms_of_samples(engine, self.model, samples, self.names)


@scores.register("gradient-norm")
class GradientNorm(Score):
    """Norm of the loss gradient of each point."""

    name: ClassVar[str] = "gradient-norm"
    layer: Literal["auto", "last", "all"] = Field("auto", description="Of the last layer, of all parameters, or auto: of the last layer of a classifier.")
    parameters: Pattern = Field(".*", description="With layer all: a regular expression for the names of the parameters that count.")

    def rate(self, grounds: Grounds, engine: Engine) -> Values:
        model = grounds.original.model
        classifier = engine.task.name == "image-classification"
        if self.layer == "last" or (self.layer == "auto" and classifier):
            return Values(over_pieces(engine, grounds.points, _Last(model), engine.compute.batch_size))
        names = trained_names(model, self.parameters, "parameters")
        return Values(over_pieces(engine, grounds.points, _All(model, tuple(names))))
