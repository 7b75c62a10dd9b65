"""The likelihood-ratio attack against naive sums, on distributions that are known, and on small banks of real models."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from tests.audits import digits
from unlearned.audits._membership import auc, balanced_accuracy
from unlearned.audits.u_lira import ULira, held_out_scores, log_likelihood_ratio, per_fold, target_scores
from unlearned.evidence.statistics import held_out_interval
from unlearned.records import Finding, pick


def banks(seed: int, a: int, b: int, n: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Models whose numbers on the samples hang together, as those of real models do."""
    random = np.random.default_rng(seed)
    centre = random.normal(0, 3, n)
    inside, outside = (centre + random.normal(0, 1, (m, n)) + random.normal(0, 0.5, (m, 1)) for m in (a, b))
    return inside + shift, outside


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(("a", "b"), [(2, 2), (3, 5), (9, 4)])
def test_ratio_against_normal_densities(own: bool, a: int, b: int) -> None:
    inside, outside = banks(0, a, b, 6)
    phi = np.linspace(-4, 4, 6)
    found = log_likelihood_ratio(phi, inside, outside, own)
    for i in range(6):
        x, y = inside[:, i].tolist(), outside[:, i].tolist()
        mx, my = sum(x) / a, sum(y) / b
        sx, sy = sum((v - mx) ** 2 for v in x), sum((v - my) ** 2 for v in y)
        vx, vy = (sx / (a - 1), sy / (b - 1)) if own else ((sx + sy) / (a + b - 2),) * 2
        assert found[i] == pytest.approx(stats.norm.logpdf(phi[i], mx, vx**0.5) - stats.norm.logpdf(phi[i], my, vy**0.5), rel=1e-12)


def test_ratio_by_hand() -> None:
    """Means 1 and 0, variance 2 on both sides: ((0.5 − 0)² − (0.5 − 1)²)/4 = 0, and ((1 − 0)² − 0)/4 = ¼."""
    inside, outside = np.array([[0.0], [2.0]]), np.array([[-1.0], [1.0]])
    assert log_likelihood_ratio(np.array([0.5]), inside, outside, True)[0] == pytest.approx(0)
    assert log_likelihood_ratio(np.array([1.0]), inside, outside, False)[0] == pytest.approx(0.25)


def test_equal_models_are_a_toss_up_and_not_a_division_by_zero() -> None:
    bank = np.tile(np.arange(4.0), (3, 1))
    members, others = held_out_scores(bank, bank, 8)
    assert (members == 0).all()
    assert (others == 0).all()


@pytest.mark.parametrize(("a", "b"), [(3, 3), (3, 5), (7, 4)])
@pytest.mark.parametrize("own_from", [3, 100])
def test_every_model_is_held_out_and_scored_by_the_others_alone(a: int, b: int, own_from: int) -> None:
    inside, outside = banks(1, a, b, 5)
    members, others = held_out_scores(inside, outside, own_from)
    assert members.shape == others.shape == (max(a, b), 5)
    for k in range(max(a, b)):
        rest_in = [inside[i] for i in range(a) if i != k % a]
        rest_out = [outside[j] for j in range(b) if j != k % b]
        own = own_from == 3
        np.testing.assert_allclose(members[k], log_likelihood_ratio(inside[k % a], np.array(rest_in), np.array(rest_out), own))
        np.testing.assert_allclose(others[k], log_likelihood_ratio(outside[k % b], np.array(rest_in), np.array(rest_out), own))
    assert {k % a for k in range(max(a, b))} == set(range(a))
    assert {k % b for k in range(max(a, b))} == set(range(b))


def test_the_model_under_audit_is_scored_by_all_shadows_and_the_other_references() -> None:
    inside, outside = banks(2, 4, 6, 5)
    target = np.linspace(-2, 2, 5)
    ours, others = target_scores(target, inside, outside, 100)
    for j in range(6):
        rest = np.array([outside[k] for k in range(6) if k != j])
        np.testing.assert_allclose(ours[j], log_likelihood_ratio(target, inside, rest, False))
        np.testing.assert_allclose(others[j], log_likelihood_ratio(outside[j], inside, rest, False))


@pytest.mark.parametrize(("a", "b"), [(3, 3), (8, 8), (4, 9)])
def test_null_is_one_half_and_the_interval_holds_it_as_often_as_it_says(a: int, b: int) -> None:
    """300 pairs of banks of one distribution. Averages within 3.5 standard errors of ½; coverage of 95 % within sampling error."""
    means, accuracies, inside_interval = [], [], 0
    for seed in range(300):
        scores = held_out_scores(*banks(seed, a, b, 10), 8)
        values = per_fold(auc, *scores)
        interval = held_out_interval(values, min(a, b) - 1, "pairs", 0, 1)
        assert interval is not None
        inside_interval += interval.low <= 0.5 <= interval.high
        means.append(values.mean())
        accuracies.append(per_fold(balanced_accuracy, *scores).mean())
    for found in (means, accuracies):
        assert abs(np.mean(found) - 0.5) < 3.5 * np.std(found) / np.sqrt(len(found))
    assert 0.90 <= inside_interval / 300 <= 0.99


def test_a_shift_is_found_in_either_direction_and_grows_with_its_size() -> None:
    found = [per_fold(auc, *held_out_scores(*banks(5, 8, 8, 20, shift), 8)).mean() for shift in (-4, -2, 2, 4)]
    assert found[0] > found[1] > 0.7
    assert found[3] > found[2] > 0.7


def value(findings: list[Finding], metric: str, subject: str = "unlearned") -> Finding:
    [finding] = [f for f in findings if (f.metric, f.subject) == (metric, subject)]
    return finding


def test_retrained_models_in_the_place_of_unlearned_ones_sit_at_the_null() -> None:
    """Four draws of real banks: no number leaves its interval, but for the one in twenty that may."""
    references = digits.retrained(0)
    outside = []
    for seed, first in enumerate((100, 110)):
        findings = ULira().measure(digits.subject(digits.retrained(first, 9), references, seed))
        for metric in ("auc", "balanced_accuracy", "balanced_accuracy_at_equal_error"):
            finding = value(findings, metric)
            assert finding.low is not None
            assert finding.high is not None
            outside.append(not finding.low <= 0.5 <= finding.high)
        target, null = value(findings, "target_auc"), value(findings, "target_auc", "reference")
        assert null.value == pytest.approx(0.5, abs=1e-9)
        assert target.gap is not None
        assert abs(target.gap) < 0.2
    assert sum(outside) <= 1


@pytest.mark.parametrize("models", ["originals", "broken"])
def test_models_that_know_too_much_or_too_little_do_not(models: str) -> None:
    bank = getattr(digits, models)(200, 9)
    findings = ULira().measure(digits.subject(bank, digits.retrained(0)))
    for metric in ("auc", "balanced_accuracy", "balanced_accuracy_at_equal_error", "target_auc", "target_balanced_accuracy"):
        finding, null = value(findings, metric), value(findings, metric, "reference")
        assert finding.low is not None
        assert finding.low > 0.6
        assert null.high is not None
        assert finding.value is not None
        assert finding.value > null.high
        assert finding.gap == pytest.approx(finding.value - (null.value or 0))


@pytest.mark.parametrize(("references", "shadows"), [*itertools.product((0, 2, 8), (0, 2))])
def test_too_few_models_are_a_reason_and_not_an_error(references: int, shadows: int) -> None:
    findings = ULira().measure(digits.subject(digits.retrained(100, shadows + 1), digits.retrained(0, references)))
    assert {f.reason for f in findings} == {f"u-lira needs at least 3 references and 3 shadow models, there are {references} and {shadows}"}
    assert {f.value for f in findings} == {None}


def test_between_three_and_six_references_there_is_a_value_but_no_null() -> None:
    findings = ULira().measure(digits.subject(digits.retrained(100, 4), digits.retrained(0, 5)))
    assert value(findings, "auc").reason == "the null, references against references, needs at least 6 references, there are 5"
    assert value(findings, "auc").value is not None
    assert not pick(findings, metric="auc", subject="reference")
    assert value(findings, "target_auc").gap is not None
