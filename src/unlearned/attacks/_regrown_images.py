"""MemoRa's steps 1 to 6 on diffusion models: references, inversion, interpolation, and what the model makes of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlearned.attacks._regrown import arcs, concepts_of, made_of, point_by_point
from unlearned.data.samples import Row, Samples
from unlearned.engine.engine import evaluating, on_device
from unlearned.engine.randomness import derive_seed, seeded
from unlearned.evidence.subject import Subject
from unlearned.tasks._interpolation import slerp
from unlearned.tasks.image_generation import ImageGeneration, crossing, ddim, denoiser_of, invert


def generated(subject: Subject, pairs: int, attack: str, *, steps: int, guidance: float, prompt: Tensor | None) -> Samples:
    """References that the original draws: of each forgotten class so many pairs, from noise that no measurement uses.

    Args:
        subject: gives the original, the forget set and the seed.
        pairs: of each class.
        attack: its name.
        steps: of DDIM.
        guidance: of classifier-free guidance.
        prompt: token ids (E, T) for all; None: that of most samples of the class.
    """
    problem, task = subject.problem, subject.engine.task
    assert isinstance(task, ImageGeneration)
    model = problem.original.model
    rows: list[Row] = []
    for label in sorted(set(concepts_of(problem.forget))):
        one = usual_row(problem.forget, label)
        columns = {"labels": one["labels"]} | ({} if "prompt" not in one else {"prompt": one["prompt"] if prompt is None else prompt})
        seeds = [derive_seed(subject.engine.seed, attack, "reference", label, i) for i in range(2 * pairs)]
        with on_device(model, subject.engine.device), evaluating(model), torch.no_grad():
            batch = {name: torch.stack([value] * len(seeds)).to(subject.engine.device) for name, value in columns.items()}
            noise = torch.stack([torch.randn(denoiser_of(model).latent_shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
            noise = noise.to(denoiser_of(model).alphas_cumprod)
            latents = ddim(model, noise, task.condition(model, batch), steps=steps, guidance=guidance)
            images = denoiser_of(model).decode(latents).cpu()
        rows += [columns | {"pixel_values": image, "noise_seed": torch.tensor(seed)} for image, seed in zip(images, seeds, strict=True)]
    return made_of(rows, "reference")


def usual_row(samples: Samples, label: int) -> Row:
    """The first of a class's samples whose prompt is the one that most of them have."""
    rows = [samples[i] for i, own in enumerate(concepts_of(samples)) if own == label]
    if "prompt" not in rows[0]:
        return rows[0]
    keys = [tuple(row["prompt"].flatten().tolist()) for row in rows]
    return rows[keys.index(Counter(keys).most_common(1)[0][0])]


@dataclass(frozen=True)
class RegrownImages:
    """Inversion, interpolation and denoising; all of it asks the attacked model, its text encoder and autoencoder included."""

    steps: int
    start: int
    points: int
    aligned: bool
    drawn: bool
    guidance: float
    inversion_guidance: float
    flip: bool

    def __call__(self, subject: Subject, model: nn.Module, references: Samples) -> Samples:
        task = subject.engine.task
        assert isinstance(task, ImageGeneration)
        size = 2 * max(1, subject.engine.compute.batch_size // self.points)  # whole pairs, so that at most `batch_size` images are denoised at once
        with on_device(model, subject.engine.device), evaluating(model), torch.no_grad():
            batches = enumerate(subject.engine.batches(references, size))
            made = point_by_point([self._of_pairs(subject, task, model, batch, number * size) for number, batch in batches], self.points)
        if self.flip:
            made += [{**row, "pixel_values": row["pixel_values"].flip(-1)} for row in made]
        return made_of([{name: value.cpu() for name, value in row.items()} for row in made], "regrown")

    def _of_pairs(self, subject: Subject, task: ImageGeneration, model: nn.Module, batch: dict[str, Tensor], first_of_all: int) -> list[Row]:
        inner = denoiser_of(model)
        where = crossing(self.steps, self.start, aligned=self.aligned)
        latents = []
        for number, image in enumerate(batch["pixel_values"], first_of_all):
            # Each from a seed of its own: a draw does not depend on what is drawn before it.
            with seeded(derive_seed(subject.engine.seed, "memora", "encode", number)):
                latents.append(inner.encode(image[None], drawn=self.drawn))
        z = torch.cat(latents)
        condition = task.condition(model, batch)
        states = invert(model, z, condition, steps=self.steps, guidance=self.inversion_guidance, last=where.taken)[-1]
        between = torch.cat([slerp(states[0::2], states[1::2], u) for u in arcs(self.points)])
        first = {name: value[0::2].repeat(self.points, *[1] * (value.ndim - 1)) for name, value in batch.items() if name != "pixel_values"}
        images = inner.decode(ddim(model, between, task.condition(model, first), steps=self.steps, guidance=self.guidance, begin=self.start))
        return [{"pixel_values": image} | {name: value[i] for name, value in first.items()} for i, image in enumerate(images)]
