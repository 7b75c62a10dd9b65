"""From an unwanted answer to the training points that speak for it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.engine.training import Training
from unlearned.errors import Fault, InputError
from unlearned.influence._rank import Ranking, rate
from unlearned.influence._score import Grounds, Score
from unlearned.tasks._task import Bundle


class Traced(NamedTuple):
    """The points that speak most for the queries' answers, strongest first."""

    ids: tuple[str, ...]
    values: tuple[float, ...]
    """Their scores, all above 0."""
    ranking: Ranking
    """Of all points, in the order of the training data."""


def trace(original: Bundle, points: Samples, queries: Samples, score: Score, engine: Engine, training: Training | None, top: int) -> Traced:
    """The points of highest score: those without which the model would say it less. Fewer than `top` if fewer speak for it.

    Args:
        original: the model that answers.
        points: its training data.
        queries: prompts with the unwanted answers, images with the unwanted labels.
        score: one with a sign.
        engine: computes.
        training: how the original was trained, for scores that look at a training.
        top: how many.

    Raises:
        InputError: if the score has no sign or does not fit.
        DivergedError: if a training or a solver diverges.
    """
    if not type(score).signed or getattr(score, "of", "signed") != "signed":
        what = f"{score.name} as it is set does not say which points speak for an answer and which against it."
        raise InputError(Fault("score.name", what, "Choose hessian with of: signed, less or tracin."))
    ranking = rate(Grounds(original, points, queries, training), score, engine, 0, "the unwanted answers")
    values = ranking.values.numpy()
    order = [i for i in np.argsort(-values, kind="stable")[:top].tolist() if values[i] > 0]
    return Traced(tuple(points.ids[i] for i in order), tuple(float(values[i]) for i in order), ranking)
