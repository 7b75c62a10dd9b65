"""Words of a text encoder that are learned, and prompts that hold them: numbers below 0 stand for them, -1 for the first."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unlearned.tasks._denoisers import Denoiser


class Words(nn.Module):
    """A table of embeddings with further rows.

    Args:
        table: the encoder's own.
        words: the further rows, (K, D), which are trained.
    """

    def __init__(self, table: nn.Module, words: Tensor) -> None:
        super().__init__()
        self.table = table
        self.words = nn.Parameter(words.clone())

    @property
    def weight(self) -> Tensor:
        """The table, (V, D)."""
        weight = self.table.weight
        assert isinstance(weight, Tensor)
        return weight

    def vectors(self) -> Tensor:
        """The further rows as they are read, (K, D)."""
        return self.words

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings (..., D) of token ids (...), differentiable with respect to the further rows."""
        vectors = self.vectors()
        own = vectors[(-1 - ids).clamp(min=0, max=len(vectors) - 1)]
        known: Tensor = self.table(ids.clamp(min=0))
        return torch.where((ids < 0)[..., None], own, known)


def with_words(model: Denoiser, make: Callable[[int, nn.Module], Words]) -> Denoiser:
    """A copy of the model whose text encoders read further words.

    Args:
        model: with text encoders; not changed.
        make: from the number of an encoder and its table.
    """
    other = copy.deepcopy(model)
    encoders: list[Any] = other.text_encoders
    for i, encoder in enumerate(encoders):
        encoder.set_input_embeddings(make(i, encoder.get_input_embeddings()))
    return other


def own_tokens(prompts: Tensor, others: Tensor) -> list[list[int]]:
    """For each encoder the tokens of some prompts that occur in none of the others, rising.

    Args:
        prompts: (N, E, T).
        others: (M, E, T).
    """
    return [sorted(set(prompts[:, e].flatten().tolist()) - set(others[:, e].flatten().tolist())) for e in range(prompts.shape[1])]


def replaced(prompts: Tensor, tokens: list[list[int]]) -> Tensor:
    """The prompts with learned words in the place of these tokens of each encoder, (N, E, T)."""
    changed = prompts.clone()
    for e, own in enumerate(tokens):
        for j, token in enumerate(own):
            changed[:, e][prompts[:, e] == token] = -1 - j
    return changed


def with_prefix(prompts: Tensor, empty: Tensor, count: int) -> Tensor:
    """The prompts with so many learned words in front, (N, E, T).

    What is behind moves on over the padding. Where there is not enough of that, the first words of the prompt make room.

    Args:
        prompts: token ids, (N, E, T).
        empty: those of the empty prompt, (E, T): they tell the padding, and the token that begins a prompt.
        count: at most T less one.
    """
    changed = prompts.clone()
    learned = -1 - torch.arange(count, dtype=prompts.dtype)
    for e in range(prompts.shape[1]):
        first = 1 if bool((prompts[:, e, 0] == empty[e, 0]).all()) and bool((empty[e, 1:] != empty[e, 0]).all()) else 0
        for n in range(len(prompts)):
            row = prompts[n, e]
            words = (row != empty[e, -1]).nonzero()
            content = row[first : int(words.max()) + 2] if len(words) else row[:0]
            room = len(row) - first - count
            padding = empty[e, -1:].expand(max(0, room - len(content)))
            changed[n, e] = torch.cat([row[:first], learned, content[max(0, len(content) - room) :] if room else content[:0], padding])
    return changed
