"""Resilient: any objective method, made to hold after fine-tuning.

Paper: Li et al. 2025, "ResAlign", NeurIPS 2025, arXiv 2507.16302; code of the authors: AntigoneRandy/ResAlign. Theirs is one objective for diffusion models
(`resalign`); the wrapper around other objectives, on other kinds of model, is ours.
Formula: with L the loss of the inner method in each pass that meets the forget set, J(θ) = (1 − β) L(θ) + β · mean_j L(w_j(θ)) + α R(θ). w_j are the weights
after fine-tuning j of a pool, modelled as argmin_w L_FT(w) + ‖w − θ‖² / 2γ, so that ∇_θ L(w_j(θ)) = (I + γH)⁻¹ ∇L(w_j), H = ∇²L_FT(w_j); K steps of Richardson
iteration with exact Hessian-vector products. The fine-tuning itself is carried out plainly, from θ, with an optimiser of its own. R: mean squared difference
between outputs and those of the original on the retain set (predictions for the same noise, for diffusion models); α 0 by default, as inner methods have
retain terms of their own.
Defaults of the authors: β 0.8, γ 1, K 5, three fine-tunings of a pool of fifteen at each step, damping halved at most five times.
Deviations: L is the whole loss of the inner method, its retain term included. The iteration is found to diverge by its residual rather than by norms of
iterates (`guard`). The same noise now and after fine-tuning (`noise`). The factor 0.3 of the code on the gradient is left out: it belongs to `lr`.
A step costs about as much as ten plain ones for each rehearsal.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from pydantic import Field, ValidationError, field_validator
from torch import nn

from unlearned.engine.engine import Engine
from unlearned.engine.finetuning import read_pool
from unlearned.engine.loop import Plan
from unlearned.engine.rehearsal import Rehearsal, pool_faults
from unlearned.errors import Fault, InputError, collecting
from unlearned.methods import methods
from unlearned.methods._method import Method, ObjectiveMethod
from unlearned.methods._resilience import Course, Resilience, distance_from_original
from unlearned.problem import Problem
from unlearned.tasks.image_generation import ImageGeneration


@methods.register("resilient")
class Resilient(Method, Resilience):
    """Ask of a method's objective that it also holds after fine-tuning."""

    name: ClassVar[str] = "resilient"
    inner: dict[str, Any] = Field(
        {"name": "neg-grad-plus"},
        validate_default=True,
        description="The method inside: its name, or its name and settings; one that follows gradients of an objective.",
    )

    @field_validator("inner", mode="before")
    @classmethod
    def _is_an_objective_method(cls, given: Any) -> dict[str, Any]:
        settings = {"name": given} if isinstance(given, str) else dict(given) if isinstance(given, Mapping) else {}
        name = settings.pop("name", None)
        if not isinstance(name, str):
            raise ValueError("the inner method has no name; give one, such as npo, or its name with settings: {name: npo, lr: 1e-5}")
        try:
            kind = methods.get(name)
        except InputError as error:
            raise ValueError(", and ".join(f"{fault.what.rstrip('.')}; {fault.remedy}" for fault in error.faults)) from error
        if not issubclass(kind, ObjectiveMethod):
            raise ValueError(f"{name} follows no gradients of an objective, which could be asked for after fine-tuning; give one that does, such as npo")
        if Resilience in kind.__mro__:
            raise ValueError(f"{name} is resilient by itself; give it as the method")
        try:
            made = kind(**settings)
        except ValidationError as error:
            raise ValueError(", and ".join(_in_words(name, detail) for detail in error.errors())) from error
        except TypeError as error:
            raise ValueError("names of settings must be text; quote them") from error
        return {"name": name, **made.model_dump()}

    @property
    def inside(self) -> ObjectiveMethod:
        """The inner method with its settings."""
        settings = {key: value for key, value in self.inner.items() if key != "name"}
        made = methods.get(self.inner["name"])(**settings)
        assert isinstance(made, ObjectiveMethod)
        return made

    @property
    def defined_for(self) -> Collection[str] | None:
        return self.inside.defined_for

    def faults(self, problem: Problem, engine: Engine) -> list[Fault]:
        method, adapted = self.inside, None
        found = method.faults(problem, engine)
        with collecting(found):
            adapted = method.adapted(problem)
        found = [fault._replace(field=fault.field.replace("method.", "method.inner.", 1)) for fault in found]
        if self.noise == "epsilon" and not isinstance(engine.task, ImageGeneration):
            found.append(Fault("method.noise", "'epsilon' is about the noise of a diffusion model, which this model is not.", "Use shared or independent."))
        return found + pool_faults(read_pool(self.pool), problem.original.model, adapted, problem.retain, engine.seed)

    def unlearn(self, problem: Problem, engine: Engine) -> nn.Module:
        method, courses = self.inside, list[Course]()

        def revised(plan: Plan, model: nn.Module) -> Plan:
            rehearsal = Rehearsal(engine, model, problem.original.model, read_pool(self.pool), problem.retain, problem.forget)
            distance = distance_from_original(problem, engine, method) if self.keeps_near else None
            courses.append(Course(self, rehearsal, engine, distance, self.name))
            return courses[0].revised(plan)

        model = method.carried_out(problem, engine, revised)
        courses[0].conclude()
        return model


def _in_words(name: str, detail: Any) -> str:
    path, message = ".".join(map(str, detail["loc"])), detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        return f"{name} has no setting {path!r}; see: unlearned methods show {name}"
    given = "" if detail["type"] == "missing" else f" (given: {detail['input']!r:.60})"
    return f"{path + ': ' if path else ''}{message[:1].lower()}{message[1:]}{given}"
