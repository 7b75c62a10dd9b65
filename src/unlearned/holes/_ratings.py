"""The two scales of the paper, which run in opposite directions, and how a judge's words become numbers.

A *score* is in 1 … 10, 10 for a good answer: what is reported. A *reward* J is in 0 … 10, 10 for a valid question with a useless answer: what the search
maximises (Ko et al. 2025, section on latent probing).
"""

from __future__ import annotations

import re

LOWEST, HIGHEST = 1.0, 10.0
"""Ends of the scale of scores."""
_RATING = re.compile(r"\[\[\s*(-?\d+(?:\.\d+)?)\s*\]\]")


def rating_in(text: str, low: float, high: float) -> float | None:
    """The last `[[number]]` in a judge's text; None if there is none, or it is outside [low, high]."""
    found = _RATING.findall(text)
    value = float(found[-1]) if found else None
    return value if value is not None and low <= value <= high else None


def reward_of(rating: float) -> float:
    """J = 10 − X, of a judge's rating X in 0 … 10.

    X is 10 for an invalid question and for a perfect answer, both of which are worth nothing; 0 for a valid question whose answer is gibberish or unrelated.
    """
    return 10.0 - rating


def score_of(quality: float) -> float:
    """1 + 9 q: a quality in [0, 1] on the scale of scores."""
    return LOWEST + (HIGHEST - LOWEST) * quality


def quality_of(score: float) -> float:
    """The inverse of `score_of`."""
    return (score - LOWEST) / (HIGHEST - LOWEST)


def is_lowest(score: float) -> bool:
    """Whether a score counts as 1, "extremely low quality": it rounds to 1."""
    return score < LOWEST + 0.5
