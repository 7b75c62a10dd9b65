"""Recovery, half-recovery steps, area and the label: worked arithmetic, naive loops, and what is said where there is no number."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tests.conformance.test_measurements import subject_of
from unlearned.attacks._recovery import GUESSED, UNKNOWN, findings_of_recovery, half_recovery, long_term, recovery_area
from unlearned.attacks._retention import ROUNDS, TOO_LITTLE, resampled_means
from unlearned.engine.randomness import derive_seed
from unlearned.evidence.statistics import Array
from unlearned.evidence.verdict import Limits, judge
from unlearned.records import LABEL, Finding, SubjectName, label_sentence, pick
from unlearned.report.words import labels

BUDGETS = [0, 10, 20, 60]
N = 40


def samples(*means: float) -> list[Array]:
    """A point for each mean: the first of N samples are known, the others not."""
    return [np.where(np.arange(N) < round(mean * N), 1.0, 0.0) for mean in means]


def found(unlearned: list[Array], references: list[list[Array]], original: float = 1.0) -> list[Finding]:
    curves: dict[SubjectName, list[list[Array]]] = {"original": [samples(original)], "unlearned": [unlearned], "reference": references}
    return findings_of_recovery(subject_of("linear"), "memora", "forget", curves, BUDGETS, "steps")


def one(findings: list[Finding], metric: str, subject: SubjectName = "unlearned") -> Finding:
    [finding] = pick(findings, metric=metric, subject=subject)
    return finding


def by_loop(curve: list[float], known: float) -> float:
    for i, value in enumerate(curve):
        if value >= known / 2:
            if i == 0:
                return BUDGETS[0]
            slope = (value - curve[i - 1]) / (BUDGETS[i] - BUDGETS[i - 1])
            return BUDGETS[i - 1] + (known / 2 - curve[i - 1]) / slope
    return float("inf")


def test_half_recovery_by_a_loop_over_curves() -> None:
    random = np.random.default_rng(0)
    curves = random.random((50, 4)) * random.random((50, 1))
    known = random.random(50)
    expected = [by_loop(curve.tolist(), float(k)) for curve, k in zip(curves, known, strict=True)]
    assert {np.isinf(steps) for steps in expected} == {True, False}
    np.testing.assert_allclose(half_recovery(curves, BUDGETS, known), expected, rtol=1e-12)


def test_area_by_hand() -> None:
    """Trapezoids of widths 10, 10, 40 over heights 0, .2, .6, .8, of the original's 0.8."""
    curve = np.array([0.0, 0.2, 0.6, 0.8])
    expected = (10 * 0.1 + 10 * 0.4 + 40 * 0.7) / 60 / 0.8
    assert recovery_area(curve, BUDGETS, np.array(0.8)) == pytest.approx(expected, rel=1e-14)
    assert recovery_area(np.full(4, 0.8), BUDGETS, np.array(0.8)) == pytest.approx(1.0)
    assert recovery_area(np.ones(4), BUDGETS, np.array(0.0)) == 0


def by_hand(own: float, references: list[float], most: float) -> float:
    """Student's predictive distribution, its parts written out."""
    if np.isinf(own):
        return 1.0
    logs = [np.log(min(max(n, 1.0), most)) for n in references]
    mean, r = sum(logs) / len(logs), len(logs)
    squares = sum((x - mean) ** 2 for x in logs)
    scale = ((3 * 0.35**2 + squares) / (3 + r - 1)) ** 0.5 * (1 + 1 / r) ** 0.5
    return float(stats.t(df=3 + r - 1, loc=mean, scale=scale).cdf(np.log(2 * min(max(own, 1.0), most))))


@pytest.mark.parametrize("references", [[30.0], [20.0, 45.0], [50.0, np.inf, 41.0], [np.inf] * 4])
@pytest.mark.parametrize("own", [0.0, 5.0, 30.0, 60.0, np.inf])
def test_probability_by_hand(own: float, references: list[float]) -> None:
    assert float(long_term(np.array(own), np.array(references), 60.0)) == pytest.approx(by_hand(own, references, 60.0), rel=1e-12)


def test_references_that_differ_make_the_label_less_sure_and_more_of_them_make_it_surer() -> None:
    def of(references: list[float]) -> float:
        return float(long_term(np.array(10.0), np.array(references), 500.0))

    assert of([100.0, 100.0]) < of([60.0, 100.0 * 100 / 60])
    assert of([100.0] * 6) < of([100.0] * 2) < of([100.0])
    assert of([100.0]) < 0.05
    assert float(long_term(np.array(90.0), np.array([100.0]), 500.0)) > 0.8


def test_a_model_that_never_knew_is_seldom_called_asleep_with_confidence() -> None:
    """Among models that never knew, with steps that differ by a factor of 2 as one standard deviation, each held against three others."""
    random = np.random.default_rng(0)
    steps = np.exp(random.normal(np.log(60), np.log(2), (4000, 4)))
    sure = long_term(steps[:, 0], steps[:, 1:], 1e6) < 0.05
    assert sure.mean() < 0.05


def test_numbers_by_hand() -> None:
    """0, .2, .6, .8 of the original's 1; a control with 0, 0, .2, .6."""
    findings = found(samples(0.0, 0.2, 0.6, 0.8), [samples(0.0, 0.0, 0.2, 0.6)])
    assert one(findings, "half_recovery_steps").value == pytest.approx(10 + 10 * 0.3 / 0.4)
    assert one(findings, "half_recovery_steps", "reference").value == pytest.approx(20 + 40 * 0.3 / 0.4)
    assert one(findings, "recovery").value == pytest.approx(0.8)
    assert one(findings, "recovery").gap == pytest.approx(0.2)
    assert one(findings, "recovery_area").value == pytest.approx((10 * 0.1 + 10 * 0.4 + 40 * 0.7) / 60)
    label = one(findings, LABEL)
    assert label.value is not None
    assert 0 < label.value < 0.5
    assert all(f.budget is None for f in findings)


def test_an_adapter_that_does_nothing_recovers_nothing_and_a_full_return_is_one() -> None:
    still, back = samples(0.1, 0.1, 0.1, 0.1), samples(0.1, 0.2, 0.5, 1.0)
    assert one(found(still, [still]), "recovery").value == pytest.approx(0.0)
    assert one(found(back, [still]), "recovery").value == pytest.approx(1.0)


def test_where_nothing_was_lost_recovery_is_not_defined() -> None:
    findings = found(samples(1, 1, 1, 1), [samples(0, 0, 0, 0)])
    recovery = one(findings, "recovery")
    assert (recovery.value, recovery.reason) == (None, TOO_LITTLE)
    assert one(findings, "half_recovery_steps").value == 0
    label = one(findings, LABEL).value
    assert label is not None
    assert label < 0.01
    assert {(f.value, f.reason) for f in found(samples(0, 0, 0, 0), [samples(0, 0, 0, 0)], original=0.0)} == {(None, UNKNOWN)}


def test_a_half_that_is_not_reached_has_no_step_and_a_reason() -> None:
    never, soon = samples(0.0, 0.0, 0.1, 0.2), samples(0.0, 0.9, 0.9, 0.9)
    half = one(found(never, [soon]), "half_recovery_steps")
    assert half.value is None
    assert "did not come back within 60 steps" in (half.reason or "")
    half = one(found(soon, [soon, never]), "half_recovery_steps")
    assert (half.gap, half.reason is not None and "of the references not all have one" in half.reason) == (None, True)
    assert one(found(never, [never]), LABEL).value == 1.0
    awake = one(found(soon, [never]), LABEL).value
    assert awake is not None
    assert awake < 0.2


def test_without_a_control_or_with_one_that_guesses_there_is_no_label() -> None:
    curve = samples(0.0, 0.6, 0.6, 0.6)
    assert "no reference given" in (one(found(curve, []), LABEL).reason or "")
    assert one(found(curve, [samples(0.6, 0.6, 0.7, 0.8)]), LABEL).reason == GUESSED


def test_the_probability_is_a_mean_over_rounds_in_which_samples_are_drawn_anew() -> None:
    """A close case: half after 19 steps, and controls with half after 34 and 42."""
    random = np.random.default_rng(5)
    point = [(random.random(N) < mean).astype(float) for mean in (0.0, 0.2, 0.5, 0.8)]
    controls = [[(random.random(N) < mean).astype(float) for mean in means] for means in ((0.0, 0.1, 0.4, 0.7), (0.0, 0.0, 0.2, 0.8))]
    value = one(found(point, controls), LABEL).value
    drawn = np.random.default_rng(derive_seed(0, "memora", "recovery", "forget", "steps")).integers(0, N, (ROUNDS, N))
    rounds = []
    for rows in drawn:
        own, *others = [by_loop([float(p[rows].mean()) for p in curve], 1.0) for curve in (point, *controls)]
        rounds.append(by_hand(own, others, 60.0))
    assert value == pytest.approx(np.mean(rounds), rel=1e-10)


def test_samples_are_drawn_with_all_that_is_known_of_them() -> None:
    table = np.stack([np.arange(5.0), 2 * np.arange(5.0)], axis=1)
    means = resampled_means(table, 1)
    assert means.shape == (ROUNDS, 2)
    np.testing.assert_allclose(means[:, 1], 2 * means[:, 0])


def labelled(probability: float, half: float | None = 12.0, **others: str) -> list[Finding]:
    common = {"audit": "memora", "kind": "attack", "split": "forget", "subject": "unlearned", "n": 9, "reason": "held"}
    label = Finding.model_validate(common | {"metric": LABEL, "value": probability, "unit": "share"})
    return [label, Finding.model_validate(common | {"metric": "half_recovery_steps", "value": half, "unit": "steps"} | others)]


@pytest.mark.parametrize(("probability", "passed"), [(1.0, True), (0.96, True), (0.9, None), (0.5, None), (0.2, None), (0.04, False), (0.0, False)])
def test_the_label_is_a_check_of_the_verdict(probability: float, passed: bool | None) -> None:
    [check] = judge(labelled(probability), Limits()).checks
    assert (check.passed, check.name) == (passed, "asleep or gone, memora")
    assert check.words.startswith("gone" if probability >= 0.5 else "asleep")


def test_words_say_how_sure_the_label_is() -> None:
    def said(probability: float) -> str:
        findings = labelled(probability)
        return label_sentence(findings[0], findings)

    assert said(0.93).endswith("The probability that this is wrong is 7 %.")
    assert said(0.0).endswith("is less than 1 %.")


@pytest.mark.parametrize(("probability", "passed"), [(0.2, None), (0.0, False)])
def test_what_was_never_forgotten_is_not_called_asleep(probability: float, passed: bool | None) -> None:
    findings = labelled(probability, half=0.0)
    [check] = judge(findings, Limits()).checks
    assert (check.passed, check.value) == (passed, probability)
    assert check.words.startswith("not forgotten: without any attack it shows at least half")
    assert "asleep" not in check.words
    assert labels(findings) == [f"memora: {check.words}"]


@pytest.mark.parametrize("others", [{"label": "1"}, {"split": "forget-rest"}, {"subject": "reference"}, {"audit": "other"}])
def test_the_word_is_taken_from_the_same_attack_on_the_same_set(others: dict[str, str]) -> None:
    findings = labelled(0.0, half=0.0, **others)
    assert label_sentence(findings[0], findings).startswith("asleep")


def test_a_model_that_forgot_nothing_is_said_to_have_not_forgotten() -> None:
    """From curves to words."""
    findings = found(samples(1, 1, 1, 1), [samples(0, 0, 0, 0)])
    [said] = labels(findings)
    assert said.startswith("memora: not forgotten")
