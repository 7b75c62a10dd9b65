"""Models of transformers as embedder and as gibberish scorer: what the paper uses, where their weights can be had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unlearned.errors import Fault, InputError
from unlearned.evidence.statistics import Array


class SentenceModel:
    """Mean-pooled last hidden states, such as of `sentence-transformers/all-MiniLM-L6-v2`, which the paper uses.

    Raises:
        InputError: if it cannot be loaded.
    """

    def __init__(self, source: str, field: str) -> None:
        from transformers import AutoModel

        self._model, self._tokenizer = _loaded(AutoModel, source, field)
        self.label = f"sentence embeddings of {source}"

    def embed(self, texts: Sequence[str]) -> Array:
        """One text at a time, so that its direction does not depend on the others."""
        rows = [self._model(**_tokens(self._tokenizer, text)).last_hidden_state[0].mean(dim=0) for text in texts]
        found: Array = torch.nn.functional.normalize(torch.stack(rows).double(), dim=1).numpy()
        return found


class GibberishModel:
    """1 − P(clean) of a classifier of texts, such as `madhurjindal/autonlp-Gibberish-Detector-492513457`, which the paper uses.

    Raises:
        InputError: if it cannot be loaded, or has no class called clean.
    """

    def __init__(self, source: str, field: str) -> None:
        from transformers import AutoModelForSequenceClassification

        self._model, self._tokenizer = _loaded(AutoModelForSequenceClassification, source, field)
        names = {str(name).lower(): int(i) for i, name in self._model.config.id2label.items()}
        if "clean" not in names:
            raise InputError(Fault(field, f"{source!r} has no class `clean` among {', '.join(names)}.", "Give a classifier of gibberish, or leave it out."))
        self._clean = names["clean"]
        self.label = f"classifier {source}"

    def gibberish(self, texts: Sequence[str]) -> Array:
        """Of each, (N,)."""
        rows: list[Tensor] = [self._model(**_tokens(self._tokenizer, text)).logits[0].double().softmax(dim=0) for text in texts]
        found: Array = 1 - torch.stack(rows)[:, self._clean].numpy()
        return found


def _loaded(kind: Any, source: str, field: str) -> tuple[Any, Any]:
    from transformers import AutoTokenizer

    try:
        model = kind.from_pretrained(source, use_safetensors=True, trust_remote_code=False).eval().requires_grad_(False)
        return model, AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        what = f"no such model can be loaded from {source!r} ({type(error).__name__})."
        raise InputError(Fault(field, what, "Give a directory or hub id with safetensors, or leave it out.")) from error


def _tokens(tokenizer: Any, text: str) -> Any:
    return tokenizer([text or " "], return_tensors="pt", truncation=True)
