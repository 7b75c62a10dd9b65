"""KLoM: do the margins of unlearned models have the distribution that those of retrained models have?

Paper: Georgiev et al. 2024 (Attribute-to-Delete), arXiv 2410.23232; values of the code RoyRin/data-unlearning-bench.
Formula: margin f(x)_y − log Σ_{k≠y} exp f(x)_k of each model, clipped to ±100. For each sample KL(p ‖ q) in nats: p is the histogram over unlearned, q that
over retrained models, in 20 bins over the range of both together; where p > 0, q is at least 1e-5, and then normalised. Mean and 95th percentile over samples.
Defaults of the authors: 20 bins, ±100, 1e-5, 100 models on either side.
Deviations: the last bin includes its upper end (the authors' code drops the largest value). Tasks without classes use log p/(1 − p) with p = exp(−loss).
Histograms of few models differ by chance, and all the more the fewer they are: so both sides have the same number of models, and the null, references against
other references, has as many; with `count` references, at most half of them. What is left over is used in turn: 20 random choices are averaged.
Findings on each split: `klom_mean`, `klom_95th_percentile`, and `models`, the number on either side. Needs two references and two shadow models, and for the
null four references.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from unlearned.audits import audits
from unlearned.audits._audit import Audit
from unlearned.audits._distributions import log_odds, matched, no_null, spread, too_few
from unlearned.engine.randomness import derive_seed
from unlearned.evidence.comparison import Measured, absent, against_null
from unlearned.evidence.statistics import Array
from unlearned.evidence.subject import Subject
from unlearned.records import Finding

BINS = 20
EPSILON = 1e-5
_METRICS: dict[str, Callable[[Array], float]] = {
    "klom_mean": lambda values: float(values.mean()),
    "klom_95th_percentile": lambda values: float(np.quantile(values, 0.95)),
}


def histogram_divergence(unlearned: Array, oracle: Array, bins: int = BINS, epsilon: float = EPSILON) -> Array:
    """KL(histogram of `unlearned` ‖ histogram of `oracle`) of each sample in nats, (n,).

    Args:
        unlearned: margins, (a, n).
        oracle: margins, (b, n).
        bins: of equal width, over the range of both.
        epsilon: least of the oracle's shares where the unlearned one is not 0.
    """
    low = np.minimum(unlearned.min(axis=0), oracle.min(axis=0))
    high = np.maximum(unlearned.max(axis=0), oracle.max(axis=0))
    width = np.where(high > low, high - low, 1.0)

    def shares(values: Array) -> Array:
        n = values.shape[1]
        which = np.clip(((values - low) / width * bins).astype(np.int64), 0, bins - 1) + bins * np.arange(n)
        return np.bincount(which.ravel(), minlength=bins * n).reshape(n, bins) / len(values)

    p, q = shares(unlearned), shares(oracle)
    safe = np.where(p > 0, np.maximum(q, epsilon), q)
    safe /= safe.sum(axis=1, keepdims=True)
    logs = np.log(p, out=np.zeros_like(p), where=p > 0) - np.log(safe, out=np.zeros_like(p), where=p > 0)
    divergence: Array = (p * logs).sum(axis=1)
    return divergence


@audits.register("klom")
class Klom(Audit):
    """KL divergence of margins."""

    name: ClassVar[str] = "klom"

    def measure(self, subject: Subject) -> list[Finding]:
        reason = too_few(subject, self.name, 2)
        if reason is not None:
            return [absent(self.name, metric, split, reason, unit="nats") for split in subject.problem.sets for metric in _METRICS]
        return [finding for split in subject.problem.sets for finding in self._on(subject, split)]

    def _on(self, subject: Subject, split: str) -> list[Finding]:
        phi = log_odds(subject, split)
        parts = matched(len(phi.shadows), len(phi.references), 2, derive_seed(subject.engine.seed, self.name))
        models, n = len(parts[0].oracle), phi.references.shape[1]
        values = [histogram_divergence(phi.shadows[part.shadows], phi.references[part.oracle]) for part in parts]
        nulls = [histogram_divergence(phi.references[part.null], phi.references[part.oracle]) for part in parts if part.null is not None]
        why = no_null(4, len(phi.references))
        findings: list[Finding] = []
        for metric, summary in _METRICS.items():
            unlearned = spread([summary(value) for value in values], n, "choices of models")
            null = spread([summary(value) for value in nulls], n, "choices of models") if nulls else why
            findings += against_null(self.name, metric, split, {"unlearned": unlearned}, null, unit="nats", models=models)
        count = Measured(models, None, n)
        return findings + against_null(self.name, "models", split, {"unlearned": count}, count if nulls else why, unit="models", models=models)
