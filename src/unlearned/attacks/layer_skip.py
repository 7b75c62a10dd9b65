"""Layer skip: leave out blocks of a language model and watch what it still shows of the forget set.

An edit of one block, or of a few, is undone by doing without them, if what they did to the forget set is all that forgetting was.
Paper: one of the white-box attacks on LUNAR (Shen et al. 2025, arXiv 2502.07218), in the first public code of the authors: blocks around the edited one (for
one model 16, 17, 19 and 20) hand on what they were given.
Formula: a^(l) = a^(l−1) for each block l that is skipped, at every position, also while the answer is generated.
Deviations: an attacker who is not told which blocks were edited tries all runs of w neighbouring blocks on a few forget samples, on each model anew, and takes
the run that brings back most; `layers` names blocks instead, of which one more is skipped at each point of the curve. A model that never knew is attacked in
the same way, so that what the choice among many gains is in its curve too.
Findings: `knowledge` on split `forget` with the number of blocks skipped as the budget, for all models, and `retention`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn

from unlearned.attacks import attacks
from unlearned.attacks._attack import Attack
from unlearned.attacks._curves import curves_of, findings_of_knowledge, knowledge_of
from unlearned.attacks._texts import best_of, block_faults, knowledge_under, tried_on
from unlearned.errors import Fault
from unlearned.evidence.statistics import Array
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Finding
from unlearned.tasks._decoders import blocks_of, skipped


@attacks.register("layer-skip")
class LayerSkip(Attack):
    """Skip blocks; measure knowledge of the forget set."""

    name: ClassVar[str] = "layer-skip"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"text-generation"})
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 2, 4), min_length=1, description="How many neighbouring blocks are skipped together.")
    layers: tuple[int, ...] | None = Field(None, min_length=1, description="Blocks to skip, from 0, one more at each point; None: the best run of each width.")
    tried_on: int = Field(8, ge=1, description="Forget samples on which runs of blocks are tried.")

    def faults(self, problem: Problem) -> list[Fault]:
        return block_faults(problem, self.layers)

    def evaluations(self, problem: Problem) -> int:
        if self.layers is not None:
            return 1 + len(self.layers)
        runs = sum(len(self._runs(len(blocks_of(problem.original.model)), width)) for width in self.widths)
        return 1 + len(self.widths) + round(runs * min(1.0, self.tried_on / len(problem.forget)))

    def measure(self, subject: Subject) -> list[Finding]:
        forget, count = subject.problem.forget, len(blocks_of(subject.problem.original.model))
        some = tried_on(subject, self.name, self.tried_on)
        widths = list(range(1, len(self.layers) + 1)) if self.layers is not None else sorted({width for width in self.widths if width <= count})

        def blocks(model: nn.Module, width: int) -> tuple[int, ...]:
            if self.layers is not None:
                return self.layers[:width]
            return best_of(self._runs(count, width), subject, model, some, lambda run: skipped(model, run))

        def curve(model: nn.Module) -> list[Array]:
            return [knowledge_of(subject, model, forget), *(knowledge_under(skipped(model, blocks(model, width)), subject, model, forget) for width in widths)]

        return findings_of_knowledge(subject, self.name, "forget", curves_of(subject, curve), [0, *widths], "blocks skipped")

    @staticmethod
    def _runs(count: int, width: int) -> list[tuple[int, ...]]:
        return [tuple(range(first, first + width)) for first in range(count - width + 1)]
