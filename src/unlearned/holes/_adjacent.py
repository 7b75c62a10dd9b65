"""Adjacent probing: harmless questions about what the forget set mentions, the same for every method (Ko et al. 2025, first stage)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unlearned.holes._seams import Parts

BLOCK = 1024
"""Questions whose directions are in memory at once: each has thousands of numbers, and a retain set may have hundreds of thousands of questions."""


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
    texts = parts.embedder.embed(forget)
    alike, at = np.zeros((len(texts), 0)), np.zeros((len(texts), 0), dtype=np.int64)
    for start in range(0, len(benign), BLOCK):
        block = parts.embedder.embed(benign[start : start + BLOCK])
        alike = np.hstack([alike, texts @ block.T])
        at = np.hstack([at, np.tile(np.arange(start, start + len(block)), (len(texts), 1))])
        nearest = (-alike).argsort(axis=1, kind="stable")[:, :per_text]
        alike, at = np.take_along_axis(alike, nearest, axis=1), np.take_along_axis(at, nearest, axis=1)
    return list(dict.fromkeys(benign[j] for j in at.ravel().tolist()))
