from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from unlearned.audits._membership import auc, balanced_accuracy, equal_error_accuracy, svc_nonmember_share, tpr_at_fpr


def scores(seed: int, n: int, m: int, levels: int | None) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    members, others = random.normal(0.5, 1, n), random.normal(0, 1, m)
    return (members, others) if levels is None else (np.round(members * levels), np.round(others * levels))


CASES = [(seed, n, m, levels) for seed, (n, m) in enumerate([(1, 1), (3, 7), (20, 30), (41, 13)]) for levels in (None, 1, 3)]


@pytest.mark.parametrize(("seed", "n", "m", "levels"), CASES)
def test_auc_against_all_pairs(seed: int, n: int, m: int, levels: int | None) -> None:
    members, others = scores(seed, n, m, levels)
    wins = 0.0
    for a in members:
        for b in others:
            wins += 1.0 if a > b else 0.5 if a == b else 0.0
    assert auc(members, others) == pytest.approx(wins / (n * m), rel=1e-13)
    assert auc(members, others) == pytest.approx(roc_auc_score([1] * n + [0] * m, np.concatenate([members, others])), rel=1e-12)
    assert auc(others, members) == pytest.approx(1 - auc(members, others), rel=1e-12)


def test_auc_by_hand() -> None:
    """Pairs (2,1) (2,2) (3,1) (3,2): 1 + ½ + 1 + 1 of 4."""
    assert auc(np.array([2.0, 3.0]), np.array([1.0, 2.0])) == 0.875
    assert auc(np.ones(5), np.ones(4)) == 0.5


@pytest.mark.parametrize("fpr", [0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.99])
@pytest.mark.parametrize(("seed", "n", "m", "levels"), [*CASES, (9, 50, 100, None), (10, 50, 100, 1)])
def test_tpr_against_all_thresholds(fpr: float, seed: int, n: int, m: int, levels: int | None) -> None:
    members, others = scores(seed, n, m, levels)
    best = 0.0
    for threshold in [*members, *others, np.inf]:
        false = sum(1 for b in others if b >= threshold)
        if false <= fpr * m + 1e-9:
            best = max(best, sum(1 for a in members if a >= threshold) / n)
    assert tpr_at_fpr(members, others, fpr) == pytest.approx(best)


def test_tpr_at_a_rate_that_floating_point_makes_a_little_too_small() -> None:
    """0.29 · 100 is 28.999...: 29 others may pass."""
    members, others = np.array([70.5]), np.arange(100.0)
    assert tpr_at_fpr(members, others, 0.29) == 1.0
    assert tpr_at_fpr(members, others, 0.28) == 0.0


def test_balanced_accuracy_by_hand() -> None:
    """Members right 2 of 3 and one toss-up; others right 1 of 2 and one wrong: ½ (2.5/3) + ½ (1/2)."""
    assert balanced_accuracy(np.array([1.0, 0.0, 5.0]), np.array([-1.0, 2.0])) == pytest.approx(0.5 * 2.5 / 3 + 0.25)
    assert balanced_accuracy(np.zeros(3), np.zeros(4)) == 0.5


@pytest.mark.parametrize(("seed", "n", "m", "levels"), CASES)
def test_equal_error_against_all_thresholds(seed: int, n: int, m: int, levels: int | None) -> None:
    members, others = scores(seed, n, m, levels)
    rates = [(float((members >= t).mean()), float((others >= t).mean())) for t in sorted({*members, *others, np.inf})]
    nearest = min(abs(true + false - 1) for true, false in rates)
    allowed = [0.5 * (1 + true - false) for true, false in rates if abs(true + false - 1) == pytest.approx(nearest, abs=1e-12)]
    assert any(equal_error_accuracy(members, others) == pytest.approx(value) for value in allowed)


def test_equal_error_by_hand() -> None:
    """At the threshold 2, two of three members and one of three others pass: rates add up to 1, balanced accuracy ⅔."""
    assert equal_error_accuracy(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.5, 2.5])) == pytest.approx(2 / 3)
    assert equal_error_accuracy(np.ones(3), np.ones(5)) == 0.5


def test_svc_tells_separate_confidences_apart() -> None:
    retain, test = np.full(40, 0.99), np.full(40, 0.3)
    assert svc_nonmember_share(retain, test, np.array([0.98, 1.0, 0.29, 0.31]), 0) == 0.5


def test_svc_has_as_many_members_as_others() -> None:
    """With a hundred times as many retain samples it would call all of an overlapping forget set members."""
    random = np.random.default_rng(0)
    retain, test, forget = random.random(2000), random.random(20), random.random(200)
    assert 0.1 < svc_nonmember_share(retain, test, forget, 0) < 0.9


def test_svc_is_a_function_of_its_seed() -> None:
    random = np.random.default_rng(1)
    retain, test, forget = random.random(200), random.random(20), random.random(50)
    shares = [svc_nonmember_share(retain, test, forget, seed) for seed in (0, 0, 1, 2, 3)]
    assert shares[0] == shares[1]
    assert len(set(shares)) > 1
