"""The seam of methods: frozen settings that know how to unlearn."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor, nn, no_grad

from unlearned.data.samples import Samples
from unlearned.engine.adapters import Lora, adaptable, is_adapted, merged, with_adapter, without_adapter
from unlearned.engine.engine import Engine, evaluating, frozen, on_device
from unlearned.engine.loop import Plan, fit
from unlearned.engine.randomness import derive_seed, seeded
from unlearned.engine.settings import Optimisation, Settings
from unlearned.errors import Fault
from unlearned.problem import Problem
from unlearned.tasks._task import Batch

Measure = Callable[[nn.Module, Batch], Tensor]
Revision = Callable[[Plan, nn.Module], Plan]


class Method(Settings, ABC):
    """An unlearning algorithm with its settings: one field per hyper-parameter, with its range and the paper's default."""

    name: ClassVar[str]
    tasks: ClassVar[Collection[str] | None] = None
    """Tasks that it is defined for; None: all."""
    stepwise: ClassVar[bool] = False
    """Whether it goes step by step, so that the best of several states can be kept."""

    @property
    def defined_for(self) -> Collection[str] | None:
        """Tasks that it is defined for with these settings; None: all."""
        return self.tasks

    @abstractmethod
    def unlearn(self, problem: Problem, engine: Engine) -> nn.Module:
        """A new model that no longer knows the forget set, on the CPU in eval mode. The original is not touched.

        Raises:
            DivergedError: if it diverges.
            InputError: if the settings do not fit the model.
        """

    def faults(self, problem: Problem, engine: Engine) -> list[Fault]:
        """What is wrong with its settings for this problem, before any work is done; fields are `method.SETTING`, or `model`."""
        del problem, engine
        return []


class ObjectiveMethod(Method, Optimisation):
    """A method that follows gradients of its own objective: it gives a plan, the engine's loop carries it out."""

    stepwise: ClassVar[bool] = True
    adapts: ClassVar[bool] = True
    """Whether adapters may be trained in the place of the weights: not where the method is about the weights themselves."""
    lora: Lora | None = Field(None, description="Train low-rank adapters in the place of the weights; at the end they are merged.")

    @model_validator(mode="after")
    def _adapters_fit(self) -> Self:
        if self.lora is not None and not self.adapts:
            raise ValueError(f"{self.name} is about the weights of the model, which adapters leave as they are; leave out `lora`")
        return self

    @abstractmethod
    def plan(self, problem: Problem, engine: Engine) -> Plan:
        """Passes, losses and hooks."""

    def sets(self, problem: Problem, engine: Engine) -> dict[str, Samples]:
        """What the passes go over: the forget set and the retain set, unless the method uses a part of them or attaches values to their samples."""
        del engine
        return {"forget": problem.forget, "retain": problem.retain}

    def unlearn(self, problem: Problem, engine: Engine) -> nn.Module:
        return self.carried_out(problem, engine, lambda plan, model: plan)  # noqa: ARG005

    def carried_out(self, problem: Problem, engine: Engine, revised: Revision) -> nn.Module:
        """Unlearn by a plan that is made from this method's own; arguments and result are otherwise those of `unlearn`.

        Args:
            problem: what, from which model.
            engine: computes.
            revised: of this method's plan and of the model that is going to be trained.
        """
        original, pattern = problem.original.model, self.trained(problem)
        if self.lora is None:
            model = copy.deepcopy(original)
        else:
            with seeded(derive_seed(engine.seed, "adapter")):
                model = with_adapter(original, self.lora, pattern)
        how = self.model_copy(update={"parameters": pattern if self.lora is None else ".*"})
        plan, sets = revised(self.plan(problem, engine), model), self.sets(problem, engine)
        keep = engine.keep and engine.keep._replace(judge=self._judging(engine.keep.judge, original))
        model = fit(engine, model, plan, sets, how, title=self.name, seed=engine.seed, checkpoint=engine.checkpoint("unlearn"), keep=keep)
        return model if self.lora is None else merged(model, original).eval()

    def _judging(self, judge: Callable[[nn.Module], Sequence[float]], original: nn.Module) -> Callable[[nn.Module], Sequence[float]]:
        """Judges what would be returned: adapters merged, and the same parameters require gradients as in the original."""

        def of_the_result(model: nn.Module) -> Sequence[float]:
            model.zero_grad()
            result = copy.deepcopy(model)
            if self.lora is not None:
                return judge(merged(result, original).eval())
            for name, parameter in original.named_parameters():
                result.get_parameter(name).requires_grad_(parameter.requires_grad)
            return judge(result.eval())

        return of_the_result

    def trained(self, problem: Problem) -> str:
        """A regular expression for the parameters that may change: the setting, unless the paper derives them from the model."""
        del problem
        return self.parameters

    def adapted(self, problem: Problem) -> list[str] | None:
        """Names of the weights that get adapters; None: the weights themselves are trained.

        Raises:
            InputError: if none can get any.
        """
        return None if self.lora is None else [f"{name}.weight" for name in adaptable(problem.original.model, self.trained(problem))]

    def original_outputs(self, problem: Problem, engine: Engine, measure: Measure | None = None) -> Measure:
        """What the frozen original says, in eval mode and without gradients, as a function of the model that is trained and a batch.

        With an adapter it is the same model with the adapter switched off; else a copy.

        Args:
            problem: has the original.
            engine: computes.
            measure: of model and batch; by default the task's `outputs`.
        """
        outputs = measure or engine.task.outputs
        if self.lora is not None:

            def ask(model: nn.Module, batch: Batch) -> Tensor:
                if not is_adapted(model):  # a copy to which the adapter has been added
                    with no_grad(), on_device(problem.original.model, engine.device) as original, evaluating(original):
                        return outputs(original, batch)
                with no_grad(), without_adapter(model), evaluating(model):
                    return outputs(model, batch)

            return ask
        teacher = frozen(problem.original.model).to(engine.device)

        def ask_copy(model: nn.Module, batch: Batch) -> Tensor:
            del model
            with no_grad():
                return outputs(teacher, batch)

        return ask_copy
