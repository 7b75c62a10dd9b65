"""The two scales, and what a judge's words become."""

from __future__ import annotations

import pytest

from unlearned.holes._ratings import is_lowest, quality_of, rating_in, reward_of, score_of


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Good. Rating: [[7]]", 7),
        ("[[3]] at first, in the end [[ 8.5 ]]", 8.5),
        ("no rating", None),
        ("[[11]]", None),
        ("[[0]]", None),
        ("[[-1]]", None),
        ("[7]", None),
    ],
)
def test_the_last_rating_counts_and_must_be_on_the_scale(text: str, rating: float | None) -> None:
    assert rating_in(text, 1, 10) == rating


def test_rewards_run_against_ratings() -> None:
    assert [reward_of(x) for x in range(11)] == list(range(10, -1, -1))


def test_scores_and_qualities() -> None:
    assert score_of(0) == 1
    assert score_of(1) == 10
    assert [quality_of(score_of(q)) for q in (0, 0.25, 1)] == [0, 0.25, 1]
    assert [is_lowest(s) for s in (1, 1.4, 1.5, 2)] == [True, True, False, False]
