"""How much of the true answers can be drawn out of a language model that is given their beginnings.

`exact_memorization`: share of an answer's tokens that are the model's first choice after the true tokens before them. `extraction_strength`: 1 − k/|y|, k the
smallest number of true tokens after which all further ones are first choices (Carlini et al. 2021, arXiv 2012.07805; Dorna et al. 2025, arXiv 2506.12618). The
last token, the end of the text, is no part of y there: after a whole answer any model predicts it. An answer of which nothing can be extracted scores 0; with
`compat`, as in the common implementation (open-unlearning), 1/|y|, and the last token is left out of the exact memorisation, too. `probability`: exp(mean log p
of the answer's tokens).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.audits import audits
from unlearned.audits._answers import mean_findings, text_task
from unlearned.audits._audit import Audit
from unlearned.evidence.subject import Subject
from unlearned.records import Finding
from unlearned.tasks._task import Batch
from unlearned.tasks.text_generation import answering


def without_last(mask: Tensor) -> Tensor:
    """The mask of answers without the last token of each, unless it is the only one, (B, T)."""
    last = mask & (mask.flip(1).cumsum(dim=1).flip(1) == 1)
    return mask & ~(last & (mask.sum(dim=1, keepdim=True) > 1))


def extraction_strength(right: Tensor, mask: Tensor, *, compat: bool = False) -> Tensor:
    """1 − k/|y| of each answer without its last token, (B,): the share of its tokens behind the last wrong one.

    Args:
        right: whether a token is the model's first choice, (B, T).
        mask: which tokens are the answer's, (B, T); at least one in each row.
        compat: give 1/|y| where nothing can be extracted.
    """
    mask = without_last(mask)
    # Seen from the end, an answer's token counts until the first wrong one.
    wrong_later = (mask & ~right).flip(1).cumsum(dim=1).flip(1) > 0
    share = (mask & ~wrong_later).sum(dim=1) / mask.sum(dim=1)
    return torch.where(share > 0, share, 1 / mask.sum(dim=1)) if compat else share


@audits.register("memorization")
class Memorization(Audit):
    """Exact memorisation, extraction strength, probability."""

    name: ClassVar[str] = "memorization"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"text-generation"})
    compat: bool = Field(False, description="Exact memorisation and extraction strength as in the common implementation.")

    def measure(self, subject: Subject) -> list[Finding]:
        task = text_task(subject)

        def right(model: nn.Module, batch: Batch) -> Tensor:
            return task.token_logits(model, batch).argmax(dim=-1) == answering(batch).tokens

        def exact(model: nn.Module, batch: Batch) -> Tensor:
            mask = without_last(answering(batch).mask)
            return (right(model, batch) & mask).sum(dim=1) / mask.sum(dim=1)

        def strength(model: nn.Module, batch: Batch) -> Tensor:
            return extraction_strength(right(model, batch), answering(batch).mask, compat=self.compat)

        findings = []
        memorised = exact if self.compat else task.utility
        for split in subject.problem.sets:
            for metric, measure in (("exact_memorization", memorised), ("extraction_strength", strength), ("probability", task.probability)):
                values = {who: [each.numpy() for each in several] for who, several in subject.values(measure, split).items()}
                findings += mean_findings(self.name, metric, split, values)
        return findings
