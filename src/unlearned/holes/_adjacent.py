"""Adjacent probing: harmless questions about what the forget set mentions, the same for every method (Ko et al. 2025, first stage)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unlearned.holes._rows import Rows, cosines
from unlearned.holes._seams import Parts

BLOCK = 1024
"""Texts whose cosines with as many others are in memory at once: both sets may have hundreds of thousands."""


def adjacent_questions(forget: Sequence[str], per_text: int, parts: Parts) -> list[str]:
    """D_adj(D_f): up to `per_text` key terms of each text, and a question about each term. Different ones, in order.

    Args:
        forget: texts that are to be forgotten.
        per_text: k, 4 or 5 in the paper.
        parts: the extractor and the writer of these.
    """
    terms = [term for found in parts.terms.terms(forget, per_text) for term in found]
    return list(dict.fromkeys(filter(None, parts.writer.questions(list(dict.fromkeys(terms))))))


def nearest_questions(forget: Sequence[str], benign: Sequence[str], per_text: int, parts: Parts) -> list[str]:
    """Of questions that are known to be harmless, those that are nearest to each forget text by the embedder's cosine. Different ones, in order.

    Ours: where no language model writes questions, what the retain set asks about the same things is what lies next to the forget set. Of equally near ones
    the first.
    """
    if not benign or not forget:
        return []
    texts, others = ([parts.embedder.embed(several[i : i + BLOCK]) for i in range(0, len(several), BLOCK)] for several in (forget, benign))
    return list(dict.fromkeys(benign[j] for block in texts for j in _nearest(block, others, per_text).ravel().tolist()))


def _nearest(texts: Rows, others: Sequence[Rows], count: int) -> NDArray[np.int64]:
    """Positions of those that are nearest to each text, in blocks, the nearest first, (N, count)."""
    n = texts.shape[0]
    alike, at, start = np.zeros((n, 0)), np.zeros((n, 0), dtype=np.int64), 0
    for block in others:
        size = block.shape[0]
        alike = np.hstack([alike, cosines(texts, block)])
        at = np.hstack([at, np.tile(np.arange(start, start + size), (n, 1))])
        nearest = (-alike).argsort(axis=1, kind="stable")[:, :count]
        alike, at, start = np.take_along_axis(alike, nearest, axis=1), np.take_along_axis(at, nearest, axis=1), start + size
    return at
