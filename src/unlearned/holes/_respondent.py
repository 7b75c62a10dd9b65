"""What models answer to questions, and how sure they are of answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.evidence.statistics import Array
from unlearned.tasks._task import Bundle
from unlearned.tasks.text_generation import TextGeneration

Asked = TypeVar("Asked")
Got = TypeVar("Got")


@dataclass(frozen=True)
class Respondent:
    """Asks models that share a tokenizer."""

    engine: Engine
    bundle: Bundle
    """With the tokenizer; its model is not asked."""

    @property
    def task(self) -> TextGeneration:
        """The engine's task, which is one of text."""
        task = self.engine.task
        assert isinstance(task, TextGeneration)
        return task

    def answers(self, model: nn.Module, questions: Sequence[str]) -> list[str]:
        """The greedy answer to each; empty where the question is longer than the model's context."""
        return self._filled(questions, lambda texts: self.task.prompts(texts, self.bundle), lambda some: self._said(model, some), "", room=1)

    def certainty(self, model: nn.Module, questions: Sequence[str], answers: Sequence[str]) -> Array:
        """exp(mean log p(answer token)) of each answer to its question, (N,); 0 for an empty answer and where both are longer than the model's context."""
        pairs = list(zip(questions, answers, strict=True))

        def read(some: Sequence[tuple[str, str]]) -> Samples:
            return self.task.read({"prompt": [q for q, _ in some], "answer": [a for _, a in some]}, self.bundle, "probes")

        said = [i for i, (_, answer) in enumerate(pairs) if answer.strip()]
        found = np.zeros(len(pairs))
        found[said] = self._filled([pairs[i] for i in said], read, lambda some: self.engine.evaluate(model, some, self.task.probability).tolist(), 0.0, room=0)
        return found

    def _said(self, model: nn.Module, samples: Samples) -> list[str]:
        return self.task.said(self.engine.evaluate(model, samples, self.task.generations).long())

    def _filled(
        self, asked: Sequence[Asked], read: Callable[[Sequence[Asked]], Samples], measure: Callable[[Samples], Sequence[Got]], other: Got, room: int
    ) -> list[Got]:
        """What is measured of those that fit into the context with so much room; `other` for the rest."""
        if not asked:
            return []
        samples = read(asked)
        context = getattr(getattr(self.bundle.model, "config", None), "max_position_embeddings", None) or 10**9
        fit = [i for i in range(len(samples)) if len(samples[i]["input_ids"]) + room <= context]
        found = [other] * len(asked)
        for i, value in zip(fit, measure(samples.subset(fit)) if fit else (), strict=True):
            found[i] = value
        return found
