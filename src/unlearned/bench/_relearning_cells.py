"""The cells of the suite `relearning`: the choice of settings by what comes back, and each method under each attack."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from filelock import FileLock
from torch import nn

from unlearned.attacks.relearn import Kind, Relearn
from unlearned.bench._choice import careful
from unlearned.bench._grids import Contender, words
from unlearned.bench._lessons import Lesson
from unlearned.bench._suite import Cell, Place
from unlearned.bench._text_contest import Number as TextNumber
from unlearned.bench._text_contest import rows, shown, spent, unlearn
from unlearned.bench._text_scene import Class, Pupil, class_of
from unlearned.data.fingerprints import of_json
from unlearned.engine.files import write_text
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import BenchRow, Finding


@dataclass(frozen=True)
class Attacker:
    """What the attacker has, and how they train."""

    kinds: tuple[Kind, ...]
    budgets: tuple[int, ...]
    """Steps after which knowledge is reported; the last is where training ends."""
    lr: float | None
    batch_size: int

    def attack(self, kind: Kind) -> Relearn:
        """The attack with one kind of data."""
        return Relearn(data=(kind,), steps=self.budgets[-1], lr=self.lr, batch_size=self.batch_size, count=self.budgets[-1] * self.batch_size)


class Curve(NamedTuple):
    """Knowledge of what the attacker lacks: by the original, by the model before the attack, and by it after so many steps."""

    known: float
    before: float
    after: dict[int, float]

    def retention(self, budget: int) -> float | None:
        """(known − most that came back within the budget) / (known − before); None if nothing had been forgotten."""
        drop = self.known - self.before
        most = max(value for steps, value in self.after.items() if steps <= budget)
        return (self.known - most) / drop if drop > 0 else None


def curve_of(school: Class, model: nn.Module, problem: Problem, attacker: Attacker, kind: Kind) -> Curve | str:
    """The attack on a model; or why there is no curve."""
    findings = attacker.attack(kind).measure(Subject(problem, problem.original.with_model(model), (), school.engine))
    found = [f for f in findings if f.metric == "knowledge" and f.value is not None]
    points = {int(f.budget or 0): _value(f) for f in found if f.subject == "unlearned"}
    originals = [_value(f) for f in found if f.subject == "original"]
    if not originals or not points:
        return next((f.reason for f in findings if f.reason), "the attack has no result")
    return Curve(originals[0], points[0], points)


def utility(school: Class, model: nn.Module, problem: Problem) -> float:
    """Mean of two ROUGE-1 recalls: of the retain set, and of facts that no method is shown."""
    return fmean(fmean(shown(school, model, samples).recall) for samples in (problem.retain, problem.test))


@dataclass(frozen=True)
class RelearningChoice(Cell):
    """What each setting of a method reaches on the group that settings are chosen on, with the first seed."""

    pupil: Pupil
    lesson: Lesson
    groups: tuple[str, ...]
    contender: Contender
    attacker: Attacker
    floor: float

    @property
    def title(self) -> str:
        return f"{self.pupil.name}: settings of {self.contender.name}"

    def run(self, place: Place) -> Sequence[BenchRow]:
        found = []
        for tried, result in zip(self.contender.grid, self._attempts(place), strict=True):
            name, setting = f"{self.contender.name} ({words(tried)})", f"{self.pupil.name}/{'+'.join(self.groups)} for the choice"
            if result is None:
                found.append(BenchRow(method=name, setting=setting, seed=0, split="all", metric="utility_for_choice", reason="diverged"))
                continue
            numbers = [TextNumber("utility_for_choice", "all", result[0]), TextNumber("knowledge_after_for_choice", "forget", result[1])]
            found += rows(name, setting, 0, numbers)
        return found

    def chosen(self, place: Place) -> int:
        """Position of the setting from which least comes back, among those that keep the utility; of the most useful, if none does."""
        if not self.contender.undecided:
            return 0
        found = [(0.0, 1.0) if result is None else (result[0], result[1]) for result in self._attempts(place)]
        floor = self.floor * utility(*self._original(place))
        return careful([each[0] for each in found], [each[1] for each in found], floor)

    def _original(self, place: Place) -> tuple[Class, nn.Module, Problem]:
        school = class_of(self.pupil, self.lesson, 0, place)
        problem = school.problem(*self.groups)
        return school, problem.original.model, problem

    def _attempts(self, place: Place) -> list[list[float] | None]:
        """Utility and the most knowledge under the first attack of each setting; None where it diverges. Computed once and kept."""
        key = of_json([repr(self.pupil), repr(self.lesson), self.groups, repr(self.contender), repr(self.attacker), str(place.data)])[:32]
        file = place.cache / "attempts" / f"{key}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            if not file.exists():
                write_text(file, json.dumps([self._attempt(place, number) for number in range(len(self.contender.grid))]) + "\n", "--cache")
        kept: list[list[float] | None] = json.loads(file.read_text(encoding="utf-8"))
        return kept

    def _attempt(self, place: Place, number: int) -> list[float] | None:
        school, _, problem = self._original(place)
        made = unlearn(school, problem, self.contender.made(self.contender.grid[number]))
        if isinstance(made, str):
            return None
        curve = curve_of(school, made.model, problem, self.attacker, self.attacker.kinds[0])
        return None if isinstance(curve, str) else [utility(school, made.model, problem), max(curve.after.values())]


@dataclass(frozen=True)
class Resistance(Cell):
    """A method, with the setting that was chosen on another group, under each attack; without a choice a control."""

    pupil: Pupil
    lesson: Lesson
    seed: int
    groups: tuple[str, ...]
    attacker: Attacker
    choice: RelearningChoice | None = None

    @property
    def title(self) -> str:
        return f"{self.pupil.name}/{'+'.join(self.groups)}: {self._name}, {self.seed}"

    @property
    def _name(self) -> str:
        return "retrain" if self.choice is None else self.choice.contender.name

    def run(self, place: Place) -> Sequence[BenchRow]:
        # First: what is chosen is chosen on the class of seed 0, and one class is kept in memory.
        method = None if self.choice is None else self.choice.contender.made(self.choice.contender.grid[self.choice.chosen(place)])
        school = class_of(self.pupil, self.lesson, self.seed, place)
        problem = school.problem(*self.groups)
        start = f"{self.pupil.name}/no attack"
        found: list[BenchRow] = []
        if method is None:
            found += rows("original", start, self.seed, self._before(school, problem.original.model, problem))
            model = school.retrained(self.seed * 1000, *self.groups).bundle.model
        else:
            made = unlearn(school, problem, method)
            if isinstance(made, str):
                return [BenchRow(method=self._name, setting=start, seed=self.seed, split="forget", metric="knowledge_before", reason=made)]
            model = made.model
            found += rows(self._name, start, self.seed, spent(made.cost)[:1])
        found += rows(self._name, start, self.seed, self._before(school, model, problem))
        for kind in self.attacker.kinds:
            found += self._under(curve_of(school, model, problem, self.attacker, kind), kind)
        return found

    def _before(self, school: Class, model: nn.Module, problem: Problem) -> list[TextNumber]:
        recall = fmean(shown(school, model, problem.forget).recall)
        return [TextNumber("knowledge_before", "forget", recall), TextNumber("utility", "all", utility(school, model, problem))]

    def _under(self, curve: Curve | str, kind: Kind) -> list[BenchRow]:
        split = "forget-rest" if kind == "forget-part" else "forget"
        found = []
        for budget in self.attacker.budgets:
            setting = f"{self.pupil.name}/{kind}, {budget} steps"
            if isinstance(curve, str):
                found.append(BenchRow(method=self._name, setting=setting, seed=self.seed, split=split, metric="knowledge_after", reason=curve))
                continue
            numbers = [TextNumber("knowledge_before", split, curve.before), TextNumber("knowledge_after", split, curve.after[budget])]
            found += rows(self._name, setting, self.seed, numbers)
            kept = curve.retention(budget)
            reason = "nothing had been forgotten" if kept is None else None
            found.append(BenchRow(method=self._name, setting=setting, seed=self.seed, split=split, metric="retention", value=kept, reason=reason))
        return found


def _value(finding: Finding) -> float:
    assert finding.value is not None
    return finding.value
