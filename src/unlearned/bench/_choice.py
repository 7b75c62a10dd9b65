"""How a setting is chosen from a grid, and who is on the front of two measures: quality, of which more is better, and error, of which less is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unlearned.evidence.statistics import Array


def careful(utilities: Sequence[float], knowledge: Sequence[float], floor: float) -> int:
    """Position of the least knowledge of the forget set among settings whose utility is not below `floor`; of the highest utility, if all are below.

    Both are what anybody can measure who has held-out data: no test data, no retrained model.

    Args:
        utilities: on validation data, one per setting.
        knowledge: on the forget set, one per setting.
        floor: of the utility.
    """
    fit = [i for i, utility in enumerate(utilities) if utility >= floor]
    if not fit:
        return max(range(len(utilities)), key=utilities.__getitem__)
    return min(fit, key=knowledge.__getitem__)


def front(points: Array) -> NDArray[np.bool_]:
    """Which points no other dominates: none is as good in both measures and better in one.

    Args:
        points: quality and error, (P, 2).

    Returns:
        (P,).
    """
    unique, back = np.unique(points, axis=0, return_inverse=True)
    order = np.lexsort((unique[:, 1], -unique[:, 0]))
    error = unique[order, 1]
    on = np.zeros(len(unique), dtype=np.bool_)
    on[order] = error < np.concatenate([[np.inf], np.minimum.accumulate(error)[:-1]])
    return on[back.reshape(-1)]


def area(points: Array) -> float:
    """How much of the unit square the points dominate: the area of ∪ [0, quality] × [error, 1]. 1 is ideal.

    Args:
        points: quality and error in [0, 1], (P, 2).
    """
    total, least = 0.0, 1.0
    for quality, error in sorted(points.tolist(), key=lambda point: -point[0]):
        total += quality * max(0.0, least - error)  # the strip of errors that points of higher quality have left
        least = min(least, error)
    return total


def front_shares(groups: Sequence[Array], seed: int, rounds: int = 1000) -> list[float]:
    """How often each group has a point on the front of all, when seeds are drawn anew with replacement and points are means over them.

    Args:
        groups: for each group its points by seed, (seeds, points, 2): quality and error. Seeds are the same for all groups.
        seed: of the draws.
        rounds: how many.

    Returns:
        Shares in [0, 1], in the order of the groups.
    """
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(len(groups)), [group.shape[1] for group in groups])
    every = np.concatenate(groups, axis=1)
    found = np.zeros(len(groups))
    for _ in range(rounds):
        drawn = random.integers(0, len(every), len(every))
        found[np.unique(owner[front(every[drawn].mean(axis=0))])] += 1
    shares: list[float] = (found / rounds).tolist()
    return shares
