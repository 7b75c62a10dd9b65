"""Small trained classifiers in float64, and their parts as dense matrices."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tests.models import digits, made
from unlearned.api import make_problem
from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.engine.training import Training
from unlearned.influence._rank import grounds_of
from unlearned.influence._score import Grounds
from unlearned.problem import Problem
from unlearned.tasks._task import Batch, Bundle

CLASSES = 3
TRAINING = Training(optimizer="sgd", lr=0.1, batch_size=8, epochs=3, momentum=0.9, schedule="cosine")


def samples(start: int, count: int, name: str, classes: int = CLASSES) -> Samples:
    """Digits below `classes`, averaged to 4 x 4 pixels, in float64."""
    pixels, labels = digits()
    chosen = torch.nonzero(labels < classes)[:, 0][start : start + count]
    images = nn.functional.avg_pool2d(pixels[chosen][:, None].double(), 2)
    rows = [{"pixel_values": image, "labels": label} for image, label in zip(images, labels[chosen], strict=True)]
    return Samples(rows, [f"{name}{i}" for i in range(count)], {"label": labels[chosen].tolist()})


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, CLASSES))


def convolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(8, CLASSES))


def transposed_perceptron() -> nn.Module:
    """`perceptron` in the layers of GPT-2, whose weights go from input to output."""
    return nn.Sequential(nn.Flatten(), Conv1D(5, 16), nn.Tanh(), Conv1D(CLASSES, 5))


def softmax_regression() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))


class Small(NamedTuple):
    problem: Problem
    grounds: Grounds
    engine: Engine

    @property
    def model(self) -> nn.Module:
        return self.problem.original.model

    @property
    def batch(self) -> Batch:
        points = self.grounds.points
        return self.engine.task.collate([points[i] for i in range(len(points))])

    def losses(self, weights: dict[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(self.logits(weights), self.batch["labels"], reduction="none")

    def logits(self, weights: dict[str, Tensor]) -> Tensor:
        out: Tensor = torch.func.functional_call(self.model, weights, (self.batch["pixel_values"],))
        return out


@functools.cache
def small(make: Callable[[], nn.Module] = perceptron, count: int = 12, seed: int = 1) -> Small:
    """In float64; two points are to be forgotten."""
    train = samples(0, count, "d")
    given: dict[str, Any] = {"train": train, "test": samples(100, 6, "t"), "validation": samples(110, 6, "v"), "forget": train.ids[:2]}
    problem = make_problem(Bundle(made(make, seed).double()), **given)
    engine = Engine(problem.task)
    found = Small(problem, grounds_of(problem, engine, TRAINING)[0], engine)
    assert found.batch["pixel_values"].dtype == torch.float64
    return found


def flat(weights: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in weights.values()])


def named(case: Small, vector: Tensor) -> dict[str, Tensor]:
    """The other way round from `flat`."""
    own = dict(case.model.named_parameters())
    parts = vector.split([weight.numel() for weight in own.values()])
    return {name: part.view(own[name].shape) for name, part in zip(own, parts, strict=True)}


def minimised(case: Small, penalty: float, kept: Tensor, start: Tensor) -> Tensor:
    """θ of (1/n) Σ_z kept_z ℓ_z + penalty/2 ‖θ‖², from `start` by Newton's method to a gradient of 1e-10."""

    def objective(vector: Tensor) -> Tensor:
        return (case.losses(named(case, vector)) * kept).sum() / len(kept) + penalty / 2 * vector.square().sum()

    slope, curved = torch.func.grad(objective), torch.func.jacrev(torch.func.jacrev(objective))
    while float(slope(start).norm()) > 1e-10:
        start = start - torch.linalg.solve(curved(start), slope(start))
    return start


def dense_gauss_newton(case: Small) -> Tensor:
    """(1/n) Σ Jᵀ (diag(p) − p pᵀ) J by a loop over samples and reverse-mode Jacobians."""
    weights = {name: p.detach() for name, p in case.model.named_parameters()}
    jacobians = torch.func.jacrev(case.logits)(weights)
    n = len(case.batch["labels"])
    p = case.logits(weights).softmax(1)
    size = sum(tensor.numel() for tensor in weights.values())
    total = torch.zeros(size, size, dtype=torch.float64)
    for i in range(n):
        j = torch.cat([jacobians[name][i].flatten(1) for name in weights], dim=1)
        total += j.T @ (torch.diag(p[i]) - torch.outer(p[i], p[i])) @ j
    return total / n


def dense_gradients(case: Small) -> Tensor:
    """∇ℓ_z as rows, (n, d), by one backward pass for each."""
    weights = {name: p.detach() for name, p in case.model.named_parameters()}
    jacobian = torch.func.jacrev(case.losses)(weights)
    return torch.cat([jacobian[name].flatten(1) for name in weights], dim=1)
