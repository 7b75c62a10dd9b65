"""RMIA: is a sample's probability under the model larger, for what it should be, than that of samples that nobody trained on?

Paper: Zarifzadeh et al. 2024, arXiv 2312.03262; values of the code privacytrustlab/ml_privacy_meter.
Formula: score(x) = mean_z 1[(p(x|θ)/p(x)) / (p(z|θ)/p(z)) > 1], p(·|θ) = exp(−loss), the true class's probability, and z the population. Offline, by models
that were not trained with x: p(x) = ½ ((1 + a) mean_out p(x|θ') + (1 − a)). Online: p(x) = ½ (mean_in p(x|θ') + mean_out p(x|θ')).
Defaults of the authors: a in {0, 0.1, ..., 1}, the one that attacks another model with known members best.
Deviations: z are the test samples, other than x. Models without x are the references; models with x are the shadow models, which were trained with it and then
unlearned it. All references share the retain set, so that none has members by which a could be tuned; the original has, the forget set, and
of it the references know nothing: a is tuned on the original (the smallest of the best), or given.
Findings: AUC of the score, Mann-Whitney: `offline_auc`, and `online_auc` where there are shadow models. On split `forget`, forget against test samples; on
`retain-forget` and `retain-test`, retain samples against these. The references were trained with the retain samples, so that on those splits
no value means anything but beside the references' own. The null is each reference in the place of the model; and as it is then
not one of those that give p(x), each reference is left out in turn for the unlearned model too, and the mean is taken. Needs two references.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import Field
from scipy.special import logsumexp
from torch import Tensor

from unlearned.audits import audits
from unlearned.audits._audit import Audit
from unlearned.audits._membership import auc
from unlearned.engine.randomness import derive_seed
from unlearned.evidence.comparison import Measured, absent, compare
from unlearned.evidence.statistics import Array, bootstrap
from unlearned.evidence.subject import Subject
from unlearned.records import Finding, SubjectName

_LEAST = -745.0
"""Log of the smallest probability above 0 that float64 holds: an infinite loss would leave no ratio."""
_GRID = tuple(i / 10 for i in range(11))
_PAIRS = {"forget": ("forget", "test"), "retain-forget": ("retain", "forget"), "retain-test": ("retain", "test")}


def offline_log_p(outside: Array, a: float) -> Array:
    """Log ½ ((1 + a) mean_out p + (1 − a)), (n,).

    Args:
        outside: log p of each sample under models that were not trained with it, (models, n), models ≥ 1.
        a: in [0, 1]; 1 trusts these models alone.
    """
    mean = logsumexp(outside, axis=0) - np.log(len(outside))
    rest = np.log(1 - a) if a < 1 else -np.inf
    found: Array = np.logaddexp(np.log(1 + a) + mean, rest) - np.log(2)
    return found


def online_log_p(inside: Array, outside: Array) -> Array:
    """Log ½ (mean_in p + mean_out p), (n,), from log p under models that were trained with the samples and that were not, each (models, n)."""
    means = [logsumexp(bank, axis=0) - np.log(len(bank)) for bank in (inside, outside)]
    found: Array = np.logaddexp(*means) - np.log(2)
    return found


def scores(log_ratios: Array, population: Array) -> Array:
    """Share of the population that has a smaller ratio p(·|θ)/p(·), (n,) in [0, 1].

    Args:
        log_ratios: log of the samples' ratios, (n,).
        population: log of the population's, (m,), m ≥ 1.
    """
    below: Array = np.searchsorted(np.sort(population), log_ratios, side="left") / len(population)
    return below


def population_scores(population: Array) -> Array:
    """The same of each sample of the population among the others, (m,), m ≥ 2: counting itself, it would look a little less like a member than it is."""
    below: Array = np.searchsorted(np.sort(population), population, side="left") / (len(population) - 1)
    return below


class _Log(NamedTuple):
    """log p of the samples of each set under one model or, stacked, several."""

    forget: Array
    retain: Array
    test: Array

    def without(self, model: int) -> _Log:
        """Of several models, without one."""
        return _Log(*(np.delete(values, model, axis=0) for values in self))

    def of(self, model: int) -> _Log:
        """One of several."""
        return _Log(*(values[model] for values in self))


Expected = Callable[[_Log], _Log]
"""log p(x) from log p under the models that were not trained with x."""


@audits.register("rmia")
class Rmia(Audit):
    """Ratios of likelihoods against a population."""

    name: ClassVar[str] = "rmia"
    a: float | None = Field(None, ge=0, le=1, description="How far the references are trusted to give p(x) offline; None: tuned on the original.")

    def measure(self, subject: Subject) -> list[Finding]:
        banks = len(subject.references), len(subject.shadows)
        if banks[0] < 2 or len(subject.problem.test) < 2:
            what = f"rmia needs at least 2 references and 2 test samples, there are {banks[0]} and {len(subject.problem.test)}"
            return [absent(self.name, f"{mode}_auc", split, what, unit="") for mode in ("offline", "online") for split in _PAIRS]
        logs, shadows = _logs(subject)
        references = _Log(*map(np.stack, zip(*logs["reference"], strict=True)))
        a = self.a if self.a is not None else _tuned(logs["original"][0], references)
        seed = derive_seed(subject.engine.seed, self.name)
        findings = [_setting(self.name, a, banks[0], tuned=self.a is None)]
        findings += self._findings("offline_auc", logs, references, lambda outside: _Log(*(offline_log_p(values, a) for values in outside)), seed)
        if shadows is None:
            what = f"online rmia needs shadow models, there are {banks[1]}"
            return findings + [absent(self.name, "online_auc", split, what, unit="") for split in _PAIRS]

        def online(outside: _Log) -> _Log:
            return _Log(*(online_log_p(inside, values) for inside, values in zip(shadows, outside, strict=True)))

        return findings + self._findings("online_auc", logs, references, online, seed)

    def _findings(self, metric: str, logs: dict[SubjectName, list[_Log]], references: _Log, expected: Expected, seed: int) -> list[Finding]:
        p = [expected(references.without(r)) for r in range(len(logs["reference"]))]
        measured: dict[str, dict[SubjectName, list[Measured]]] = {split: {} for split in _PAIRS}
        for who in ("original", "unlearned"):
            ratios = [_ratios(logs[who][0], left) for left in p]
            for split in _PAIRS:
                measured[split][who] = [_measured(split, ratios, seed)]
        for split in _PAIRS:
            measured[split]["reference"] = [_measured(split, [_ratios(model, left)], None) for model, left in zip(logs["reference"], p, strict=True)]
        return [finding for split, numbers in measured.items() for finding in compare(self.name, metric, split, numbers, unit="")]


def _logs(subject: Subject) -> tuple[dict[SubjectName, list[_Log]], _Log | None]:
    """Log p = −loss of every model; of the shadow models stacked, if there are any."""

    def log_p(losses: Tensor) -> Array:
        logs: Array = losses.neg().clamp(min=_LEAST).numpy()
        return logs

    losses = subject.engine.task.losses
    values = {split: subject.values(losses, split) for split in _Log._fields}
    logs = {who: [_Log(*(log_p(values[split][who][i]) for split in _Log._fields)) for i in range(len(several))] for who, several in values["test"].items()}
    if not subject.shadows:
        return logs, None
    return logs, _Log(*(np.stack([log_p(value) for value in subject.shadow_values(losses, split)]) for split in _Log._fields))


def _ratios(model: _Log, expected: _Log) -> _Log:
    return _Log(*(ours - theirs for ours, theirs in zip(model, expected, strict=True)))


def _scored(ratios: _Log) -> dict[str, Array]:
    return {"forget": scores(ratios.forget, ratios.test), "retain": scores(ratios.retain, ratios.test), "test": population_scores(ratios.test)}


def _measured(split: str, ratios: Sequence[_Log], seed: int | None) -> Measured:
    """Mean AUC over the banks by which the ratios were taken; with a seed, an interval over samples."""
    members, others = _PAIRS[split]
    scored = [_scored(each) for each in ratios]
    stacked = [np.stack([each[name] for each in scored], axis=1) for name in (members, others)]

    def mean(a: Array, b: Array) -> float:
        return float(np.mean([auc(x, y) for x, y in zip(a.T, b.T, strict=True)]))

    interval = None if seed is None else bootstrap(mean, *stacked, seed=seed, rounds=200)
    return Measured(mean(*stacked), interval, len(stacked[0]) + len(stacked[1]))


def _tuned(original: _Log, references: _Log) -> float:
    """The a that tells the forget set, on which the original was trained, best from the test set."""

    def found(a: float) -> float:
        lefts = [references.without(r) for r in range(len(references.test))]
        return _measured("forget", [_ratios(original, _Log(*(offline_log_p(values, a) for values in left))) for left in lefts], None).value

    return max(_GRID, key=found)


def _setting(audit: str, a: float, references: int, *, tuned: bool) -> Finding:
    return Finding(
        audit=audit,
        metric="offline_a",
        split="forget",
        subject="original",
        value=a,
        n=references,
        unit="",
        direction="none",
        reason="a setting, tuned on the original" if tuned else "a setting, as it was given",
    )
