"""Samples of text as words: what each says, and what it asks."""

from __future__ import annotations

from typing import NamedTuple

from unlearned.data.samples import Samples


class Asked(NamedTuple):
    """A question with its answer."""

    question: str
    answer: str
    alone: bool = True
    """Whether the question can be put without what was said before it: before it there is nothing but what the system is told."""


def questions_of(samples: Samples) -> list[Asked]:
    """One for each sample: columns `prompt` and `answer`, or the last two turns of `messages`. Empty for texts without questions."""
    facts = samples.facts
    if "messages" in facts:
        return [
            Asked(str(turns[-2]["content"]), str(turns[-1]["content"]), [turn["role"] for turn in turns[:-1] if turn["role"] != "system"] == ["user"])
            for turns in samples.fact("messages")
        ]
    if "prompt" in facts and "answer" in facts:
        return [Asked(str(question), str(answer)) for question, answer in zip(samples.fact("prompt"), samples.fact("answer"), strict=True)]
    return []


def texts_of(samples: Samples) -> list[str]:
    """Everything that a sample says: question and answer, all turns of a conversation, or its text."""
    facts = samples.facts
    if "messages" in facts:
        return [" ".join(str(turn["content"]) for turn in turns) for turns in samples.fact("messages")]
    if "prompt" in facts and "answer" in facts:
        return [f"{asked.question} {asked.answer}" for asked in questions_of(samples)]
    return [str(text) for text in samples.fact("text")] if "text" in facts else []
