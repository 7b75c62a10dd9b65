"""What audits of the distribution of models share: the log-odds of whole banks, and a bank divided so that references meet references."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, stack

from unlearned.engine.randomness import derive_seed
from unlearned.evidence.comparison import Measured
from unlearned.evidence.statistics import Array, Interval
from unlearned.evidence.subject import Subject

LIMIT = 100.0
"""Log-odds are clipped to ±100: beyond, they tell only that a logit was infinite."""
DIVISIONS = 20
"""How often references are divided for a null."""


class LogOdds(NamedTuple):
    """log p/(1 − p) of each sample of a set, by model."""

    original: Array
    """(n,)"""
    unlearned: Array
    """(n,)"""
    references: Array
    """(models, n)"""
    shadows: Array
    """(models, n)"""


def log_odds(subject: Subject, split: str) -> LogOdds:
    """The log-odds of every model on a set, in [−100, 100]."""

    def clipped(values: list[Tensor]) -> Array:
        array: Array = stack(values).clamp(-LIMIT, LIMIT).numpy()
        return array

    measure = subject.engine.task.log_odds
    values = subject.values(measure, split)
    return LogOdds(
        clipped(values["original"])[0], clipped(values["unlearned"])[0], clipped(values["reference"]), clipped(subject.shadow_values(measure, split))
    )


def too_few(subject: Subject, name: str, models: int) -> str | None:
    """Why an audit that needs so many references and as many shadow models cannot be made; None if it can."""
    references, shadows = len(subject.references), len(subject.shadows)
    if min(references, shadows) >= models:
        return None
    return f"{name} needs at least {models} references and {models} shadow models, there are {references} and {shadows}"


def no_null(needed: int, references: int) -> str:
    """Why references could not be compared with references."""
    return f"the null, references against references, needs at least {needed} references, there are {references}"


def halves(models: Array, seed: int) -> Iterator[tuple[Array, Array]]:
    """The models, (m, n), divided at random into two parts of ⌊m/2⌋, `DIVISIONS` times."""
    half = len(models) // 2
    for division in range(DIVISIONS):
        order = np.random.default_rng(derive_seed(seed, "halves", division)).permutation(len(models))
        yield models[order[:half]], models[order[half : 2 * half]]


class Matched(NamedTuple):
    """Parts of the banks, all of one size, as positions: what is compared with the oracle, and the references that are compared with it in its place."""

    shadows: NDArray[np.intp]
    oracle: NDArray[np.intp]
    null: NDArray[np.intp] | None
    """None if there are too few references for two such parts."""


def matched(shadows: int, references: int, least: int, seed: int) -> list[Matched]:
    """Random parts of the banks, as large as they can be, `DIVISIONS` times.

    What tells distributions apart depends on how many models they are known by, so a null must rest on as many.

    Args:
        shadows: models in the one bank.
        references: models in the other.
        least: models that a part must have.
        seed: of the choice.
    """
    half = min(shadows, references // 2)
    size = half if half >= least else min(shadows, references)
    parts = []
    for division in range(DIVISIONS):
        random = np.random.default_rng(derive_seed(seed, "matched", division))
        order = random.permutation(references)
        null = order[size : 2 * size] if half >= least else None
        parts.append(Matched(random.permutation(shadows)[:size], order[:size], null))
    return parts


def spread(values: Sequence[float], n: int, over: str) -> Measured:
    """Mean with the range of all but the outermost: so far from it one value may lie by chance.

    Args:
        values: one for each division of the references, or for each of them.
        n: samples that each rests on.
        over: what the values are of, in the plural.
    """
    low, high = np.quantile(values, [0.025, 0.975])
    mean = float(np.mean(values))
    # Where all values are equal, rounding can put the mean beside them.
    return Measured(mean, Interval(min(mean, float(low)), max(mean, float(high)), f"middle 95 % of {len(values)} {over}"), n)
