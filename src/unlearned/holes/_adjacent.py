"""Adjacent probing: harmless questions about what the forget set mentions, the same for every method (Ko et al. 2025, first stage)."""

from __future__ import annotations

from collections.abc import Sequence

from unlearned.holes._seams import Parts


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

    Ours: where no language model writes questions, what the retain set asks about the same things is what lies next to the forget set.
    """
    if not benign or not forget:
        return []
    alike = parts.embedder.embed(forget) @ parts.embedder.embed(benign).T
    chosen = [benign[j] for row in alike for j in (-row).argsort(kind="stable")[:per_text]]
    return list(dict.fromkeys(chosen))
