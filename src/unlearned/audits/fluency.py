"""Are the answers of a model language at all?

`distinct_pairs`: share of distinct pairs among all pairs of neighbouring words of a greedy answer, 1 for an answer of at most one word: a model that repeats
itself falls. `clean`: mean probability that a text classifier of transformers gives to the labels that stand for sound text, if one is named (Dorna et al.
2025, arXiv 2506.12618, with `madhurjindal/autonlp-Gibberish-Detector-492513457`, whose label is `clean`). An answer of nothing is no gibberish: it is given
to the classifier as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from unlearned.audits import audits
from unlearned.audits._answers import from_generations, mean_findings, text_task
from unlearned.audits._audit import Audit
from unlearned.errors import Fault, InputError
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Finding
from unlearned.tasks._task import Batch


def distinct_pairs(answer: str) -> float:
    """Distinct pairs of neighbouring words over all pairs, in (0, 1]; 1 for fewer than two words."""
    words = answer.lower().split()
    pairs = list(pairwise(words))
    return len(set(pairs)) / len(pairs) if pairs else 1.0


class Classifier(NamedTuple):
    """A text classifier, and which of its classes count."""

    model: Any
    tokenizer: Any
    classes: list[int]

    def probabilities(self, texts: Sequence[str]) -> Tensor:
        """Probability of the classes that count, (N,): text by text, so that none depends on another's padding."""
        found = []
        for text in texts:
            tokens = self.tokenizer([text or " "], return_tensors="pt", truncation=True)
            with torch.no_grad():
                found.append(self.model(**tokens).logits[0].double().softmax(dim=0)[self.classes].sum())
        return torch.stack(found)


@audits.register("fluency")
class Fluency(Audit):
    """Repetition, and gibberish as a classifier sees it."""

    name: ClassVar[str] = "fluency"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"text-generation"})
    classifier: str | None = Field(None, description="Directory or hub id of a text classifier that tells sound text from gibberish; None: none is asked.")
    labels: tuple[str, ...] = Field(("clean",), min_length=1, description="Its labels that stand for sound text.")

    def faults(self, problem: Problem) -> list[Fault]:
        del problem
        try:
            self._classifier()
        except InputError as error:
            return list(error.faults)
        return []

    def measure(self, subject: Subject) -> list[Finding]:
        said, classifier = text_task(subject).said, self._classifier()

        def pairs(generations: Tensor, batch: Batch) -> Tensor:
            del batch
            return torch.tensor([distinct_pairs(answer) for answer in said(generations)])

        def clean(generations: Tensor, batch: Batch) -> Tensor:
            del batch
            assert classifier is not None
            return classifier.probabilities(said(generations))

        measures: dict[str, Callable[[Tensor, Batch], Tensor]] = {"distinct_pairs": pairs}
        if classifier is not None:
            measures["clean"] = clean
        findings = []
        for split, samples in subject.problem.sets.items():
            for metric, measure in measures.items():
                findings += mean_findings(self.name, metric, split, from_generations(subject, samples, measure))
        return findings

    def _classifier(self) -> Classifier | None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        if self.classifier is None:
            return None
        try:
            model = AutoModelForSequenceClassification.from_pretrained(self.classifier, use_safetensors=True, trust_remote_code=False).eval()
            tokenizer = AutoTokenizer.from_pretrained(self.classifier, trust_remote_code=False)
        except (OSError, ValueError) as error:
            what = f"no text classifier can be loaded from {self.classifier!r} ({type(error).__name__})."
            raise InputError(Fault("classifier", what, "Give a directory or hub id, or leave it out.")) from error
        known = {label: number for number, label in model.config.id2label.items()}
        absent = sorted(set(self.labels) - set(known))
        if absent:
            raise InputError(Fault("labels", f"the classifier has no label {absent[0]!r}.", f"It has {', '.join(known)}."))
        return Classifier(model, tokenizer, [known[label] for label in self.labels])
