from __future__ import annotations

import numpy as np
import pytest

from unlearned.bench._choice import area, careful, front, front_shares


def test_the_careful_choice_forgets_most_among_those_that_stay_useful() -> None:
    utilities, knowledge = [0.9, 0.8, 0.79, 0.1], [0.9, 0.5, 0.4, 0.0]
    assert careful(utilities, knowledge, 0.795) == 1
    assert careful(utilities, knowledge, 0.0) == 3
    assert careful(utilities, knowledge, 0.95) == 0


def test_front_against_a_loop() -> None:
    random = np.random.default_rng(4)
    for _ in range(50):
        points = random.integers(0, 5, (12, 2)) / 4  # with ties and equal points
        expected = []
        for q, e in points:
            expected.append(not any(q2 >= q and e2 <= e and (q2 > q or e2 < e) for q2, e2 in points))
        assert front(points).tolist() == expected


def test_area_by_hand() -> None:
    """(0.9, 0.5) dominates 0.9 · 0.5; (0.6, 0.2) adds 0.6 · 0.3; (0.5, 0.4) adds nothing."""
    assert area(np.array([[0.5, 0.4], [0.6, 0.2], [0.9, 0.5]])) == pytest.approx(0.63)
    assert area(np.array([[1.0, 0.0]])) == 1
    assert area(np.array([[0.0, 0.0], [1.0, 1.0]])) == 0


def test_area_against_a_grid() -> None:
    random = np.random.default_rng(5)
    points = random.random((6, 2))
    middle = (np.arange(400) + 0.5) / 400
    q, e = np.meshgrid(middle, middle)
    dominated = np.zeros_like(q, dtype=bool)
    for quality, error in points:
        dominated |= (q <= quality) & (e >= error)
    assert area(points) == pytest.approx(dominated.mean(), abs=5e-3)


def test_shares_of_the_front_count_draws_of_seeds() -> None:
    sure, never = np.full((4, 2, 2), [0.9, 0.1]), np.full((4, 1, 2), [0.8, 0.2])
    assert front_shares([sure, never], seed=0) == [1.0, 0.0]
    # Better than 0.5 with one of four seeds, else much worse: on the front unless that seed is drawn too rarely; alone in quality, so errors decide.
    lucky = np.array([[[0.5, 0.0]], [[0.5, 0.6]], [[0.5, 0.6]], [[0.5, 0.6]]])
    steady = np.full((4, 1, 2), [0.5, 0.5])
    shares = front_shares([lucky, steady], seed=0, rounds=4000)
    # lucky wins if at least one of four draws is the first seed: 0.6 (4 − k)/4 < 0.5 for k ≥ 1.
    assert shares[0] == pytest.approx(1 - 0.75**4, abs=0.03)
    assert sum(shares) == pytest.approx(1)
