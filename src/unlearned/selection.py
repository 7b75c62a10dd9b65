"""Which state of an unlearning to keep: the one that is best by an audit or attack, among those that are still useful; seen on validation data alone.

With the attack `relearn` the criterion is resilience to relearning: a state that shows nothing may be one from which everything comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field, field_validator
from torch import nn

from unlearned.attacks._attack import Attack
from unlearned.audits._audit import Audit
from unlearned.engine.engine import Engine
from unlearned.engine.keeping import Keep
from unlearned.engine.randomness import derive_seed
from unlearned.errors import Fault, InputError
from unlearned.evidence.subject import Subject
from unlearned.methods._method import Method
from unlearned.problem import Problem
from unlearned.settings import Settings


class SelectionSpec(Settings):
    """Keep the best state of the unlearning instead of its last, judged on validation data."""

    every: int = Field(10, ge=1, description="Steps between looks; the last state is looked at as well.")
    by: dict[str, Any] = Field(
        {"name": "relearn"}, description="The audit or attack that judges: its name and settings. Of an attack's curve the worst point counts."
    )
    metric: str = Field("knowledge", description="Which of its metrics.")
    split: str | None = Field(None, description="On which split; None: the worst of all. `test` is the validation set here.")
    better: Literal["lower", "higher"] = Field("lower", description="Which values are better.")
    floor: float = Field(0.9, ge=0, description="A state counts as useful if its utility on validation data is at least this share of the original's.")

    @field_validator("by", mode="before")
    @classmethod
    def _shorthand(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given


@dataclass(frozen=True)
class Selection:
    """A specification whose judge is resolved."""

    how: SelectionSpec
    judge: Audit | Attack

    def faults(self, problem: Problem, method: Method | None) -> list[Fault]:
        """What is wrong with it for this problem and method."""
        found = [fault._replace(field=f"selection.by.{fault.field}") for fault in self.judge.faults(problem)]
        if problem.validation is None:
            found.append(Fault("data.validation", "a state is selected on validation data, of which there are none.", "Add some, or leave out `selection`."))
        elif not len(problem.validation):
            found.append(Fault("data.validation", "the validation set is empty.", "Give held-out samples."))
        if method is not None and not method.stepwise:
            what = f"{method.name} does not go step by step: there are no states to choose from."
            found.append(Fault("selection", what, "Leave it out, or use a method that follows gradients."))
        return found

    def keep(self, problem: Problem, engine: Engine, say: Callable[[str], object] = lambda _: None) -> Keep:
        """What the loop is to do: (1, goodness) of a useful state, (0, utility) of another, which is not attacked at all.

        Args:
            problem: with a validation set.
            engine: of the unlearning; the judge has a seed of its own.
            say: is told at the end which state was kept.
        """
        assert problem.validation is not None
        aside = engine.aside(derive_seed(engine.seed, "selection"))
        seen = replace(problem, test=problem.validation, validation=None)

        def useful(model: nn.Module) -> float:
            return float(aside.evaluate(model, seen.test, aside.task.utility).mean())

        floor = self.how.floor * useful(problem.original.model)

        def judge(model: nn.Module) -> Sequence[float]:
            utility = useful(model)
            return (1.0, self._goodness(Subject(seen, problem.original.with_model(model), (), aside))) if utility >= floor else (0.0, utility)

        def tell(step: int, score: Sequence[float]) -> None:
            useless = "" if score[0] else f"; none kept {self.how.floor:g} of the original's utility, this one has the most"
            say(f"kept the state after {step} steps{useless}")

        return Keep(self.how.every, judge, tell)

    def _goodness(self, subject: Subject) -> float:
        how = self.how
        named = [f for f in self.judge.measure(subject) if f.subject == "unlearned" and f.metric == how.metric and how.split in {None, f.split}]
        values = [f.value for f in named if f.value is not None]
        if not values:
            where = "" if how.split is None else f" on {how.split!r}"
            what = named[0].reason if named else f"{self.judge.name} has no metric {how.metric!r}{where}"
            raise InputError(Fault("selection", f"nothing can be selected by: {what}.", f"See: unlearned audits show {self.judge.name}, or attacks show."))
        return -max(values) if how.better == "lower" else min(values)
