"""Small banks of real models on digits, for what audits must find and must not find. Made once for all tests."""

from __future__ import annotations

import functools
from dataclasses import replace

from tests.models import problem_of
from unlearned.data.samples import union
from unlearned.engine.bank import Kept
from unlearned.engine.engine import Engine
from unlearned.engine.training import Training, train
from unlearned.evidence.subject import Subject
from unlearned.methods.gradient_ascent import GradientAscent
from unlearned.problem import Problem
from unlearned.tasks._task import Bundle

HOW = Training(optimizer="adam", lr=0.05, epochs=16, batch_size=60, weight_decay=0)
COUNT = 8
BROKEN = GradientAscent(lr=0.3, epochs=10)
"""So much ascent that the forget set is answered worse than by a model that never saw it."""


@functools.cache
def problem() -> Problem:
    """30 of 120 digits are to be forgotten; pixels decide linearly, so that training ends with every sample known by heart."""
    return problem_of("linear", forget=30, retain=90, test=150)


def _trained(seed: int, *, whole: bool) -> Bundle:
    sets = problem()
    samples = union(sets.forget, sets.retain) if whole else sets.retain
    return train(Engine(sets.task), sets.original, samples, HOW, seed)


@functools.cache
def retrained(first: int, count: int = COUNT) -> tuple[Bundle, ...]:
    """Models that never saw the forget set; the seeds are `first`, `first` + 1, ..."""
    return tuple(_trained(seed, whole=False) for seed in range(first, first + count))


@functools.cache
def originals(first: int, count: int = COUNT) -> tuple[Bundle, ...]:
    """Models that were trained on everything."""
    return tuple(_trained(seed, whole=True) for seed in range(first, first + count))


@functools.cache
def broken(first: int, count: int = COUNT) -> tuple[Bundle, ...]:
    """Originals after far too much gradient ascent on the forget set."""
    sets = problem()
    return tuple(
        before.with_model(BROKEN.unlearn(replace(sets, original=before), Engine(sets.task, seed=seed)))
        for seed, before in enumerate(originals(first, count), first)
    )


def subject(unlearned: tuple[Bundle, ...], references: tuple[Bundle, ...], seed: int = 0) -> Subject:
    """The first of `unlearned` under audit, the others as shadow models, against these references; the original was trained on everything."""
    sets = replace(problem(), original=originals(900, 1)[0])
    banks = [[Kept(bundle, None, None) for bundle in bank] for bank in (references, unlearned[1:])]
    return Subject(sets, unlearned[0], banks[0], Engine(sets.task, seed=seed), None, banks[1])
