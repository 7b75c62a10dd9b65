"""U-LiRA: can a forgotten sample be told, sample by sample, from one that the model never saw?

Paper: Hayes et al. 2024, arXiv 2403.01218. The form for whole classes: code of Kodge et al. 2023, arXiv 2312.00761.
Formula: φ = log p_y/(1 − p_y). For each forget sample Gaussians N(μ_in, σ_in²) over shadow models, which were trained with it and then unlearned it, and
N(μ_out, σ_out²) over references; a model's score is log N(φ; μ_in, σ_in²) − log N(φ; μ_out, σ_out²). One shadow model and one reference at a time
are held out and scored under the Gaussians of the others, until each was held out. 0.5 is perfect.
Defaults of the authors: for classes, one threshold where false and true positive rates add up to 1.
Deviations: the forget set is that of the problem, the same for every shadow model. Every model is held out once, not the last alone. A sample's and a class's
scores are the same numbers where the forget set is a class; the two forms differ in the threshold, and both are given. With fewer than `own_variance_from`
models on either side one variance per sample serves both sides: two of their own, from so few values, would tell less. φ is clipped to ±100. For tasks
without classes p = exp(−loss).
Findings: on split `forget`, mean over the held-out pairs: `auc`, `balanced_accuracy` (likelihood ratio 1), `balanced_accuracy_at_equal_error`,
`tpr_at_1pct_fpr`. The null is one half of the references in the place of the shadow models, against the other half, in 20 random divisions. `target_auc` and
`target_balanced_accuracy` score the one model under audit, which is in no bank, against each reference held out; there the null is each
reference in the place of that model, 0.5 on average by symmetry. Needs three references and three shadow models, and for the null six references.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
from pydantic import Field

from unlearned.audits import audits
from unlearned.audits._audit import Audit
from unlearned.audits._distributions import LogOdds, halves, log_odds, no_null, spread, too_few
from unlearned.audits._membership import auc, balanced_accuracy, equal_error_accuracy, tpr_at_fpr
from unlearned.engine.randomness import derive_seed
from unlearned.evidence.comparison import Measured, absent, against_null
from unlearned.evidence.statistics import Array, bootstrap, held_out_interval
from unlearned.evidence.subject import Subject
from unlearned.records import Finding, SubjectName

Statistic = Callable[[Array, Array], float]

_LEAST = 1e-12
"""Least variance: equal models have none."""
_RATE = 0.01
_METRICS: dict[str, tuple[Statistic, str]] = {
    "auc": (auc, ""),
    "balanced_accuracy": (balanced_accuracy, "share"),
    "balanced_accuracy_at_equal_error": (equal_error_accuracy, "share"),
    "tpr_at_1pct_fpr": (lambda members, others: tpr_at_fpr(members, others, _RATE), "share"),
}
_TARGET_METRICS: dict[str, tuple[Statistic, str]] = {"target_auc": (auc, ""), "target_balanced_accuracy": (balanced_accuracy, "share")}


def log_likelihood_ratio(phi: Array, inside: Array, outside: Array, own_variance: bool) -> Array:
    """Log N(φ; μ_in, σ_in²) − log N(φ; μ_out, σ_out²) for each sample, with means and unbiased variances of the two banks.

    Args:
        phi: log-odds to be scored, (..., n).
        inside: of models that were trained with the samples, (a, n).
        outside: of models that were not, (b, n); a + b ≥ 3.
        own_variance: whether each side has its variance, which takes a, b ≥ 2; else both share Σ (φ − μ)² / (a + b − 2).
    """
    means = inside.mean(axis=0), outside.mean(axis=0)
    squares = [((bank - mean) ** 2).sum(axis=0) for bank, mean in zip((inside, outside), means, strict=True)]
    if own_variance:
        variances = [square / (len(bank) - 1) for square, bank in zip(squares, (inside, outside), strict=True)]
    else:
        variances = [sum(squares) / (len(inside) + len(outside) - 2)] * 2
    logs = [-0.5 * ((phi - mean) ** 2 / np.maximum(v, _LEAST) + np.log(np.maximum(v, _LEAST))) for mean, v in zip(means, variances, strict=True)]
    difference: Array = logs[0] - logs[1]
    return difference


def held_out_scores(inside: Array, outside: Array, own_variance_from: int) -> tuple[Array, Array]:
    """Scores of every model under the Gaussians of the others.

    Fold k holds out model k mod a of one bank and k mod b of the other. Both are scored under the same Gaussians, so that models of one distribution
    get scores of one distribution, whatever the sizes of the banks.

    Args:
        inside: (a, n), a ≥ 3.
        outside: (b, n), b ≥ 3.
        own_variance_from: least size of both banks at which each has its own variances.

    Returns:
        Scores of the models held out of `inside` and of `outside`, each (max(a, b), n).
    """
    own = min(len(inside), len(outside)) >= own_variance_from
    members, others = [], []
    for fold in range(max(len(inside), len(outside))):
        i, j = fold % len(inside), fold % len(outside)
        rest = np.delete(inside, i, axis=0), np.delete(outside, j, axis=0)
        members.append(log_likelihood_ratio(inside[i], *rest, own))
        others.append(log_likelihood_ratio(outside[j], *rest, own))
    return np.array(members), np.array(others)


def target_scores(target: Array, inside: Array, outside: Array, own_variance_from: int) -> tuple[Array, Array]:
    """Scores of a model that is in neither bank, and of each model of `outside`, under the Gaussians of `inside` and of the others of `outside`.

    Args:
        target: (n,).
        inside: (a, n), a ≥ 2.
        outside: (b, n), b ≥ 2.
        own_variance_from: least size of both banks at which each has its own variances.

    Returns:
        Scores of the target and of the held-out model, each (b, n).
    """
    own = min(len(inside), len(outside)) >= own_variance_from
    scores = [log_likelihood_ratio(np.stack([target, left]), inside, np.delete(outside, j, axis=0), own) for j, left in enumerate(outside)]
    together = np.array(scores)
    return together[:, 0], together[:, 1]


def per_fold(statistic: Statistic, members: Array, others: Array) -> Array:
    """A statistic of each fold's scores, both (folds, n).

    Within a fold both models were scored under the same Gaussians: only there do equal distributions give exactly the null on average.
    """
    return np.array([statistic(a, b) for a, b in zip(members, others, strict=True)])


@audits.register("u-lira")
class ULira(Audit):
    """Likelihood-ratio attack per sample on banks of unlearned and retrained models."""

    name: ClassVar[str] = "u-lira"
    own_variance_from: int = Field(8, ge=3, description="Models on each side from which on each side has a variance of its own.")

    def measure(self, subject: Subject) -> list[Finding]:
        reason = too_few(subject, self.name, 3)
        if reason is not None:
            return [absent(self.name, metric, "forget", reason, unit=unit) for metric, (_, unit) in (_METRICS | _TARGET_METRICS).items()]
        phi = log_odds(subject, "forget")
        seed = derive_seed(subject.engine.seed, self.name)
        return self._population(phi, seed) + self._target(phi, seed)

    def _population(self, phi: LogOdds, seed: int) -> list[Finding]:
        count, n = phi.references.shape
        scores = held_out_scores(phi.shadows, phi.references, self.own_variance_from)
        nulls = [held_out_scores(*parts, self.own_variance_from) for parts in halves(phi.references, seed)] if count >= 6 else []
        rest = min(len(phi.shadows), count) - 1
        findings: list[Finding] = []
        for metric, (statistic, unit) in _METRICS.items():
            if metric.startswith("tpr") and n * _RATE < 1:
                what = f"a rate of {_RATE:.0%} needs at least {round(1 / _RATE)} forget samples, there are {n}"
                findings.append(absent(self.name, metric, "forget", what, unit=unit))
                continue
            values = per_fold(statistic, *scores)
            unlearned = Measured(float(values.mean()), held_out_interval(values, rest, "pairs of held-out models", 0, 1), n)
            null = spread([float(per_fold(statistic, *pair).mean()) for pair in nulls], n, "divisions of the references") if nulls else no_null(6, count)
            findings += against_null(self.name, metric, "forget", {"unlearned": unlearned}, null, unit=unit, models=count)
        return findings

    def _target(self, phi: LogOdds, seed: int) -> list[Finding]:
        def scores(target: Array, outside: Array) -> Array:
            """(n, 2, folds): by sample, which is what is drawn again for an interval."""
            return np.stack(target_scores(target, phi.shadows, outside, self.own_variance_from)).transpose(2, 0, 1)

        count, n = phi.references.shape
        targets: dict[SubjectName, Array] = {"original": scores(phi.original, phi.references), "unlearned": scores(phi.unlearned, phi.references)}
        nulls = [scores(target, np.delete(phi.references, r, axis=0)) for r, target in enumerate(phi.references)]
        findings: list[Finding] = []
        for metric, (statistic, unit) in _TARGET_METRICS.items():

            def mean(scored: Array, statistic: Statistic = statistic) -> float:
                return float(per_fold(statistic, scored[:, 0].T, scored[:, 1].T).mean())

            measured = {who: Measured(mean(scored), bootstrap(mean, scored, seed=seed, rounds=200), n) for who, scored in targets.items()}
            null = spread([mean(scored) for scored in nulls], n, "references in the place of the model")
            findings += against_null(self.name, metric, "forget", measured, null, unit=unit, models=count)
        return findings
