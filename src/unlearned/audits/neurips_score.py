"""The score of the NeurIPS 2023 unlearning competition: how well attacks tell unlearned from retrained models, times what is left of utility.

Paper: Triantafillou et al. 2024, arXiv 2406.09073; values of the code google-deepmind/unlearning_evaluation.
Formula: φ = log p_y − log Σ_{j≠y} p_j of N unlearned and N retrained models on each forget sample. Attacks: one threshold (above it: those with the larger
median), or two (between them: those of the smaller range). ε = max over thresholds of max(log(1 − δ − FPR) − log FNR, log(1 − δ − FNR) − log FPR);
where one of the rates is 0, the threshold is discarded, where both are, ε = ∞. ε is cut off at 50, and is 50 where one range is less than 1 % of the
other. A sample with ε in [0.5k, 0.5(k + 1)) scores 2^−k, up to ⌈log(N − 1)⌉, beyond it 0. F is the mean over samples, and the final score
F · (RA_u / RA_rt) · (TA_u / TA_rt), with the accuracies on retain and test set.
Defaults of the authors: N = 512, δ = 1e-5, ε at most 50, bins of 0.5; two thresholds whose distance differs by at most 2 from the smaller range, and which lie
within 2 of it.
Deviations: every threshold that divides the values differently is tried, not 100 for each unit of φ. Where no threshold is left, ε = 0. The largest ε depends
on N, so `models` says what N is, and the null, references against other references, has the same: at most half of the references. What is left over
is used in turn: 20 random choices are averaged. For tasks without classes p = exp(−loss), and the task's utility stands for accuracy.
Findings: `forgetting_quality` (F) and `models` on split `forget`, `score` on `all`. Needs three references and three shadow models, and for the null six
references.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlearned.audits import audits
from unlearned.audits._audit import Audit
from unlearned.audits._distributions import log_odds, matched, no_null, spread, too_few
from unlearned.engine.randomness import derive_seed
from unlearned.evidence.comparison import Measured, absent, against_null
from unlearned.evidence.statistics import Array
from unlearned.evidence.subject import Subject
from unlearned.records import Finding

DELTA = 1e-5
CAP = 50.0
BIN = 0.5
BUFFER = 2.0
PEAKED = 0.01
_CHUNK = 2_000_000
"""Pairs of thresholds that are held at once."""


def epsilon_of_rates(false_positive: Array, false_negative: Array, delta: float = DELTA) -> Array:
    """ε of attacks with these rates, elementwise: −∞ where exactly one of the rates is 0, +∞ where both are, else at least 0.

    Args:
        false_positive: FPR in [0, 1].
        false_negative: FNR in [0, 1].
        delta: δ in [0, 1).
    """

    def one(a: Array, b: Array) -> Array:
        """Log(1 − δ − a) − log b, and 0 where the first logarithm has no value."""
        left = np.maximum(1 - delta - a, 0)
        usable = (left > 0) & (b > 0)
        return np.log(left, out=np.zeros_like(left), where=usable) - np.log(b, out=np.zeros_like(left), where=usable)

    found = np.maximum(np.maximum(one(false_positive, false_negative), one(false_negative, false_positive)), 0)
    found = np.where((false_positive == 0) != (false_negative == 0), -np.inf, found)
    epsilon: Array = np.where((false_positive == 0) & (false_negative == 0), np.inf, found)
    return epsilon


def epsilons(unlearned: Array, retrained: Array) -> Array:
    """The largest ε of an attack that tells unlearned from retrained models, for each sample, (n,) in [0, 50].

    Args:
        unlearned: φ, (N, n).
        retrained: φ, (N, n).
    """
    models, n = unlearned.shape
    size = max(1, _CHUNK // (2 * models + 1) ** 2)
    parts = [_epsilons(unlearned[:, i : i + size], retrained[:, i : i + size]) for i in range(0, n, size)]
    return np.concatenate(parts)


def _epsilons(unlearned: Array, retrained: Array) -> Array:
    models = len(unlearned)
    banks = np.concatenate([unlearned, retrained])
    order = np.argsort(banks, axis=0, kind="stable")
    values = np.take_along_axis(banks, order, axis=0).T  # (n, 2N), ascending
    of_unlearned = (order < models).T
    # Before position i of 2N + 1 lie so many models of each kind; only between different values a threshold can divide them.
    below = np.stack([_before(of_unlearned), _before(~of_unlearned)])
    infinite = np.full((len(values), 1), np.inf)
    left, right = np.hstack([-infinite, values]), np.hstack([values, infinite])
    divides = left < right
    best = np.maximum(_one_threshold(below, divides, unlearned, retrained), _two_thresholds(below, divides, left, right, unlearned, retrained))
    ranges = np.stack([np.ptp(unlearned, axis=0), np.ptp(retrained, axis=0)])
    peaked = ranges.min(axis=0) < PEAKED * ranges.max(axis=0)
    capped: Array = np.where(peaked, CAP, np.clip(best, 0, CAP))
    return capped


def _before(chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    counts = np.cumsum(chosen, axis=1, dtype=np.int64)
    return np.hstack([np.zeros((len(counts), 1), dtype=np.int64), counts])


def _one_threshold(below: NDArray[np.int64], divides: NDArray[np.bool_], unlearned: Array, retrained: Array) -> Array:
    """Positive, at or above the threshold: the kind with the larger median; unlearned if they are equal."""
    models = len(unlearned)
    swap = (np.median(retrained, axis=0) > np.median(unlearned, axis=0))[:, None]
    positive, negative = np.where(swap, below[1], below[0]), np.where(swap, below[0], below[1])
    found = epsilon_of_rates((models - negative) / models, positive / models)
    best: Array = np.where(divides, found, -np.inf).max(axis=1)
    return best


def _two_thresholds(below: NDArray[np.int64], divides: NDArray[np.bool_], left: Array, right: Array, unlearned: Array, retrained: Array) -> Array:
    """Positive, between the thresholds: the kind with the smaller range; if they are equal, that with the smaller median.

    Thresholds l and r lie between neighbouring values, l in (left_i, right_i] and r in [left_j, right_j). r keeps within 2 of the positives' range,
    and r − l differs from that range by at most 2.
    """
    models = len(unlearned)
    medians, ranges = (np.stack([f(unlearned, axis=0), f(retrained, axis=0)]) for f in (np.median, np.ptp))
    swap = (ranges[1] < ranges[0]) | ((ranges[1] == ranges[0]) & (medians[1] < medians[0]))
    positive, negative = np.where(swap[:, None], below[1], below[0]), np.where(swap[:, None], below[0], below[1])
    width, top = np.where(swap, ranges[1], ranges[0])[:, None], np.where(swap, retrained.max(axis=0), unlearned.max(axis=0))[:, None]
    lowest, highest = np.maximum(left, top - BUFFER), np.minimum(right, top + BUFFER)
    reachable = divides & (lowest <= highest)
    nearest, farthest = lowest[:, None, :] - right[:, :, None], highest[:, None, :] - left[:, :, None]  # of r − l, [sample, i, j]
    allowed = divides[:, :, None] & reachable[:, None, :] & (nearest <= width[:, :, None] + BUFFER) & (farthest >= width[:, :, None] - BUFFER)
    allowed &= np.arange(left.shape[1])[:, None] < np.arange(left.shape[1])
    inside, wrong = (counts[:, None, :] - counts[:, :, None] for counts in (positive, negative))
    found = epsilon_of_rates(wrong / models, 1 - inside / models)
    best: Array = np.where(allowed, found, -np.inf).max(axis=(1, 2))
    return best


def scores_of(epsilon: Array, models: int) -> Array:
    """2^−k for ε in [0.5k, 0.5(k + 1)), as long as 0.5(k + 1) ≤ ⌈log(N − 1)⌉, else 0.

    Args:
        epsilon: (n,), ≥ 0.
        models: N ≥ 2, of each kind.
    """
    k = np.floor(epsilon / BIN)
    scored: Array = np.where(BIN * (k + 1) <= np.ceil(np.log(models - 1)), 2.0**-k, 0.0)
    return scored


@audits.register("neurips-score")
class NeuripsScore(Audit):
    """Score of the NeurIPS 2023 competition."""

    name: ClassVar[str] = "neurips-score"

    def measure(self, subject: Subject) -> list[Finding]:
        reason = too_few(subject, self.name, 3)
        if reason is not None:
            return [absent(self.name, metric, split, reason, unit="") for metric, split in (("forgetting_quality", "forget"), ("score", "all"))]
        phi = log_odds(subject, "forget")
        utility = _utilities(subject)
        parts = matched(len(phi.shadows), len(phi.references), 3, derive_seed(subject.engine.seed, self.name))
        models, (count, n) = len(parts[0].oracle), phi.references.shape
        ours, null = _Compared([], []), _Compared([], [])
        for part in parts:
            oracle = phi.references[part.oracle], utility["reference"][:, part.oracle]
            ours.add((phi.shadows[part.shadows], utility["shadow"][:, part.shadows]), oracle)
            if part.null is not None:
                null.add((phi.references[part.null], utility["reference"][:, part.null]), oracle)
        findings: list[Finding] = []
        for metric, split, values, nulls in (("forgetting_quality", "forget", ours.qualities, null.qualities), ("score", "all", ours.scores, null.scores)):
            if not np.isfinite(values).all():
                findings.append(absent(self.name, metric, split, "references that answer nothing right leave no ratio of utilities", unit=""))
                continue
            expected = spread(nulls, n, "choices of models") if nulls else no_null(6, count)
            findings += against_null(self.name, metric, split, {"unlearned": spread(values, n, "choices of models")}, expected, unit="", models=models)
        size = Measured(models, None, n)
        same = size if null.scores else no_null(6, count)
        return findings + against_null(self.name, "models", "forget", {"unlearned": size}, same, unit="models", models=models)


class _Compared(NamedTuple):
    """F and final score of each choice of models."""

    qualities: list[float]
    scores: list[float]

    def add(self, bank: tuple[Array, Array], oracle: tuple[Array, Array]) -> None:
        """One choice: φ, (N, n), and utilities on retain and test set, (2, N), of both sides."""
        quality = float(scores_of(epsilons(bank[0], oracle[0]), len(oracle[0])).mean())
        utilities = bank[1].mean(axis=1), oracle[1].mean(axis=1)
        self.qualities.append(quality)
        self.scores.append(quality * float(np.prod(utilities[0] / utilities[1])) if utilities[1].all() else np.nan)


def _utilities(subject: Subject) -> dict[str, Array]:
    """Mean utility on retain and test set of each model, (2, models), by bank."""
    measure = subject.engine.task.utility
    shadows = [[float(values.mean()) for values in subject.shadow_values(measure, split)] for split in ("retain", "test")]
    references = [[float(values.mean()) for values in subject.values(measure, split)["reference"]] for split in ("retain", "test")]
    return {"shadow": np.array(shadows), "reference": np.array(references)}
