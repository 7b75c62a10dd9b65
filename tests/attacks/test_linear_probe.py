from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.conformance.test_measurements import subject_of
from tests.models import bundle_of, images, problem_of
from unlearned.api import make_problem
from unlearned.attacks.linear_probe import LinearProbe, first_of_each, probe
from unlearned.engine.engine import Engine
from unlearned.engine.randomness import derive_seed
from unlearned.evidence.subject import Subject
from unlearned.records import pick

CLASSES = "label in [3, 4, 5]"


def softmax_regression(features: np.ndarray, labels: np.ndarray, asked: np.ndarray, classes: int, penalty: float) -> np.ndarray:
    """½ ‖W‖² + C Σ CE minimised by L-BFGS in torch, on features standardised by their own mean and deviation."""
    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread[spread == 0] = 1
    x, z = (torch.from_numpy((part - centre) / spread) for part in (features, asked))
    present, y = np.unique(labels, return_inverse=True)
    weight = torch.zeros(len(present), x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(present), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=2000, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimizer.zero_grad()
        loss = 0.5 * weight.square().sum() + penalty * nn.functional.cross_entropy(x @ weight.T + bias, torch.from_numpy(y), reduction="sum")
        loss.backward()
        return loss

    optimizer.step(closure)
    found = np.zeros((len(asked), classes))
    found[:, present] = (z @ weight.T + bias).softmax(dim=1).detach().numpy()
    return found


@pytest.mark.parametrize("penalty", [0.1, 1.0])
def test_probe_against_its_objective(penalty: float) -> None:
    random = np.random.default_rng(1)
    labels = random.integers(0, 3, 40) + (random.integers(0, 3, 40) > 0)
    features = np.c_[random.normal(labels[:, None], 2, (40, 4)), np.full(40, 7.0)]
    asked = np.c_[random.normal(1, 2, (9, 4)), np.full(9, 7.0)]
    found = probe(features, labels, asked, 6, penalty)
    assert found.shape == (9, 6)
    np.testing.assert_allclose(found, softmax_regression(features, labels, asked, 6, penalty), atol=2e-3)
    assert (found[:, 4:] == 0).all()


def test_first_of_each_class() -> None:
    assert first_of_each(np.array([2, 2, 1, 2, 1, 1]), 2).tolist() == [True, True, True, False, True, False]


def curve_by_hand(subject: Subject, model: nn.Module, budget: int, *, everything: bool) -> dict[str, float]:
    problem, seed = subject.problem, derive_seed(subject.engine.seed, "linear-probe")
    rows, labels = [], []
    for samples, is_forgotten in ((problem.forget.shuffled(seed), True), (problem.retain.shuffled(seed), False)):
        counts: dict[int, int] = {}
        for i, label in enumerate(samples.fact("label")):
            counts[label] = counts.get(label, 0) + 1
            if counts[label] <= budget or (everything and not is_forgotten):
                rows.append(samples[i]["pixel_values"])
                labels.append(label)
    assert isinstance(model, nn.Sequential)
    asked = [problem.test[i]["pixel_values"] for i in range(len(problem.test))]
    features = [model[:-1](torch.stack(part)).detach().numpy() for part in (rows, asked)]
    p = probe(features[0].astype(np.float64), np.array(labels), features[1].astype(np.float64), 10, 1.0)
    true = np.array(problem.test.fact("label"))
    forgotten = np.isin(true, [3, 4, 5])
    right = p.argmax(axis=1) == true
    return {
        "knowledge": float(np.mean([row[y] for row, y in zip(p[forgotten], true[forgotten], strict=True)])),
        "accuracy": float(right[forgotten].mean()),
        "balanced_accuracy": float(right[forgotten].mean() + right[~forgotten].mean()) / 2,
    }


@pytest.mark.parametrize("everything", [False, True], ids=["equal", "all"])
def test_curve_by_hand(everything: bool) -> None:
    """Seven samples of three classes: the rarest has two, so that budgets end there."""
    subject = subject_of("plain", where=CLASSES)
    findings = LinearProbe(retained="all" if everything else "equal").measure(subject)
    for (who, model), budget in itertools.product(subject.models()[:2], (1, 2)):
        expected = curve_by_hand(subject, model, budget, everything=everything)
        found = {f.metric: f.value for f in findings if f.subject == who and f.budget == budget}
        assert found == pytest.approx(expected, abs=1e-3)
    assert {f.budget for f in findings if f.metric != "retention"} == {1, 2}
    splits = {"knowledge": "forget-test", "retention": "forget-test", "accuracy": "forget-test", "balanced_accuracy": "test"}
    assert {(f.metric, f.split) for f in findings} == set(splits.items())


def test_an_answer_of_the_last_layer_alone_does_not_matter() -> None:
    """Another last layer on the same features: the same curve."""
    subject = subject_of("plain", where=CLASSES)
    other = bundle_of("plain", 200)
    with torch.no_grad():
        other.model[8].weight.zero_()  # type: ignore[index]
    changed = Subject(subject.problem, other, subject.references, subject.engine)
    assert LinearProbe().measure(changed) == LinearProbe().measure(subject)


@pytest.mark.parametrize(
    ("where", "test", "reason"),
    [
        (["digit-0", "digit-1"], (100, 16), "4 samples of the forgotten classes are retained"),
        ("label == 3", (4, 3), "the test set has no samples of the forgotten classes"),
        ("label == 3", (3, 1), "the test set has no samples of retained classes"),
    ],
)
def test_what_cannot_be_probed_is_said(where: Any, test: tuple[int, int], reason: str) -> None:
    problem = make_problem(bundle_of("plain"), train=images(0, 24), test=images(*test), forget=where)
    findings = LinearProbe().measure(Subject(problem, bundle_of("plain", 1), [], Engine(problem.task)))
    assert len(findings) == 3
    assert all(f.value is None and reason in (f.reason or "") for f in findings)


def test_a_model_without_a_linear_layer_at_its_end_is_a_fault_of_the_input() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(dim=1))
    problem = problem_of("linear", model=model)
    [fault] = LinearProbe().faults(problem)
    assert (fault.field, "not the output of a linear layer" in fault.what) == ("name", True)
    assert LinearProbe().faults(problem_of("plain")) == []


def test_more_samples_than_there_are_cannot_be_given() -> None:
    train = images(0, 200)
    problem = make_problem(bundle_of("plain"), train=train, test=images(300, 60), forget="label == 3")
    there = problem.forget.fact("label").count(3)
    for samples, last in ((4, 4), (10, 10), (1000, there)):
        findings = LinearProbe(samples=samples).measure(Subject(problem, bundle_of("plain", 1), [], Engine(problem.task)))
        assert pick(findings, subject="unlearned", metric="accuracy")[-1].budget == last
