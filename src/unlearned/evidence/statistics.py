"""Intervals: how far a measured number can be trusted. All at 95 % unless told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]


class Interval(NamedTuple):
    """Both ends, and how they were got."""

    low: float
    high: float
    how: str


def wilson(successes: float, n: int) -> Interval | None:
    """Wilson score interval of a share (Wilson 1927): (p̂ + z²/2n ± z √(p̂(1−p̂)/n + z²/4n²)) / (1 + z²/n), z = 1.96.

    Args:
        successes: in [0, n].
        n: trials; None is returned for 0.
    """
    if n == 0:
        return None
    z = float(stats.norm.ppf(0.975))
    p = successes / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    # At p = 0 and p = 1 an end equals p, which rounding can miss.
    return Interval(min(p, max(0.0, float(centre - half))), max(p, min(1.0, float(centre + half))), "Wilson 95 % over samples")


def t_interval(values: Sequence[float] | Array, over: str) -> Interval | None:
    """Student's t interval of a mean: x̄ ± t_{0.975, n−1} s/√n; None for fewer than two values.

    Args:
        values: independent measurements.
        over: what they are, in the plural ("seeds").
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2:
        return None
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Interval(float(x.mean()) - half, float(x.mean()) + half, f"t 95 % over {len(x)} {over}")


def held_out_interval(values: Sequence[float] | Array, rest: int, over: str, least: float, most: float) -> Interval | None:
    """Interval of a mean over folds, each of which holds out one entry and fits on the rest: x̄ ± t_{0.975, k−1} s √(1/k + 1/m).

    The fits share most of their entries, so that the values depend on each other and Student's interval is too narrow by about √2 (Nadeau and Bengio 2003).
    None for fewer than two values.

    Args:
        values: one for each of k folds.
        rest: entries m that a fit rests on.
        over: what is held out, in the plural.
        least: of all possible values; the interval ends there.
        most: of all possible values.
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2:
        return None
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) * np.sqrt(1 / len(x) + 1 / rest))
    mean = float(x.mean())
    return Interval(max(least, mean - half), min(most, mean + half), f"corrected t 95 % over {len(x)} {over}")


def bootstrap(statistic: Callable[..., float], *samples: Array, seed: int, rounds: int = 500, over: str = "samples") -> Interval | None:
    """Percentile bootstrap of a statistic of one or more independent samples, each resampled with replacement along its first dimension.

    Args:
        statistic: of as many arrays as there are samples.
        samples: if one has fewer than two entries, None is returned.
        seed: of the resampling.
        rounds: how often.
        over: what the entries are, in the plural.
    """
    if any(len(sample) < 2 for sample in samples):
        return None
    random = np.random.default_rng(seed)
    values = [statistic(*(sample[random.integers(0, len(sample), len(sample))] for sample in samples)) for _ in range(rounds)]
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(low), float(high), f"bootstrap 95 % over {over}, {rounds} rounds")
