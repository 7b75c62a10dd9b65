"""Unlearn, and what that returns."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from unlearned.engine.engine import Engine
from unlearned.methods import methods as method_registry
from unlearned.methods._method import Method
from unlearned.parts import make_part
from unlearned.problem import Problem
from unlearned.recipe import make_selection
from unlearned.records import Cost, Exhibit
from unlearned.selection import SelectionSpec
from unlearned.tasks._task import Bundle


class Forgotten(NamedTuple):
    """What `forget` returns."""

    bundle: Bundle
    cost: Cost
    exhibits: tuple[Exhibit, ...] = ()
    """What the method shows of itself, such as what it tried before it chose a setting."""

    @property
    def model(self) -> nn.Module:
        """The unlearned model, on the CPU in eval mode."""
        return self.bundle.model


def forget(
    problem: Problem, method: str | Method, engine: Engine | None = None, *, seed: int = 0, selection: SelectionSpec | None = None, **settings: Any
) -> Forgotten:
    """Unlearn.

    Args:
        problem: what, from which model.
        method: a name from `unlearned methods`, or a method with its settings.
        engine: computes; by default one without checkpoints.
        seed: of everything random, if no engine is given.
        selection: which state to keep; None: the last.
        settings: of the method, if it is given by name.

    Raises:
        InputError: if a setting is wrong or the method is not defined for the task.
        DivergedError: if it diverges.
    """
    chosen = make_part(method_registry, method, settings, "method", problem.task.name) if isinstance(method, str) else method
    engine = engine or Engine(problem.task, seed=seed)
    if selection is not None:
        engine = engine.keeping(make_selection(selection, problem, chosen).keep(problem, engine))
    with engine.measuring() as meter:
        model = chosen.unlearn(problem, engine)
    return Forgotten(problem.original.with_model(model), meter.cost, tuple(engine.exhibits))
