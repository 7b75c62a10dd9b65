"""RMU: steer the hidden states of forget tokens towards a random direction, and hold those of retain tokens.

Paper: Li et al. 2024, "The WMDP Benchmark: Measuring and Reducing Malicious Use with Unlearning", arXiv 2403.03218.
Formula: h the hidden states behind block l. L = γ · mean over forget tokens of (1/q) ‖h − c u‖² + α · mean over retain tokens of (1/q) ‖h − h_original‖²,
u a random unit vector with entries drawn from [0, 1).
Defaults: l 7, c 2, α 1 (open-unlearning on TOFU). The paper, on 7B models: c 6.5, α 1200, down-projections of blocks l − 2 to l only.
Deviations: only answer tokens count. By default the down-projections of blocks l − 2 to l are trained, as in the paper.
"""

from __future__ import annotations

import re
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.engine.engine import Engine
from unlearned.engine.loop import Plan
from unlearned.engine.randomness import derive_seed
from unlearned.errors import Fault, InputError, raise_faults
from unlearned.methods import methods
from unlearned.methods._forget_retain import ForgetRetain
from unlearned.methods._method import Measure
from unlearned.problem import Problem
from unlearned.settings import Pattern
from unlearned.tasks._decoders import blocks_of, down_path, hidden_states
from unlearned.tasks._task import Batch
from unlearned.tasks.text_generation import answer_mask


def control_vector(width: int, seed: int) -> Tensor:
    """U = v / ‖v‖, v uniform in [0, 1)^width, (width,)."""
    v = torch.rand(width, generator=torch.Generator().manual_seed(seed))
    unit: Tensor = v / v.norm()
    return unit


def steering_loss(hidden: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean over marked tokens of (1/q) ‖h − target‖², a scalar.

    Args:
        hidden: (B, T, q).
        target: what broadcasts with it.
        mask: (B, T).
    """
    return ((hidden - target) ** 2).mean(dim=-1)[mask].mean()


@methods.register("rmu")
class RMU(ForgetRetain):
    """Misdirect representations."""

    name: ClassVar[str] = "rmu"
    layer: int = Field(7, ge=0, description="Block l, from 0, behind which hidden states are steered.")
    coefficient: float = Field(2.0, ge=0, description="c: length of the vector that they are steered to.")
    parameters: Pattern = Field("", description="Regular expression for the parameters that may change; empty: down-projections of blocks l − 2 to l.")

    def faults(self, problem: Problem, engine: Engine) -> list[Fault]:
        del engine
        try:
            count = len(blocks_of(problem.original.model))
        except InputError as error:
            return list(error.faults)
        if self.layer >= count:
            return [Fault("method.layer", f"there is no layer {self.layer}; the model has {count}, counted from 0.", f"At most {count - 1}.")]
        return []

    def plan(self, problem: Problem, engine: Engine) -> Plan:
        raise_faults(self.faults(problem, engine))
        return super().plan(problem, engine)

    def trained(self, problem: Problem) -> str:
        if self.parameters:
            return self.parameters
        model = problem.original.model
        names = {id(block): name for name, block in model.named_modules()}
        blocks = blocks_of(model)[max(0, self.layer - 2) : self.layer + 1]
        return "|".join(f"^{re.escape(f'{names[id(block)]}.{down_path(block)}')}[.]weight$" for block in blocks)

    def forget_term(self, problem: Problem, engine: Engine) -> Measure:
        width = problem.original.model.get_input_embeddings().weight.shape[1]  # type: ignore[operator]
        target = self.coefficient * control_vector(width, derive_seed(engine.seed, self.name)).to(engine.device)

        def term(model: nn.Module, batch: Batch) -> Tensor:
            return steering_loss(hidden_states(model, self.layer, batch)[:, :-1], target, answer_mask(batch))

        return term

    def retain_term(self, problem: Problem, engine: Engine) -> Measure:
        def states(model: nn.Module, batch: Batch) -> Tensor:
            return hidden_states(model, self.layer, batch)

        teacher = self.original_outputs(problem, engine, states)

        def term(model: nn.Module, batch: Batch) -> Tensor:
            return steering_loss(states(model, batch)[:, :-1], teacher(model, batch)[:, :-1], answer_mask(batch))

        return term
