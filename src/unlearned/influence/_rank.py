"""Scores of a model's training points, with what must be known to read them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from unlearned.data.samples import Samples, union
from unlearned.engine.engine import Engine
from unlearned.engine.randomness import derive_seed
from unlearned.engine.training import Training
from unlearned.errors import raise_faults
from unlearned.influence._score import Effects, Grounds, Score
from unlearned.problem import Problem
from unlearned.records import Cost

FITTED = 1e-3
"""Median loss below which gradients say little."""
QUERIES = 256


class Ranking(NamedTuple):
    """Numbers of all training points: those of the forget set first, then those of the retain set."""

    score: Score
    values: Tensor
    """(N,) float64."""
    effects: Effects | None
    forget: int
    """Points of the forget set."""
    queries: str
    """What they were asked about; empty for a score that asks nothing."""
    notes: tuple[str, ...]
    """What must be known to read them."""
    cost: Cost

    def part(self, split: str) -> Tensor:
        """Those of `forget` or `retain`, in the order of that set."""
        return self.values[: self.forget] if split == "forget" else self.values[self.forget :]

    def effects_of(self, split: str) -> Tensor | None:
        """Sizes of the effects of that set's points."""
        if self.effects is None:
            return None
        return self.effects.sizes[: self.forget] if split == "forget" else self.effects.sizes[self.forget :]


def grounds_of(problem: Problem, engine: Engine, training: Training | None) -> tuple[Grounds, str]:
    """What scores of a problem are computed from, and what the queries are: the validation set, or some of the retain set. Test data are only reported."""
    points = union(problem.forget, problem.retain)
    if problem.validation is not None:
        return Grounds(problem.original, points, problem.validation, training), "the validation set"
    few = problem.retain.shuffled(derive_seed(engine.seed, "queries"))
    few = few.subset(range(min(QUERIES, len(few))))
    return Grounds(problem.original, points, few, training), f"{len(few)} samples of the retain set, because there is no validation set"


def rank(problem: Problem, score: Score, engine: Engine, training: Training | None = None, queries: Samples | None = None) -> Ranking:
    """Score all training points of a problem.

    Args:
        problem: original model and data.
        score: how.
        engine: computes.
        training: how the original was trained, for scores that look at a training.
        queries: what points should matter to, in the place of the validation set.

    Raises:
        InputError: if the score does not fit the problem.
        DivergedError: if a training or a solver diverges.
    """
    grounds, asked = grounds_of(problem, engine, training)
    if queries is not None:
        grounds, asked = Grounds(grounds.original, grounds.points, queries, training), "the queries that were given"
    return rate(grounds, score, engine, len(problem.forget), asked)


def rate(grounds: Grounds, score: Score, engine: Engine, forget: int, asked: str) -> Ranking:
    """Score all points of the grounds, of which the first `forget` are to be forgotten.

    Raises:
        InputError: if the score does not fit.
        DivergedError: if a training or a solver diverges.
    """
    raise_faults(score.faults(grounds))
    # Read before the measuring begins, which sets the meter anew.
    notes = _notes(grounds, score, engine)
    with engine.measuring() as meter:
        values = score.rate(grounds, engine)
    return Ranking(score, values.values, values.effects, forget, asked if score.asks else "", notes + values.notes, meter.cost)


def _notes(grounds: Grounds, score: Score, engine: Engine) -> tuple[str, ...]:
    if not score.by_gradients:
        return ()
    few = grounds.points.shuffled(derive_seed(engine.seed, "fitted")).subset(range(min(QUERIES, len(grounds.points))))
    median = float(np.median(engine.evaluate(grounds.original.model, few, engine.task.losses).numpy()))
    if median >= FITTED:
        return ()
    return (f"The original fits its training data so well (median loss {median:.1e}) that gradients are near 0: the lowest are those of easy, typical points.",)
