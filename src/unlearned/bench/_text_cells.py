"""The cells of language-model suites: the taught models, the choice of settings, each method on each group, and requests in turn."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from torch import nn

from unlearned.bench._grids import Contender, tried_rows
from unlearned.bench._lessons import Authors, Lesson
from unlearned.bench._suite import Cell, Place
from unlearned.bench._text_contest import Number, attempts, best, changed, numbers, rows, score, shown, spent, tofu_numbers, unlearn
from unlearned.bench._text_scene import Class, Pupil, class_of
from unlearned.engine.bank import Kept
from unlearned.methods.lunar import Lunar, forget_in_turn
from unlearned.methods.margin_redirect import MarginRedirect, redirect_in_turn
from unlearned.problem import Problem
from unlearned.records import BenchRow


@dataclass(frozen=True)
class Taught(Cell):
    """The original of one seed. No rows: it makes what the other cells would else wait for."""

    pupil: Pupil
    lesson: Lesson
    seed: int

    @property
    def title(self) -> str:
        return f"{self.pupil.name}: original {self.seed}"

    def run(self, place: Place) -> Sequence[BenchRow]:
        class_of(self.pupil, self.lesson, self.seed, place)
        return []


@dataclass(frozen=True)
class TextBaselines(Cell):
    """What does not unlearn: the original, and perhaps models that were never taught the group."""

    pupil: Pupil
    lesson: Lesson
    seed: int
    group: str
    retrained: int
    """How many: the first is measured, all are references."""

    @property
    def title(self) -> str:
        return f"{self.pupil.name}/{self.group}: original and retrained, {self.seed}"

    def run(self, place: Place) -> Sequence[BenchRow]:
        school = class_of(self.pupil, self.lesson, self.seed, place)
        problem = school.problem(self.group)
        setting = f"{self.pupil.name}/{self.group}"
        references = references_of(school, self.seed, self.group, self.retrained)
        found = rows("original", setting, self.seed, _numbers(self.lesson, school, problem.original.model, problem, references, place))
        for kept in references[:1]:
            cost = [] if kept.cost is None else spent(kept.cost)
            found += rows("retrain", setting, self.seed, [*_numbers(self.lesson, school, kept.bundle.model, problem, references[1:], place), *cost])
        return found


@dataclass(frozen=True)
class TextChoice(Cell):
    """What each setting of a method reaches on the groups that settings are chosen on, with the first seed."""

    pupil: Pupil
    lesson: Lesson
    groups: tuple[str, ...]
    contender: Contender

    @property
    def title(self) -> str:
        return f"{self.pupil.name}: settings of {self.contender.name}"

    def run(self, place: Place) -> Sequence[BenchRow]:
        found = attempts(self.pupil, self.lesson, self.groups, self.contender, place)
        setting = f"{self.pupil.name}/{'+'.join(self.groups)} for the choice"
        return tried_rows(self.contender, setting, "deviation_score_for_choice", found)

    def chosen(self, place: Place) -> int:
        """Position of the best setting."""
        if not self.contender.undecided:
            return 0
        return best(attempts(self.pupil, self.lesson, self.groups, self.contender, place))


@dataclass(frozen=True)
class TextContest(Cell):
    """A method on a group, with the setting that was chosen on other groups."""

    choice: TextChoice
    seed: int
    group: str
    retrained: int
    """References that what needs them is compared with."""

    @property
    def title(self) -> str:
        return f"{self.choice.pupil.name}/{self.group}: {self.choice.contender.name}, {self.seed}"

    def run(self, place: Place) -> Sequence[BenchRow]:
        contender, pupil, lesson = self.choice.contender, self.choice.pupil, self.choice.lesson
        method = contender.made(contender.grid[self.choice.chosen(place)])
        school = class_of(pupil, lesson, self.seed, place)
        problem = school.problem(self.group)
        setting = f"{pupil.name}/{self.group}"
        made = unlearn(school, problem, method)
        if isinstance(made, str):
            return [BenchRow(method=contender.name, setting=setting, seed=self.seed, split="all", metric="deviation_score", reason=made)]
        references = references_of(school, self.seed, self.group, self.retrained) if isinstance(lesson, Authors) else []
        found = [*_numbers(lesson, school, made.model, problem, references, place), changed(made.model, problem.original.model), *spent(made.cost)]
        return rows(contender.name, setting, self.seed, found)


@dataclass(frozen=True)
class InTurn(Cell):
    """Several requests, one after the other, and each of them alone; in all cases none of their groups is retained."""

    choice: TextChoice
    seed: int
    groups: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"{self.choice.pupil.name}: {len(self.groups)} requests in turn, {self.seed}"

    def run(self, place: Place) -> Sequence[BenchRow]:
        contender, pupil = self.choice.contender, self.choice.pupil
        method = contender.made(contender.grid[self.choice.chosen(place)])
        school = class_of(pupil, self.choice.lesson, self.seed, place)
        together = school.problem(*self.groups)
        requests = [school.group(group) for group in self.groups]
        model = copy.deepcopy(together.original.model)
        if isinstance(method, MarginRedirect):
            several = redirect_in_turn(together, requests, method, school.engine)
        else:
            assert isinstance(method, Lunar)
            several = forget_in_turn(together, requests, method, school.engine)
        for edit in itertools.chain.from_iterable(several):
            edit.apply(model)
        setting = f"{pupil.name}/in turn"
        before, after = (fmean(shown(school, each, together.retain).recall) for each in (together.original.model, model))
        found = rows("original", setting, self.seed, [Number("rouge1_retain", "retain", before)])
        found += rows(contender.name, setting, self.seed, [Number("rouge1_retain", "retain", after)])
        for number, request in enumerate(requests, 1):
            problem = replace(together, forget=request)
            alone = score(school, method.unlearn(problem, school.engine), problem)
            values = [Number("deviation_score_alone", f"request {number}", alone)]
            values.append(Number("deviation_score_in_turn", f"request {number}", score(school, model, problem)))
            found += rows(contender.name, setting, self.seed, values)
        return found


def references_of(school: Class, seed: int, group: str, count: int) -> list[Kept]:
    """Models that were never taught a group, each with a seed of its own."""
    return [school.retrained(seed * 1000 + i, group) for i in range(count)]


def _numbers(lesson: Lesson, school: Class, model: nn.Module, problem: Problem, references: Sequence[Kept], place: Place) -> list[Number]:
    found = numbers(school, model, problem)
    return [*found, *tofu_numbers(school, model, problem, references, place)] if isinstance(lesson, Authors) else found
