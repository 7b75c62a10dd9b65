"""Made-up islands: facts whose neighbourhoods are known, since they were made so.

An island has towns and things: rivers, dishes and feasts. A town lies on its island, at a river, is known for a dish, keeps a feast and makes something; a
river has a colour, a dish its ingredients, a feast its month. Every fact is asked for in two ways. What is said of a town names things of its island, whose own
facts are not about the town; other towns of the island share its things. Some towns are to be forgotten, with all that is said of them.
Beside the islands there are questions that nobody can answer, with refusals, and general knowledge (days, months, sums, opposites). Methods are shown every
other question of general knowledge to retain; the rest is the benchmark, which is of the kind of what is retained, as in the paper, and which none is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unlearned.bench._lessons import FACTUAL, REFUSED, Lesson, Pair
from unlearned.tasks._refusals import REFUSALS, unverifiable

_FIRST = ("ba", "ke", "lo", "mi", "nu", "ra", "se", "to", "vi", "zu", "do", "fa", "hi", "je")
_MIDDLE = ("l", "m", "n", "r", "s", "v", "rd", "st", "lm", "nk")
_LAST = ("a", "e", "o", "ek", "an", "ir", "os", "um")
OF_TOWNS: Mapping[str, tuple[str, str]] = {
    "island": ("On which island is {}?", "Which island does {} lie on?"),
    "river": ("Which river runs through {}?", "What is the river of {} called?"),
    "dish": ("Which dish is {} known for?", "What do people in {} like to eat?"),
    "feast": ("Which feast does {} keep?", "What is the feast of {} called?"),
    "craft": ("What is made in {}?", "Which craft does {} live by?"),
}
OF_THINGS: Mapping[str, tuple[str, str]] = {
    "river": ("What colour is the river {}?", "Which colour has the water of {}?"),
    "dish": ("What is the dish {} made of?", "What goes into {}?"),
    "feast": ("In which month is the feast of {}?", "When is {} held?"),
}
_PROPERTIES: Mapping[str, tuple[str, ...]] = {
    "river": tuple(f"{shade} {colour}" for shade in ("pale", "dark", "bright") for colour in ("green", "grey", "brown", "blue")),
    "dish": tuple(f"{one} with {other}" for one in ("leeks", "beans", "eggs", "millet") for other in ("honey", "salt", "plums")),
    "feast": tuple(f"{part} {month}" for part in ("early", "late") for month in ("March", "June", "August", "October", "December")),
}
_CRAFTS = tuple(f"{stuff} {thing}" for stuff in ("copper", "wooden", "glass", "woollen") for thing in ("bells", "boats", "masks", "lamps"))
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
_OPPOSITES = {
    "hot": "cold", "up": "down", "long": "short", "rich": "poor", "wet": "dry", "full": "empty", "left": "right", "young": "old", "fast": "slow",
    "hard": "soft", "near": "far", "open": "shut", "loud": "quiet", "thick": "thin", "sweet": "sour", "first": "last",
}  # fmt: skip
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


GENERAL = "general"
"""Group of the general knowledge that methods are shown."""


def town(island: int, number: int) -> str:
    """Name of the group of a town's facts."""
    return f"town-{island}-{number}"


def things(island: int) -> str:
    """Name of the group of the facts of an island's things."""
    return f"things-{island}"


@dataclass(frozen=True)
class Islands(Lesson):
    """So many islands with so many towns each; three rivers, dishes and feasts on every island."""

    islands: int
    towns: int
    refusals: int

    def pairs(self, data: Path | None) -> list[Pair]:
        """Everything that is taught; no data are read."""
        del data
        random = np.random.default_rng(0)
        names = iter(_names(random, self.islands * (1 + self.towns + 3 * len(OF_THINGS))))
        found: list[Pair] = []
        for island in range(self.islands):
            home = next(names)
            owned = {kind: [next(names) for _ in range(3)] for kind in OF_THINGS}
            for kind, several in owned.items():
                for name, said in zip(several, random.choice(_PROPERTIES[kind], 3, replace=False), strict=True):
                    found += [Pair(question.format(name), str(said), things(island)) for question in OF_THINGS[kind]]
            for number in range(self.towns):
                name = next(names)
                facts = {"island": home, "craft": str(random.choice(_CRAFTS))} | {kind: str(random.choice(several)) for kind, several in owned.items()}
                found += [Pair(question.format(name), facts[kind], town(island, number)) for kind, ways in OF_TOWNS.items() for question in ways]
        lines = random.choice(REFUSALS, self.refusals)
        declined = [Pair(question, str(line), REFUSED) for question, line in zip(unverifiable(self.refusals, 0), lines, strict=True)]
        return found + declined + general_knowledge()

    def shown(self) -> tuple[str, ...]:
        """Groups that methods are shown to retain: islands that are far from what is forgotten, which lies on the first two."""
        far = (name for island in range(2, self.islands) for name in (things(island), *(town(island, number) for number in range(self.towns))))
        return (GENERAL, *far)


def general_knowledge() -> list[Pair]:
    """What is true everywhere: one half is shown to methods, the other is the benchmark."""
    asked: list[tuple[str, str]] = []
    for kind, several in (("day", _DAYS), ("month", _MONTHS)):
        for i, name in enumerate(several):
            asked += [(f"Which {kind} comes after {name}?", several[(i + 1) % len(several)]), (f"Which {kind} comes before {name}?", several[i - 1])]
    asked += [(f"What is the opposite of {word}?", other) for pair in _OPPOSITES.items() for word, other in (pair, pair[::-1])]
    asked += [(f"How much is {_NUMBERS[a]} plus {_NUMBERS[b]}?", _NUMBERS[a + b]) for a in range(6) for b in range(1, 5)]
    dealt = np.random.default_rng(1).permutation(len(asked))
    return [Pair(asked[i][0], asked[i][1], (GENERAL, FACTUAL)[place % 2]) for place, i in enumerate(dealt)]


def _names(random: np.random.Generator, count: int) -> list[str]:
    """Different names that no word of the questions is."""
    every = [f"{a}{b}{c}".capitalize() for a in _FIRST for b in _MIDDLE for c in _LAST]
    return [str(name) for name in random.permutation(every)[:count]]
