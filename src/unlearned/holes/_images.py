"""The same look for image classifiers: neighbours of what was forgotten in the original's own geometry. Ours; the paper is about language models.

Adjacent: test images, not of a forgotten class, that are nearest to the forget set by the cosine of the original's penultimate features. Latent: these and
other test images with noise, blur or a shift, and mixtures of two of one class. The score of a model is 1 + 9 p(true class). A probe is fair if the original is
right. Where whole classes are forgotten, images of these classes are none.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unlearned.data.samples import ColumnRows, Samples
from unlearned.engine.progress import progress_bar
from unlearned.engine.randomness import derive_seed
from unlearned.evidence.statistics import Array
from unlearned.evidence.subject import Subject
from unlearned.holes._probing import Kind, Probed, Probing
from unlearned.holes._ratings import score_of
from unlearned.records import SubjectName
from unlearned.settings import Settings

Change = Callable[[Tensor, Tensor, np.random.Generator], Tensor]


class ImageProbing(Settings):
    """Settings of the look for holes in image classifiers."""

    neighbours: int = Field(200, ge=1, description="Adjacent probes at most.")
    variants: int = Field(4, ge=0, description="Latent probes that are made from each of so many images, one of each kind in turn.")


def noise(image: Tensor, other: Tensor, random: np.random.Generator) -> Tensor:
    """X + 0.3 s ε, s the standard deviation of x."""
    del other
    return image + 0.3 * image.std() * torch.from_numpy(random.standard_normal(image.shape)).to(image)


def blur(image: Tensor, other: Tensor, random: np.random.Generator) -> Tensor:
    """Means over 3 × 3 pixels; at the edge over those that there are."""
    del other, random
    return torch.nn.functional.avg_pool2d(image[None], 3, stride=1, padding=1, count_include_pad=False)[0]


def shift(image: Tensor, other: Tensor, random: np.random.Generator) -> Tensor:
    """By one pixel in a random direction; the edge is repeated."""
    del other
    down, right = random.permutation([(-1, 0), (1, 0), (0, -1), (0, 1)])[0]
    padded = torch.nn.functional.pad(image[None], (1, 1, 1, 1), mode="replicate")[0]
    height, width = image.shape[-2:]
    return padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]


def mixture(image: Tensor, other: Tensor, random: np.random.Generator) -> Tensor:
    """λ x + (1 − λ) x', λ uniform in [0.5, 0.8], x' of the same class."""
    weight = float(random.uniform(0.5, 0.8))
    return weight * image + (1 - weight) * other


CHANGES: dict[str, Change] = {"noise": noise, "blur": blur, "shift": shift, "mixture": mixture}


def forgotten_classes(subject: Subject) -> set[int]:
    """Classes of the forget set of which the retain set has none."""
    return set(map(int, subject.problem.forget.fact("label"))) - set(map(int, subject.problem.retain.fact("label")))


def probe_images(subject: Subject, how: ImageProbing) -> Probing:
    """Probes of both kinds with the scores of all models."""
    problem, engine = subject.problem, subject.engine
    task = engine.task
    gone = forgotten_classes(subject)
    candidates = _right(subject, problem.test.subset(i for i, label in enumerate(problem.test.fact("label")) if int(label) not in gone))
    if len(candidates):
        nearness = (_directions(subject, candidates) @ _directions(subject, problem.forget).T).max(axis=1)
        candidates = candidates.subset(np.argsort(-nearness, kind="stable"))
    adjacent = candidates.subset(range(min(how.neighbours, len(candidates))))
    changed = _changed(adjacent, how.variants, derive_seed(engine.seed, "knowledge-holes"))
    probed = []
    with progress_bar("knowledge-holes", 2, engine.show_progress) as bar:
        looks: tuple[tuple[Kind, Samples, int], ...] = (("adjacent", adjacent, len(candidates)), ("latent", _right(subject, changed), len(changed)))
        for kind, samples, tried in looks:
            values: dict[SubjectName, list[Array]] = {"original": [], "unlearned": [], "reference": []}
            for who, model in subject.models():
                values[who].append(np.array([score_of(p) for p in engine.evaluate(model, samples, task.knowledge).tolist()]))
            calls, names = len(changed) if kind == "latent" else 0, samples.ids
            probed.append(Probed(kind, names, values, _directions(subject, samples), calls, tried, known=[True] * len(names), fair=names))
            bar.step()
    return Probing(probed, {"judge": "probability of the true class", "searcher": "neighbours and changed images (not the paper's)"}, 0, 0)


def _right(subject: Subject, samples: Samples) -> Samples:
    """Those that the original classifies rightly."""
    if not len(samples):
        return samples
    return samples.subset(np.flatnonzero(subject.engine.evaluate(subject.problem.original.model, samples, subject.engine.task.utility).numpy() > 0))


def _directions(subject: Subject, samples: Samples) -> Array:
    """The original's features, rows of length 1."""
    if not len(samples):
        return np.zeros((0, 1))
    features = subject.engine.evaluate(subject.problem.original.model, samples, subject.engine.task.features)
    return torch.nn.functional.normalize(features, dim=1).numpy()


def _changed(samples: Samples, variants: int, seed: int) -> Samples:
    """So many changed versions of each image, of one kind after the other."""
    random = np.random.default_rng(seed)
    rows = [samples[i] for i in range(len(samples))]
    by_class: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        by_class.setdefault(int(row["labels"]), []).append(i)
    images, labels, names = [], [], []
    kinds = list(CHANGES)
    for i, (name, row) in enumerate(zip(samples.ids, rows, strict=True)):
        for variant in range(variants):
            kind = kinds[(i + variant) % len(kinds)]
            other = rows[int(random.choice(by_class[int(row["labels"])]))]
            images.append(CHANGES[kind](row["pixel_values"], other["pixel_values"], random).to(row["pixel_values"].dtype))
            labels.append(row["labels"])
            names.append(f"{name}, {kind} {variant}")
    return Samples(ColumnRows({"pixel_values": images, "labels": labels}), names, {"label": [int(label) for label in labels]})
