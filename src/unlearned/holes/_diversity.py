"""How different questions are from each other: BLEU against all earlier ones, the Vendi score, and what is left when near duplicates go.

Sources: BLEU (Papineni et al. 2002) as Self-BLEU (Zhu et al. 2018); Vendi score (Friedman and Dieng 2023); how the paper uses them: Ko et al. 2025.
"""

from __future__ import annotations

import bisect
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from unlearned.holes._rows import Rows, cosines

ORDERS = (3, 4, 5)
"""Lengths of n-grams up to which BLEU is computed; the mean over them is taken. What curiosity-driven red-teaming has as default; its scripts have 2 to 5."""
_EPSILON = 0.1


def words_of(text: str) -> list[str]:
    """Words in lower case, and marks one by one."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


class BleuPool:
    """All texts so far, so that a new one is compared with them at a cost that does not grow with their number.

    BLEU_N = BP · exp(mean_{n ≤ N} log p_n) with p_n the n-grams of the text that some reference has, each counted at most as often as in the reference that
    has it most, over all its n-grams; 0.1 in the place of a count of 0 (smoothing method 1 of Chen and Cherry 2014); BP the brevity penalty against the
    reference of the nearest length, the shorter one of two. `against` is the mean over N.

    Args:
        orders: the N.
    """

    def __init__(self, orders: Sequence[int] = ORDERS) -> None:
        self.orders = tuple(orders)
        self._most: list[dict[tuple[str, ...], int]] = [{} for _ in range(max(self.orders))]
        self._lengths: list[int] = []
        self.size = 0

    def add(self, texts: Iterable[str]) -> None:
        """Take these in."""
        for text in texts:
            words = words_of(text)
            for most, counts in zip(self._most, _grams(words, max(self.orders)), strict=True):
                for gram, count in counts.items():
                    most[gram] = max(count, most.get(gram, 0))
            bisect.insort(self._lengths, len(words))
            self.size += 1

    def against(self, text: str) -> float:
        """BLEU of a text against the pool, in [0, 1]; 0 if the pool is empty, or the text shares no word with it."""
        words = words_of(text)
        if not self.size or not words:
            return 0.0
        precisions = []
        for most, counts in zip(self._most, _grams(words, max(self.orders)), strict=True):
            shared = sum(min(count, most.get(gram, 0)) for gram, count in counts.items())
            precisions.append((shared or _EPSILON) / max(1, sum(counts.values())))
        if not sum(min(count, self._most[0].get(gram, 0)) for gram, count in _grams(words, 1)[0].items()):
            return 0.0
        at = bisect.bisect_left(self._lengths, len(words))
        nearest = min(self._lengths[max(0, at - 1) : at + 1], key=lambda length: (abs(length - len(words)), length))
        penalty = 1.0 if len(words) > nearest else math.exp(1 - nearest / len(words))
        return penalty * float(np.mean([math.exp(sum(map(math.log, precisions[:n])) / n) for n in self.orders]))


def self_bleu(texts: Sequence[str], orders: Sequence[int] = ORDERS) -> float:
    """Mean BLEU of each text against all others, in [0, 1]; 0 for fewer than two."""
    if len(texts) < 2:
        return 0.0
    values = []
    for i, text in enumerate(texts):
        pool = BleuPool(orders)
        pool.add(other for j, other in enumerate(texts) if j != i)
        values.append(pool.against(text))
    return float(np.mean(values))


def vendi(embeddings: Rows) -> float:
    """exp(−Σ λ_i log λ_i), λ the eigenvalues of K/n, K the cosines: how many different items there seem to be, in [1, n].

    Args:
        embeddings: (n, D), n ≥ 1, rows of length 1.
    """
    n = embeddings.shape[0]
    values = np.linalg.eigvalsh(cosines(embeddings, embeddings) / n)
    positive = values[values > 1e-12]
    # Of items that are all different, or all the same, rounding could say more than n or less than 1.
    return float(np.clip(np.exp(-(positive * np.log(positive)).sum()), 1, n))


def scaled_vendi(embeddings: Rows) -> float:
    """`vendi` / n: 1/n for n equal items, 1 for orthogonal ones."""
    return vendi(embeddings) / int(embeddings.shape[0])


def without_duplicates(embeddings: Rows, most: float = 0.8) -> list[int]:
    """Positions that stay when each item with a cosine above `most` to an earlier one that stays is dropped."""
    kept: list[int] = []
    for i in range(embeddings.shape[0]):
        if not kept or float(cosines(embeddings[kept], embeddings[[i]]).max()) <= most:
            kept.append(i)
    return kept


def as_diverse(embeddings: Rows, wanted: float) -> int:
    """How many of the first items can be taken so that their scaled Vendi score is still at least `wanted`; 1 at least.

    It starts at 1 for a single item and falls as the set grows.
    """
    size = 1
    while size < embeddings.shape[0] and scaled_vendi(embeddings[: size + 1]) >= wanted:
        size += 1
    return size


def _grams(words: Sequence[str], longest: int) -> list[Counter[tuple[str, ...]]]:
    return [Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for n in range(1, longest + 1)]
