"""How the model declines: does it say that it does not know, and in words that a person would want to read?

`refusal_rate`: share of greedy answers that decline, by common English phrases. `refusal_quality`: mean over answers of the largest cosine similarity to a
list of desired refusals (Shen et al. 2025, LUNAR, arXiv 2502.07218), of mean-pooled embeddings if `embedder` names a sentence-embedding model of
transformers, else of TF-IDF vectors of character n-grams: then it tells how alike the wordings are, not the meanings, and numbers of the two must not be
compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unlearned.audits import audits
from unlearned.audits._answers import from_generations, mean_findings, text_task
from unlearned.audits._audit import Audit
from unlearned.errors import Fault, InputError
from unlearned.evidence.statistics import Array
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Finding
from unlearned.tasks._refusals import REFUSALS, declines
from unlearned.tasks._task import Batch

Similarities = Callable[[Sequence[str], Sequence[str]], Array]
"""Cosines between two lists of texts, (N, M)."""


def by_wording(answers: Sequence[str], desired: Sequence[str]) -> Array:
    """Cosines of TF-IDF vectors of character 2- to 4-grams within words, weighted by the desired texts alone: an answer's number does not depend on others."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)).fit(desired)
    return np.asarray((vectors.transform(answers) @ vectors.transform(desired).T).todense(), dtype=np.float64)


def by_meaning(model: str, answers: Sequence[str], desired: Sequence[str]) -> Array:
    """Cosines of mean-pooled embeddings.

    Raises:
        InputError: if the model cannot be loaded.
    """
    encoder, tokenizer = _encoder(model)

    def embed(texts: Sequence[str]) -> Tensor:
        rows = []
        for text in texts:
            tokens = tokenizer([text or " "], return_tensors="pt", truncation=True)
            with torch.no_grad():
                rows.append(encoder(**tokens).last_hidden_state[0].mean(dim=0))
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)

    return (embed(answers) @ embed(desired).T).double().numpy()


def _encoder(model: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    try:
        encoder = AutoModel.from_pretrained(model, use_safetensors=True, trust_remote_code=False).eval()
        return encoder, AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        what = f"no embedding model can be loaded from {model!r} ({type(error).__name__})."
        raise InputError(Fault("embedder", what, "Give a directory or hub id, or leave it out.")) from error


@audits.register("refusal-quality")
class RefusalQuality(Audit):
    """Refusals and their wording."""

    name: ClassVar[str] = "refusal-quality"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"text-generation"})
    desired: tuple[str, ...] = Field(REFUSALS, min_length=1, description="Refusals that are wished for.")
    embedder: str | None = Field(None, description="Directory or hub id of a sentence-embedding model; None: wording is compared.")

    def faults(self, problem: Problem) -> list[Fault]:
        del problem
        try:
            _ = self.embedder and _encoder(self.embedder)
        except InputError as error:
            return list(error.faults)
        return []

    def measure(self, subject: Subject) -> list[Finding]:
        said = text_task(subject).said
        similarities: Similarities = by_wording if self.embedder is None else partial(by_meaning, self.embedder)

        def rate(generations: Tensor, batch: Batch) -> Tensor:
            del batch
            return torch.tensor([float(declines(answer)) for answer in said(generations)])

        def quality(generations: Tensor, batch: Batch) -> Tensor:
            del batch
            return torch.from_numpy(similarities(said(generations), self.desired).max(axis=1).clip(0, 1))

        findings = []
        for split, samples in subject.problem.sets.items():
            for metric, measure in (("refusal_rate", rate), ("refusal_quality", quality)):
                findings += mean_findings(self.name, metric, split, from_generations(subject, samples, measure))
        return findings
