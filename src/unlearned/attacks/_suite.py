"""All attacks on one subject, within a limit of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from unlearned.attacks._attack import Attack
from unlearned.errors import UnlearnedError
from unlearned.evidence.subject import Subject
from unlearned.records import Finding

SETTINGS: dict[str, dict[str, dict[str, Any]]] = {"text-generation": {"relearn": {"data": ["forget-part", "related", "benign", "random"]}}}
"""By task and attack: what a suite sets otherwise than a single attack does."""

Clock = Callable[[], float]


class Outcome(NamedTuple):
    """What a suite found, and what it left out."""

    findings: list[Finding]
    carried_out: list[Attack]
    skipped: dict[str, str]
    """Name of an attack to why it was not carried out."""


def carry_out(
    subject: Subject, attacks: Sequence[Attack], seconds: float | None = None, *, say: Callable[[str], None] = lambda _: None, clock: Clock = time.monotonic
) -> Outcome:
    """Carry out attacks, those that take least first, as long as time is left for them.

    How long one will take is estimated: by how long the unlearned model takes to answer the forget set, times how often the attack lets a model do so, times
    the number of models. An attack that would take longer than what is left is skipped. One that has begun is finished.

    Args:
        subject: the models and the data.
        attacks: with their settings.
        seconds: the limit; None: none.
        say: is told what happens.
        clock: in seconds.
    """
    problem, models = subject.problem, len(subject.models())
    skipped: dict[str, str] = {}
    possible: list[Attack] = []
    for attack in attacks:
        faults = attack.faults(problem)
        if faults:
            skipped[attack.name] = " ".join(fault.what for fault in faults)
        else:
            possible.append(attack)
    begun = clock()
    subject.value(subject.engine.task.knowledge, "forget", subject.unlearned.model)
    once = clock() - begun
    findings: list[Finding] = []
    carried_out: list[Attack] = []
    for attack in sorted(possible, key=lambda each: each.evaluations(problem)):
        needed = once * attack.evaluations(problem) * models
        left = float("inf") if seconds is None else seconds - (clock() - begun)
        if needed > left:
            skipped[attack.name] = f"it takes about {_words(needed)}, and of {_words(seconds or 0)} {_words(max(left, 0))} are left"
            continue
        say(f"attack {attack.name}")
        try:
            findings += attack.labelled(subject)
        except UnlearnedError as error:
            skipped[attack.name] = str(error)
        else:
            carried_out.append(attack)
    return Outcome(findings, carried_out, skipped)


def _words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.2g} s"
