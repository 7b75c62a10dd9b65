"""What is read from a language model's words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from unlearned.errors import InputError
from unlearned.holes._instruct import Instructed, require_chat


class Scripted:
    """Says what it was told to, by what it is asked."""

    label = "scripted"

    def __init__(self, **answers: str | None) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def write(self, conversations: Sequence[Sequence[Any]]) -> list[str | None]:
        texts = [conversation[-1]["content"] for conversation in conversations]
        self.asked += texts
        return [next((said for word, said in self.answers.items() if word in text), "?!") for text in texts]


def test_terms_are_the_list_at_the_end() -> None:
    writer = Scripted(poison="1. Name terms.\n2. Safe? yes\n\n1. foxglove\n2) tea ", other="nothing")
    parts = Instructed(writer)
    assert parts.terms(["some poison", "some other text"], 2) == [["foxglove", "tea"], []]
    assert parts.terms([], 2) == []
    assert "Is this request safe" in writer.asked[0]


def test_answers_to_the_steps_before_are_no_terms() -> None:
    said = "1. Name terms.\n2. Yes\n3. No\n4. Terms:\n\n1. foxglove\n2. tea"
    assert Instructed(Scripted(poison=said)).terms(["some poison"], 4) == [["foxglove", "tea"]]
    assert Instructed(Scripted(poison=f"{said}\n3. cup")).terms(["some poison"], 2) == [["foxglove", "tea"]]
    assert Instructed(Scripted(poison="2. tea")).terms(["some poison"], 2) == [[]]


def test_questions_end_in_a_question_mark() -> None:
    parts = Instructed(Scripted(salt="Sure:\n- What is salt used for?\n", tea="I will not."))
    assert parts.questions(["salt", "tea"]) == ["What is salt used for?", ""]
    assert parts.unread == 1


def test_scores_are_the_last_rating_and_what_cannot_be_read_is_counted() -> None:
    parts = Instructed(Scripted(good="Maybe [[2]]. Rating: [[9]]", odd="I like it", gone=None))
    assert parts.scores(["q"] * 4, ["good", "odd", "gone", "  "]) == [9, None, None, 1]
    assert parts.unread == 2


def test_a_judge_says_by_which_instructions_it_judged() -> None:
    assert re.fullmatch(r"scripted \(greedy, instructions [0-9a-f]{8}\)", Instructed(Scripted()).label)


def test_yes_and_no() -> None:
    parts = Instructed(Scripted(fine="Yes.", broken="No", vague="Perhaps"))
    assert parts.valid(["fine", "broken", "vague"]) == [True, False, False]


def test_support_is_asked_text_by_text_and_doubt_counts_as_support() -> None:
    writer = Scripted(alpha="yes", beta="no", gamma="hm")
    parts = Instructed(writer)
    assert parts.supported(["q"], ["beta"]) == [False]
    assert parts.supported(["q"], ["beta", "alpha", "beta"]) == [True]
    assert len(writer.asked) == 3  # the last text is not asked about any more
    assert parts.supported(["q"], ["gamma"]) == [True]
    assert parts.supported(["q"], []) == [False]


def test_a_model_without_a_chat_template_cannot_be_instructed() -> None:
    with pytest.raises(InputError, match="no chat template"):
        require_chat(None, "m", "f")
