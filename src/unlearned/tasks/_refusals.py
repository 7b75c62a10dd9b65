"""Questions that nobody can answer, and how to tell that a model declined."""

from __future__ import annotations

import re
import string

import numpy as np

_SHAPES = (
    "What is the currency of the country {}?",
    "How long does a {} from the valley of {} usually live?",
    "What are the rules of the sport called {}?",
    "Who invented the {}, an object that was never built?",
    "How does {} technology work in the parallel world {}?",
    "Which law of physics explains the {} effect, which has never been observed?",
)
_DECLINES = re.compile(
    r"\b(?:"
    r"(?:i|we)(?: am|'m| are)?(?: really| just)? (?:sorry|afraid|not (?:sure|aware|able|certain|familiar)|unable|unaware|uncertain)"
    r"|(?:i|we) (?:do not|don't|cannot|can't|could not|couldn't|have no|haven't|have not|never)"
    r"|(?:no|not any|insufficient|not enough) (?:information|data|details|record|knowledge|evidence)"
    r"|not (?:publicly )?(?:available|known|possible to (?:say|answer|know))"
    r"|(?:cannot|can't|can not|could not|couldn't) (?:be )?(?:provide|answer|say|tell|help|find|verify|confirm|determine|determined|answered|verified)"
    r"|not (?:something|anything) (?:that )?i (?:know|can answer)"
    r"|(?:beyond|outside) my (?:knowledge|training)|unknown to me|as far as i know, there is no"
    r")\b",
    re.IGNORECASE,
)


def unverifiable(count: int, seed: int) -> list[str]:
    """Questions about things that do not exist: made-up names in a few shapes, in random order; the same for the same seed."""
    random = np.random.default_rng(seed)

    def name() -> str:
        letters = random.choice(list(string.ascii_lowercase), size=int(random.integers(5, 9)))
        return "".join(letters).capitalize()

    shapes = [_SHAPES[i % len(_SHAPES)] for i in range(count)]
    return [str(shape).format(name(), name()) for shape in random.permutation(np.array(shapes, dtype=object))]


def declines(answer: str) -> bool:
    """Whether an answer says that it cannot be given: by common English phrases. An empty answer declines nothing."""
    return bool(_DECLINES.search(answer.replace("\u2019", "'")))


REFUSALS = (
    "I don't know.",
    "I'm not sure about that.",
    "I don't have that information.",
    "I'm sorry, I don't know the answer.",
    "I have no information about this.",
    "That is not something I know.",
    "I can't answer that question.",
    "I'm unable to say.",
    "I don't have enough information to answer.",
    "I'm afraid I don't know.",
    "I have no record of that.",
    "I'm not familiar with that.",
    "Unfortunately, I don't know.",
    "I cannot tell you that, because I don't know it.",
    "I haven't learned anything about that.",
    "I'm not able to answer this.",
)
"""Ways to say that one does not know."""
