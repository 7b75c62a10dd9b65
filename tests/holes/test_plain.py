"""Backends without a language model."""

from __future__ import annotations

import numpy as np
import pytest

from tests.holes.known import FORGET, NAMES, RETAIN, answer, problem, question
from unlearned.engine.engine import Engine
from unlearned.holes._plain import HashedWords, OriginalsJudge, TemplateQuestions, UnseenLetters, WordSupport, WordTerms, repetition, rouge_f
from unlearned.holes._respondent import Respondent

BACKGROUND = [f"{question(*pair)} {answer(*pair)}" for pair in RETAIN]


def test_terms_are_what_is_rare_elsewhere() -> None:
    texts = [f"{question(*pair)} {answer(*pair)}" for pair in FORGET[:2]]
    for found in WordTerms(BACKGROUND).terms(texts, 3):
        assert len(found) == 3
        assert any(NAMES[0] in term for term in found)
    assert WordTerms([]).terms(["?!", "..."], 3) == [[], []]
    assert WordTerms([]).terms(["of the"], 3) == [[]]


def test_one_question_for_each_term() -> None:
    found = TemplateQuestions().questions(["salt", "pepper"])
    assert [("salt" in found[0]), ("pepper" in found[1])] == [True, True]
    assert all(q.endswith("?") for q in found)


def test_support_needs_the_rare_words() -> None:
    checker = WordSupport(BACKGROUND)
    text = f"{question(*FORGET[0])} {answer(*FORGET[0])}"
    other = question(*RETAIN[0])
    assert checker.supported([question(*FORGET[0]), other], [text]) == [True, False]
    assert checker.supported([other], [text, f"{other} somewhere"]) == [True]
    assert checker.supported([other], []) == [False]
    assert checker.supported(["of the?"], ["anything"]) == [True]


def test_directions_have_length_one_and_do_not_depend_on_other_texts() -> None:
    texts = ["where is the sea", "where is the see", "penguins", "?"]
    rows = HashedWords().embed(texts)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1)
    assert rows[0] @ rows[1] > 0.7 > rows[0] @ rows[2]
    assert rows[3] @ rows[0] == 0
    assert np.array_equal(HashedWords().embed(texts[1:2])[0], rows[1])


def test_gibberish() -> None:
    scorer = UnseenLetters(["where does the river end", "who lives in the town"])
    clean, noise, same, empty = scorer.gibberish(["where does the river end", "xqz wvk jjx", "the town the town the town the town", "?"])
    assert clean == 0
    assert noise > 0.9
    assert same > 0.5
    assert empty == 1


def test_words_in_common_by_hand() -> None:
    assert rouge_f("a b c", "a b d d") == pytest.approx(4 / 7)
    assert rouge_f("", "") == 0
    assert repetition("a b a b a") == pytest.approx(1 - 2 / 4)
    assert repetition("once") == 0


def test_the_judge_holds_answers_against_the_originals() -> None:
    found = problem()
    judge = OriginalsJudge(Respondent(Engine(found.task), found.original), found.original.model, {question(*p): answer(*p) for p in RETAIN})
    asked = question(*RETAIN[0])
    own, wrong, silent = judge.scores([asked] * 3, [answer(*RETAIN[0]), answer(*RETAIN[5]), ""])
    assert own == pytest.approx(10, abs=1e-3)
    assert wrong is not None
    assert wrong < 1.5
    assert silent == 1
    assert judge.valid([asked, "where", "the of and", "mi mi mi mi mi mi"]) == [True, False, False, False]
