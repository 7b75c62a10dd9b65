"""How far two judges agree: the rank correlation of their scores of the same answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from unlearned.evidence.statistics import Array, Interval, bootstrap


class Agreement(NamedTuple):
    """Of a judge with another one."""

    judge: str
    other: str
    correlation: float | None
    """Spearman's ρ in [−1, 1]; None where a judge gave fewer than two different scores."""
    interval: Interval | None
    n: int
    """Answers that both judges scored."""

    @property
    def line(self) -> str:
        """In words."""
        if not self.n:
            return f"No answer was scored by both {self.judge} and {self.other}: how far they agree cannot be told."
        said = "gives no correlation, since one of them scored all alike" if self.correlation is None else f"correlates with ρ = {self.correlation:.2f}"
        ends = "" if self.interval is None else f" [{self.interval.low:.2f}, {self.interval.high:.2f}]"
        return f"The order in which {self.judge} puts {self.n} answers {said}{ends} with that of {self.other}."


def agreement_of(judge: str, other: str, scores: Sequence[float | None], others: Sequence[float | None], seed: int) -> Agreement:
    """Spearman's rank correlation, ranks of equal scores being their mean, with a bootstrap over answers. What either judge left unread is left out.

    Scores are rounded to tenths, so that the noise of arithmetic orders nothing.

    Args:
        judge: what the first is called.
        other: what the second is called.
        scores: of the first.
        others: of the second, of the same answers.
        seed: of the bootstrap.
    """
    both = [(a, b) for a, b in zip(scores, others, strict=True) if a is not None and b is not None]
    rows = np.array(both, dtype=np.float64).reshape(-1, 2).round(1)
    found = _spearman(rows)
    # A resample in which one judge scores all alike orders nothing: 0.
    interval = None if found is None else bootstrap(lambda some: _spearman(some) or 0.0, rows, seed=seed, over="answers")
    return Agreement(judge, other, found, interval, len(rows))


def _spearman(rows: Array) -> float | None:
    if any(len(np.unique(column)) < 2 for column in rows.T):
        return None
    return float(stats.spearmanr(rows[:, 0], rows[:, 1]).statistic)
