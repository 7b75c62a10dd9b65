"""The seam of methods: frozen settings that know how to unlearn."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn

from unlearned.engine.engine import Engine
from unlearned.engine.loop import Plan, fit
from unlearned.engine.settings import Optimisation, Settings
from unlearned.problem import Problem


class Method(Settings, ABC):
    """An unlearning algorithm with its settings: one field per hyper-parameter, with its range and the paper's default."""

    name: ClassVar[str]
    tasks: ClassVar[frozenset[str] | None] = None
    """Tasks that it is defined for; None: all."""

    @abstractmethod
    def unlearn(self, problem: Problem, engine: Engine) -> nn.Module:
        """A new model that no longer knows the forget set, on the CPU in eval mode. The original is not touched.

        Raises:
            DivergedError: if it diverges.
            InputError: if the settings do not fit the model.
        """


class ObjectiveMethod(Method, Optimisation):
    """A method that follows gradients of its own objective: it gives a plan, the engine's loop carries it out."""

    @abstractmethod
    def plan(self, problem: Problem, engine: Engine) -> Plan:
        """Passes, losses and hooks."""

    def unlearn(self, problem: Problem, engine: Engine) -> nn.Module:
        model = copy.deepcopy(problem.original.model)
        sets = {"forget": problem.forget, "retain": problem.retain}
        plan = self.plan(problem, engine)
        return fit(engine, model, plan, sets, self, title=self.name, seed=engine.seed, checkpoint=engine.checkpoint("unlearn"))
