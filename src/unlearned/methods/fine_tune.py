"""Fine-tuning on the retain set (FT): rely on catastrophic forgetting.

Paper: the common baseline; in this form in Fan et al. 2024 (SalUn), arXiv 2310.12508, table 1, and Zhao et al. 2024 (RUM), arXiv 2406.01257.
Formula: minimise mean over D_r of the task's loss, from the original weights. The forget set is not used. With `paced_by` forget it only says how many
steps an epoch has, as in Block et al. 2025, arXiv 2505.22601 (there called GD).
Defaults of the authors: 10 epochs, lr 0.01 (range 0.01 to 0.1), SGD, momentum 0.9, weight decay 5e-4, batch 256.
Deviations: none.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from unlearned.engine.engine import Engine
from unlearned.engine.loop import Pass, Plan
from unlearned.methods import methods
from unlearned.methods._method import ObjectiveMethod
from unlearned.problem import Problem
from unlearned.tasks._task import Batch


@methods.register("fine-tune")
class FineTune(ObjectiveMethod):
    """Descend the loss on the retain set."""

    name: ClassVar[str] = "fine-tune"
    paced_by: Literal["forget", "retain"] = Field("retain", description="The set that one epoch goes over once; batches of the retain set come from a stream.")

    def plan(self, problem: Problem, engine: Engine) -> Plan:  # noqa: ARG002
        def loss(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:  # noqa: ARG001
            return engine.task.losses(model, retain).mean()

        return Plan([Pass("retain", loss) if self.paced_by == "retain" else Pass("both", loss, paced_by="forget")] * self.epochs)
