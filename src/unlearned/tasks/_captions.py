"""Prompts of image samples: from a column of captions or made from class names, as token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unlearned.data.samples import Samples
from unlearned.errors import Fault

TOKENIZERS = ("tokenizer", "tokenizer_2")
CAPTIONS = ("caption", "text", "prompt")
"""Columns that hold them."""


def tokenised(texts: Sequence[str], tokenizers: Mapping[str, Any]) -> Tensor:
    """Token ids, padded and cut to the length that the text encoders take, (N, E, T) for E tokenizers.

    Args:
        texts: N prompts.
        tokenizers: companions of a model; others than tokenizers are not looked at.
    """
    rows = [_ids(tokenizers[name], texts, cut=True)["input_ids"] for name in TOKENIZERS if name in tokenizers]
    return torch.stack([torch.as_tensor(ids) for ids in rows], dim=1)


def empty_prompt(tokenizers: Mapping[str, Any]) -> Tensor:
    """Token ids of the empty prompt, (E, T)."""
    return tokenised([""], tokenizers)[0]


def prompt_faults(texts: Sequence[str], tokenizers: Mapping[str, Any], field: str) -> list[Fault]:
    """Prompts that are no text, have words that the tokenizer does not know, or are longer than the text encoder reads. They are counted, not shown."""
    given: Sequence[Any] = texts
    wrong = sum(not isinstance(text, str) or not text.strip() for text in given)
    if wrong:
        return [Fault(field, f"{wrong} captions are missing, empty or not text.", "Give each image a caption, or leave the column out.")]
    faults: list[Fault] = []
    distinct = sorted(set(texts))
    for name in TOKENIZERS:
        if name not in tokenizers or not distinct:
            continue
        tokenizer = tokenizers[name]
        rows = _ids(tokenizer, distinct, cut=False)["input_ids"]
        long = sum(len(row) > tokenizer.model_max_length for row in rows)
        if long:
            what = f"{long} different prompts are longer than the {tokenizer.model_max_length} tokens that the text encoder reads."
            faults.append(Fault(field, what, "Shorten them: what stands behind would be cut off."))
        unknown = _unknown(tokenizer)
        lost = sum(unknown in row for row in rows) if unknown is not None else 0
        if lost:
            faults.append(Fault(field, f"{lost} different prompts have words that the model's tokenizer does not know.", "Use words of its vocabulary."))
    return faults


def captions_of(samples: Samples, template: str) -> list[str]:
    """One prompt per row of the samples: their caption, or the template with their class."""
    name = next((name for name in CAPTIONS if name in samples.facts), None)
    if name is not None:
        return list(samples.facts[name])
    classes = samples.facts.get("label_name", samples.facts["label"])
    return [template.replace("{}", str(name)) for name in classes]


def _ids(tokenizer: Any, texts: Sequence[str], *, cut: bool) -> Any:
    how: dict[str, Any] = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True} if cut else {"verbose": False}
    return tokenizer(list(texts), **how)


def _unknown(tokenizer: Any) -> int | None:
    """The id of unknown words, unless the tokenizer uses one of another purpose for it, as that of CLIP does."""
    unknown = tokenizer.unk_token_id
    return None if unknown in {None, tokenizer.eos_token_id, tokenizer.pad_token_id} else unknown
