"""The competition's score against thresholds on a grid, worked arithmetic, and on small banks of real models."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.audits import digits
from unlearned.audits import neurips_score
from unlearned.audits._distributions import matched
from unlearned.audits.neurips_score import NeuripsScore, epsilon_of_rates, epsilons, scores_of
from unlearned.records import Finding

DELTA = 1e-5


def value(findings: list[Finding], metric: str, subject: str = "unlearned") -> Finding:
    [finding] = [f for f in findings if (f.metric, f.subject) == (metric, subject)]
    return finding


def test_epsilon_of_rates_by_hand() -> None:
    """At ¼ and ¼ both forms are log((1 − δ − ¼)/¼); at ½ and ¼ the larger is log((1 − δ − ¼)/½) or log((1 − δ − ½)/¼)."""
    found = epsilon_of_rates(np.array([0.25, 0.5, 0.9, 1.0, 0.0, 0.5, 0.0]), np.array([0.25, 0.25, 0.9, 0.5, 0.5, 0.0, 0.0]))
    quarter = math.log((0.75 - DELTA) / 0.25)
    half = max(math.log((0.75 - DELTA) / 0.5), math.log((0.5 - DELTA) / 0.25))
    assert found[:4].tolist() == pytest.approx([quarter, half, 0.0, 0.0])
    assert found[4:].tolist() == [-math.inf, -math.inf, math.inf]


def test_one_threshold_by_hand() -> None:
    """0 1 2 3 against 2.5 4 5 6. At 3 a quarter of either kind is on the wrong side. Between two thresholds no more is to be had: ranges are 3 and 3.5."""
    unlearned, retrained = np.array([[0.0], [1], [2], [3]]), np.array([[2.5], [4], [5], [6]])
    assert epsilons(unlearned, retrained)[0] == pytest.approx(math.log((0.75 - DELTA) / 0.25))
    assert epsilons(retrained, unlearned)[0] == pytest.approx(math.log((0.75 - DELTA) / 0.25))


def test_two_thresholds_find_what_one_cannot() -> None:
    """Unlearned models agree with each other, retrained ones lie on both sides: between −1 and 1 are 3 of 4 of these, and 1 of 4 of those."""
    unlearned, retrained = np.array([[-0.5], [0.0], [0.5], [8.0]]), np.array([[-6.0], [-5.0], [0.1], [7.0]])
    assert epsilons(unlearned, retrained)[0] < math.log(3)  # r − l may differ from the range 8.5 by 2 at most: the interval is too short
    near = np.array([[-0.5], [0.0], [0.5], [1.9]])
    assert epsilons(near, np.array([[-6.0], [-5.0], [0.1], [7.0]]))[0] == pytest.approx(math.log((0.75 - DELTA) / 0.25))


def test_separate_equal_and_peaked_distributions() -> None:
    apart = epsilons(np.array([[0.0], [1.0], [2.0]]), np.array([[5.0], [6.0], [7.0]]))
    same = epsilons(np.ones((3, 1)), np.ones((3, 1)))
    point = epsilons(np.full((3, 1), 5.5), np.array([[5.0], [5.5], [6.0]]))
    assert (apart[0], same[0], point[0]) == (50, 0, 50)


def on_a_grid(unlearned: np.ndarray, retrained: np.ndarray) -> float:
    """One sample, with 100 thresholds for each unit."""
    n = len(unlearned)

    def epsilon(inside_positive: float, inside_negative: float) -> float:
        false_negative, false_positive = 1 - inside_positive / n, inside_negative / n
        if false_positive == 0 and false_negative == 0:
            return 50.0
        if false_positive == 0 or false_negative == 0:
            return 0.0
        forms = ((1 - DELTA - false_positive, false_negative), (1 - DELTA - false_negative, false_positive))
        return max([0.0, *(math.log(a) - math.log(b) for a, b in forms if a > 0)])

    higher, lower = (retrained, unlearned) if np.median(retrained) > np.median(unlearned) else (unlearned, retrained)
    both = np.concatenate([unlearned, retrained])
    single = np.linspace(both.min(), both.max(), math.ceil(100 * (both.max() - both.min())))
    best = max(epsilon((higher >= t).sum(), (lower >= t).sum()) for t in single)
    narrow, wide = (higher, lower) if np.ptp(higher) < np.ptp(lower) else (lower, higher)
    width = np.ptp(narrow)
    for right in np.linspace(narrow.min() + width - 2, narrow.max() + 2, 400):
        left = np.linspace(right - width - 2, right - width + 2, 400)
        inside = [((left[:, None] <= bank) & (bank <= right)).sum(axis=1).tolist() for bank in (narrow, wide)]
        best = max([best, *(epsilon(*pair) for pair in set(zip(*inside, strict=True)))])
    return best


def test_all_thresholds_against_a_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """No attack on the grid is stronger; and but for gaps that fall between its lines, none is weaker. How far thresholds may lie apart matters."""
    banks = []
    for seed in range(24):
        random = np.random.default_rng(seed)
        banks.append((random.normal(0.5, (0.7, 2, 6)[seed % 3], (10, 1)), random.normal(0, 4, (10, 1))))
    found = np.array([epsilons(*pair)[0] for pair in banks])
    grid = np.array([on_a_grid(unlearned[:, 0], retrained[:, 0]) for unlearned, retrained in banks])
    assert (found >= grid - 1e-12).all()
    assert np.isclose(found, grid).sum() >= 22
    assert len(set(np.round(found, 6))) > 5
    monkeypatch.setattr(neurips_score, "BUFFER", 100.0)
    anywhere = np.array([epsilons(*pair)[0] for pair in banks])
    assert (anywhere >= found).all()
    assert (anywhere > found + 0.01).any()


def test_many_samples_at_once_are_as_each_alone() -> None:
    random = np.random.default_rng(0)
    unlearned, retrained = np.round(random.normal(size=(6, 40)), 1), np.round(random.normal(size=(6, 40)), 1)  # with ties
    together = epsilons(unlearned, retrained)
    assert together.tolist() == [epsilons(unlearned[:, [i]], retrained[:, [i]])[0] for i in range(40)]


@pytest.mark.parametrize(
    ("epsilon", "models", "score"),
    [
        *((0.0, 512, 1.0), (0.49, 512, 1.0), (0.5, 512, 0.5), (1.2, 512, 0.25), (6.9, 512, 2.0**-13), (7.0, 512, 0.0), (50.0, 512, 0.0)),
        *((4.9, 64, 2.0**-9), (5.0, 64, 0.0), (0.9, 3, 0.5), (1.0, 3, 0.0), (0.0, 2, 0.0)),
    ],
)
def test_scores_by_hand(epsilon: float, models: int, score: float) -> None:
    """⌈log 511⌉ = 7, ⌈log 63⌉ = 5, ⌈log 2⌉ = 1, ⌈log 1⌉ = 0."""
    assert scores_of(np.array([epsilon]), models)[0] == score


def test_null_is_what_models_of_one_distribution_score_on_average() -> None:
    gaps = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        shadows, references = random.normal(size=(6, 8)), random.normal(size=(10, 8))
        parts = matched(6, 10, 3, seed)
        ours = [scores_of(epsilons(shadows[p.shadows], references[p.oracle]), 5).mean() for p in parts]
        null = [scores_of(epsilons(references[p.null], references[p.oracle]), 5).mean() for p in parts if p.null is not None]
        gaps.append(np.mean(ours) - np.mean(null))
    assert abs(np.mean(gaps)) < 3.5 * np.std(gaps) / np.sqrt(len(gaps))


@pytest.mark.parametrize(("models", "apart"), [("retrained", False), ("originals", True), ("broken", True)])
def test_on_real_banks(models: str, apart: bool) -> None:
    findings = NeuripsScore().measure(digits.subject(getattr(digits, models)(100 if models == "retrained" else 200, 9), digits.retrained(0)))
    for metric in ("forgetting_quality", "score"):
        unlearned, null = value(findings, metric), value(findings, metric, "reference")
        assert unlearned.value is not None
        assert unlearned.high is not None
        assert null.value is not None
        assert null.low is not None
        assert 0 <= unlearned.value <= 1
        assert (unlearned.high < null.low) is apart
        assert apart or abs(unlearned.value - null.value) < 0.1
    assert [value(findings, "models", who).value for who in ("unlearned", "reference")] == [4, 4]


def test_too_few_models_are_a_reason() -> None:
    findings = NeuripsScore().measure(digits.subject(digits.retrained(100, 3), digits.retrained(0, 4)))
    assert {f.reason for f in findings} == {"neurips-score needs at least 3 references and 3 shadow models, there are 4 and 2"}
    without = NeuripsScore().measure(digits.subject(digits.retrained(100, 4), digits.retrained(0, 5)))
    assert value(without, "score").reason == "the null, references against references, needs at least 6 references, there are 5"
    assert value(without, "models").value == 3
