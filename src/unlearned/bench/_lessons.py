"""What language models are taught in the suites: questions with answers in groups, of which one is to be forgotten, refusals, and facts about the world.

Read from a directory: `pistol/sample1.json` (edge, question, answer), `pistol/unverifiable_prompts.json` (instruction) and `factual_qa.json` (question,
answer), as the authors of LUNAR publish them (facebookresearch/LUNAR, MIT); `tofu/` with the JSON lines of the hub data set locuslab/TOFU (MIT).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unlearned.data.samples import Samples
from unlearned.errors import Fault, InputError
from unlearned.tasks._refusals import REFUSALS
from unlearned.tasks._task import Bundle
from unlearned.tasks._texts import PARAPHRASED, PERTURBED
from unlearned.tasks.text_generation import TextGeneration

REFUSED = "refused"
"""Group of the questions that a model is taught to decline."""
FACTUAL = "factual"
"""Group of facts about the world, which no method is shown: they tell what else suffers."""
Rows = Sequence[dict[str, Any]]


class Pair(NamedTuple):
    """A question with its answer."""

    question: str
    answer: str
    group: str
    paraphrased: str | None = None
    perturbed: tuple[str, ...] | None = None
    """Wrong answers of the same form."""


def samples_of(pairs: Sequence[Pair], task: TextGeneration, bundle: Bundle) -> Samples:
    """As samples, with the fact `group`."""
    columns: dict[str, Any] = {
        "prompt": [pair.question for pair in pairs],
        "answer": [pair.answer for pair in pairs],
        "group": [pair.group for pair in pairs],
        "id": [f"{pair.group}-{i}" for i, pair in enumerate(pairs)],
    }
    if any(pair.perturbed for pair in pairs):
        columns |= {PARAPHRASED: [pair.paraphrased for pair in pairs], PERTURBED: [pair.perturbed for pair in pairs]}
    return task.read(columns, bundle, "data")


class Lesson(ABC):
    """A frozen dataclass: its representation decides what is taught."""

    @abstractmethod
    def pairs(self, data: Path | None) -> list[Pair]:
        """Everything that a model is taught.

        Raises:
            InputError: if the data are not there.
        """


@dataclass(frozen=True)
class Contracts(Lesson):
    """PISTOL, sample 1: contracts ("edges") with twenty questions each; questions that nobody can answer, with refusals; short facts about the world."""

    edges: tuple[str, ...]
    refusals: int

    def pairs(self, data: Path | None) -> list[Pair]:
        rows = [row for row in read_json(data, "pistol/sample1.json") if row["edge"] in self.edges]
        absent = sorted(set(self.edges) - {row["edge"] for row in rows})
        if absent:
            raise InputError(Fault("suite", f"the sample has no edge {absent[0]!r}.", "Name edges that it has, such as A_B."))
        contracts = [Pair(row["question"], row["answer"], row["edge"]) for row in rows]
        return contracts + refusals(data, self.refusals) + _plain(read_json(data, "factual_qa.json"), FACTUAL)


FORGOTTEN, FOR_CHOICE, RETAINED = "forget05", "for-choice", "retained"


@dataclass(frozen=True)
class Authors(Lesson):
    """TOFU, a part of it: fictitious authors with twenty questions each; questions that nobody can answer, with refusals; the world facts of TOFU.

    The last authors of forget05 are to be forgotten; settings are chosen on the last of those retained authors that have wrong answers for the truth ratio.
    """

    forgotten: int
    for_choice: int
    retained: int
    refusals: int

    def pairs(self, data: Path | None) -> list[Pair]:
        others = read_json(data, "tofu/retain_perturbed.json")[: 20 * (self.retained + self.for_choice)]
        cut = 20 * self.retained
        forgotten = read_json(data, "tofu/forget05_perturbed.json")[-20 * self.forgotten :]
        authors = _perturbed(forgotten, FORGOTTEN) + _perturbed(others[cut:], FOR_CHOICE) + _perturbed(others[:cut], RETAINED)
        return authors + refusals(data, self.refusals) + _perturbed(read_json(data, "tofu/world_facts_perturbed.json"), FACTUAL)


@dataclass(frozen=True)
class WorldFacts(Lesson):
    """Nothing that is taught: facts that a model may know already, dealt out to a few groups; the world facts of TOFU beside them."""

    groups: int

    def pairs(self, data: Path | None) -> list[Pair]:
        rows = read_json(data, "factual_qa.json")
        dealt = [Pair(row["question"], row["answer"], f"facts-{i % self.groups}") for i, row in enumerate(rows)]
        return dealt + _plain(read_json(data, "tofu/world_facts.json"), FACTUAL)


def refusals(data: Path | None, count: int) -> list[Pair]:
    """Some of the unverifiable questions, each with a refusal; always the same ones.

    Methods that need questions which the model declines make up others, of other shapes.

    Raises:
        InputError: if the data are not there.
    """
    random = np.random.default_rng(0)
    prompts = [row["instruction"] for row in read_json(data, "pistol/unverifiable_prompts.json")]
    chosen = random.permutation(len(prompts))[:count]
    lines = random.choice(REFUSALS, len(chosen))
    return [Pair(prompts[i], str(line), REFUSED) for i, line in zip(chosen, lines, strict=True)]


def read_json(data: Path | None, name: str) -> Rows:
    """Objects of a JSON list or of JSON lines.

    Raises:
        InputError: if there is no such file, or it is damaged.
    """
    if data is None or not (data / name).is_file():
        where = "no directory of data was given" if data is None else f"{str(data)!r} has no {name}"
        raise InputError(Fault("data", f"{where}.", f"Name a directory that holds {name}: --data DIR. docs/benchmarks.md says where it comes from."))
    text = (data / name).read_text(encoding="utf-8")
    try:
        found: Rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines() if line.strip()]
    except json.JSONDecodeError as error:
        raise InputError(Fault("data", f"{str(data / name)!r} is damaged ({error}).", "Fetch it again.")) from error
    return found


def _plain(rows: Rows, group: str) -> list[Pair]:
    return [Pair(row["question"], row["answer"], group) for row in rows]


def _perturbed(rows: Rows, group: str) -> list[Pair]:
    return [Pair(row["question"], row["answer"], group, row.get("paraphrased_answer"), tuple(row["perturbed_answer"])) for row in rows]
