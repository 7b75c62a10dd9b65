"""The cells of language-model suites: the taught models, the choice of settings, each method on each group, and requests in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from unlearned.bench._grids import Contender, words
from unlearned.bench._lessons import Lesson
from unlearned.bench._suite import Cell, Place
from unlearned.bench._text_contest import Made, Number, attempts, best, changed, numbers, rows, score, shown, spent, unlearn
from unlearned.bench._text_scene import Pupil, class_of
from unlearned.methods.lunar import Lunar, forget_in_turn
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
    """What does not unlearn: the original, and perhaps a model that was never taught the group."""

    pupil: Pupil
    lesson: Lesson
    seed: int
    group: str
    retrain: bool

    @property
    def title(self) -> str:
        return f"{self.pupil.name}/{self.group}: original and retrained, {self.seed}"

    def run(self, place: Place) -> Sequence[BenchRow]:
        school = class_of(self.pupil, self.lesson, self.seed, place)
        problem = school.problem(self.group)
        setting = f"{self.pupil.name}/{self.group}"
        found = rows("original", setting, self.seed, numbers(school, problem.original.model, problem))
        if self.retrain:
            kept = school.retrained(self.seed, self.group)
            cost = [] if kept.cost is None else spent(kept.cost)
            found += rows("retrain", setting, self.seed, [*numbers(school, kept.bundle.model, problem), *cost])
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
        return [
            BenchRow(
                method=f"{self.contender.name} ({words(tried)})",
                setting=setting,
                seed=0,
                split="all",
                metric="deviation_score_for_choice",
                value=value,
                reason="diverged" if value is None else None,
            )
            for tried, value in zip(self.contender.grid, found, strict=True)
        ]

    def chosen(self, place: Place) -> int:
        """Position of the best setting."""
        return best(attempts(self.pupil, self.lesson, self.groups, self.contender, place))


@dataclass(frozen=True)
class TextContest(Cell):
    """A method on a group, with the setting that was chosen on other groups."""

    choice: TextChoice
    seed: int
    group: str

    @property
    def title(self) -> str:
        return f"{self.choice.pupil.name}/{self.group}: {self.choice.contender.name}, {self.seed}"

    def run(self, place: Place) -> Sequence[BenchRow]:
        contender, pupil = self.choice.contender, self.choice.pupil
        method = contender.made(contender.grid[self.choice.chosen(place)])
        school = class_of(pupil, self.choice.lesson, self.seed, place)
        problem = school.problem(self.group)
        setting = f"{pupil.name}/{self.group}"
        made = unlearn(school, problem, method)
        if isinstance(made, str):
            return [BenchRow(method=contender.name, setting=setting, seed=self.seed, split="all", metric="deviation_score", reason=made)]
        found = [*numbers(school, made.model, problem), changed(made.model, problem.original.model), *spent(made.cost)]
        return rows(contender.name, setting, self.seed, found)


__all__ = ["Made", "Number", "TextBaselines", "TextChoice", "TextContest", "Taught", "Lunar", "forget_in_turn", "replace", "score", "shown"]
