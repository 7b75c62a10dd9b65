"""MIA-NN against loops, worked arithmetic and what must hold of it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.svm import SVC
from torch import nn

from tests.conformance.test_measurements import subject_of
from tests.models import bundle_of, images, layer_of
from unlearned.api import make_problem
from unlearned.audits._membership import auc
from unlearned.audits._nearest import balanced, feature, nearest, output_tv, ranks_above, routing_tv, strict_scores, vector_gap
from unlearned.audits.mia_nn import MiaNN
from unlearned.engine.bank import Kept
from unlearned.engine.engine import Engine
from unlearned.engine.randomness import derive_seed
from unlearned.evidence.subject import Subject
from unlearned.records import NO_REFERENCE, Finding, SubjectName, pick

DISTANCES = ("vector_gap", "routing_tv", "output_tv")


def subject(references: int = 3, *, where: str = "label == 3", test: tuple[int, int] = (100, 150), shadows: int = 0, kind: str = "linear") -> Subject:
    """Untrained networks, which answer classes by chance, and enough test samples of each class."""
    problem = make_problem(bundle_of(kind), train=images(0, 80), test=images(*test), forget=where)

    def bank(first: int, count: int) -> list[Kept]:
        return [Kept(bundle_of(kind, first + i), None, None) for i in range(count)]

    return Subject(problem, bundle_of(kind, 200), bank(300, references), Engine(problem.task, seed=4), None, bank(400, shadows))


def value(findings: list[Finding], metric: str, who: SubjectName = "unlearned", split: str = "forget-test") -> float:
    [finding] = pick(findings, metric=metric, subject=who, split=split)
    assert finding.value is not None
    return finding.value


def logits_of(of: Subject, model: nn.Module, *, train: bool = False) -> tuple[np.ndarray, np.ndarray]:
    samples = of.problem.retain if train else of.problem.test
    with torch.no_grad():
        rows = [model(samples[i]["pixel_values"][None])[0].double().numpy() for i in range(len(samples))]
    return np.array(rows), np.array(samples.fact("label"))


# --- the formulas


def test_what_an_svm_sees() -> None:
    logits, forgotten = np.array([[1.0, 2.0, 0.0], [0.0, 0.0, np.log(2)]]), np.array([False, True, False])
    assert feature(logits, "retained-logits", forgotten, 2).tolist() == [[1.0, 0.0], [0.0, pytest.approx(np.log(2))]]
    assert feature(logits, "logits", forgotten, 2) is logits
    assert feature(logits, "softmax", forgotten, 2)[1].tolist() == pytest.approx([0.25, 0.25, 0.5])
    assert feature(logits, "1d", forgotten, 2)[1].tolist() == pytest.approx([0.5])


@pytest.mark.parametrize("seed", range(5))
def test_as_many_others_spread_evenly(seed: int) -> None:
    """Ten of class 7; of the others twenty, two and one: all of the rare ones, and seven of the first."""
    labels = np.random.default_rng(seed).permutation([7] * 10 + [0] * 20 + [1] * 2 + [2])
    positives, negatives = balanced(labels, 7, seed)
    assert sorted(labels[positives]) == [7] * 10
    assert sorted(labels[negatives]) == [0] * 7 + [1] * 2 + [2]
    assert len(set(negatives.tolist())) == 10
    again = balanced(labels, 7, seed)
    assert (again[0] == positives).all()
    assert (again[1] == negatives).all()
    other = balanced(labels, 7, seed + 100)
    assert not np.array_equal(other[1], negatives)


def test_classes_take_turns_when_there_are_more_than_samples() -> None:
    labels = np.repeat(np.arange(6), 4)
    seen = {tuple(sorted(labels[balanced(labels, 0, seed)[1]])) for seed in range(30)}
    assert all(len(set(chosen)) == 4 for chosen in seen)
    assert len(seen) == 5


def test_the_class_is_cut_to_the_number_of_others() -> None:
    positives, negatives = balanced(np.array([1, 1, 1, 1, 0, 2]), 1, 0)
    assert (len(positives), sorted(negatives.tolist())) == (2, [4, 5])


def test_nearest_classes() -> None:
    assert nearest(np.array([0.1, 0.5, 0.3, 0.1]), np.array([False, True, False, False])) == [2, 0, 3]


def test_distances_by_hand() -> None:
    a, b = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([[0.5, 0.5], [0.0, 1.0]])
    assert vector_gap(a, b) == pytest.approx((0.75 + 0.75) / 2)
    assert routing_tv(a, b) == pytest.approx(0.75)
    assert output_tv(a, b) == pytest.approx((0.5 + 1.0) / 2)
    crossed = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert (routing_tv(crossed, crossed[::-1]), output_tv(crossed, crossed[::-1])) == (0, 1)


@pytest.mark.parametrize("seed", range(5))
def test_answers_that_are_all_one_class_lie_as_far_away_as_the_reference_answers_others(seed: int) -> None:
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.ones(6), size=40)
    for label in range(6):
        assert routing_tv(np.eye(6)[[label] * 40], shares) == pytest.approx(1 - shares[:, label].mean())


# --- the strict form


def test_strict_scores_against_a_loop() -> None:
    """A linear SVM on one number: its scores rank samples as the number does, up or down."""
    random = np.random.default_rng(0)
    unlearned, retrained = random.random((3, 20)), random.random((5, 20))
    scores = strict_scores(unlearned, retrained, "linear", 3.0)
    assert scores[0].shape == scores[1].shape == (5, 20)
    for fold in range(5):
        i, j = fold % 3, fold
        kept = [unlearned[k] for k in range(3) if k != i], [retrained[k] for k in range(5) if k != j]
        x = np.concatenate([np.concatenate(part) for part in kept])
        z = (x - x.mean()) / x.std()
        weights = {1: 120 / (2 * 40), 0: 120 / (2 * 80)}
        machine = SVC(C=3.0, kernel="linear", class_weight=weights).fit(z[:, None], [1] * 40 + [0] * 80)
        for found, values in ((scores[0][fold], unlearned[i]), (scores[1][fold], retrained[j])):
            expected = float(machine.coef_[0, 0]) * (values - x.mean()) / x.std() + float(machine.intercept_[0])
            np.testing.assert_allclose(found, expected, rtol=1e-6)


def strict(unlearned: np.ndarray, retrained: np.ndarray) -> tuple[float, float]:
    pairs = list(zip(*strict_scores(unlearned, retrained, "rbf", 3.0), strict=True))
    return float(np.mean([auc(a, b) for a, b in pairs])), float(np.mean([ranks_above(a, b) for a, b in pairs]))


def test_models_of_one_kind_cannot_be_told_apart() -> None:
    """Forty times two banks from one distribution, with samples and models of their own offsets: 0.5 on average."""
    found = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        samples = random.normal(0, 1, 25)
        bank = 1 / (1 + np.exp(-(samples + random.normal(0, 0.7, (9, 1)) + random.normal(0, 0.5, (9, 25)))))
        found.append(strict(bank[:4], bank[4:]))
    means, errors = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / np.sqrt(40)
    assert (np.abs(means - 0.5) < 2.5 * errors).all()
    assert (errors < [0.03, 0.06]).all()


def test_models_that_answer_otherwise_are_told_apart_from_either_side() -> None:
    """All probabilities lower, all higher, or in the middle of what references say: the last takes a kernel that is not monotone."""
    random = np.random.default_rng(3)
    retrained = np.where(random.random((5, 30)) < 0.5, 0.1, 0.9) + random.normal(0, 0.02, (5, 30))
    for centre in (-0.5, 1.5, 0.5):
        assert strict(centre + random.normal(0, 0.02, (4, 30)), retrained) == pytest.approx((1.0, 1.0))


def test_few_samples_of_many_models_train_the_strict_svm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unlearned.audits._nearest._STRICT_SAMPLES", 12)
    random = np.random.default_rng(0)
    unlearned, retrained = random.random((3, 20)), random.random((3, 20))
    scores = strict_scores(unlearned, retrained, "linear", 3.0)
    monkeypatch.undo()
    few = strict_scores(unlearned[:, :2], retrained[:, :2], "linear", 3.0)
    assert scores[0].shape == (3, 20)
    np.testing.assert_allclose(scores[0][:, :2], few[0])


# --- the whole audit


def accepted_by_hand(of: Subject, model: nn.Module, label: int, kind: str, *, train: bool, kernel: str = "rbf") -> np.ndarray:
    """What an SVM of the class says to test samples of class 3: a sum over support vectors, features standardised by hand."""
    (z, y), (taught, labels) = logits_of(of, model), logits_of(of, model, train=train)
    taught, labels = taught[labels != 3], labels[labels != 3]
    positives, negatives = balanced(labels, label, derive_seed(of.engine.seed, "mia-nn", label))

    def seen(rows: np.ndarray) -> np.ndarray:
        p = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
        inputs = {"mia_nn": np.delete(rows, 3, axis=1), "mia_nn_logits": rows, "mia_nn_softmax": p, "mia_nn_1d": p[:, [label]]}
        return np.asarray(inputs[kind])

    x = seen(np.concatenate([taught[positives], taught[negatives]]))
    centre, spread = x.mean(axis=0), x.std(axis=0)
    machine = SVC(C=3, kernel=kernel, gamma=1 / x.shape[1]).fit((x - centre) / spread, [1] * len(positives) + [0] * len(negatives))
    taken = []
    for row in (seen(z[y == 3]) - centre) / spread:
        support = machine.support_vectors_
        similar = support @ row if kernel == "linear" else np.exp(-((support - row) ** 2).sum(axis=1) / x.shape[1])
        taken.append(float(float(machine.dual_coef_[0] @ similar + machine.intercept_[0]) > 0))
    return np.array(taken)


@pytest.mark.parametrize(("data", "kernel"), [("test", "rbf"), ("train", "rbf"), ("test", "linear")])
def test_scores_by_hand(data: Any, kernel: Any) -> None:
    of = subject()
    findings = MiaNN(data=data, kernel=kernel).measure(of)
    models = [model for _, model in of.models()]
    shares = np.zeros(10)
    for model in models[2:]:
        z, y = logits_of(of, model)
        for row in z[y == 3]:
            shares[row.argmax()] += 1 / (3 * (y == 3).sum())
    order = sorted((c for c in range(10) if c != 3), key=lambda c: (-shares[c], c))
    assert {f.metric for f in findings if f.metric.startswith("routed")} == {f"routed_to_{c}" for c in order[:3]}
    assert value(findings, f"routed_to_{order[0]}", "reference") == pytest.approx(shares[order[0]])
    for kind in ("mia_nn", "mia_nn_logits", "mia_nn_softmax", "mia_nn_1d"):
        expected = [accepted_by_hand(of, model, order[0], kind, train=data == "train", kernel=kernel).mean() for model in models]
        assert value(findings, kind, "original") == pytest.approx(expected[0])
        assert value(findings, kind) == pytest.approx(expected[1])
        assert value(findings, kind, "reference") == pytest.approx(np.mean(expected[2:]))
        [found] = pick(findings, metric=kind, subject="unlearned")
        assert found.gap == pytest.approx(expected[1] - np.mean(expected[2:]))


def test_distances_to_the_references_by_loops() -> None:
    of = subject()
    findings = MiaNN(variants=()).measure(of)
    acc = np.array([[accepted_by_hand(of, model, c, "mia_nn", train=False).mean() for c in range(10) if c != 3] for _, model in of.models()])
    routes, p = [], []
    for _, model in of.models():
        z, y = logits_of(of, model)
        p.append((np.exp(z) / np.exp(z).sum(axis=1, keepdims=True))[y == 3])
        routes.append([(z[y == 3].argmax(axis=1) == c).mean() for c in range(10)])

    def distances(m: int, others: list[int]) -> tuple[float, float, float]:
        gap = sum(abs(acc[m, c] - np.mean([acc[r, c] for r in others])) for c in range(9)) / 9
        route = 0.5 * sum(abs(routes[m][c] - np.mean([routes[r][c] for r in others])) for c in range(10))
        mean = sum(p[r] for r in others) / len(others)
        return float(gap), float(route), float(np.mean([0.5 * abs(a - b).sum() for a, b in zip(p[m], mean, strict=True)]))

    for metric, original, unlearned, *null in zip(
        DISTANCES, distances(0, [2, 3, 4]), distances(1, [2, 3, 4]), distances(2, [3, 4]), distances(3, [2, 4]), distances(4, [2, 3]), strict=True
    ):
        assert value(findings, metric, "original") == pytest.approx(original)
        assert value(findings, metric) == pytest.approx(unlearned)
        assert value(findings, metric, "reference") == pytest.approx(np.mean(null))


def test_the_only_reference_has_no_distance_to_itself() -> None:
    of = subject(references=1)
    itself = Subject(of.problem, of.references[0].bundle, of.references, of.engine)
    findings = MiaNN().measure(itself)
    for metric in ("mia_nn", "mia_nn_logits", "mia_nn_softmax", "mia_nn_1d"):
        assert [f.gap for f in pick(findings, metric=metric, subject="unlearned")] == [0]
    for metric in DISTANCES:
        assert value(findings, metric) == 0
        [finding] = pick(findings, metric=metric, subject="unlearned")
        assert finding.reason == "one reference model has no other to be compared with"
        assert not pick(findings, metric=metric, subject="reference")


@pytest.mark.parametrize("label", [3, 5])
def test_a_model_that_answers_one_class(label: int) -> None:
    """The forgotten class or another: the distance is one minus what references answer so."""
    of = subject()
    stubborn = copy.deepcopy(of.unlearned.model)
    with torch.no_grad():
        layer_of(stubborn, 1).bias[label] += 1000
    findings = MiaNN(variants=()).measure(Subject(of.problem, of.unlearned.with_model(stubborn), of.references, of.engine))
    share = np.mean([(z[y == 3].argmax(axis=1) == label).mean() for z, y in (logits_of(of, kept.bundle.model) for kept in of.references)])
    assert value(findings, "routing_tv") == pytest.approx(1 - share)


def test_several_classes_are_measured_one_by_one_and_not_named() -> None:
    of = subject(where="label in [3, 8]")
    findings = MiaNN(variants=()).measure(of)
    assert {f.split for f in findings} == {"forget-test-1", "forget-test-2"}
    assert not any("3" in f.metric or "8" in f.metric for f in findings)
    z, y = logits_of(of, of.unlearned.model)
    for split, label in (("forget-test-1", 3), ("forget-test-2", 8)):
        [finding] = pick(findings, metric="routing_tv", split=split, subject="unlearned")
        assert finding.n == (y == label).sum()
        route = np.eye(10)[z[y == label].argmax(axis=1)].mean(axis=0)
        mean = np.mean([np.eye(10)[w[y == label].argmax(axis=1)].mean(axis=0) for w, _ in (logits_of(of, kept.bundle.model) for kept in of.references)], axis=0)
        assert finding.value == pytest.approx(0.5 * abs(route - mean).sum())


def test_strict_form_of_the_audit_and_its_null() -> None:
    """All banks are untrained networks: unlearned and retrained models come from one distribution, and so do both halves of the references."""
    found, nulls = [], []
    for seed in range(4):
        of = subject(references=5, shadows=5)
        banks = [[Kept(bundle_of("linear", 1000 * seed + 100 * k + i), None, None) for i in range(5)] for k in range(2)]
        findings = MiaNN(variants=()).measure(Subject(of.problem, of.unlearned, banks[0], of.engine, None, banks[1]))
        found.append([value(findings, metric) for metric in ("mia_nn_strict", "mia_nn_strict_models")])
        nulls += [pick(findings, metric=metric, subject="reference")[0] for metric in ("mia_nn_strict", "mia_nn_strict_models")]
    assert np.abs(np.mean(found, axis=0) - 0.5).max() < 0.2
    for null in nulls:
        assert null.low is not None
        assert null.high is not None
        assert null.low <= 0.5 <= null.high


def test_pairs_that_are_all_ranked_alike_do_not_make_certain() -> None:
    """Four of four pairs: by Wilson the share is at least 0.51."""
    of = subject(references=4, shadows=4)
    sure = copy.deepcopy(of.unlearned.model)
    with torch.no_grad():
        layer_of(sure, 1).bias += 50 * torch.eye(10)[3]
    shadows = [Kept(of.unlearned.with_model(sure), None, None)] * 4
    findings = MiaNN(variants=()).measure(Subject(of.problem, of.unlearned, of.references, of.engine, None, shadows))
    [finding] = pick(findings, metric="mia_nn_strict_models", subject="unlearned")
    assert finding.value in {0, 1}
    assert (finding.high or 0) - (finding.low or 0) == pytest.approx(0.4899, abs=1e-4)
    assert finding.interval == "Wilson 95 % over 4 pairs of held-out models"


@pytest.mark.parametrize(
    ("references", "shadows", "metric", "reason"),
    [
        (3, 0, "mia_nn_strict", "needs at least 2 references and 2 shadow models, there are 3 and 0"),
        (1, 4, "mia_nn_strict_models", "needs at least 2 references and 2 shadow models, there are 1 and 4"),
        (0, 4, "mia_nn", NO_REFERENCE),
    ],
)
def test_too_few_models(references: int, shadows: int, metric: str, reason: str) -> None:
    [finding] = pick(MiaNN().measure(subject(references, shadows=shadows)), metric=metric, subject="unlearned")
    assert finding.value is None
    assert reason in (finding.reason or "")


def test_the_null_of_the_strict_form_needs_four_references() -> None:
    findings = MiaNN(variants=()).measure(subject(3, shadows=3))
    [finding] = pick(findings, metric="mia_nn_strict", subject="unlearned")
    assert finding.value is not None
    assert "needs at least 4 references, there are 3" in (finding.reason or "")


def test_what_is_not_defined_is_said() -> None:
    several = MiaNN().measure(subject_of("linear"))
    assert {f.value for f in several} == {None}
    assert all("defined where whole classes are forgotten" in (f.reason or "") for f in several)
    assert {f.metric for f in several} >= {"mia_nn", "mia_nn_logits", "vector_gap", "mia_nn_strict"}
    none = MiaNN().measure(subject(test=(4, 5)))
    assert all("no samples of this class" in (f.reason or "") for f in none)


def test_classes_with_too_few_samples_have_no_svm() -> None:
    """Eleven test samples, 0 to 9 and one more: of most classes there is one."""
    of = subject(test=(2, 11))
    findings = MiaNN(variants=()).measure(of)
    labels = of.problem.test.fact("label")
    repeated = {label for label in labels if labels.count(label) > 1}
    order = [int(f.metric.removeprefix("routed_to_")) for f in findings if f.metric.startswith("routed_to") and f.subject == "unlearned"]
    [score] = pick(findings, metric="mia_nn", subject="unlearned")
    assert order[0] not in repeated
    assert score.reason == f"class {order[0]}, the nearest, has fewer than two samples to learn from"
    assert value(findings, "vector_gap") >= 0
