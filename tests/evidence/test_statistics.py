from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from unlearned.evidence.comparison import Measured, absent, against_null, compare
from unlearned.evidence.statistics import Interval, bootstrap, held_out_interval, t_interval, wilson
from unlearned.evidence.verdict import Limits, judge
from unlearned.records import NO_REFERENCE, Finding


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 6), (3, 7), (18, 18), (50, 100), (999, 1000)])
def test_wilson_against_scipy(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    found = wilson(successes, n)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= found.low <= successes / n <= found.high <= 1


def test_intervals_of_too_little_are_absent() -> None:
    assert wilson(0, 0) is None
    assert t_interval([1.0], "seeds") is None
    assert bootstrap(np.mean, np.array([1.0]), seed=0) is None
    assert bootstrap(lambda a, b: a.mean() - b.mean(), np.ones(3), np.ones(1), seed=0) is None


@pytest.mark.parametrize("n", [2, 3, 10, 100])
def test_t_against_scipy(n: int) -> None:
    values = np.random.default_rng(n).normal(3, 2, n)
    found = t_interval(values, "seeds")
    assert found is not None
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values)), rel=1e-12)
    assert found.how == f"t 95 % over {n} seeds"


@pytest.mark.parametrize("how", ["bootstrap", "t"])
def test_intervals_hold_the_truth_as_often_as_they_say(how: str) -> None:
    """300 samples of 40 from a normal distribution of mean 2."""
    inside = 0
    for seed in range(300):
        sample = np.random.default_rng(1000 + seed).normal(2, 1, 40)
        found = bootstrap(np.mean, sample, seed=seed, rounds=200) if how == "bootstrap" else t_interval(sample, "samples")
        assert found is not None
        inside += found.low <= 2 <= found.high
    assert 0.90 <= inside / 300 <= 0.99


def test_bootstrap_resamples_each_sample_by_itself_and_is_a_function_of_its_seed() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(5, 1, 30), random.normal(0, 1, 80)

    def difference(x, y):
        assert (len(x), len(y)) == (30, 80)
        assert x.min() > y.mean()
        return x.mean() - y.mean()

    first, again, other = (bootstrap(difference, a, b, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert first is not None
    assert first.low < 5 < first.high


def test_interval_of_values_that_share_what_they_were_fitted_on() -> None:
    """Mean ½, s = 0.1, k = 3, m = 2: 4.302653 · 0.1 · √(1/3 + 1/2) = 0.392776; and about 0.9 the upper end is cut off at the largest possible value."""
    found, cut = (held_out_interval([mean - 0.1, mean, mean + 0.1], 2, "pairs", 0, 1) for mean in (0.5, 0.9))
    assert found is not None
    assert cut is not None
    assert (found.low, found.high) == pytest.approx((0.5 - 0.392776, 0.5 + 0.392776), abs=1e-6)
    assert (cut.low, cut.high) == pytest.approx((0.9 - 0.392776, 1), abs=1e-6)
    assert found.how == "corrected t 95 % over 3 pairs"
    assert held_out_interval([0.4], 2, "pairs", 0, 1) is None


@pytest.mark.parametrize("null", [Measured(0.5, Interval(0.4, 0.6, "by hand"), 10), "there are too few references"])
def test_comparison_with_a_null(null: Measured | str) -> None:
    findings = against_null("a", "m", "s", {"unlearned": Measured(0.9, None, 7)}, null, unit="share", models=6)
    assert findings[0].value == 0.9
    if isinstance(null, str):
        assert len(findings) == 1
        assert (findings[0].gap, findings[0].reason) == (None, null)
    else:
        assert findings[0].gap == pytest.approx(0.4)
        assert (findings[1].value, findings[1].low, findings[1].high, findings[1].n) == (0.5, 0.4, 0.6, 6)


def three(values: list[float]) -> list[Measured]:
    return [Measured(value, None, 10) for value in values]


def test_comparison_with_the_mean_over_the_bank() -> None:
    interval = Interval(0.8, 1.0, "by hand")
    findings = compare("a", "m", "s", {"original": [Measured(0.9, interval, 7)], "unlearned": three([0.4]), "reference": three([0.3, 0.5, 0.7])}, unit="share")
    original, unlearned, reference = findings
    assert (original.value, original.low, original.high, original.interval, original.n) == (0.9, 0.8, 1.0, "by hand", 7)
    assert original.gap == pytest.approx(0.4)
    assert unlearned.gap == pytest.approx(-0.1)
    assert reference.value == pytest.approx(0.5)
    assert reference.n == 3
    assert (reference.low, reference.high) == pytest.approx(stats.t.interval(0.95, 2, loc=0.5, scale=0.2 / np.sqrt(3)))


def test_comparison_without_references_gives_the_reason() -> None:
    findings = compare("a", "m", "s", {"original": three([0.9]), "unlearned": three([0.4]), "reference": []}, unit="share")
    assert [(f.subject, f.gap, f.reason) for f in findings] == [("original", None, NO_REFERENCE), ("unlearned", None, NO_REFERENCE)]


def finding(value: float, gap: float | None, half: float | None = None, **more) -> Finding:
    ends = {} if half is None else {"low": value - half, "high": value + half, "interval": "by hand"}
    reason = NO_REFERENCE if gap is None else None
    given = {"audit": "utility", "metric": "accuracy", "split": "test", "subject": "unlearned", "n": 9, "unit": "share"} | more
    return Finding.model_validate(given | {"value": value, "gap": gap, "reason": reason, **ends})


@pytest.mark.parametrize(
    ("gap", "half", "passed"),
    [
        (0.0, None, None),
        (0.0, 0.0, True),
        (0.05, 0.0, True),
        (-0.05, 0.0, True),
        (0.06, 0.0, False),
        (-0.06, 0.0, False),
        (0.06, 0.02, None),
        (0.3, 0.02, False),
        (0.04, 0.5, None),
        (0.02, 0.02, True),
        (-0.02, 0.03, True),
        (0.02, 0.04, None),
    ],
)
def test_verdict_of_one_check(gap: float, half: float | None, passed: bool | None) -> None:
    verdict = judge([finding(0.5, gap, half)], Limits(utility_gap=0.05))
    assert verdict.checks[0].passed is passed
    assert verdict.status == {True: "passed", False: "failed", None: "undecided"}[passed]


def test_verdict_is_undecided_without_references() -> None:
    verdict = judge([finding(0.5, None), absent("membership", "auc", "forget", NO_REFERENCE, unit="")], Limits())
    assert verdict.status == "undecided"
    assert [check.passed for check in verdict.checks] == [None, None]


def test_one_failed_check_fails_the_verdict() -> None:
    verdict = judge([finding(0.5, 0.0, 0.01), finding(0.9, 0.4, 0.1, audit="membership", metric="auc", split="forget", unit="")], Limits())
    assert verdict.status == "failed"
    assert "membership attack on forget" in verdict.headline


def test_the_worst_point_of_a_relearning_curve_decides() -> None:
    curve = [
        finding(0.5, gap, 0.01, audit="relearn", kind="attack", metric="knowledge", budget=budget, budget_unit="steps")
        for budget, gap in ((0, 0.1), (5, -0.4), (50, 0.2))
    ]
    [check] = judge(curve, Limits(relearn_gap=0.25)).checks
    assert check.passed is False
    assert check.name == "relearning, after 5 steps"


def test_one_step_is_no_steps() -> None:
    point = finding(0.5, -0.4, 0.01, audit="relearn", kind="attack", metric="knowledge", budget=1, budget_unit="steps on related data")
    assert [check.name for check in judge([point], Limits()).checks] == ["relearning, after 1 step on related data"]


def test_relearning_without_a_limit_is_told_and_leaves_the_verdict_open() -> None:
    curve = [
        finding(0.9, gap, 0.01, audit="relearn", kind="attack", metric="knowledge", budget=budget, budget_unit="steps") for budget, gap in ((0, 0.1), (5, 0.4))
    ]
    verdict = judge([finding(0.5, 0.0, 0.01), *curve], Limits(relearn_gap=None))
    assert (verdict.status, verdict.headline) == ("undecided", "1 check passed, but no limit is set for relearning, after 5 steps.")
    assert [check.passed for check in verdict.checks] == [True, None]
    assert verdict.checks[1].words == "90.0 %, 40.0 points above the retrained model; no limit is set."
    wide = [finding(0.5, 0.04, 0.5), *curve]
    words = "There are too few samples to tell about accuracy on test, and no limit is set for relearning, after 5 steps."
    assert judge(wide, Limits(relearn_gap=None)).headline == words
