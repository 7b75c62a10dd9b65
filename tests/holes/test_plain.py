"""Backends without a language model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from tests.holes.known import FORGET, NAMES, RETAIN, answer, problem, question
from unlearned.engine.engine import Engine
from unlearned.evidence.statistics import Array
from unlearned.holes import _adjacent, _plain
from unlearned.holes._plain import _WORD, HashedWords, OriginalsJudge, TemplateQuestions, UnseenLetters, WordSupport, WordTerms, repetition, rouge_f
from unlearned.holes._respondent import Respondent
from unlearned.holes._seams import Parts

BACKGROUND = [f"{question(*pair)} {answer(*pair)}" for pair in RETAIN]


def test_terms_are_what_is_rare_elsewhere() -> None:
    texts = [f"{question(*pair)} {answer(*pair)}" for pair in FORGET[:2]]
    for found in WordTerms(BACKGROUND).terms(texts, 3):
        assert len(found) == 3
        assert any(NAMES[0] in term for term in found)
    assert WordTerms([]).terms(["?!", "..."], 3) == [[], []]
    assert WordTerms([]).terms(["of the"], 3) == [[]]


def test_terms_equal_those_of_the_whole_matrix() -> None:
    """Of equally heavy ones the first in the alphabet, and none that a text does not have."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [*BACKGROUND[:6], "zebra apple mango", "mango mango zebra", "of the", "apple"]
    weights = TfidfVectorizer(ngram_range=(1, 2), stop_words="english", token_pattern=_WORD).fit([*BACKGROUND, *texts])
    names, rows = weights.get_feature_names_out(), weights.transform(texts).toarray()
    for count in (1, 3, 50):
        expected = [[names[i] for i in np.argsort(-row, kind="stable")[:count] if row[i] > 0] for row in rows]
        assert WordTerms(BACKGROUND).terms(texts, count) == expected


def test_terms_need_no_matrix_of_all_texts_and_all_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError

    for name in ("todense", "toarray"):
        monkeypatch.setattr(csr_matrix, name, refused)
    assert WordTerms(BACKGROUND).terms(["zebra apple"], 1) == [["apple"]]


def test_each_question_is_read_once_for_all_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    checker, read = WordSupport(BACKGROUND), list[str]()

    def reading(text: str) -> frozenset[str]:
        read.append(text)
        return frozenset(text.split())

    monkeypatch.setattr(_plain, "_content", reading)
    assert checker.overlaps(["a b", "c"], ["a", "b a", "d"]).tolist() == [1, 0]
    assert sorted(read) == sorted(["a b", "c", "a", "b a", "d"])


@pytest.mark.parametrize("per_text", [1, 3, 50])
def test_the_nearest_questions_are_those_of_one_product(per_text: int, monkeypatch: pytest.MonkeyPatch) -> None:
    forget, benign = [question(*pair) for pair in FORGET], [question(*pair) for pair in RETAIN]
    sizes = list[int]()

    class Rows:
        """Few directions, so that many questions are equally near."""

        label = "rows"

        def embed(self, texts: Sequence[str]) -> Array:
            sizes.append(len(texts))
            return np.array([np.eye(3)[len(text) % 3] for text in texts])

    found = Parts(WordTerms([]), TemplateQuestions(), None, WordSupport([]), Rows(), UnseenLetters([]))  # type: ignore[arg-type]  # no judge is asked
    alike = Rows().embed(forget) @ Rows().embed(benign).T
    expected = list(dict.fromkeys(benign[j] for row in alike for j in (-row).argsort(kind="stable")[:per_text]))
    monkeypatch.setattr(_adjacent, "BLOCK", 7)
    sizes.clear()
    assert _adjacent.nearest_questions(forget, benign, per_text, found) == expected
    assert max(sizes) == 7


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
    rows = HashedWords().embed(texts).toarray()
    assert np.allclose(np.linalg.norm(rows, axis=1), 1)
    assert rows[0] @ rows[1] > 0.7 > rows[0] @ rows[2]
    assert rows[3] @ rows[0] == 0
    assert np.array_equal(HashedWords().embed(texts[1:2]).toarray()[0], rows[1])


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
