"""Samples as texts: what was to be forgotten, and questions that are known to be harmless."""

from __future__ import annotations

from typing import Any

from unlearned.data.samples import Samples


def texts_of(samples: Samples) -> list[str]:
    """Everything that a sample says: question and answer, all turns of a conversation, or its text."""
    facts = samples.facts
    if "messages" in facts:
        return [" ".join(str(turn["content"]) for turn in turns) for turns in samples.fact("messages")]
    if "prompt" in facts and "answer" in facts:
        return [f"{q} {a}" for q, a in zip(samples.fact("prompt"), samples.fact("answer"), strict=True)]
    return [str(text) for text in samples.fact("text")] if "text" in facts else []


def questions_of(samples: Samples) -> dict[str, str]:
    """Questions with their answers: those of `prompt` and `answer`, or the last turn of a conversation of two. Empty for plain texts."""
    facts = samples.facts
    if "messages" in facts:
        return {str(turns[-2]["content"]): str(turns[-1]["content"]) for turns in samples.fact("messages") if _is_pair(turns)}
    if "prompt" in facts and "answer" in facts:
        return {str(q): str(a) for q, a in zip(samples.fact("prompt"), samples.fact("answer"), strict=True)}
    return {}


def _is_pair(turns: Any) -> bool:
    return len(turns) >= 2 and turns[-2]["role"] == "user" and all(turn["role"] == "system" for turn in turns[:-2])
