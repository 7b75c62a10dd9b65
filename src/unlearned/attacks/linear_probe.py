"""Linear probe: does the representation still know the forgotten class, whatever the last layer says?

An unlearned model may answer as if it had never met a class, and still hold it apart in what its last layer reads. An attacker who has a few
samples of the class trains a new last layer. A retrained model, probed in the same way, shows how far features of other classes carry.
Paper: probes as in Alain and Bengio 2016, arXiv 1610.01644.
Formula: features φ(x) are standardised by the probe's own training samples; logistic regression over all classes, min ½ ‖W‖² + C Σ −log softmax(W φ + b)_y.
It is trained on n samples of each forgotten class, from the forget set, and on retained samples: n of each class, or all; and measured on test samples.
Deviations: none of a method; number of samples, C and the share of retained samples are ours.
Findings: with n as the budget, for all models: `knowledge` (the probe's probability of the true class) and `accuracy` on split `forget-test`, the test
samples of forgotten classes; `balanced_accuracy` on split `test`, the mean of the accuracies on test samples of forgotten and of retained classes: a probe
that calls everything forgotten reaches 0.5. `retention` of the probe's knowledge, beside what each model says by itself. Defined where whole classes are
forgotten.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from unlearned.attacks import attacks
from unlearned.attacks._attack import Attack
from unlearned.attacks._curves import findings_of_curves, findings_of_knowledge, knowledge_of
from unlearned.data.samples import Samples, union
from unlearned.engine.engine import evaluating
from unlearned.engine.randomness import derive_seed
from unlearned.errors import Fault, InputError
from unlearned.evidence.classes import of_classes, whole_classes
from unlearned.evidence.comparison import Measured, absent
from unlearned.evidence.statistics import Array, bootstrap, wilson
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Finding, SubjectName
from unlearned.tasks._task import beside

_METRICS = {"knowledge": "forget-test", "accuracy": "forget-test", "balanced_accuracy": "test"}
_BUDGET_UNIT = "samples of each forgotten class"

Labels = NDArray[np.int64]


def probe(features: Array, labels: Labels, asked: Array, classes: int, penalty: float) -> Array:
    """Probabilities that a logistic regression gives to each class, (m, classes); 0 for a class that it was not shown.

    Args:
        features: of the training samples, (n, d).
        labels: theirs, (n,); at least two classes.
        asked: features of the samples to be classified, (m, d).
        classes: how many there are.
        penalty: C, the weight of the samples against ½ ‖W‖².
    """
    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=10_000)).fit(features, labels)
    probabilities = np.zeros((len(asked), classes))
    probabilities[:, fitted.classes_] = fitted.predict_proba(asked)
    return probabilities


def first_of_each(labels: Labels, count: int) -> NDArray[np.bool_]:
    """Whether a sample is among the first `count` of its class, (n,)."""
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        chosen[np.flatnonzero(labels == label)[:count]] = True
    return chosen


class _Data(NamedTuple):
    """Samples that probes are trained on, in the order in which they are given, and test samples."""

    train: Samples
    forgotten: NDArray[np.bool_]
    """Which of the training samples are of forgotten classes."""
    test_forgotten: NDArray[np.bool_]
    budgets: list[int]


class _Point(NamedTuple):
    """What a probe shows."""

    known: Array
    """Its probability of the true class, for each sample of a forgotten class."""
    rates: dict[str, Measured]


@attacks.register("linear-probe")
class LinearProbe(Attack):
    """Train a new last layer on a few samples of each class; measure it on the forgotten ones."""

    name: ClassVar[str] = "linear-probe"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-classification"})
    samples: int = Field(50, ge=1, description="Most samples of each forgotten class that the attacker has.")
    retained: Literal["equal", "all"] = Field("equal", description="Samples of each retained class: as many as of a forgotten one, or all.")
    penalty: float = Field(1.0, gt=0, description="C of the logistic regression: larger values fit the samples more closely.")

    def faults(self, problem: Problem) -> list[Fault]:
        model = problem.original.model
        try:
            with evaluating(model), torch.no_grad():
                problem.task.features(model, beside(problem.task.collate([problem.forget[0]]), model))
        except InputError as error:
            return [fault._replace(field="name") for fault in error.faults]
        return []

    def measure(self, subject: Subject) -> list[Finding]:
        data = self._data(subject)
        if isinstance(data, str):
            return [absent(self.name, metric, split, data, unit="share", kind="attack") for metric, split in _METRICS.items()]
        curves: dict[SubjectName, list[list[_Point]]] = {"original": [], "unlearned": [], "reference": []}
        said: dict[SubjectName, list[Array]] = {"original": [], "unlearned": [], "reference": []}
        for who, model in subject.models():
            curves[who].append(self._curve(subject, model, data))
            said[who].append(knowledge_of(subject, model, subject.problem.test.subset(np.flatnonzero(data.test_forgotten))))
        known = {who: [[point.known for point in curve] for curve in several] for who, several in curves.items()}
        findings = findings_of_knowledge(subject, self.name, "forget-test", known, data.budgets, _BUDGET_UNIT, before=said)
        for metric in ("accuracy", "balanced_accuracy"):
            rates = {who: [[point.rates[metric] for point in curve] for curve in several] for who, several in curves.items()}
            findings += findings_of_curves(self.name, metric, _METRICS[metric], rates, data.budgets, _BUDGET_UNIT)
        return findings

    def _data(self, subject: Subject) -> _Data | str:
        problem = subject.problem
        classes = whole_classes(problem)
        if isinstance(classes, str):
            return classes
        test_forgotten = of_classes(problem.test, problem.forget)
        assert test_forgotten is not None
        if not test_forgotten.any() or test_forgotten.all():
            return f"the test set has no samples of {'retained' if test_forgotten.any() else 'the forgotten'} classes"
        seed = derive_seed(subject.engine.seed, self.name)
        given = []
        for samples, most in ((problem.forget, self.samples), (problem.retain, self.samples if self.retained == "equal" else len(problem.retain))):
            shuffled = samples.shuffled(seed)
            given.append(shuffled.subset(np.flatnonzero(first_of_each(np.array(shuffled.fact("label")), most))))
        train = union(*given)
        least = min(int((np.array(given[0].fact("label")) == label).sum()) for label in classes)
        grid = {base * 10**power for base in (1, 2, 5) for power in range(len(str(least)))}
        return _Data(train, np.arange(len(train)) < len(given[0]), test_forgotten, sorted({n for n in grid if n < least} | {least}))

    def _curve(self, subject: Subject, model: nn.Module, data: _Data) -> list[_Point]:
        engine, test = subject.engine, subject.problem.test
        features, asked = (engine.evaluate(model, samples, engine.task.features).numpy() for samples in (data.train, test))
        labels, true = (np.array(samples.fact("label")) for samples in (data.train, test))
        points = []
        for budget in data.budgets:
            shown = first_of_each(labels, budget)
            if self.retained == "all":
                shown |= ~data.forgotten
            p = probe(features[shown], labels[shown], asked, int(max(labels.max(), true.max())) + 1, self.penalty)
            points.append(self._point(p, true, data.test_forgotten, derive_seed(engine.seed, self.name, budget)))
        return points

    def _point(self, probabilities: Array, true: Labels, forgotten: NDArray[np.bool_], seed: int) -> _Point:
        known = probabilities[np.arange(len(true)), true][forgotten]
        right = (probabilities.argmax(axis=1) == true).astype(np.float64)
        of_forgotten, of_retained = right[forgotten], right[~forgotten]

        def balanced(a: Array, b: Array) -> float:
            return float(a.mean() + b.mean()) / 2

        n = len(known)
        rates = {
            "accuracy": Measured(float(of_forgotten.mean()), wilson(float(of_forgotten.sum()), n), n),
            "balanced_accuracy": Measured(balanced(of_forgotten, of_retained), bootstrap(balanced, of_forgotten, of_retained, seed=seed), len(true)),
        }
        return _Point(known, rates)
