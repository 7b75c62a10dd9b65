"""What the three modalities of a regeneration share: the concepts that an attacker is after, and pairs of references for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from unlearned.data.samples import ColumnRows, Row, Samples
from unlearned.engine.randomness import derive_seed
from unlearned.evidence.subject import Subject


class Regrowth(Protocol):
    """From a few references to more of the same, by what a model still knows."""

    def __call__(self, subject: Subject, model: nn.Module, references: Samples) -> Samples:
        """Training data that the model makes of references, which come pair by pair."""


class Divided(NamedTuple):
    """The forget set from the attacker's side."""

    references: Samples
    """An even number, pair by pair; those of a pair are of one concept."""
    rest: Samples
    """What is measured."""
    split: str
    """What that is called."""


def divide(subject: Subject, pairs: int, attack: str) -> Divided:
    """References out of the forget set: for each concept at most so many pairs, of four or more samples at most half, of three two, of fewer none.

    Args:
        subject: gives the set and the seed of the choice.
        pairs: of each concept.
        attack: its name.
    """
    forget = subject.problem.forget
    shuffled = forget.shuffled(derive_seed(subject.engine.seed, attack, "references"))
    of_concept: dict[Any, list[int]] = {}
    for i, concept in enumerate(concepts_of(shuffled)):
        of_concept.setdefault(concept, []).append(i)
    chosen = [i for _, own in sorted(of_concept.items()) for i in own[: 2 * min(pairs, len(own) // 4 or len(own) // 3)]]
    taken = set(chosen)
    return Divided(shuffled.subset(chosen), shuffled.subset(i for i in range(len(shuffled)) if i not in taken), "forget-rest")


def concepts_of(samples: Samples) -> list[int]:
    """The concept of each sample: its class, or one for all where samples have none."""
    classed = len(samples) and samples[0]["labels"].ndim == 0
    return [int(label) for label in samples.fact("label")] if classed else [0] * len(samples)


def arcs(points: int) -> list[float]:
    """The shares u = 0, ..., 1 at which a pair is interpolated.

    >>> arcs(3)
    [0.0, 0.5, 1.0]
    """
    return [i / (points - 1) for i in range(points)]


def point_by_point(rows: Sequence[Sequence[Row]], points: int) -> list[Row]:
    """Rows of batches of whole pairs, in each of which the first point of all pairs comes first, in one order however pairs were batched: point by point.

    Args:
        rows: of each batch.
        points: of each pair.
    """
    return [row for point in range(points) for batch in rows for row in batch[point * len(batch) // points : (point + 1) * len(batch) // points]]


def made_of(rows: Sequence[Row], name: str) -> Samples:
    """Samples in memory, with the columns that all rows have, and their labels as facts."""
    columns = {key: [row[key] for row in rows] for key in rows[0] if isinstance(rows[0][key], Tensor)} if rows else {}
    facts = {"label": [int(label) for label in columns["labels"]]} if rows and columns["labels"][0].ndim == 0 else {}
    return Samples(ColumnRows(columns), [f"{name}-{i}" for i in range(len(rows))], facts)
