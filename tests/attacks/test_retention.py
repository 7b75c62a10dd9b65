"""The retention ratio against worked arithmetic, and its interval against a bootstrap written out."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conformance.test_measurements import subject_of
from unlearned.attacks._curves import findings_of_knowledge
from unlearned.attacks._retention import TOO_LITTLE, before_and_after, retention
from unlearned.evidence.comparison import Measured
from unlearned.evidence.statistics import Array
from unlearned.records import Finding, SubjectName

KNOWN = np.array([1.0, 0.9, 0.8, 1.0])
BEFORE = np.array([0.1, 0.0, 0.0, 0.1])
AFTER = [np.array([0.1, 0.0, 0.2, 0.1]), np.array([0.4, 0.3, 0.5, 0.4]), np.array([0.0, 0.0, 0.0, 0.0])]


@pytest.mark.parametrize(
    ("after", "kept"),
    [
        (BEFORE, 1.0),  # nothing comes back
        (KNOWN, 0.0),  # everything
        (np.zeros(4), 0.925 / 0.875),  # what was left is destroyed
        (np.ones(4), -0.075 / 0.875),  # more than the original knew
        (np.array([0.4, 0.3, 0.5, 0.4]), 0.525 / 0.875),
    ],
)
def test_ratio_by_hand(after: Array, kept: float) -> None:
    assert retention(KNOWN.mean(), BEFORE.mean(), after.mean(keepdims=True)) == pytest.approx(kept, abs=1e-12)


def test_the_attacker_takes_the_best_budget() -> None:
    assert retention(KNOWN.mean(), BEFORE.mean(), np.array([a.mean() for a in AFTER])) == pytest.approx((0.925 - 0.4) / 0.875)


def test_interval_is_a_paired_bootstrap_in_which_the_attacker_chooses_anew() -> None:
    found = before_and_after(KNOWN, BEFORE, AFTER, seed=3)
    assert isinstance(found, Measured)
    random = np.random.default_rng(3)
    rounds = []
    for _ in range(500):
        chosen = random.integers(0, 4, 4)
        best = max(sum(budget[i] for i in chosen) for budget in AFTER)
        rounds.append((sum(KNOWN[chosen]) - best) / (sum(KNOWN[chosen]) - sum(BEFORE[chosen])))
    assert found.interval is not None
    assert found.interval[:2] == pytest.approx(tuple(np.quantile(rounds, [0.025, 0.975])), abs=1e-12)
    assert found.value == pytest.approx(0.6)


def test_where_nothing_was_forgotten_there_is_no_ratio() -> None:
    """Also where the samples do not suffice to tell that something was: one of four was forgotten."""
    assert before_and_after(KNOWN, KNOWN, AFTER, 0) == TOO_LITTLE
    assert before_and_after(KNOWN, KNOWN - np.array([0.9, 0, 0, 0]), AFTER, 0) == TOO_LITTLE
    single = before_and_after(KNOWN[:1], BEFORE[:1], [a[:1] for a in AFTER], 0)
    assert isinstance(single, Measured)
    assert single.value == pytest.approx(0.6 / 0.9)
    assert (single.interval, single.n) == (None, 1)


def found(curves: dict[SubjectName, list[list[Array]]], before: dict[SubjectName, list[Array]] | None = None) -> list[Finding]:
    findings = findings_of_knowledge(subject_of("linear"), "relearn", "forget", curves, [0, 1, 2, 5], "steps", before=before)
    return [finding for finding in findings if finding.metric == "retention"]


def test_each_model_is_held_against_its_own_start_and_the_gap_is_to_the_mean_of_the_references() -> None:
    curve = [BEFORE, *AFTER]
    slow = [BEFORE, AFTER[0], AFTER[0], AFTER[0]]
    [unlearned, reference] = found({"original": [[KNOWN]], "unlearned": [curve], "reference": [slow, curve]})
    of_slow = (0.925 - 0.1) / 0.875
    assert unlearned.value == pytest.approx(0.6)
    assert unlearned.gap == pytest.approx(0.6 - (0.6 + of_slow) / 2)
    assert (unlearned.budget, unlearned.budget_unit) == (None, "steps")
    assert reference.value == pytest.approx((0.6 + of_slow) / 2)
    assert unlearned.n == 4
    [again] = found({"original": [curve], "unlearned": [AFTER], "reference": []}, {"original": [KNOWN], "unlearned": [BEFORE], "reference": []})
    assert again.value == pytest.approx(0.6)


def test_what_is_missing_is_said() -> None:
    [finding] = found({"original": [[KNOWN]], "unlearned": [[KNOWN, *AFTER]], "reference": []})
    assert (finding.value, finding.reason) == (None, TOO_LITTLE)
    [finding] = found({"original": [[KNOWN]], "unlearned": [[BEFORE, *AFTER]], "reference": [[KNOWN, *AFTER]]})
    assert (finding.gap, finding.reason) == (None, f"no reference has a ratio: {TOO_LITTLE}")
