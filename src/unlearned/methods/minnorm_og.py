"""MinNorm-OG: shrink the part of the weights on which retained outputs do not depend, then repair by descent on the retain set.

Paper: Block, Mokhtari, Shakkottai, "Machine Unlearning under Overparameterization", NeurIPS 2025, arXiv 2505.22601, equation 7 and algorithm 1; code of the
authors: jacob-block/overparameterized-unlearning.
Formula: G = span{∇f(θ, x_i)} over n retained samples, f an output, not a loss: at a model that fits its data the gradients of losses vanish (theorem 1).
θ ← θ − κ (θ − P_G θ), the minimum of ‖θ + Δ‖² + λ ‖Δ‖² over Δ ⊥ G with κ = 1 / (1 + λ); then κ ← γ κ and one step of AdamW on the mean loss of the retain
batch. An epoch is one pass over D_f, a retain batch beside each forget batch. Epoch t = 0 … T − 1 projects before each of its steps if t < T − T_GD and
T_Proj divides t. D_f is not looked at: it paces.
Defaults of the authors: AdamW with weight decay 0.01; lr, κ, γ, T_GD and T_Proj are chosen from grids. Ours are their choice for the sine experiment with 10
epochs: lr 1e-3, κ 0.1, γ 0.9, T 10, T_GD 2, T_Proj 1, n 50. Batch 256 as in their image experiments. Output: the largest logit of each head. Samples balanced
over the classes of the batch. Logits held within ±30 in the loss.
Deviations: P_G θ = G M⁺ Gᵀθ from M = GᵀG instead of a QR decomposition; directions with a relative eigenvalue below 1e-14 are dropped, which QR keeps
although they are rounding (`cut`; at 1e-10 the step is clearly another one, as gradients of trained networks nearly depend on each other).
At least one sample of each class, so more than n where there are more classes; the code takes none then, and shrinks everything. The projection comes before
the descent step, as in algorithm 1 and the code; appendix F.1.10 says after. Outputs are differentiated in eval mode, as the model is used, in which they are
functions of one sample each; the authors do so in train mode, where batch normalisation makes each depend on all samples drawn (`statistics: batch`).
The loss is computed with the projected weights; the code goes backward through activations of the weights before (`graph: stale`). The running statistics of
batch normalisation do not see D_f; in the code they do (`forget_statistics`). The last, smaller batch of the retain stream is used; the code drops it.
A last forget batch of a single sample joins the one before, so that its epoch has a step, and a decay of κ, fewer.
Language models are ours. The theory has one constraint for each number that a model puts out; here f is the sum of the logits of an answer's tokens, one
constraint for each answer, as one for each token would take as many gradients: a step may move logits against each other within an answer.
Memory: n gradients of the largest tensor in float32, however large that is; all others are taken in groups of 1 GiB.
No adapters: the norm of a low-rank update is not that of the weights.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.engine.loop import Pass, Plan, Step
from unlearned.engine.projection import CUT, project
from unlearned.engine.randomness import derive_seed
from unlearned.engine.settings import Optimisation
from unlearned.errors import Fault, raise_faults
from unlearned.methods import methods
from unlearned.methods._method import ObjectiveMethod
from unlearned.problem import Problem
from unlearned.tasks import TasksWith
from unlearned.tasks._task import Batch, Task


def projects(epoch: int, epochs: int, descent_epochs: int, period: int) -> bool:
    """Whether epoch t of T projects: t < T − T_GD, and T_Proj divides t."""
    return epoch < epochs - descent_epochs and epoch % period == 0


def projections_before(step: Step, epochs: int, descent_epochs: int, period: int) -> int:
    """How many projections there were before this step; all passes are equally long."""
    whole = sum(projects(epoch, epochs, descent_epochs, period) for epoch in range(step.number))
    return whole * step.length + (step.position if projects(step.number, epochs, descent_epochs, period) else 0)


def balanced(classes: Tensor, count: int, generator: np.random.Generator) -> Tensor:
    """Positions of max(1, ⌊n / classes present⌋) random samples of each class, or of all that it has, (m,).

    Args:
        classes: class of each sample, (B,).
        count: n ≥ 1.
        generator: of the choice.
    """
    numbers = classes.cpu().numpy()
    present = np.unique(numbers)
    each = max(1, count // len(present))
    return torch.from_numpy(np.concatenate([generator.permutation(np.flatnonzero(numbers == number))[:each] for number in present]))


@methods.register("minnorm-og")
class MinNormOG(ObjectiveMethod):
    """Project on the gradients of retained outputs, then descend on the retain set."""

    name: ClassVar[str] = "minnorm-og"
    tasks: ClassVar[Collection[str] | None] = TasksWith("constraints")
    adapts: ClassVar[bool] = False
    optimizer: Literal["sgd", "adam", "adamw"] = Optimisation.field("optimizer", "adamw")
    lr: float = Optimisation.field("lr", 1e-3)
    weight_decay: float = Optimisation.field("weight_decay", 0.01)
    strength: float = Field(0.1, gt=0, le=1, description="λ_reg: κ of the first projection. 1 removes all of the part that retained outputs do not depend on.")
    decay: float = Field(0.9, ge=0, le=1, description="γ_reg: factor on κ after each projection, that is, each step of an epoch that projects.")
    descent_epochs: int = Field(2, ge=0, description="T_GD: so many last epochs descend only.")
    projection_period: int = Field(1, ge=1, description="T_Proj: epochs from one that projects to the next.")
    projection_samples: int = Field(50, ge=1, description="n_pert: retained samples whose outputs a projection keeps to first order.")
    cut: float = Field(CUT, ge=0, lt=1, description="Directions of these gradients with a smaller share of the largest eigenvalue count as rounding.")
    sampling: Literal["balanced", "random"] = Field("balanced", description="How they are drawn from the retain batch; without classes always at random.")
    retain_fraction: float = Field(1.0, gt=0, le=1, description="Share of the retain set that is used at all, drawn at random.")
    logit_limit: float | None = Field(30.0, gt=0, description="Logits of classes are held within ± this in the loss; None: they are not.")
    statistics: Literal["running", "batch"] = Field(
        "running",
        description="What batch normalisation uses where outputs are differentiated: its running statistics, or those of the samples drawn.",
    )
    graph: Literal["fresh", "stale"] = Field(
        "fresh",
        description="fresh: the loss of the projected weights. stale: backward through activations of the weights before, as the authors' code.",
    )
    forget_statistics: bool = Field(False, description="Update the statistics of batch normalisation by each forget batch too, as the authors' code.")

    @model_validator(mode="after")
    def _can_project(self) -> MinNormOG:
        if self.descent_epochs >= self.epochs:
            raise ValueError(f"`descent_epochs` {self.descent_epochs} leaves none of {self.epochs} epochs to project in; lower it, or raise `epochs`")
        return self

    def plan(self, problem: Problem, engine: Engine) -> Plan:
        task = engine.task
        raise_faults(_faults(self, problem))
        held: list[Tensor] = []

        def retain_loss(model: nn.Module, retain: Batch) -> Tensor:
            if self.logit_limit is None or task.classes(retain) is None:
                return task.losses(model, retain).mean()
            return task.losses_from(task.outputs(model, retain).clamp(-self.logit_limit, self.logit_limit), retain).mean()

        def before(model: nn.Module, forget: Batch, retain: Batch, step: Step) -> None:
            schedule = (self.epochs, self.descent_epochs, self.projection_period)
            projecting = projects(step.number, *schedule)
            if projecting and self.graph == "stale":
                held.append(retain_loss(model, retain))
            if self.forget_statistics:
                with torch.no_grad():
                    task.outputs(model, forget)
            if projecting:
                kappa = self.strength * self.decay ** projections_before(step, *schedule)
                drawn = self._drawn(engine, retain, step)
                samples = len(next(iter(drawn.values())))
                project(engine, model, task.constraints, drawn, kappa, joint=self.statistics == "batch", cut=self.cut)
                engine.meter.count(samples, steps=0)

        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:  # noqa: ARG001
            return held.pop() if held else retain_loss(model, retain)

        return Plan([Pass("both", loss, paced_by="forget")] * self.epochs, before_step=before)

    def sets(self, problem: Problem, engine: Engine) -> dict[str, Samples]:
        if self.retain_fraction == 1:
            return super().sets(problem, engine)
        n = len(problem.retain)
        order = np.random.default_rng(derive_seed(engine.seed, "retain-fraction")).permutation(n)
        kept = sorted(order[: max(1, round(self.retain_fraction * n))].tolist())
        return {"forget": problem.forget, "retain": problem.retain.subset(kept)}

    def _drawn(self, engine: Engine, retain: Batch, step: Step) -> Batch:
        """The samples of one projection: a function of seed, step and, where several processes draw from their parts of the batch, the process."""
        processes = engine.accelerator.num_processes
        generator = np.random.default_rng(derive_seed(engine.seed, "projection", step.done, engine.accelerator.process_index))
        count = max(1, self.projection_samples // processes)
        classes = engine.task.classes(retain) if self.sampling == "balanced" else None
        if classes is None:
            positions = torch.from_numpy(generator.permutation(len(next(iter(retain.values()))))[:count])
        else:
            positions = balanced(classes, count, generator)
        return {name: tensor[positions.to(tensor.device)] for name, tensor in retain.items()}


def _faults(method: MinNormOG, problem: Problem) -> list[Fault]:
    faults = []
    if type(problem.task).constraints is Task.constraints:
        what = f"{problem.task.name} names no outputs that must be kept."
        faults.append(Fault("method", what, "Use another method, or a task that defines `constraints`."))
    without = [name for name, layer in problem.original.model.named_modules() if isinstance(layer, _BatchNorm) and layer.running_mean is None]
    if without and method.statistics == "running":
        what = f"layer {without[0]!r} keeps no running statistics, so no output is a function of one sample."
        faults.append(Fault("method.statistics", what, "Use statistics: batch."))
    return faults
