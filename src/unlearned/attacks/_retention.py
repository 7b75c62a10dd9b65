"""Retention: which share of its forgetting a model keeps under an attack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unlearned.evidence.comparison import Measured
from unlearned.evidence.statistics import Array, Interval

TOO_LITTLE = "nothing was forgotten before the attack, as far as these samples tell, so there is no share of it to be kept"


ROUNDS = 500


def retention(known: Array, before: Array, after: Array) -> Array:
    """(drop after the attack) / (drop before it) = (known − max over budgets of after) / (known − before), of means over samples.

    1: the attack brings nothing back; 0: everything; below 0: more than the original knew; above 1: it destroys what was left. Where nothing had been
    forgotten the ratio is no number, and 0 is returned: nothing is kept.

    >>> float(retention(np.array(0.9), np.array(0.1), np.array([0.1, 0.3])))
    0.75

    Args:
        known: mean knowledge by the original, (...).
        before: by the model before the attack, (...).
        after: by the model after it, (..., budgets); the attacker takes the best budget.
    """
    drop = known - before
    ratio: Array = np.where(drop > 0, (known - after.max(axis=-1)) / np.where(drop > 0, drop, 1.0), 0.0)
    return ratio


def resampled_means(table: Array, seed: int) -> Array:
    """Means of the columns over samples that are drawn anew with replacement, (ROUNDS, K): all that is known of a sample stays together.

    Args:
        table: (N, K), a row for each sample.
        seed: of the resampling.
    """
    n = len(table)
    drawn = np.random.default_rng(seed).integers(0, n, (ROUNDS, n))
    means: Array = np.stack([np.bincount(chosen, minlength=n) for chosen in drawn]) @ table / n
    return means


def before_and_after(known: Array, before: Array, after: Sequence[Array], seed: int) -> Measured | str:
    """The retention with its bootstrap interval; or why there is none.

    Samples are resampled with all that is known of them, and in each round the attacker chooses the best budget anew.

    Args:
        known: by the original, (N,).
        before: by the model before the attack, (N,).
        after: after it, (N,) for each budget.
        seed: of the resampling.
    """
    table = np.column_stack([known, before, *after])
    mean, n = table.mean(axis=0), len(table)
    means = resampled_means(table, seed)
    if mean[0] <= mean[1] or np.quantile(means[:, 0] - means[:, 1], 0.025) <= 0:
        return TOO_LITTLE
    low, high = np.quantile(retention(means[:, 0], means[:, 1], means[:, 2:]), [0.025, 0.975])
    interval = Interval(float(low), float(high), f"bootstrap 95 % over samples, {ROUNDS} rounds") if n > 1 else None
    return Measured(float(retention(mean[0], mean[1], mean[2:])), interval, n)
