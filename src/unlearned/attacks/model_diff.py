"""Model diff: can one tell from the original and the unlearned model what was forgotten?

Whoever holds both models, such as the one that was published before and the one after, puts candidate questions to both. Where they part, something was
forgotten. A retrained model parts from the original there too; but an edit that is narrow and sharp, such as a redirection to refusals, leaves a footprint
that is clearer.
Paper: later work on LUNAR (Shen et al. 2025, arXiv 2502.07218) finds what was forgotten by probing for refusals; its method is known to us by its outcome
alone, and the measures here are ours.
Formula: score of a question = mean over the first t tokens of KL(p_original ‖ p_model) along the original's own greedy answer; AUC = P(score of a forgotten
question > score of a retained one) + ½ P(equal), over the forget set and as many retained samples.
Findings: `auc` with t as the budget; `answers_auc`, the same with 1 − ROUGE-1 F of the two greedy answers as the score, for whoever sees texts alone; for the
unlearned model and for each reference, on split `forget`. `newly_declined` on splits `forget` and `retain`: share of questions that the original answered and
the model declines. Nothing is brought back, so that there is no retention.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from unlearned.attacks import attacks
from unlearned.attacks._attack import Attack
from unlearned.attacks._curves import findings_of_curves
from unlearned.attacks._texts import text_task
from unlearned.data.samples import Samples
from unlearned.engine.engine import evaluating, on_device
from unlearned.engine.randomness import derive_seed
from unlearned.evidence.comparison import Measured, compare
from unlearned.evidence.statistics import Array, bootstrap, wilson
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Finding, SubjectName
from unlearned.tasks._decoders import run_batch
from unlearned.tasks._refusals import declines
from unlearned.tasks._task import Batch, finest
from unlearned.tasks.text_generation import alikeness, with_answers


def separation(forgotten: Array, retained: Array) -> float:
    """P(a forgotten score > a retained one) + ½ P(equal)."""
    larger, equal = forgotten[:, None] > retained[None], forgotten[:, None] == retained[None]
    return float(larger.mean() + equal.mean() / 2)


def divergences(before: Tensor, after: Tensor, first: Tensor, length: Tensor, most: tuple[int, ...]) -> Tensor:
    """Mean KL(before ‖ after) over the first t positions of each answer, (B, len(most)); of an answer that is shorter over all that it has.

    Args:
        before: logits of the original, (B, T, V).
        after: logits of the model.
        first: the position that predicts the answer's first token, (B,).
        length: positions that predict a token of the answer or its end, (B,), at least 1.
        most: the numbers t.
    """
    p, q = (logits.to(finest(logits.device)).log_softmax(dim=-1) for logits in (before, after))
    kl = (p.exp() * (p - q)).sum(dim=-1)
    position = torch.arange(kl.shape[1], device=kl.device)[None] - first[:, None]
    columns = []
    for t in most:
        inside = (position >= 0) & (position < length.clamp(max=t)[:, None])
        columns.append((kl * inside).sum(dim=1) / inside.sum(dim=1))
    return torch.stack(columns, dim=1)


@attacks.register("model-diff")
class ModelDiff(Attack):
    """Tell forgotten questions from retained ones by the difference of the two models."""

    name: ClassVar[str] = "model-diff"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"text-generation"})
    tokens: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 4, 16), min_length=1, description="t: tokens of the original's answer that are compared.")

    def evaluations(self, problem: Problem) -> int:
        del problem
        return 6

    def measure(self, subject: Subject) -> list[Finding]:
        problem, budgets = subject.problem, tuple(sorted(set(self.tokens)))
        retained = problem.retain.shuffled(derive_seed(subject.engine.seed, self.name)).subset(range(min(len(problem.forget), len(problem.retain))))
        sets = {"forget": problem.forget, "retain": retained}
        said = {split: self._said(subject, problem.original.model, samples) for split, samples in sets.items()}
        curves: dict[SubjectName, list[list[Measured]]] = {"unlearned": [], "reference": []}
        of_texts: dict[SubjectName, list[Measured]] = {"unlearned": [], "reference": []}
        declined: dict[str, dict[SubjectName, list[Measured]]] = {split: {"unlearned": [], "reference": []} for split in sets}
        for number, (who, model) in enumerate(subject.models()):
            if who == "original":
                continue
            seed = derive_seed(subject.engine.seed, self.name, number)
            scores = {split: self._scores(subject, model, samples, budgets) for split, samples in sets.items()}
            curves[who].append([_auc(scores["forget"][:, i], scores["retain"][:, i], seed) for i in range(len(budgets))])
            answers = {split: self._said(subject, model, samples) for split, samples in sets.items()}
            differences = {split: 1 - alikeness(said[split], answers[split]).numpy() for split in sets}
            of_texts[who].append(_auc(differences["forget"], differences["retain"], seed))
            for split in sets:
                newly = sum(declines(after) and not declines(before) for before, after in zip(said[split], answers[split], strict=True))
                declined[split][who].append(Measured(newly / len(answers[split]), wilson(newly, len(answers[split])), len(answers[split])))
        findings = findings_of_curves(self.name, "auc", "forget", curves, budgets, "tokens compared", unit="")
        findings += compare(self.name, "answers_auc", "forget", of_texts, unit="", kind="attack")
        for split, measured in declined.items():
            findings += compare(self.name, "newly_declined", split, measured, unit="share", kind="attack")
        return findings

    def _said(self, subject: Subject, model: nn.Module, samples: Samples) -> list[str]:
        task = text_task(subject.engine)
        return task.said(subject.engine.evaluate(model, samples, task.generations))

    def _scores(self, subject: Subject, model: nn.Module, samples: Samples, budgets: tuple[int, ...]) -> Array:
        task, original = text_task(subject.engine), subject.problem.original.model
        asked = task.model_copy(update={"max_new_tokens": min(task.max_new_tokens, budgets[-1])})

        def diverge(model: nn.Module, batch: Batch) -> Tensor:
            answers = asked.generations(original, batch)[..., 0].long() - 1
            answered = with_answers(batch, answers)
            first, total = batch["prompt_length"] - 1, answered["input_ids"].shape[1]
            kept = total - int(first.min())
            position = (first - (total - kept))[:, None] + torch.arange(budgets[-1], device=first.device)

            def logits(of: nn.Module) -> Tensor:
                """Of the first predictions of each answer alone, (B, most, V): all of the batch's would take most of the memory."""
                found: Tensor = run_batch(of, answered, kept).logits[:, -kept:]
                return found.gather(1, position.clamp(max=kept - 1)[..., None].expand(-1, -1, found.shape[2]))

            return divergences(logits(original), logits(model), torch.zeros_like(first), answered["attention_mask"].sum(dim=1) - first, budgets)

        with on_device(original, subject.engine.device), evaluating(original):
            return subject.engine.evaluate(model, samples, diverge).numpy()


def _auc(forgotten: Array, retained: Array, seed: int) -> Measured:
    return Measured(separation(forgotten, retained), bootstrap(separation, forgotten, retained, seed=seed), len(forgotten) + len(retained))
