"""Reverse direction: take away from the residual stream what the edit adds to it, or add more, and watch what the model shows of the forget set.

Paper: one of the white-box attacks on LUNAR (Shen et al. 2025, arXiv 2502.07218): a hook on the edited block's output takes c r away at all positions while
the answer is generated.
Formula: a^(l) ← a^(l) − s d. Where original and unlearned model differ in down-projections alone, d is what the edit adds: the mean of ΔW h over the last
tokens of forget prompts, at each edited block; for an edit of rank one that is c r, up to how well the least squares were met. Else d is the difference of
means mean a^(l) over forget prompts − mean a^(l) over retain prompts, at the last prompt token, of the attacked model itself, at one block: the one at which s
= 1 or s = −1 brings back most on a few forget samples.
Deviations: s takes several values of both signs (the authors: 1). A reference is attacked along the unlearned model's own direction where that is known, since
nothing was added to it; along its own difference of means otherwise.
Findings: `knowledge` on split `forget` with s as the budget, for all models, and `retention`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from unlearned.attacks import attacks
from unlearned.attacks._attack import Attack
from unlearned.attacks._curves import curves_of, findings_of_knowledge, knowledge_of
from unlearned.attacks._directions import directions_of_the_edit, mean_states
from unlearned.attacks._texts import best_of, block_faults, knowledge_under, tried_on
from unlearned.errors import Fault
from unlearned.evidence.comparison import absent
from unlearned.evidence.statistics import Array
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Finding
from unlearned.tasks._decoders import blocks_of, shifted

_UNIT = "x the direction taken away"
Shifts = dict[int, Tensor]


@attacks.register("reverse-direction")
class ReverseDirection(Attack):
    """Take the edit's direction away again; measure knowledge of the forget set."""

    name: ClassVar[str] = "reverse-direction"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"text-generation"})
    strengths: tuple[float, ...] = Field((-2, -1, -0.5, 0.5, 1, 2), min_length=1, description="s: how often the direction is taken away; below 0 it is added.")
    direction: Literal["auto", "edit", "means"] = Field("auto", description="What the edit adds; the difference of means; auto: the first if it is known.")
    layers: tuple[int, ...] | None = Field(None, min_length=1, description="Blocks among which that of the difference of means is chosen; None: all.")
    tried_on: int = Field(8, ge=1, description="Forget samples on which blocks are tried.")

    def faults(self, problem: Problem) -> list[Fault]:
        return block_faults(problem, self.layers)

    def evaluations(self, problem: Problem) -> int:
        tries = 2 * len(self.layers or blocks_of(problem.original.model)) * min(1.0, self.tried_on / len(problem.forget))
        return round(2 + len(self.strengths) + (0 if self.direction == "edit" else tries))

    def measure(self, subject: Subject) -> list[Finding]:
        forget = subject.problem.forget
        of_edit = directions_of_the_edit(subject) if self.direction != "means" else {}
        if not of_edit and self.direction == "edit":
            reason = "the two models differ in more than down-projections, or in nothing, so that what the edit adds is not known"
            return [absent(self.name, "knowledge", "forget", reason, unit="share", kind="attack")]
        strengths = sorted({s for s in self.strengths if s})

        def curve(model: nn.Module) -> list[Array]:
            direction = of_edit or self._of_means(subject, model)
            reversed_ = [{layer: -s * d for layer, d in direction.items()} for s in strengths]
            return [knowledge_of(subject, model, forget), *(knowledge_under(shifted(model, shifts), subject, model, forget) for shifts in reversed_)]

        return findings_of_knowledge(subject, self.name, "forget", curves_of(subject, curve), [0.0, *strengths], _UNIT)

    def _of_means(self, subject: Subject, model: nn.Module) -> Shifts:
        """The difference of means at the block that brings back most."""
        problem, some = subject.problem, tried_on(subject, self.name, self.tried_on)
        difference = mean_states(subject, model, problem.forget) - mean_states(subject, model, problem.retain)
        layers = self.layers or tuple(range(len(difference)))
        signed = [(layer, sign) for layer in layers for sign in (1.0, -1.0)]
        layer, _ = best_of(signed, subject, model, some, lambda tried: shifted(model, {tried[0]: -tried[1] * difference[tried[0]]}))
        return {layer: difference[layer]}
