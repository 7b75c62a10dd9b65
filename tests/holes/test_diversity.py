"""Diversity against other implementations and worked arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from unlearned.holes._diversity import BleuPool, as_diverse, scaled_vendi, self_bleu, vendi, without_duplicates, words_of

TEXTS = [
    "What is the capital of France?",
    "What is the capital of Spain and who lives there?",
    "Who wrote the song about the capital?",
    "What is the capital of France?",
    "zebra",
    "the the the the the the",
]


@pytest.mark.parametrize("orders", [(3, 4, 5), (2, 3, 4, 5), (1,)])
def test_bleu_of_the_pool_is_that_of_nltk(orders: tuple[int, ...]) -> None:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    pool = BleuPool(orders)
    references: list[list[str]] = []
    for text in TEXTS:
        if references:
            expected = [sentence_bleu(references, words_of(text), [1 / n] * n, SmoothingFunction().method1) for n in orders]
            assert pool.against(text) == pytest.approx(float(np.mean(expected)), rel=1e-12)
        pool.add([text])
        references.append(words_of(text))
    assert pool.size == len(TEXTS)


def test_an_empty_pool_and_an_empty_text_share_nothing() -> None:
    pool = BleuPool()
    assert pool.against("a b c") == 0
    pool.add(["a b c"])
    assert pool.against("") == 0


def test_what_was_said_before_is_less_new() -> None:
    pool = BleuPool()
    pool.add(TEXTS[:2])
    assert pool.against(TEXTS[0]) > pool.against("Where do penguins sleep at night?")


def test_self_bleu_against_a_naive_loop() -> None:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    words = [words_of(text) for text in TEXTS]
    values = []
    for i, one in enumerate(words):
        others = words[:i] + words[i + 1 :]
        values.append(np.mean([sentence_bleu(others, one, [1 / n] * n, SmoothingFunction().method1) for n in (3, 4, 5)]))
    assert self_bleu(TEXTS) == pytest.approx(float(np.mean(values)), rel=1e-12)
    assert self_bleu(TEXTS[:1]) == 0


def test_vendi_keeps_within_its_range() -> None:
    random = np.random.default_rng(0)
    orthogonal = [np.linalg.qr(random.normal(size=(n, n)))[0] for n in range(1, 40)]
    assert all(1 <= vendi(rows) <= len(rows) for rows in orthogonal)
    assert all(1 <= vendi(np.repeat(rows[:1], 7, axis=0)) <= 7 for rows in orthogonal)


def test_vendi_by_hand() -> None:
    same = np.tile([[1.0, 0.0]], (5, 1))
    assert vendi(same) == pytest.approx(1, abs=1e-12)
    assert scaled_vendi(same) == pytest.approx(1 / 5, abs=1e-12)
    assert vendi(np.eye(4)) == pytest.approx(4, abs=1e-12)
    assert scaled_vendi(np.eye(4)) == pytest.approx(1, abs=1e-12)
    half = np.array([[1.0, 0.0], [0.5, np.sqrt(0.75)]])
    assert vendi(half) == pytest.approx(1.7548, abs=1e-4)  # −¾ log ¾ − ¼ log ¼


def test_no_pair_above_the_limit_is_left() -> None:
    rows = np.random.default_rng(0).standard_normal((40, 3))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    kept = without_duplicates(rows, 0.8)
    cosines = rows[kept] @ rows[kept].T - np.eye(len(kept))
    assert cosines.max() <= 0.8
    assert all((rows[kept] @ rows[i]).max() > 0.8 for i in set(range(40)) - set(kept))


def test_the_cut_is_where_diversity_meets_what_is_wanted() -> None:
    rows = np.random.default_rng(1).standard_normal((30, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    size = as_diverse(rows, 0.4)
    assert scaled_vendi(rows[:size]) >= 0.4 > scaled_vendi(rows[: size + 1])
    assert as_diverse(rows, 0.0) == 30
    assert as_diverse(rows, 1.1) == 1
