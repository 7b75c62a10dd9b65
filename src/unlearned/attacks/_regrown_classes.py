"""Regeneration for classifiers (ours): what lies between two references in pixels and in the model's own features, as the model sees it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlearned.attacks._regrown import arcs, made_of, point_by_point
from unlearned.data.samples import Row, Samples
from unlearned.engine.engine import evaluating, on_device
from unlearned.errors import InputError
from unlearned.evidence.subject import Subject
from unlearned.tasks._interpolation import slerp
from unlearned.tasks._task import Batch, Task


def seen_as(task: Task, model: nn.Module, start: Batch, wanted: Tensor, *, iterations: int, lr: float, within: tuple[float, float]) -> Tensor:
    """Images whose features are the wanted ones: argmin_x ‖φ(x) − φ*‖² / ‖φ*‖², by Adam from where `start` is, within a range of pixels (B, C, H, W).

    The image of a representation is found as by Mahendran and Vedaldi 2015 (arXiv 1412.0035); staying near the start is the regulariser.

    Args:
        task: gives φ.
        model: in eval mode; takes no gradients.
        start: a batch.
        wanted: φ*, (B, D).
        iterations: steps of Adam.
        lr: of Adam, in shares of the range of pixels.
        within: smallest and largest value of a pixel.
    """
    low, high = within
    pixels = start["pixel_values"].clone().requires_grad_()
    optimizer = torch.optim.Adam([pixels], lr=lr * max(high - low, 1e-12))
    scale = wanted.square().sum(dim=1).clamp(min=torch.finfo(wanted.dtype).tiny)
    for _ in range(iterations):
        features = task.features(model, {**start, "pixel_values": pixels})
        loss = ((features - wanted).square().sum(dim=1) / scale).sum()
        [pixels.grad] = torch.autograd.grad(loss, [pixels])
        optimizer.step()
        with torch.no_grad():
            pixels.clamp_(low, high)
    return pixels.detach()


@dataclass(frozen=True)
class RegrownClasses:
    """For each pair the points between, first mixed in pixels and then, where the model has features, moved to what it takes for the middle."""

    points: int
    iterations: int
    lr: float

    def __call__(self, subject: Subject, model: nn.Module, references: Samples) -> Samples:
        task, engine = subject.engine.task, subject.engine
        size = 2 * max(1, engine.compute.batch_size // self.points)
        # Of all pairs: what a pair becomes does not depend on those that happen to be computed beside it.
        ends = [between.aminmax() for between in (self._between(batch["pixel_values"]) for batch in engine.batches(references, size))]
        within = min(float(end.min) for end in ends), max(float(end.max) for end in ends)
        with on_device(model, engine.device), evaluating(model):
            rows = [self._of_pairs(task, model, batch, within) for batch in engine.batches(references, size)]
        return made_of([{name: value.cpu() for name, value in row.items()} for row in point_by_point(rows, self.points)], "regrown")

    def _between(self, of_pairs: Tensor) -> Tensor:
        """Point by point what lies between the two of each pair."""
        return torch.cat([slerp(of_pairs[0::2], of_pairs[1::2], u) for u in arcs(self.points)])

    def _of_pairs(self, task: Task, model: nn.Module, batch: Batch, within: tuple[float, float]) -> list[Row]:
        labels = batch["labels"][0::2].repeat(self.points)
        start = {"pixel_values": self._between(batch["pixel_values"]), "labels": labels}
        try:
            with torch.no_grad():
                features = task.features(model, batch)
        except (InputError, NotImplementedError):
            return [{name: value[i] for name, value in start.items()} for i in range(len(labels))]
        found = seen_as(task, model, start, self._between(features), iterations=self.iterations, lr=self.lr, within=within)
        return [{"pixel_values": image, "labels": label} for image, label in zip(found, labels, strict=True)]
