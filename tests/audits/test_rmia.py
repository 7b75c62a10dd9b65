"""RMIA against the double loop of its definition, on numbers that are known, and on small banks of real models."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.audits import digits
from tests.conformance.test_measurements import subject_of
from unlearned.audits._membership import auc
from unlearned.audits.rmia import Rmia, offline_log_p, online_log_p, population_scores, scores
from unlearned.records import Finding


def value(findings: list[Finding], metric: str, split: str = "forget", subject: str = "unlearned") -> Finding:
    [finding] = [f for f in findings if (f.metric, f.split, f.subject) == (metric, split, subject)]
    return finding


@pytest.mark.parametrize("a", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("models", [1, 4])
def test_offline_probability_against_its_formula(a: float, models: int) -> None:
    p = np.random.default_rng(models).random((models, 7))
    expected = [0.5 * ((1 + a) * sum(float(p[m, i]) for m in range(models)) / models + (1 - a)) for i in range(7)]
    np.testing.assert_allclose(np.exp(offline_log_p(np.log(p), a)), expected, rtol=1e-12)


def test_online_probability_against_its_formula() -> None:
    random = np.random.default_rng(0)
    inside, outside = random.random((3, 7)), random.random((5, 7))
    np.testing.assert_allclose(np.exp(online_log_p(np.log(inside), np.log(outside))), 0.5 * (inside.mean(axis=0) + outside.mean(axis=0)), rtol=1e-12)


def test_probabilities_too_small_for_a_float_keep_their_order() -> None:
    """Logs of −800 and −900: as numbers both are 0. With a = 1, log ½ (2 mean) is the log itself."""
    np.testing.assert_allclose(offline_log_p(np.array([[-800.0, -900.0]]), 1.0), [-800, -900], rtol=1e-12)
    np.testing.assert_allclose(offline_log_p(np.array([[-800.0]]), 0.5), [math.log(0.25)], rtol=1e-12)
    np.testing.assert_allclose(online_log_p(np.array([[-800.0]]), np.array([[-800.0]])), [-800], rtol=1e-12)


def test_scores_against_the_double_loop() -> None:
    random = np.random.default_rng(1)
    p_x, q_x, p_z, q_z = (random.random(n) for n in (9, 9, 20, 20))
    p_z[:3], q_z[:3] = p_x[:3], q_x[:3]  # a ratio of exactly 1 does not count
    expected = [sum((p_x[i] / q_x[i]) / (p_z[j] / q_z[j]) > 1 for j in range(20)) / 20 for i in range(9)]
    np.testing.assert_allclose(scores(np.log(p_x) - np.log(q_x), np.log(p_z) - np.log(q_z)), expected)
    among = [sum((p_z[i] / q_z[i]) / (p_z[j] / q_z[j]) > 1 for j in range(20) if j != i) / 19 for i in range(20)]
    np.testing.assert_allclose(population_scores(np.log(p_z) - np.log(q_z)), among)


def test_auc_is_one_half_for_a_model_that_does_not_depend_on_the_samples() -> None:
    """2,000 draws of few samples, where a sample that counted itself in the population would be seen at once."""
    found, biased = [], []
    for seed in range(2000):
        random = np.random.default_rng(seed)
        forget, test = random.normal(size=5), random.normal(size=8)
        found.append(auc(scores(forget, test), population_scores(test)))
        biased.append(auc(scores(forget, test), scores(test, test)))
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - 0.5) < 3.5 * error
    assert np.mean(biased) - 0.5 > 7 * error


@pytest.mark.parametrize("a", [0.0, 0.6])
def test_the_whole_audit_by_hand(a: float) -> None:
    subject = subject_of("plain", references=3, shadows=2)
    p: dict[str, list[list[float]]] = {split: [] for split in ("forget", "retain", "test")}
    models = [subject.unlearned.model, *(kept.bundle.model for kept in (*subject.references, *subject.shadows))]
    for split, rows in p.items():
        samples = subject.problem.sets[split]
        for model in models:
            with torch.no_grad():
                logits = [model(samples[i]["pixel_values"][None]).double()[0] for i in range(len(samples))]
            rows.append([float(torch.softmax(row, dim=0)[int(samples[i]["labels"])]) for i, row in enumerate(logits)])

    def ratio(split: str, i: int, model: int, left: int, online: bool) -> float:
        out = [p[split][m][i] for m in (1, 2, 3) if m != left]
        inside = [p[split][m][i] for m in (4, 5)]
        mean = sum(out) / len(out)
        return p[split][model][i] / (0.5 * (mean + sum(inside) / 2) if online else 0.5 * ((1 + a) * mean + 1 - a))

    def score(split: str, i: int, model: int, left: int, online: bool) -> float:
        others = [j for j in range(len(p["test"][0])) if (split, i) != ("test", j)]
        return sum(ratio(split, i, model, left, online) > ratio("test", j, model, left, online) for j in others) / len(others)

    def area(members: str, others: str, model: int, left: int, online: bool) -> float:
        both = [[score(split, i, model, left, online) for i in range(len(p[split][0]))] for split in (members, others)]
        return sum(1.0 if x > y else 0.5 if x == y else 0.0 for x in both[0] for y in both[1]) / (len(both[0]) * len(both[1]))

    findings = Rmia(a=a).measure(subject)
    for metric, online in (("offline_auc", False), ("online_auc", True)):
        for split, (members, others) in (("forget", ("forget", "test")), ("retain-forget", ("retain", "forget")), ("retain-test", ("retain", "test"))):
            unlearned = np.mean([area(members, others, 0, left, online) for left in (1, 2, 3)])
            null = np.mean([area(members, others, left, left, online) for left in (1, 2, 3)])
            assert value(findings, metric, split).value == pytest.approx(unlearned, abs=1e-9)
            assert value(findings, metric, split, "reference").value == pytest.approx(null, abs=1e-9)


def test_a_is_the_one_that_attacks_the_original_best() -> None:
    subject = digits.subject(digits.retrained(100, 1), digits.retrained(0, 2))
    tuned = Rmia().measure(subject)
    chosen = value(tuned, "offline_a", subject="original")
    given = {a: Rmia(a=a).measure(subject) for a in (0.0, chosen.value, 1.0)}
    areas = {a: value(findings, "offline_auc", subject="original").value or 0 for a, findings in given.items()}
    assert value(tuned, "offline_auc", subject="original").value == areas[chosen.value] == max(areas.values()) > min(areas.values())
    assert value(given[1.0], "offline_a", subject="original").value == 1
    assert (chosen.direction, chosen.reason) == ("none", "a setting, tuned on the original")


def outside(finding: Finding, reference: Finding) -> bool:
    assert finding.low is not None
    assert finding.high is not None
    assert reference.value is not None
    return not finding.low <= reference.value <= finding.high


SPLITS = ("forget", "retain-forget", "retain-test")


def test_retrained_models_sit_at_the_null() -> None:
    """Three models, two forms, three splits: no more than one of eighteen leaves its interval of 95 %."""
    left = []
    for first in (100, 103, 106):
        findings = Rmia().measure(digits.subject(digits.retrained(first, 3), digits.retrained(0, 3)))
        for metric in ("offline_auc", "online_auc"):
            left += [outside(value(findings, metric, split), value(findings, metric, split, "reference")) for split in SPLITS]
    assert sum(left) <= 1


@pytest.mark.parametrize("models", ["originals", "broken"])
def test_models_that_know_too_much_or_too_little_do_not(models: str) -> None:
    findings = Rmia().measure(digits.subject(getattr(digits, models)(200, 3), digits.retrained(0, 3)))
    assert any(outside(value(findings, "offline_auc", split), value(findings, "offline_auc", split, "reference")) for split in SPLITS)
    if models == "originals":
        gap = value(findings, "offline_auc").gap
        assert gap is not None
        assert gap > 0.15


@pytest.mark.parametrize("references", [0, 1])
def test_too_few_references_are_a_reason(references: int) -> None:
    findings = Rmia().measure(digits.subject(digits.retrained(100, 2), digits.retrained(0, references)))
    assert {f.reason for f in findings} == {f"rmia needs at least 2 references and 2 test samples, there are {references} and 150"}
    assert len(findings) == 6


def test_without_shadow_models_it_is_offline_alone() -> None:
    findings = Rmia().measure(digits.subject(digits.retrained(100, 1), digits.retrained(0, 2)))
    assert value(findings, "offline_auc").value is not None
    assert value(findings, "online_auc").reason == "online rmia needs shadow models, there are 0"
