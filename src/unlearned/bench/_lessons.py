"""What language models are taught in the suites: questions with answers in groups, of which one is to be forgotten, and refusals.

Read from a directory: `pistol/sample1.json` (edge, question, answer), `pistol/unverifiable_prompts.json` (instruction) and `factual_qa.json` (question,
answer, edge), as the authors of LUNAR publish them (facebookresearch/LUNAR, MIT); `tofu/` with the JSON lines of locuslab/TOFU (MIT).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unlearned.data.samples import Samples
from unlearned.errors import Fault, InputError
from unlearned.tasks._refusals import REFUSALS
from unlearned.tasks._task import Bundle
from unlearned.tasks.text_generation import TextGeneration

REFUSED = "refused"
"""Group of the questions that a model is taught to decline."""
FACTUAL = "factual"
"""Group of facts about the world, which no method is shown: they tell what else suffers."""


class Pairs(NamedTuple):
    """Questions with answers."""

    questions: list[str]
    answers: list[str]
    groups: list[str]

    def read(self, task: TextGeneration, bundle: Bundle) -> Samples:
        """As samples, with the fact `group`."""
        columns = {"prompt": self.questions, "answer": self.answers, "group": self.groups}
        ids = [f"{group}-{i}" for i, group in enumerate(self.groups)]
        return task.read({**columns, "id": ids}, bundle, "data")

    def __add__(self, other: object) -> Pairs:
        """One after the other."""
        assert isinstance(other, Pairs)
        return Pairs(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Lesson(ABC):
    """A frozen dataclass: its representation decides what is taught."""

    @abstractmethod
    def pairs(self, data: Path | None) -> Pairs:
        """Everything that a model is taught.

        Raises:
            InputError: if the data are not there.
        """


@dataclass(frozen=True)
class Contracts(Lesson):
    """PISTOL, sample 1: contracts ("edges") with twenty questions each; with them questions that nobody can answer, and refusals as their answers."""

    edges: tuple[str, ...]
    refusals: int

    def pairs(self, data: Path | None) -> Pairs:
        rows = [row for row in read_json(data, "pistol/sample1.json") if row["edge"] in self.edges]
        absent = sorted(set(self.edges) - {row["edge"] for row in rows})
        if absent:
            raise InputError(Fault("suite", f"the sample has no edge {absent[0]!r}.", "Name edges that it has, such as A_B."))
        contracts = Pairs([row["question"] for row in rows], [row["answer"] for row in rows], [row["edge"] for row in rows])
        return contracts + refusals(data, self.refusals)


def refusals(data: Path | None, count: int) -> Pairs:
    """Some of the unverifiable questions, each with a refusal; always the same ones.

    Methods that need questions which the model declines make up others, of other shapes.

    Raises:
        InputError: if the data are not there.
    """
    random = np.random.default_rng(0)
    prompts = [row["instruction"] for row in read_json(data, "pistol/unverifiable_prompts.json")]
    chosen = random.permutation(len(prompts))[:count]
    return Pairs([prompts[i] for i in chosen], [str(line) for line in random.choice(REFUSALS, len(chosen))], [REFUSED] * len(chosen))


def facts(data: Path | None) -> Pairs:
    """Short questions about the world.

    Raises:
        InputError: if the data are not there.
    """
    rows = read_json(data, "factual_qa.json")
    return Pairs([row["question"] for row in rows], [row["answer"] for row in rows], [FACTUAL] * len(rows))


def read_json(data: Path | None, name: str) -> list[dict[str, Any]]:
    """Objects of a JSON list or of JSON lines.

    Raises:
        InputError: if there is no such file, or it is damaged.
    """
    if data is None or not (data / name).is_file():
        where = "no directory was given" if data is None else f"{str(data)!r} has no {name}"
        raise InputError(Fault("data", f"{where}.", f"Name a directory that holds {name} with --data; docs/benchmarks.md says where it comes from."))
    text = (data / name).read_text(encoding="utf-8")
    try:
        found: list[dict[str, Any]] = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines() if line.strip()]
    except json.JSONDecodeError as error:
        raise InputError(Fault("data", f"{str(data / name)!r} is damaged ({error}).", "Fetch it again.")) from error
    return found
