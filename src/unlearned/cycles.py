"""Relearn cycles: unlearn, regenerate, unlearn again. Does forgetting deepen, or is it as shallow as at first?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import nn

from unlearned.api import forget
from unlearned.attacks._curves import knowledge_of
from unlearned.attacks.memora import FEWEST, Memora
from unlearned.engine.bank import Kept
from unlearned.engine.engine import Engine
from unlearned.errors import Fault, InputError
from unlearned.evidence.statistics import Array
from unlearned.evidence.subject import Subject
from unlearned.methods._method import Method
from unlearned.problem import Problem
from unlearned.records import Finding


class Cycle(NamedTuple):
    """One round of unlearning and regeneration."""

    number: int
    """From 1."""
    unlearned: nn.Module
    regrown: nn.Module
    findings: list[Finding]
    """Those of the attack on this round's unlearned model; always held against the first original and the same references."""


def relearn_cycles(problem: Problem, method: Method, attack: Memora, references: Sequence[Kept], engine: Engine, count: int = 2) -> list[Cycle]:
    """Unlearn from the original, regenerate, unlearn from what was regenerated, and so on; each unlearned model meets the same attack.

    The references that the attacker has are the same in all rounds, drawn by or taken for the first original. A method sees the regenerated model as its
    original.

    Args:
        problem: original model and data.
        method: unlearns in each round.
        attack: regenerates in each round.
        references: models that never knew; they are attacked once.
        engine: computes.
        count: rounds.

    Raises:
        InputError: if the forget set gives the attacker no references, or the method is not defined for the task.
        DivergedError: if a round diverges.
    """
    subject = Subject(problem, problem.original, references, engine)
    material = attack.material(subject)
    if not len(material.references):
        raise InputError(Fault("forget", f"{FEWEST}.", "Forget more samples of a class, or give the attacker references (references: source)."))
    known = [knowledge_of(subject, problem.original.model, material.rest)]
    controls: list[list[Array]] = [attack.attacked(subject, each.bundle.model, material)[1] for each in references]
    found: list[Cycle] = []
    start = problem.original
    for number in range(1, count + 1):
        unlearned = forget(replace(problem, original=start), method, engine).bundle
        current = Subject(problem, unlearned, references, engine)
        regrown, points = attack.attacked(current, unlearned.model, material)
        findings = attack.concluded(current, material, {"original": [known], "unlearned": [points], "reference": controls})
        found.append(Cycle(number, unlearned.model, regrown, findings))
        start = problem.original.with_model(regrown)
    return found
