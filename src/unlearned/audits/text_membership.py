"""Membership inference on language models: six scores of a text, forget set against test set.

Scores, higher for what looks less like a member: `loss`: mean −log p of the answer's tokens. `min_k`: −mean of the lowest `share` of the tokens' log p (Shi
et al. 2023, arXiv 2310.16789). `min_k_plus_plus`: the same on (log p − μ)/σ, μ and σ mean and deviation of log p under the model's own prediction (Zhang et
al. 2024, arXiv 2404.02936). `zlib`: loss over the compressed size of the answer (Carlini et al. 2021, arXiv 2012.07805). `reference`: loss − mean loss of the
references, for a reference of the others (ibid.). `gradnorm`: mean over the parameter tensors of ‖∇ loss‖₂, as a setting: it costs a backward pass for each
sample. `auc_…`: P(test sample scores higher than forget sample), ties half: 1 where the
forget set looks memorised. `privleak`: 100 · ((1 − AUC) − (1 − AUC_ref)) / (1 − AUC_ref) of `min_k`, AUC_ref the mean of the references, or 0.5 without them
(Shi et al. 2024, MUSE, arXiv 2407.06460): 0 is best, negative means that members show. With `compat`, as in the common implementation (open-unlearning),
min-k and min-k++ leave out the last token of each answer and look at ⌊share · n⌋ tokens, at least one.
"""

from __future__ import annotations

import zlib
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.audits import audits
from unlearned.audits._answers import text_task, whole
from unlearned.audits._audit import Audit
from unlearned.audits._membership import auc
from unlearned.audits.memorization import without_last
from unlearned.engine.engine import evaluating, on_device
from unlearned.engine.randomness import derive_seed
from unlearned.evidence.comparison import Measured, absent, compare
from unlearned.evidence.statistics import Array, bootstrap
from unlearned.evidence.subject import Measure, Subject
from unlearned.records import Finding, SubjectName
from unlearned.tasks._task import Batch, measured
from unlearned.tasks.text_generation import TextGeneration, answer_mask, answering


def lowest_mean(values: Tensor, mask: Tensor, share: float, *, compat: bool = False) -> Tensor:
    """Mean of the lowest ⌈share · n⌉ of the n marked values of each row, or with `compat` of the lowest max(1, ⌊share · n⌋) of all but the last, (B,).

    Args:
        values: (B, T).
        mask: (B, T), at least one in each row.
        share: in (0, 1].
        compat: as the common implementation has it.
    """
    if compat:
        mask = without_last(mask)
    counts = mask.sum(dim=1)
    kept = (torch.floor(share * counts + 1e-9) if compat else torch.ceil(share * counts - 1e-9)).clamp(min=1)
    ordered = torch.where(mask, values, torch.inf).sort(dim=1).values
    position = torch.arange(values.shape[1], device=values.device)[None]
    return torch.where(position < kept[:, None], ordered, 0.0).sum(dim=1) / kept


def standardised(logits: Tensor, tokens: Tensor) -> Tensor:
    """(log p_y − μ)/σ of each token, (...,): μ = Σ p log p and σ² = Σ p (log p)² − μ² over the vocabulary.

    Args:
        logits: (..., V).
        tokens: (...,).
    """
    log_p = logits.log_softmax(dim=-1)
    p = log_p.exp()
    mean = (p * log_p).sum(dim=-1)
    deviation = ((p * log_p**2).sum(dim=-1) - mean**2).clamp_min(1e-12).sqrt()
    return (log_p.gather(-1, tokens[..., None])[..., 0] - mean) / deviation


def privleak(value: float, reference: float) -> float:
    """100 · ((1 − AUC) − (1 − AUC_ref)) / (1 − AUC_ref)."""
    return 100 * ((1 - value) - (1 - reference)) / max(1 - reference, 1e-9)


BySplit = dict[str, dict[SubjectName, list[Array]]]
"""Scores by set, subject and model, (N,) each."""


def _areas(by_split: BySplit, seed: int) -> dict[SubjectName, list[Measured]]:
    """AUC of test samples over forget samples, of each model."""
    measured: dict[SubjectName, list[Measured]] = {}
    for who in by_split["forget"]:
        pairs = list(zip(by_split["test"][who], by_split["forget"][who], strict=True))
        measured[who] = [Measured(auc(t, f), bootstrap(auc, t, f, seed=seed), len(t) + len(f)) for t, f in pairs]
    return measured


@audits.register("text-membership")
class TextMembership(Audit):
    """Six membership attacks on texts, and PrivLeak."""

    name: ClassVar[str] = "text-membership"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"text-generation"})
    share: float = Field(0.4, gt=0, le=1, description="Share of the lowest tokens that min-k and min-k++ look at.")
    gradnorm: bool = Field(False, description="Also by the norm of the gradient.")
    compat: bool = Field(False, description="Min-k and min-k++ as in the common implementation.")

    def measure(self, subject: Subject) -> list[Finding]:
        task = text_task(subject)
        scores = {"loss": task.losses, "min_k": self._min_k(task), "min_k_plus_plus": self._min_k_plus_plus(task)}
        seed = derive_seed(subject.engine.seed, self.name)
        found = {name: {split: self._values(subject, measure, split) for split in ("forget", "test")} for name, measure in scores.items()}
        answers = {split: task.counted(whole(subject, subject.problem.sets[split])) for split in ("forget", "test")}
        sizes = {split: np.array([len(zlib.compress(text.encode())) for text in texts]) for split, texts in answers.items()}
        found["zlib"] = {split: {who: [v / sizes[split] for v in several] for who, several in values.items()} for split, values in found["loss"].items()}
        if self.gradnorm:
            found["gradnorm"] = {split: self._gradnorms(subject, split) for split in ("forget", "test")}

        findings: list[Finding] = []
        for name, by_split in found.items():
            measured = _areas(by_split, seed)
            findings += compare(self.name, f"auc_{name}", "forget", measured, unit="")
            if name == "min_k":
                findings += self._privleak(measured)
        return findings + self._by_reference(found["loss"], seed)

    def _by_reference(self, losses: BySplit, seed: int) -> list[Finding]:
        references = len(losses["forget"]["reference"])
        if not references:
            return [absent(self.name, "auc_reference", "forget", "it compares with references, of which none is given", unit="")]
        excess: BySplit = {}
        for split, by_who in losses.items():
            bank = np.stack(by_who["reference"])
            single: tuple[SubjectName, ...] = ("original", "unlearned")
            excess[split] = {who: [loss - bank.mean(axis=0) for loss in by_who[who]] for who in single}
            excess[split]["reference"] = [loss - np.delete(bank, i, axis=0).mean(axis=0) for i, loss in enumerate(bank)] if references > 1 else []
        reason = "a reference is compared with other references, of which there are none"
        return compare(self.name, "auc_reference", "forget", _areas(excess, seed), unit="", no_reference=reason)

    def _privleak(self, measured: dict[SubjectName, list[Measured]]) -> list[Finding]:
        references = [m.value for m in measured["reference"]]
        base = float(np.mean(references)) if references else 0.5
        leaks = {who: [Measured(privleak(m.value, base), None, m.n) for m in several] for who, several in measured.items()}
        return compare(self.name, "privleak", "forget", leaks, unit="")

    @staticmethod
    def _values(subject: Subject, measure: Measure, split: str) -> dict[SubjectName, list[Array]]:
        return {who: [each.numpy() for each in several] for who, several in subject.values(measure, split).items()}

    def _min_k(self, task: TextGeneration) -> Measure:
        return lambda model, batch: -lowest_mean(task.outputs(model, batch), answer_mask(batch), self.share, compat=self.compat)

    def _min_k_plus_plus(self, task: TextGeneration) -> Measure:
        def measure(model: nn.Module, batch: Batch) -> Tensor:
            mask, tokens = answering(batch)
            scores = standardised(measured(task.token_logits(model, batch)[mask]), tokens[mask])
            placed = torch.zeros(mask.shape, dtype=scores.dtype, device=scores.device).masked_scatter(mask, scores)
            return -lowest_mean(placed, mask, self.share, compat=self.compat)

        return measure

    @staticmethod
    def _gradnorms(subject: Subject, split: str) -> dict[SubjectName, list[Array]]:
        result: dict[SubjectName, list[Array]] = {"original": [], "unlearned": [], "reference": []}
        for who, model in subject.models():
            parameters = [p for p in model.parameters() if p.requires_grad]
            norms = []
            with on_device(model, subject.engine.device), evaluating(model):
                for batch in subject.engine.batches(subject.problem.sets[split], 1):
                    gradients: tuple[Tensor | None, ...] = torch.autograd.grad(subject.engine.task.losses(model, batch).mean(), parameters, allow_unused=True)
                    norms.append(float(torch.stack([g.norm() for g in gradients if g is not None]).mean()))
            result[who].append(np.array(norms))
        return result
