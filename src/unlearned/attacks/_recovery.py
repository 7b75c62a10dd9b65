"""Asleep or gone: how fast knowledge comes back under an attack, held against models that never had it and were attacked alike.

The question is that of Polowczyk et al. 2025 (MemoRa, arXiv 2510.03263): forgetting is short-term where the concept returns quickly, long-term where it returns
slowly or weakly. They define no measure; this one is ours. With a_n the mean knowledge after n steps of an attack and a_orig that of the original:

    Rec(B)   (a_B − a_0) / (a_orig − a_0): what the whole budget B brings back of what was lost
    n_½      the number of steps at which a_n first reaches a_orig / 2, between two measurements on the straight line through them
    area     (1/B) ∫_0^B a_n / a_orig dn, by trapezoids: near 1 where all is there from the start, 0 where nothing comes
    label    short-term (asleep) if n_½ < n_½(control) / 2, where the control never knew; else long-term (gone)

Models that never knew differ in how fast they learn, by more than a factor of 2 where it takes long, and a few references do not show how much. So the label
comes as a probability p that forgetting is long-term, and the control is a further model that never knew, of which the references are examples:

    p = mean over bootstrap rounds of  T_{ν+R−1}( (log n_½ + log 2 − m) / (s √(1 + 1/R)) )      s² = (ν s_0² + Σ (log n_½(r) − m)²) / (ν + R − 1)

with m the mean of log n_½(r) over the R references and T Student's distribution: the predictive distribution of a normal variable whose variance has a prior
worth ν = 3 observations at s_0 = 0.35 (a factor of 1.4). In each round the samples are drawn anew, the same for all models. A reference that does not reach
the half within the budget B counts as B, which is cautious about "asleep"; a model that does not reach it is long-term, so that "gone" means: within this
budget. Below one step counts as one; where n_½ = 0, "not forgotten" is said in the place of "asleep". If a control shows the half before any attack, recall
cannot be told from what anybody knows, and there is no label.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from unlearned.attacks._curves import SampleCurves
from unlearned.attacks._retention import before_and_after, resampled_means
from unlearned.engine.randomness import derive_seed
from unlearned.evidence.comparison import Measured, absent, compare
from unlearned.evidence.statistics import Array, Interval
from unlearned.evidence.subject import Subject
from unlearned.records import HALF, LABEL, NO_REFERENCE, Finding, SubjectName

PRIOR, SPREAD = 3.0, 0.35
"""ν and s_0 of the label: what is believed of how models that never knew differ, in the logarithm of their steps, before any was seen."""
GRID = (0, 10, 25, 50, 100, 200, 500)
"""Steps after which knowledge is measured."""
UNKNOWN = "nothing was forgotten that could come back: the original model does not show it either"
GUESSED = "among the references one shows half of it without any attack, so that recall cannot be told from what anybody knows"


def half_recovery(curve: Array, budgets: Sequence[float], known: Array) -> Array:
    """The budget at which a curve first reaches half of what the original knew, (...); infinite where it does not.

    >>> half_recovery(np.array([[0.0, 0.2, 0.6], [0.5, 0.1, 0.1], [0.0, 0.1, 0.2]]), [0, 10, 20], np.array(1.0)).tolist()
    [17.5, 0.0, inf]

    Args:
        curve: mean knowledge at each budget, (..., P).
        budgets: (P,), rising.
        known: mean knowledge of the original, (...).
    """
    half = np.broadcast_to(np.asarray(known)[..., None] / 2, curve.shape)
    reached = curve >= half
    after = reached.argmax(axis=-1)[..., None]
    before = np.maximum(after - 1, 0)
    low, high = (np.take_along_axis(curve, at, axis=-1) for at in (before, after))
    spent = np.asarray(budgets, dtype=np.float64)
    rise = np.where(high > low, high - low, 1.0)
    share = np.where(high > low, (half[..., :1] - low) / rise, 0.0)
    found = (spent[before] + share * (spent[after] - spent[before]))[..., 0]
    steps: Array = np.where(reached.any(axis=-1), np.where(after[..., 0] == 0, spent[0], found), np.inf)
    return steps


def recovery_area(curve: Array, budgets: Sequence[float], known: Array) -> Array:
    """(1/B) ∫_0^B a_n / a_orig dn by trapezoids, (...); for the arguments see `half_recovery`. Above 1 where a model ends by showing more than the original.

    >>> float(recovery_area(np.array([0.0, 0.4, 0.8]), [0, 10, 20], np.array(0.8)))
    0.5
    """
    mean = np.trapezoid(curve, budgets, axis=-1) / (budgets[-1] - budgets[0])
    some = np.asarray(known) > 0  # in a round of the bootstrap the original may know nothing
    area: Array = np.where(some, mean / np.where(some, known, 1.0), 0.0)
    return area


def long_term(own: Array, references: Array, most: float) -> Array:
    """The probability that forgetting is long-term, (...): that a further model that never knew takes less than twice as long as this one.

    >>> [round(float(long_term(np.array(n), np.array([80.0, 110.0, 95.0]), 200.0)), 2) for n in (4.0, 30.0, 90.0, np.inf)]
    [0.0, 0.12, 0.94, 1.0]

    Args:
        own: n_½ of the model, (...); infinite where the half is not reached.
        references: those of the references, (..., R).
        most: the whole budget.
    """
    logs = np.log(np.clip(references, 1, most))
    count, mean = logs.shape[-1], logs.mean(axis=-1)
    freedom = PRIOR + count - 1
    spread = np.sqrt((PRIOR * SPREAD**2 + ((logs - mean[..., None]) ** 2).sum(axis=-1)) / freedom * (1 + 1 / count))
    reached = np.isfinite(own)
    distance = np.log(2 * np.clip(np.where(reached, own, most), 1, most)) - mean
    share: Array = np.where(reached, stats.t.cdf(distance / spread, freedom), 1.0)
    return share


def findings_of_recovery(subject: Subject, attack: str, split: str, curves: SampleCurves, budgets: Sequence[float], budget_unit: str) -> list[Finding]:
    """`recovery`, `half_recovery_steps`, `recovery_area` of the unlearned model and of the references, and the label.

    Args:
        subject: gives the seed of the bootstrap.
        attack: its name.
        split: what was measured.
        curves: knowledge of each sample, of every model at every budget; of the original the first point is used.
        budgets: of the points, rising from 0.
        budget_unit: of the budgets.
    """
    known = curves["original"][0][0]
    seed = derive_seed(subject.engine.seed, attack, "recovery", split, budget_unit)
    metrics = {"recovery": "ratio", HALF: budget_unit.partition(" ")[0], "recovery_area": "ratio"}
    if known.mean() <= 0:
        findings = [absent(attack, metric, split, UNKNOWN, unit=unit, kind="attack") for metric, unit in metrics.items()]
        return [*findings, absent(attack, LABEL, split, UNKNOWN, unit="share", kind="attack")]
    findings = []
    for metric, unit in metrics.items():
        measured: dict[SubjectName, list[Measured]] = {"unlearned": [], "reference": []}
        reasons: dict[SubjectName, str] = {}
        for who, found in measured.items():
            for points in curves[who]:
                one = _measured(metric, known, points, budgets, seed)
                if isinstance(one, str):
                    reasons[who] = one
                else:
                    found.append(one)
        if "reference" in reasons:  # a mean over those that have a number would be one of the fastest
            measured["reference"] = []
        missing = f"of the references not all have one: {reasons['reference']}" if "reference" in reasons else NO_REFERENCE
        if "unlearned" in reasons:
            findings.append(absent(attack, metric, split, reasons["unlearned"], unit=unit, kind="attack"))
        findings += compare(attack, metric, split, measured, unit=unit, kind="attack", no_reference=missing)
    return [*findings, _label(attack, split, curves, budgets, seed)]


def _measured(metric: str, known: Array, points: Sequence[Array], budgets: Sequence[float], seed: int) -> Measured | str:
    if metric == "recovery":
        kept = before_and_after(known, points[0], points[-1:], seed)
        if isinstance(kept, str):
            return kept
        interval = None if kept.interval is None else Interval(1 - kept.interval.high, 1 - kept.interval.low, kept.interval.how)
        return Measured(1 - kept.value, interval, kept.n)
    table = np.column_stack([known, *points])
    statistic = half_recovery if metric == HALF else recovery_area
    mean, drawn = table.mean(axis=0), resampled_means(table, seed)
    value = float(statistic(mean[1:], budgets, mean[0]))
    if not np.isfinite(value):
        return f"half of what the original knew did not come back within {budgets[-1]:g} steps"
    rounds = statistic(drawn[:, 1:], budgets, drawn[:, 0])
    low, high = np.quantile(np.minimum(rounds, budgets[-1]) if metric == HALF else rounds, [0.025, 0.975])
    how = f"bootstrap 95 % over samples, {len(rounds)} rounds"
    return Measured(value, Interval(float(low), float(high), how) if len(table) > 1 else None, len(table))


def _label(attack: str, split: str, curves: SampleCurves, budgets: Sequence[float], seed: int) -> Finding:
    """The probability that forgetting is long-term."""
    [unlearned], references = curves["unlearned"], curves["reference"]

    def none(reason: str) -> Finding:
        return absent(attack, LABEL, split, reason, unit="share", kind="attack")

    if not references:
        return none(NO_REFERENCE)
    known = curves["original"][0][0]
    table = np.column_stack([known, *unlearned, *(point for points in references for point in points)])
    width, count = len(budgets), len(references)

    def halves(means: Array) -> Array:
        """n_½ of the unlearned model and of each reference, (..., 1 + R)."""
        of_each = means[..., 1:].reshape(*means.shape[:-1], 1 + count, width)
        return half_recovery(of_each, budgets, np.broadcast_to(means[..., :1], of_each.shape[:-1]))

    if halves(table.mean(axis=0))[1:].min() == 0:
        return none(GUESSED)
    drawn = halves(resampled_means(table, seed))
    share = float(long_term(drawn[:, 0], drawn[:, 1:], budgets[-1]).mean())
    return Finding(
        audit=attack,
        kind="attack",
        metric=LABEL,
        split=split,
        subject="unlearned",
        value=share,
        n=len(table),
        unit="share",
        direction="higher",
        reason="it is held against the references already",
    )
