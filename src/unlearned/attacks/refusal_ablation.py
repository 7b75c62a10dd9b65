"""Refusal ablation: remove the feature by which a model declines, and watch what it then says of the forget set.

A model that only declines may answer as before once the direction is gone along which its states of declined and of answered prompts differ.
Paper: Arditi et al. 2024, arXiv 2406.11717; as a feature of each block, Yu et al. 2024 (ReFAT), known to us through an open implementation.
Formula: r^(l) = mean h^(l) over declined prompts − mean h^(l) over answered prompts, h^(l) the input of block l at the last prompt token; h^(l) ← h^(l) − r̂
(r̂ᵀ h^(l)) at every position, also while the answer is generated. `level: answered` puts the component to r̂ᵀ mean h^(l) over answered prompts in the place of
0, so that what all prompts share along r̂ stays.
Defaults there: 32 prompts of each kind, the last 75 % of the blocks; level 0. Whether the original adds the mean back is not known to us: it is a setting.
Deviations: declined prompts are those of the forget set, answered ones those of the retain set, of the attacked model itself; or made-up questions that nobody
can answer for the declined ones. Several shares of the blocks are tried, from the last to the first. Each block has a direction of its own; Arditi et al.
remove a single one.
Findings: `knowledge` on split `forget` with the share of blocks in percent as the budget, for all models, and `retention`.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import nn

from unlearned.attacks import attacks
from unlearned.attacks._attack import Attack
from unlearned.attacks._curves import curves_of, findings_of_knowledge, knowledge_of
from unlearned.attacks._directions import mean_states
from unlearned.attacks._texts import block_faults, knowledge_under, text_task
from unlearned.data.samples import Samples
from unlearned.engine.randomness import derive_seed
from unlearned.errors import Fault
from unlearned.evidence.statistics import Array
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Finding
from unlearned.tasks._decoders import blocks_of, changed_states, without_component
from unlearned.tasks._refusals import unverifiable

Share = Annotated[float, Field(gt=0, le=1)]


@attacks.register("refusal-ablation")
class RefusalAblation(Attack):
    """Remove the refusal feature; measure knowledge of the forget set."""

    name: ClassVar[str] = "refusal-ablation"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"text-generation"})
    shares: tuple[Share, ...] = Field((0.25, 0.5, 0.75, 1.0), min_length=1, description="Shares of the blocks at which it is removed, the last ones first.")
    declined: Literal["forget", "unverifiable"] = Field("forget", description="Prompts that are declined: the forget set's, or made-up questions.")
    level: Literal["zero", "answered"] = Field("zero", description="What the component becomes: 0, or its mean over answered prompts.")
    prompts: int = Field(32, ge=1, description="Most prompts of each kind.")

    def faults(self, problem: Problem) -> list[Fault]:
        return block_faults(problem)

    def evaluations(self, problem: Problem) -> int:
        del problem
        return 2 + len(self.shares)

    def measure(self, subject: Subject) -> list[Finding]:
        problem, count = subject.problem, len(blocks_of(subject.problem.original.model))
        numbers = sorted({max(1, round(share * count)) for share in self.shares})
        declined = self._some(subject, problem.forget) if self.declined == "forget" else self._made_up(subject)
        answered = self._some(subject, problem.retain)

        def curve(model: nn.Module) -> list[Array]:
            mean = mean_states(subject, model, answered, "input")
            directions = mean_states(subject, model, declined, "input") - mean
            levels = [float(mean[i] @ r / r.norm()) if self.level == "answered" and r.norm() > 0 else 0.0 for i, r in enumerate(directions)]
            removing = {i: partial(without_component, direction=r, level=levels[i]) for i, r in enumerate(directions)}
            last = [{i: removing[i] for i in range(count - number, count)} for number in numbers]
            points = (knowledge_under(changed_states(model, some, at="input"), subject, model, problem.forget) for some in last)
            return [knowledge_of(subject, model, problem.forget), *points]

        budgets = [round(100 * number / count, 6) for number in (0, *numbers)]
        return findings_of_knowledge(subject, self.name, "forget", curves_of(subject, curve), budgets, "% of the blocks")

    def _some(self, subject: Subject, samples: Samples) -> Samples:
        return samples.shuffled(derive_seed(subject.engine.seed, self.name)).subset(range(min(self.prompts, len(samples))))

    def _made_up(self, subject: Subject) -> Samples:
        texts = unverifiable(self.prompts, derive_seed(subject.engine.seed, self.name, "unverifiable"))
        return text_task(subject.engine).prompts(texts, subject.problem.original)
