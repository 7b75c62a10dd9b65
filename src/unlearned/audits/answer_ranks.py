"""How high the true answer's tokens stand in the model's scores while it answers by itself.

`mrr`: mean over the answer's tokens of 1/rank, rank that of the j-th token among the scores of the j-th step of the greedy answer. `top_hit_ratio`: share of
the tokens with rank ≤ `top` (Shen et al. 2025, LUNAR, arXiv 2502.07218; `top` 100). A token for which there is no step, because the model ended its answer
before or it was cut at `max_new_tokens`, counts as not found: 0. In the authors' code the scores of such steps are zeros, which gives all tokens the same
rank.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from unlearned.audits import audits
from unlearned.audits._answers import from_generations, mean_findings
from unlearned.audits._audit import Audit
from unlearned.evidence.subject import Subject
from unlearned.records import Finding
from unlearned.tasks._generation import true_answers
from unlearned.tasks._task import Batch


def reciprocal_ranks(ranks: Tensor, lengths: Tensor) -> Tensor:
    """Mean over each answer's tokens of 1/rank, 0 where the rank is 0 (not found), (N,).

    Args:
        ranks: (N, T), from 1; 0 where there is none.
        lengths: tokens of the true answers, (N,), ≥ 1.
    """
    return (ranks > 0).double().div(ranks.clamp(min=1)).sum(dim=1) / lengths


def hits(ranks: Tensor, lengths: Tensor, top: int) -> Tensor:
    """Share of each answer's tokens with 1 ≤ rank ≤ top, (N,)."""
    return ((ranks > 0) & (ranks <= top)).double().sum(dim=1) / lengths


@audits.register("answer-ranks")
class AnswerRanks(Audit):
    """Mean reciprocal rank and top hit ratio."""

    name: ClassVar[str] = "answer-ranks"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"text-generation"})
    top: int = Field(100, ge=1, description="Largest rank that counts as a hit.")

    def measure(self, subject: Subject) -> list[Finding]:
        def lengths(batch: Batch) -> Tensor:
            return (true_answers(batch) >= 0).sum(dim=1)

        def mrr(generations: Tensor, batch: Batch) -> Tensor:
            return reciprocal_ranks(generations[..., 1], lengths(batch))

        def ratio(generations: Tensor, batch: Batch) -> Tensor:
            return hits(generations[..., 1], lengths(batch), self.top)

        findings = []
        for split, samples in subject.problem.sets.items():
            for metric, measure in (("mrr", mrr), ("top_hit_ratio", ratio)):
                findings += mean_findings(self.name, metric, split, from_generations(subject, samples, measure))
        return findings
