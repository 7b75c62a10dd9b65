"""Backends that need no further language model: words, templates, and the original model's own answers. They are ours, not the paper's.

They are cheap, they give the same numbers every time, and they are blunter than a language model that judges: reports name them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array, hstack
from torch import nn

from unlearned.evidence.statistics import Array
from unlearned.holes._diversity import words_of
from unlearned.holes._ratings import score_of
from unlearned.holes._respondent import Respondent
from unlearned.holes._rows import total

_TEMPLATES = ("What is {}?", "What does {} mean?", "How is {} used?", "Why does {} matter?", "Where is {} found?")
_OF_TEMPLATES = frozenset({"mean", "used", "matter", "found"})
_WORD = r"(?u)\b[^\W\d_][\w'-]+\b"


class WordTerms:
    """Words and pairs of words that are frequent in a text and rare in others, by TF-IDF.

    Args:
        background: texts that are nothing special.
    """

    label: str = "TF-IDF terms"

    def __init__(self, background: Sequence[str]) -> None:
        self._background = list(background)

    def terms(self, texts: Sequence[str], count: int) -> list[list[str]]:
        """Up to `count` for each text, the heaviest first."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        if not any(re.search(_WORD, text) for text in texts):
            return [[] for _ in texts]
        weights = TfidfVectorizer(ngram_range=(1, 2), stop_words="english", token_pattern=_WORD)
        try:
            weights.fit([*self._background, *texts])
        except ValueError:  # nothing but stop words
            return [[] for _ in texts]
        names, rows = weights.get_feature_names_out(), weights.transform(texts).tocsr()
        rows.sort_indices()  # of equally heavy terms the first in the alphabet
        parts = [slice(first, end) for first, end in pairwise(rows.indptr)]
        return [[str(names[rows.indices[part][i]]) for i in np.argsort(-rows.data[part], kind="stable")[:count]] for part in parts]


class TemplateQuestions:
    """Fixed shapes of questions, one after the other."""

    label: str = "question templates"

    def questions(self, terms: Sequence[str]) -> list[str]:
        """One for each term."""
        return [_TEMPLATES[i % len(_TEMPLATES)].format(term) for i, term in enumerate(terms)]


class WordSupport:
    """A text supports a question if it has nearly all of its content words, rare words counting more.

    Σ idf(w) over the question's content words that the text has ≥ `share` · Σ idf(w) over all of them. idf(w) = log((1 + n) / (1 + n_w)) + 1.

    Args:
        background: n texts, n_w of which have the word w.
        share: of the weight that must be there.
    """

    label: str = "shared words"

    def __init__(self, background: Sequence[str], share: float = 0.8) -> None:
        self._share = share
        having: dict[str, int] = {}
        for text in background:
            for word in _content(text):
                having[word] = having.get(word, 0) + 1
        self._size, self._having = len(background), having

    def supported(self, questions: Sequence[str], texts: Sequence[str]) -> list[bool]:
        """Of each question, whether any text supports it. A question without content words is supported by any text."""
        return [bool(share >= self._share) for share in self.overlaps(questions, texts)]

    def overlaps(self, questions: Sequence[str], texts: Sequence[str]) -> Array:
        """Of each question, the share of the weight of its content words that the text has which has most of it, (N,) in [0, 1].

        1 for a question without content words; 0 where there is no text.
        """
        contents = [_content(text) for text in texts]
        return np.array([self._most(_content(question), contents) for question in questions])

    def _most(self, asked: frozenset[str], contents: Sequence[frozenset[str]]) -> float:
        weights = {word: float(np.log((1 + self._size) / (1 + self._having.get(word, 0))) + 1) for word in asked}
        total = sum(weights.values())
        shares = (sum(weight for word, weight in weights.items() if word in content) / total if total else 1.0 for content in contents)
        return max(shares, default=0.0)


class HashedWords:
    """Directions of character 2- to 4-grams within words: how alike wordings are, not meanings."""

    label: str = "character n-grams"

    def embed(self, texts: Sequence[str]) -> csr_array:
        """(N, 4096), sparse; a text without letters gets a direction that no other has part in."""
        from sklearn.feature_extraction.text import HashingVectorizer

        hashing = HashingVectorizer(n_features=4095, analyzer="char_wb", ngram_range=(2, 4), alternate_sign=False)
        rows = csr_array(hashing.transform(texts))
        return csr_array(hstack([rows, csr_array((total(csr_array(rows.T)) == 0).astype(np.float64)[:, None])]))


class UnseenLetters:
    """Gibberish has letter sequences that no clean text has, or says the same pair of words again and again.

    max(share of the text's letter trigrams that the clean texts lack, 1 − distinct pairs of words / pairs of words).

    Args:
        clean: texts that are not gibberish.
    """

    label: str = "unseen letters and repetition"

    def __init__(self, clean: Sequence[str]) -> None:
        self._seen = {gram for text in clean for gram in _trigrams(text)}

    def gibberish(self, texts: Sequence[str]) -> Array:
        """Of each, in [0, 1]; 1 for a text without words."""
        return np.array([self._of(text) for text in texts], dtype=np.float64)

    def _of(self, text: str) -> float:
        grams = _trigrams(text)
        if not grams:
            return 1.0
        unseen = sum(gram not in self._seen for gram in grams) / len(grams)
        return max(unseen, repetition(text))


class OriginalsJudge:
    """Holds an answer against the original model's own, which counts as good as the original is sure of it.

    quality(q, r) = c(q) · a(q, r) · (1 − repetition of r), on the scale of scores.
    c(q) = min(1, p(r* | q) / p̄): how sure the original is of its own greedy answer r*, p the geometric mean of its tokens' probabilities; p̄ the median of p
    over known questions that it answers with at least half of the right words.
    a(q, r) = max(ρ, min(1, p(r | q) / p(r* | q))): ρ is ROUGE-1 F of r against r*, less what answers to *other* known questions have in common by chance.

    Args:
        respondent: asks the original.
        original: the model.
        known: questions with their answers, that were part of the training.
    """

    label: str = "the original model's answers and certainty"
    asked: int = 0
    unread: int = 0

    def __init__(self, respondent: Respondent, original: nn.Module, known: Mapping[str, str]) -> None:
        self._respondent, self._original = respondent, original
        self._own: dict[str, tuple[str, float]] = {}
        questions = list(known)
        own = self._of(questions)
        right = [sure for q, (said, sure) in zip(questions, own, strict=True) if rouge_f(said, known[q]) >= 0.5]
        self._full = float(np.median(right)) if right else 1.0
        said = [answer for answer, _ in own]
        self._chance = float(np.mean([rouge_f(a, b) for a, b in zip(said, said[1:] + said[:1], strict=True)])) if len(said) > 1 else 0.0

    def scores(self, questions: Sequence[str], answers: Sequence[str]) -> list[float | None]:
        """None is never among them."""
        own = self._of(questions)
        likely = self._respondent.certainty(self._original, questions, answers)
        found: list[float | None] = []
        for answer, (best, sure), p in zip(answers, own, likely, strict=True):
            alike = 1.0 if answer == best else max(0.0, (rouge_f(answer, best) - self._chance) / (1 - self._chance) if self._chance < 1 else 0.0)
            agreement = max(alike, min(1.0, p / sure if sure else 0.0))
            found.append(score_of(min(1.0, sure / self._full) * agreement * (1 - repetition(answer))))
        return found

    def valid(self, questions: Sequence[str]) -> list[bool]:
        """Whether it has three words or more, one of which is no stop word, and does not say the same again and again."""
        return [len(words_of(q)) > 2 and bool(_content(q)) and repetition(q) < 0.3 for q in questions]

    def _of(self, questions: Sequence[str]) -> list[tuple[str, float]]:
        fresh = [q for q in dict.fromkeys(questions) if q not in self._own]
        answers = self._respondent.answers(self._original, fresh)
        sure = self._respondent.certainty(self._original, fresh, answers)
        self._own |= {q: (answer, float(p)) for q, answer, p in zip(fresh, answers, sure, strict=True)}
        return [self._own[q] for q in questions]


def rouge_f(a: str, b: str) -> float:
    """2 |a ∩ b| / (|a| + |b|) over words with repetition; 0 if both are empty."""
    from collections import Counter

    first, second = Counter(words_of(a)), Counter(words_of(b))
    both = sum((first & second).values())
    return 2 * both / (first.total() + second.total()) if both else 0.0


def repetition(text: str) -> float:
    """1 − distinct pairs of neighbouring words / pairs, in [0, 1); 0 for fewer than two words."""
    pairs = list(pairwise(words_of(text)))
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0


def _content(text: str) -> frozenset[str]:
    empty = _stop_words()
    return frozenset(word for word in words_of(text) if word not in empty and any(c.isalnum() for c in word))


@functools.cache
def _stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS | _OF_TEMPLATES)


def _trigrams(text: str) -> list[str]:
    return [padded[i : i + 3] for word in words_of(text) if word.isalpha() for padded in (f" {word} ",) for i in range(len(padded) - 2)]
