"""Regeneration for classifiers (ours): what lies between two references in pixels and in the model's own features, as the model sees it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlearned.attacks._regrown import arcs, made_of
from unlearned.data.samples import Row, Samples
from unlearned.engine.engine import evaluating, on_device
from unlearned.errors import InputError
from unlearned.evidence.subject import Subject
from unlearned.tasks._interpolation import slerp
from unlearned.tasks._task import Batch, Task


def seen_as(task: Task, model: nn.Module, start: Batch, wanted: Tensor, *, iterations: int, lr: float) -> Tensor:
    """Images whose features are the wanted ones: argmin_x ‖φ(x) − φ*‖² / ‖φ*‖², by Adam from where `start` is, within its range of pixels (B, C, H, W).

    The image of a representation is found as by Mahendran and Vedaldi 2015 (arXiv 1412.0035); staying near the start is the regulariser.

    Args:
        task: gives φ.
        model: in eval mode; takes no gradients.
        start: a batch.
        wanted: φ*, (B, D).
        iterations: steps of Adam.
        lr: of Adam, in shares of the range of pixels.
    """
    low, high = (float(end(start["pixel_values"])) for end in (torch.min, torch.max))
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
        task, rows = subject.engine.task, []
        size = 2 * max(1, subject.engine.compute.batch_size // self.points)
        with on_device(model, subject.engine.device), evaluating(model):
            for batch in subject.engine.batches(references, size):
                rows += self._of_pairs(task, model, batch)
        return made_of([{name: value.cpu() for name, value in row.items()} for row in rows], "regrown")

    def _of_pairs(self, task: Task, model: nn.Module, batch: Batch) -> list[Row]:
        images, labels = batch["pixel_values"], batch["labels"][0::2].repeat(self.points)
        start = {"pixel_values": torch.cat([slerp(images[0::2], images[1::2], u) for u in arcs(self.points)]), "labels": labels}
        try:
            with torch.no_grad():
                features = task.features(model, batch)
        except (InputError, NotImplementedError):
            return [{name: value[i] for name, value in start.items()} for i in range(len(labels))]
        wanted = torch.cat([slerp(features[0::2], features[1::2], u) for u in arcs(self.points)])
        found = seen_as(task, model, start, wanted, iterations=self.iterations, lr=self.lr)
        return [{"pixel_values": image, "labels": label} for image, label in zip(found, labels, strict=True)]
