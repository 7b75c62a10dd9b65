"""What the models say, side by side: a few questions of each set with the answers of the original, the unlearned and a retrained model.

`changed`: share of samples whose greedy answer is not the original's, word for word. Beside it, for `questions` samples of each set, the report shows the
answers of each model, their ROUGE-1 recall, whether they decline, and the probability of each token of the true answer after the true tokens before it: where
an answer is gone from what a model says, they tell whether it is gone from what the model expects. Of several references the first one answers.

Content of the forget set (questions, answers, tokens) is neither shown nor written down unless `show` is `all`; then it stands in `audit.json` and in the
report. Recall, refusals and probabilities of withheld samples are shown. With `show: nothing` no content of any set is written down.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from unlearned.audits import audits
from unlearned.audits._answers import text_task
from unlearned.audits._audit import Audit
from unlearned.engine.randomness import derive_seed
from unlearned.evidence.comparison import Measured, compare
from unlearned.evidence.statistics import wilson
from unlearned.evidence.subject import Subject
from unlearned.records import Answer, Exhibit, Finding, Said, SubjectName
from unlearned.tasks._refusals import declines
from unlearned.tasks._task import Batch
from unlearned.tasks.text_generation import TextGeneration, answer_mask

LONGEST = 400
"""Characters of a text that are shown."""
MOST = 40
"""Tokens of an answer that are shown."""


def differing(said: Tensor, before: Tensor) -> int:
    """How many rows of generated tokens differ, (N, T) against (N, T'), 0 behind the end of each."""
    width = max(said.shape[1], before.shape[1])
    one, other = (torch.nn.functional.pad(tokens, (0, width - tokens.shape[1])) for tokens in (said, before))
    return int((one != other).any(dim=1).sum())


@audits.register("answers")
class Answers(Audit):
    """Answers before and after."""

    name: ClassVar[str] = "answers"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"text-generation"})
    questions: int = Field(3, ge=1, le=100, description="Samples of each set that are shown.")
    show: Literal["others", "all", "nothing"] = Field(
        "others", description="Whose content is written down: that of the sets that are not forgotten, of all sets, or of none."
    )

    def measure(self, subject: Subject) -> list[Finding]:
        findings = []
        for split, samples in subject.problem.sets.items():
            made = subject.values(text_task(subject).generations, split)
            before = made["original"][0][..., 0]
            measured: dict[SubjectName, list[Measured]] = {}
            for who in ("unlearned", "reference"):
                counts = [differing(said[..., 0], before) for said in made[who]]
                measured[who] = [Measured(count / len(samples), wilson(count, len(samples)), len(samples)) for count in counts]
            findings += compare(self.name, "changed", split, measured, unit="share")
        return findings

    def exhibits(self, subject: Subject) -> Sequence[Exhibit]:
        return [shown for split in subject.problem.sets for shown in self._of(subject, split)]

    def _of(self, subject: Subject, split: str) -> list[Answer]:
        task, samples = text_task(subject), subject.problem.sets[split]
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(derive_seed(subject.engine.seed, self.name, split)))
        chosen = sorted(order[: self.questions].tolist())
        some = samples.subset(chosen)
        batch = task.collate([some[i] for i in range(len(some))])
        made = subject.values(task.generations, split)
        models: list[dict[SubjectName, Said]] = [{} for _ in chosen]
        told = self.show == "all" or (self.show == "others" and split != "forget")
        for who, model in subject.models():
            if who in models[0]:  # the first reference has answered
                continue
            generations = made[who][0][chosen]
            likely = subject.engine.evaluate(model, some, task.outputs).exp().clamp(max=1)
            recalls, mask = task.recall(generations, batch).tolist(), answer_mask(batch)
            for i, text in enumerate(task.said(generations)):
                models[i][who] = Said(
                    text=_short(text.strip()) if told else None,
                    recall=recalls[i],
                    declines=declines(text),
                    probabilities=tuple(likely[i][: mask.shape[1]][mask[i]].tolist()[:MOST]),
                )
        return [self._answer(task, split, batch, i, models[i], told=told) for i in range(len(chosen))]

    def _answer(self, task: TextGeneration, split: str, batch: Batch, i: int, models: dict[SubjectName, Said], *, told: bool) -> Answer:
        question, answer, tokens = task.texts(batch, i)
        if not told:
            return Answer(source=self.name, split=split, question=None, answer=None, tokens=None, models=models)
        return Answer(source=self.name, split=split, question=_short(question), answer=_short(answer), tokens=tuple(tokens[:MOST]), models=models)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"
