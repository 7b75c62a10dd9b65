"""The control of equal steps: nothing is left out, and a method stops after a share of its steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from unlearned.engine.engine import Engine
from unlearned.engine.loop import Plan, planned_steps
from unlearned.methods import methods
from unlearned.methods._method import ObjectiveMethod
from unlearned.problem import Problem

FEWER = "fewer-steps"
"""Its name where scores have theirs."""


def can_stop(method: str) -> bool:
    """Whether a method goes in steps, so that the control can take part."""
    return issubclass(methods.get(method), ObjectiveMethod)


def steps_of(method: ObjectiveMethod, problem: Problem, engine: Engine) -> int:
    """How many steps it takes."""
    return planned_steps(method.plan(problem, engine), method.sets(problem, engine), method, engine.seed)


def shortened(method: ObjectiveMethod, share: float) -> ObjectiveMethod:
    """The method, stopped after that share of its steps."""
    kind: Any = type(method)

    class Shortened(kind):  # type: ignore[misc]
        share_of_steps: float

        def plan(self, problem: Problem, engine: Engine) -> Plan:
            plan: Plan = super().plan(problem, engine)
            steps = planned_steps(plan, self.sets(problem, engine), self, engine.seed)
            return replace(plan, max_steps=max(1, round(self.share_of_steps * steps)))

    made = Shortened(**method.model_dump(), share_of_steps=share)
    assert isinstance(made, ObjectiveMethod)
    return made
