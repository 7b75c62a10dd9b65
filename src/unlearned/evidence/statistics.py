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


def bootstrap(statistic: Callable[..., float], *samples: Array, seed: int, rounds: int = 500) -> Interval | None:
    """Percentile bootstrap of a statistic of one or more independent samples, each resampled with replacement; None if one has fewer than two values."""
    if any(len(sample) < 2 for sample in samples):
        return None
    random = np.random.default_rng(seed)
    values = [statistic(*(sample[random.integers(0, len(sample), len(sample))] for sample in samples)) for _ in range(rounds)]
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(low), float(high), f"bootstrap 95 % over samples, {rounds} rounds")
