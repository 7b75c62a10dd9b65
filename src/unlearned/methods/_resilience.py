"""What makes an objective resilient: the loss after rehearsed fine-tunings beside the loss now."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from unlearned.engine.engine import Engine
from unlearned.engine.finetuning import Pool, read_pool
from unlearned.engine.hypergradient import Proximal, Solution, Tensors, norm_of
from unlearned.engine.loop import LossFunction, Pass, Plan, Step
from unlearned.engine.randomness import derive_seed, generator_states, replaying, seeded
from unlearned.engine.rehearsal import Rehearsal
from unlearned.methods._method import ObjectiveMethod
from unlearned.methods._tally import Tally
from unlearned.problem import Problem
from unlearned.tasks._task import Batch
from unlearned.tasks.image_generation import EPSILON, ImageGeneration

Distance = Callable[[nn.Module, Batch], Tensor]
"""How far a model's answers are from the original's on a retain batch: a scalar."""


def scheduled(first: float, last: float, progress: float) -> float:
    """`first` for the first half of the training, then first + (last − first) · σ(10 (p − ½)), p the progress within the second half.

    Args:
        first: weight at the start.
        last: weight that the second half goes to.
        progress: in [0, 1].
    """
    if progress < 0.5:
        return first
    return first + (last - first) / (1 + math.exp(-10 * ((progress - 0.5) * 2 - 0.5)))


def linear_form(weights: Sequence[Tensor], gradients: Sequence[Tensor | None], value: Tensor) -> Tensor:
    """A scalar with this value whose gradient with respect to the weights is `gradients`; where that is None, the weight has none."""
    total = torch.stack([(w * g).sum() for w, g in zip(weights, gradients, strict=True) if g is not None]).sum()
    return value.detach() + total - total.detach()


def distance_from_original(problem: Problem, engine: Engine, method: ObjectiveMethod) -> Distance:
    """R: mean squared difference between a model's answers and the original's.

    Answers are the task's outputs; of a diffusion model, which draws noise, the predictions for the same noisy latents.

    Args:
        problem: has the original.
        engine: computes.
        method: says how the original is asked while its adapters are in training.
    """
    task = engine.task
    if not isinstance(task, ImageGeneration):
        original = method.original_outputs(problem, engine)
        return lambda model, retain: ((task.outputs(model, retain) - original(model, retain)) ** 2).mean()
    teacher = method.original_outputs(problem, engine, predicted)

    def distance(model: nn.Module, retain: Batch) -> Tensor:
        noised = asked_of(task, model, retain)
        return ((predicted(model, noised) - teacher(model, noised)) ** 2).mean()

    return distance


def asked_of(task: ImageGeneration, model: nn.Module, batch: Batch) -> Batch:
    """Noisy latents, timesteps and, where the model takes any, conditions of a batch, drawn once so that several models can be asked the same."""
    found = task.noised(model, batch)
    asked = {"noisy": found.noisy, "timesteps": found.timesteps}
    return asked if found.condition is None else asked | {"condition": found.condition}


def predicted(model: nn.Module, asked: Batch) -> Tensor:
    """The prediction of a diffusion model, (B, C, H, W)."""
    out: Tensor = model(asked["noisy"], asked["timesteps"], asked.get("condition"))
    return out


class Resilience(Proximal):
    """Settings of the resilience term; the defaults are those of ResAlign's code."""

    beta: float = Field(0.8, ge=0, le=1, description="β: weight of the objective after fine-tuning; 1 − β is that of the objective now.")
    last_beta: float | None = Field(None, ge=0, le=1, description="β that the second half of the training goes to; None: it stays.")
    alpha: float = Field(0.0, ge=0, description="α: weight of the distance between the model's and the original's answers on the retain set.")
    last_alpha: float | None = Field(None, ge=0, description="α that the second half of the training goes to; None: it stays.")
    pool: str | Pool = Field("resalign", description="The fine-tunings: the name of a pool that comes with the package, a YAML file, or a list of them.")
    rehearsals: int = Field(3, ge=1, description="How many fine-tunings of the pool are rehearsed at each step, drawn without replacement; at most all.")
    norm_limit: float | None = Field(None, gt=0, description="A gradient with a larger norm is damped like one that diverges; None: any is taken.")
    noise: Literal["shared", "epsilon", "independent"] = Field(
        "shared",
        description="What a loss that draws noise draws after fine-tuning. shared: the same as now. epsilon: of diffusion models the same latents and "
        "timesteps, and ε anew (the authors' code). independent: all of it anew.",
    )

    @property
    def keeps_near(self) -> bool:
        """Whether the distance from the original ever has a weight."""
        return bool(self.alpha or self.last_alpha)

    @field_validator("pool")
    @classmethod
    def _can_be_read(cls, given: Any) -> Any:
        read_pool(given)
        return given


class Course:
    """A plan whose losses are resilient.

    For each pass that meets the forget set, with L its loss, w_j the weights after the rehearsal of fine-tuning j, R the distance on the retain set:

        J(θ) = (1 − β) L(θ) + α R(θ) + β · mean_j L(w_j(θ)).

    Its gradient is found here and handed to the loop as a linear form, so that everything else of the loop and of the inner method stays as it is. A pass over
    the retain set alone is left as it is. A rehearsal whose hypergradient is given up adds nothing. Where the direct gradient alone has a norm above the limit,
    damping, which shrinks the hypergradient, ends there as well: no rehearsal is carried out.

    Args:
        how: settings.
        rehearsal: the fine-tunings.
        engine: computes.
        distance: R; None: without it.
        title: for trackers.
    """

    def __init__(self, how: Resilience, rehearsal: Rehearsal, engine: Engine, distance: Distance | None, title: str) -> None:
        self._how, self._rehearsal, self._engine, self._distance, self._title = how, rehearsal, engine, distance, title
        self._pool = read_pool(how.pool)
        self._now: Step
        self._tally: Tally

    def revised(self, plan: Plan) -> Plan:
        """The plan with resilient losses."""
        self._tally = Tally(self._pool, plan.memory)

        def before(model: nn.Module, forget: Batch, retain: Batch, step: Step) -> None:
            self._now = step
            if plan.before_step:
                plan.before_step(model, forget, retain, step)

        return replace(plan, passes=[self._resilient(pass_) for pass_ in plan.passes], before_step=before)

    def conclude(self) -> None:
        """Show what the hypergradients came to; say so if most were left out or given up: then little of the result is resilient."""
        shown = self._tally.exhibit(self._title)
        self._engine.exhibits.append(shown)
        whole, left_out, given_up = (sum(getattr(row, name) for row in shown.fine_tunings) for name in ("times", "left_out", "given_up"))
        if (given_up + left_out) * 2 <= whole:
            return
        told = []
        if shown.direct_norm is not None:
            what = f"{left_out} of {whole} hypergradients were left out: the norm of the direct gradient alone was up to {shown.direct_norm:.3g}"
            told.append(f"{what}, above the `norm_limit` {self._how.norm_limit:g}. Raise `norm_limit` above that, or set it to null.")
        if given_up:
            what = f"{given_up} of {whole} hypergradients were given up, because their iteration diverged or passed `norm_limit`"
            told.append(f"{what}. Lower `gamma`, or raise `retries`.")
        warnings.warn(f"{self._title}: {' '.join(told)}", stacklevel=2)

    def _resilient(self, pass_: Pass) -> Pass:
        if pass_.over == "retain":
            return pass_
        if pass_.over == "forget" and self._distance:  # the distance needs a retain batch, which the objective does not see

            def alone(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
                del retain
                return pass_.loss(model, forget, {})

            return Pass("both", self._loss(alone), paced_by="forget")
        return replace(pass_, loss=self._loss(pass_.loss))

    def _loss(self, objective: LossFunction) -> LossFunction:
        how = self._how

        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
            progress = self._now.done / self._now.total
            beta = scheduled(how.beta, how.beta if how.last_beta is None else how.last_beta, progress)
            alpha = scheduled(how.alpha, how.alpha if how.last_alpha is None else how.last_alpha, progress)
            states = generator_states()
            now = objective(model, forget, retain)
            direct = (1 - beta) * now
            if alpha and retain and self._distance:
                direct = direct + alpha * self._distance(model, retain)
            if not beta:
                return direct

            def after(tuned: nn.Module) -> Tensor:
                with seeded(self._seed("noise")) if how.noise == "independent" else replaying(states):
                    return objective(tuned, self._drawn_anew(forget, "forget"), self._drawn_anew(retain, "retain"))

            return self._with_rehearsals(model, direct, after, beta, now.detach())

        return loss

    def _drawn_anew(self, batch: Batch, name: str) -> Batch:
        """With seeds for the noise of each sample, if that is to be another one after fine-tuning."""
        if self._how.noise != "epsilon" or not batch:
            return batch
        generator = torch.Generator().manual_seed(self._seed("epsilon", name))
        return batch | {EPSILON: torch.randint(2**62, (len(batch["pixel_values"]),), generator=generator)}

    def _with_rehearsals(self, model: nn.Module, direct: Tensor, after: Callable[[nn.Module], Tensor], beta: float, now: Tensor) -> Tensor:
        how, weights = self._how, [p for p in model.parameters() if p.requires_grad]
        gradients = self._engine.gradients(direct, weights)
        chosen, present = self._chosen(), [g for g in gradients if g is not None]
        norm = norm_of(present) if present else 0.0
        if how.norm_limit is not None and norm > how.norm_limit:
            self._tally.leave_out(chosen, norm)
            self._engine.track(self._title, {"left_out": 1.0, "direct_norm": norm}, self._now.done + 1)
            return linear_form(weights, gradients, direct + beta * now)

        def within(h: Tensors) -> bool:
            return how.norm_limit is None or norm_of([part if g is None else part + g for part, g in zip(h, gradients, strict=True)]) <= how.norm_limit

        value, found, solutions = direct.detach(), list[Tensors](), list[Solution]()
        for number in chosen:
            through = self._rehearsal.through(model, self._pool[number], after, how, self._seed("rehearsal", number), weight=beta, limit=within)
            found.append(through.gradient)
            solutions.append(through.solution)
            self._tally.add(number, through.solution)
            value = value + beta * (now if through.solution.given_up else through.value) / len(chosen)
        self._track(solutions)
        total = [_sum(g, [h[i] for h in found]) for i, g in enumerate(gradients)]
        return linear_form(weights, total, value)

    def _chosen(self) -> list[int]:
        """Which fine-tunings of the pool this step rehearses: a function of seed and step."""
        drawn = np.random.default_rng(self._seed("pool")).permutation(len(self._pool))[: self._how.rehearsals]
        return sorted(drawn.tolist())

    def _seed(self, *purpose: object) -> int:
        return derive_seed(self._engine.seed, "resilience", self._now.done, self._engine.accelerator.process_index, *purpose)

    def _track(self, solutions: Sequence[Solution]) -> None:
        n = len(solutions)
        values = {"damping": sum(s.damping for s in solutions) / n, "given_up": sum(s.given_up for s in solutions) / n}
        values |= {"ratio": max(s.ratio for s in solutions), "residual": max(s.residual for s in solutions)}
        self._engine.track(self._title, values, self._now.done + 1)


def _sum(direct: Tensor | None, through: Sequence[Tensor]) -> Tensor | None:
    """Direct gradient and the mean of those through fine-tunings; None where there is neither."""
    mean = torch.stack(list(through)).mean(dim=0)
    if direct is None:
        return mean if bool(mean.any()) else None
    return direct + mean
