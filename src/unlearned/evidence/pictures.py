"""Rows of generated images for the report: the same prompts and the same noise for every model."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.evidence.subject import Subject
from unlearned.records import Picture, SubjectName
from unlearned.tasks.image_generation import ImageGeneration


def strip(images: Tensor) -> str:
    """Images (N, C, H, W) in [0, 1] side by side, with a column of white between them, as a PNG in base64."""
    whole = (images.nan_to_num(0).clamp(0, 1) * 255).round().to(torch.uint8)
    padded = torch.nn.functional.pad(whole, (0, 1), value=255)
    row = torch.cat(list(padded), dim=2)[:, :, :-1]
    pixels = row[0] if len(row) == 1 else row.permute(1, 2, 0)
    with io.BytesIO() as file:
        Image.fromarray(pixels.cpu().numpy()).save(file, "PNG", optimize=True)
        return base64.b64encode(file.getvalue()).decode()


def show(subject: Subject, models: Sequence[tuple[SubjectName, nn.Module]], samples: Samples, split: str, *, after: str | None = None) -> None:
    """Add rows of images to what the report shows: one for each of the models, of the references only the first.

    Args:
        subject: collects the rows; nothing is added where the task generates no images, or there are no samples.
        models: whose images.
        samples: whose prompts and noise, one image each.
        split: the set that they are of.
        after: an attack, in words.
    """
    task = subject.engine.task
    if not isinstance(task, ImageGeneration) or not len(samples):
        return
    shown: set[SubjectName] = set()
    for who, model in models:
        if who not in shown:
            images = subject.engine.evaluate(model, samples, lambda model, batch: task.images(model, batch).nan_to_num(0))
            subject.pictures.append(Picture(split=split, subject=who, after=after, count=len(samples), png=strip(images)))
        shown.add(who)


def first_of_each(samples: Samples, most: int) -> Samples:
    """The first sample of each class, in order of the classes, at most so many."""
    firsts: dict[int, int] = {}
    for i, label in enumerate(samples.fact("label")):
        firsts.setdefault(int(label), i)
    return samples.subset([i for _, i in sorted(firsts.items())][:most])
