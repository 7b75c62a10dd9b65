"""The cells of the suite `holes`: the choice of settings, what each method broke by accident, and searches for it against each other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from filelock import FileLock
from torch import nn

from unlearned.audits.knowledge_holes import KnowledgeHoles
from unlearned.bench._grids import Contender, words
from unlearned.bench._islands import Islands
from unlearned.bench._lessons import FACTUAL, REFUSED
from unlearned.bench._suite import Cell, Place
from unlearned.bench._text_contest import Number, rows, shown, spent, unlearn
from unlearned.bench._text_scene import Class, Pupil, class_of
from unlearned.data.fingerprints import of_json
from unlearned.engine.engine import Engine
from unlearned.engine.files import atomic_directory, write_text
from unlearned.engine.randomness import derive_seed
from unlearned.engine.training import Training, train
from unlearned.evidence.subject import Subject
from unlearned.holes._diversity import without_duplicates
from unlearned.holes._plain import HashedWords
from unlearned.problem import Problem
from unlearned.records import BenchRow, Finding
from unlearned.tasks._questions import questions_of
from unlearned.tasks.text_generation import TextGeneration

MOST_ALIKE = 0.8
"""Cosine of the embedder from which on two holes are the same."""


@dataclass(frozen=True)
class Setting:
    """Who is taught what, and what is to be forgotten of it."""

    pupil: Pupil
    lesson: Islands
    groups: tuple[str, ...]

    def called(self, when: str) -> str:
        """The name of a row's setting."""
        return when if self.pupil.size is not None else f"{self.pupil.name}/{when}"

    def school(self, seed: int, place: Place) -> Class:
        """The model of one seed."""
        return class_of(self.pupil, self.lesson, seed, place)

    def treated(self, school: Class) -> Problem:
        """What a method is given: what is near the forget set is not among what it retains."""
        return replace(self.probed(school), retain=school.group(*self.lesson.shown()))

    def probed(self, school: Class) -> Problem:
        """What the audit is given: everything else that was taught."""
        return Problem(school.task, school.original.bundle, school.group(*self.groups), school.without(*self.groups, REFUSED, FACTUAL), school.group(FACTUAL))


def recall(school: Class, model: nn.Module, problem: Problem, split: str) -> float:
    """Mean ROUGE-1 recall of a set."""
    return fmean(shown(school, model, problem.sets[split]).recall)


@dataclass(frozen=True)
class HolesChoice(Cell):
    """What each setting of a method reaches on other towns, with the first seed, as anybody can see it who does not look for holes."""

    setting: Setting
    contender: Contender
    most_known: float

    @property
    def title(self) -> str:
        return f"{self.setting.pupil.name}: settings of {self.contender.name}"

    def run(self, place: Place) -> Sequence[BenchRow]:
        found = []
        for tried, result in zip(self.contender.grid, self._attempts(place), strict=True):
            name, when = f"{self.contender.name} ({words(tried)})", self.setting.called("for the choice")
            if result is None:
                found.append(BenchRow(method=name, setting=when, seed=0, split="test", metric="utility_for_choice", reason="diverged"))
                continue
            found += rows(name, when, 0, [Number("utility_for_choice", "test", result[0]), Number("knowledge_for_choice", "forget", result[1])])
        return found

    def chosen(self, place: Place) -> int:
        """Position of the most useful setting among those that forget; of the one that forgets most, if none does."""
        if not self.contender.undecided:
            return 0
        found = [(0.0, 1.0) if result is None else (result[0], result[1]) for result in self._attempts(place)]
        forgetting = [i for i, (_, knowledge) in enumerate(found) if knowledge <= self.most_known]
        if not forgetting:
            return min(range(len(found)), key=lambda i: found[i][1])
        return max(forgetting, key=lambda i: found[i][0])

    def _attempts(self, place: Place) -> list[list[float] | None]:
        """Utility and knowledge of the forget set under each setting; None where it diverges. Computed once and kept."""
        file = place.cache / "attempts" / f"{of_json([repr(self), str(place.data)])[:32]}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            if not file.exists():
                school = self.setting.school(0, place)
                problem = self.setting.treated(school)
                made = [unlearn(school, problem, self.contender.made(tried)) for tried in self.contender.grid]
                found = [None if isinstance(m, str) else [recall(school, m.model, problem, split) for split in ("test", "forget")] for m in made]
                write_text(file, json.dumps(found) + "\n", "--cache")
        kept: list[list[float] | None] = json.loads(file.read_text(encoding="utf-8"))
        return kept


@dataclass(frozen=True)
class Broken(Cell):
    """What a method broke, with the setting that was chosen on other towns; without a choice, what a retrained model lacks."""

    setting: Setting
    seed: int
    language: Mapping[str, Any]
    choice: HolesChoice | None = None

    @property
    def title(self) -> str:
        return f"{self.setting.pupil.name}: {self.name}, {self.seed}"

    @property
    def name(self) -> str:
        """In tables."""
        return "retrain" if self.choice is None else self.choice.contender.name

    def run(self, place: Place) -> Sequence[BenchRow]:
        # First: what is chosen is chosen on the class of seed 0, and one class is kept in memory.
        method = None if self.choice is None else self.choice.contender.made(self.choice.contender.grid[self.choice.chosen(place)])
        school = self.setting.school(self.seed, place)
        before, after = self.setting.called("before"), self.setting.called("after")
        found: list[BenchRow] = []
        if method is None:
            model = school.retrained(self.seed * 1000, *self.setting.groups).bundle.model
        else:
            made = unlearn(school, self.setting.treated(school), method)
            if isinstance(made, str):
                return [BenchRow(method=self.name, setting=after, seed=self.seed, split="probes", metric="latent_score", reason=made)]
            model = made.model
            found += rows(self.name, after, self.seed, spent(made.cost)[:1])
        problem = self.setting.probed(school)
        for when, each in ((before, problem.original.model), (after, model)):
            numbers = [Number("utility", split, recall(school, each, problem, split)) for split in ("test", "retain")]
            found += rows(self.name, when, self.seed, [*numbers, Number("knowledge", "forget", recall(school, each, problem, "forget"))])
        audit = KnowledgeHoles.model_validate({"language": self.language})
        subject = Subject(problem, problem.original.with_model(model), (), school.engine)
        named = {"original": before, "unlearned": after}
        return found + [_row(self.name, named[f.subject], self.seed, f) for f in audit.measure(subject) if f.subject in named]


@dataclass(frozen=True)
class Searches(Cell):
    """One way to search for the holes of a model that a method made, with the same seeds as all others."""

    setting: Setting
    seed: int
    choice: HolesChoice
    called: str
    language: Mapping[str, Any]
    asking: Training
    """How a model learns to ask, where a policy is trained."""

    @property
    def title(self) -> str:
        return f"{self.setting.pupil.name}: search {self.called}, {self.seed}"

    def run(self, place: Place) -> Sequence[BenchRow]:
        method = self.choice.contender.made(self.choice.contender.grid[self.choice.chosen(place)])
        school = self.setting.school(self.seed, place)
        when = self.setting.called(f"search, {self.choice.contender.name}")
        made = unlearn(school, self.setting.treated(school), method)
        if isinstance(made, str):
            return [BenchRow(method=self.called, setting=when, seed=self.seed, split="probes", metric="distinct_per_1000", reason=made)]
        problem = self.setting.probed(school)
        language = {**self.language, "cut": False, "most_alike": 1.0}
        if language["searcher"] == "ppo":
            taught = self.setting.pupil.size is not None  # a pretrained model can ask as it is
            language["policy"] = str(policy_of(school, problem, self.asking, place)) if taught else self.setting.pupil.source_in(place)
        audit = KnowledgeHoles.model_validate({"language": language})
        (latent,) = (p for p in audit.probe(Subject(problem, problem.original.with_model(made.model), (), school.engine)).probed if p.kind == "latent")
        holes = audit.holes(latent)
        different = len(without_duplicates(HashedWords().embed(holes), MOST_ALIKE)) if holes else 0
        known = {asked.question for asked in questions_of(problem.retain)}
        counted = {"distinct": len(holes), "different": different, "unseen": sum(hole not in known for hole in holes)}
        return rows(self.called, when, self.seed, [Number(f"{name}_per_1000", "probes", 1000 * n / latent.calls) for name, n in counted.items()])


def policy_of(school: Class, problem: Problem, how: Training, place: Place) -> Path:
    """The directory of a model that has learnt to continue a numbered list of questions: what a base model can do without being taught.

    It has the pupil's architecture and tokenizer, and has met the retained questions, in lists of four, in random order.
    """
    random = np.random.default_rng(derive_seed(school.engine.seed, "lists of questions"))
    asked = [each.question for each in questions_of(problem.retain)]
    lists = [[asked[i] for i in random.integers(0, len(asked), 4)] for _ in range(len(asked))]
    task = TextGeneration(template="plain", max_new_tokens=school.task.max_new_tokens).bound(school.like)
    texts = task.read({"text": ["\n".join(f"{i + 1}. {question}" for i, question in enumerate(several)) for several in lists]}, school.like, "questions")
    directory = place.cache / "policies" / of_json([texts.fingerprint, how.model_dump(mode="json"), school.engine.seed])[:32]
    directory.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(directory.with_suffix(".lock")):
        if not directory.exists():
            engine = Engine(task, school.engine.compute, school.engine.seed)
            made = train(engine, school.like, texts, how, derive_seed(school.engine.seed, "policy"), title="policy")
            with atomic_directory(directory) as fresh:
                task.save(made, fresh)
    return directory


def _row(method: str, when: str, seed: int, finding: Finding) -> BenchRow:
    return BenchRow(method=method, setting=when, seed=seed, split=finding.split, metric=finding.metric, value=finding.value, reason=finding.reason)
