"""Dropping points that matter little before a method sees them: how many, which, and what that can change at most.

To first order, leaving a set T out of a training changes what a score measures by at most Σ_{z ∈ T} size_z (Effects). Many points that matter little each may
matter together, and this sum says how much.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from unlearned.errors import Fault, InputError
from unlearned.influence._rank import Ranking
from unlearned.influence._score import Score
from unlearned.problem import Problem
from unlearned.settings import Settings

Split = Literal["forget", "retain"]
SPLITS: dict[str, tuple[Split, ...]] = {"forget": ("forget",), "retain": ("retain",), "both": ("forget", "retain")}


class Prune(Settings):
    """Leave points that matter little out of the unlearning; exactly one of `fraction`, `threshold`, `tolerance`."""

    score: dict[str, Any] = Field({"name": "gradient-norm"}, description="Name and settings of the influence score.")
    fraction: float | None = Field(None, ge=0, le=1, description="Share of each set that is dropped: the points whose score is nearest to 0.")
    threshold: float | None = Field(None, ge=0, description="Points are dropped whose score is at most so far from 0.")
    tolerance: float | None = Field(
        None, ge=0, description="Drop the largest share whose effect, by the bound that the score gives, stays at or below this number."
    )
    of: Literal["forget", "retain", "both"] = Field("both", description="The sets that are thinned.")
    gate: int = Field(3, ge=0, le=100, description="Models trained without the dropped, random, highest, and no points, to see that nothing changed; 0: none.")
    skip_requested: bool = Field(False, description="Drop points of a request for deletion, though that never satisfies it.")

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if sum(rule is not None for rule in (self.fraction, self.threshold, self.tolerance)) != 1:
            raise ValueError("of fraction, threshold and tolerance not exactly one is given; give one")
        if self.gate == 1:
            raise ValueError("one model for each set shows no noise of seeds; set gate to 2 or more, or to 0")
        return self


class Chosen(NamedTuple):
    """Which points are dropped."""

    dropped: dict[Split, list[int]]
    """Positions in each set, ascending."""
    share: float | None
    """Of each set; None where a threshold decided."""
    bound: float | None
    """Σ size_z over all dropped points; None if the score bounds no effect."""


def low(values: Tensor, count: int) -> list[int]:
    """Positions of the `count` values nearest to 0, ascending; of equal ones the first."""
    order = np.argsort(values.abs().numpy(), kind="stable")
    return sorted(order[:count].tolist())


def high(values: Tensor, count: int) -> list[int]:
    """Positions of the `count` values farthest from 0, ascending."""
    order = np.argsort(-values.abs().numpy(), kind="stable")
    return sorted(order[:count].tolist())


def choose(ranking: Ranking, how: Prune) -> Chosen:
    """Which points `how` drops.

    Raises:
        InputError: if a tolerance is given and the score bounds no effect, or the retain set would be left empty.
    """
    splits = SPLITS[how.of]
    if how.threshold is not None:
        dropped = {split: torch.nonzero(ranking.part(split).abs() <= how.threshold)[:, 0].tolist() for split in splits}
        chosen = Chosen(dropped, None, _bound(ranking, dropped))
    elif how.fraction is not None:
        chosen = at_share(ranking, splits, how.fraction)
    else:
        chosen = largest(ranking, splits, how.tolerance or 0.0)
    if len(chosen.dropped.get("retain", [])) == len(ranking.part("retain")):
        raise InputError(nothing_left())
    return chosen


def at_share(ranking: Ranking, splits: tuple[Split, ...], share: float) -> Chosen:
    """The lowest ⌊share · n⌋ points of each split of n points."""
    dropped = {split: low(ranking.part(split), int(share * len(ranking.part(split)) + 1e-9)) for split in splits}
    return Chosen(dropped, share, _bound(ranking, dropped))


def largest(ranking: Ranking, splits: tuple[Split, ...], tolerance: float) -> Chosen:
    """The largest share, in whole percents below 100, whose bound is at most the tolerance.

    Raises:
        InputError: if the score bounds no effect.
    """
    if ranking.effects is None:
        raise InputError(no_bound(ranking.score, *ranking.notes))
    best = at_share(ranking, splits, 0.0)
    for percent in range(1, 100):
        found = at_share(ranking, splits, percent / 100)
        assert found.bound is not None
        if found.bound > tolerance:
            break
        best = found
    return best


def no_bound(score: Score, *notes: str) -> Fault:
    """What is said of a tolerance beside a score that bounds nothing."""
    what = " ".join([f"{score.name} as it is set bounds no effect, so no tolerance can be kept.", *notes])
    return Fault("prune.tolerance", what, "Use the score hessian with of: parameters, prediction or signed; or give a fraction.")


def nothing_left() -> Fault:
    """What is said where no sample would be retained."""
    return Fault("prune", "the whole retain set would be dropped: nothing would be left to retain.", "Drop less, or set `of: forget`.")


def thinned(problem: Problem, dropped: dict[Split, list[int]]) -> Problem | None:
    """The problem without the dropped points; None if nothing of the forget set is left."""
    kept = {}
    for split in ("forget", "retain"):
        samples, out = problem.sets[split], set(dropped.get(split, ()))
        kept[split] = samples.subset(i for i in range(len(samples)) if i not in out)
    if not len(kept["forget"]):
        return None
    return replace(problem, forget=kept["forget"], retain=kept["retain"])


def _bound(ranking: Ranking, dropped: dict[Split, list[int]]) -> float | None:
    if ranking.effects is None:
        return None
    total = 0.0
    for split, positions in dropped.items():
        sizes = ranking.effects_of(split)
        assert sizes is not None
        total += float(sizes[positions].sum())
    return total
