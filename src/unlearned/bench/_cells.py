"""The cells of image suites: originals, references, the choice of settings, and each method on each forget set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from unlearned.bench._contest import Number, attempts, best, numbers, spread
from unlearned.bench._forget_sets import ForgetSet
from unlearned.bench._grids import Contender, tried_rows
from unlearned.bench._scene import Scale, originals_of, scene_of
from unlearned.bench._suite import Cell, Place
from unlearned.records import BenchRow


@dataclass(frozen=True)
class Originals(Cell):
    """The models that everything starts from. It has no rows: it makes what the other cells would else wait for one after the other."""

    scale: Scale

    @property
    def title(self) -> str:
        return f"{self.scale.data}: originals"

    def run(self, place: Place) -> Sequence[BenchRow]:
        originals_of(self.scale, place)
        return []


@dataclass(frozen=True)
class Preparation(Cell):
    """The references of a forget set that settings are chosen on. It has no rows, as `Originals`."""

    scale: Scale
    chosen_on: ForgetSet

    @property
    def title(self) -> str:
        return f"{self.scale.data}: references for the choice of settings, {self.chosen_on.name}"

    def run(self, place: Place) -> Sequence[BenchRow]:
        scene_of(self.scale, self.chosen_on.positions(self.scale, place), place)
        return []


@dataclass(frozen=True)
class Baselines(Cell):
    """What does not unlearn: the original, and a retrained model measured against the other ones."""

    scale: Scale
    forget: ForgetSet
    seeds: int

    @property
    def title(self) -> str:
        return f"{self.scale.data}/{self.forget.name}: original and retrained"

    def run(self, place: Place) -> Sequence[BenchRow]:
        scene = scene_of(self.scale, self.forget.positions(self.scale, place), place)
        setting = f"{self.scale.data}/{self.forget.name}"
        rows: list[BenchRow] = []
        for seed in range(self.seeds):
            others = [kept for i, kept in enumerate(scene.originals) if i != seed]
            subject = scene.subject(seed, replace(scene.originals[seed], cost=None), scene.references, others)
            rows += _rows("original", setting, seed, numbers(subject, self.forget.whole_class))
        for seed in range(min(self.seeds, len(scene.references) - 1)):
            # A target, half of the others as if a method had made them, the rest as references: everything from one distribution.
            rest = [kept for i, kept in enumerate(scene.references) if i != seed]
            shadows, references = rest[::2], rest[1::2]
            subject = scene.subject(seed, scene.references[seed], references, shadows)
            rows += _rows("retrain", setting, seed, numbers(subject, self.forget.whole_class))
        return rows


@dataclass(frozen=True)
class Choice(Cell):
    """What each setting of a method reaches on the forget set that settings are chosen on."""

    scale: Scale
    chosen_on: ForgetSet
    contender: Contender

    @property
    def title(self) -> str:
        return f"{self.scale.data}: settings of {self.contender.name}, {self.chosen_on.name}"

    def run(self, place: Place) -> Sequence[BenchRow]:
        scene = scene_of(self.scale, self.chosen_on.positions(self.scale, place), place)
        setting = f"{self.scale.data}/{self.chosen_on.name} for the choice"
        errors = attempts(scene, self.contender, place)
        return tried_rows(self.contender, setting, "selection_error", errors)


@dataclass(frozen=True)
class Contest(Cell):
    """A method on a forget set, with the setting that was chosen on another one."""

    scale: Scale
    forget: ForgetSet
    choice: Choice
    seeds: int

    @property
    def title(self) -> str:
        return f"{self.scale.data}/{self.forget.name}: {self.choice.contender.name}"

    def run(self, place: Place) -> Sequence[BenchRow]:
        choice = self.choice
        other = scene_of(choice.scale, choice.chosen_on.positions(choice.scale, place), place)
        setting = choice.contender.grid[best(attempts(other, choice.contender, place))]
        scene = scene_of(self.scale, self.forget.positions(self.scale, place), place)
        method = choice.contender.made(setting, scene.weights_of_reference(0))
        found = spread(scene, method, len(scene.originals))
        rows: list[BenchRow] = []
        for seed in range(self.seeds):
            made = found[seed]
            name = f"{self.scale.data}/{self.forget.name}"
            if made is None:
                rows.append(_diverged(choice.contender.name, name, seed))
                continue
            shadows = [kept for i, kept in enumerate(found) if i != seed and kept is not None]
            rows += _rows(choice.contender.name, name, seed, numbers(scene.subject(seed, made, scene.references, shadows), self.forget.whole_class))
        return rows


@dataclass(frozen=True)
class Oracle(Cell):
    """A method with the setting that is best on the very forget set that is reported: what no user can choose. First original only, so no attack by shadows."""

    scale: Scale
    forget: ForgetSet
    contender: Contender

    @property
    def title(self) -> str:
        return f"{self.scale.data}/{self.forget.name}: {self.contender.name}, told the answer"

    def run(self, place: Place) -> Sequence[BenchRow]:
        scene = scene_of(self.scale, self.forget.positions(self.scale, place), place)
        name = f"{self.scale.data}/{self.forget.name}"
        setting = self.contender.grid[best(attempts(scene, self.contender, place))]
        made = spread(scene, self.contender.made(setting, scene.weights_of_reference(0)), 1)[0]
        if made is None:
            return [_diverged(self.contender.name, name, 0)]
        found = numbers(scene.subject(0, made, scene.references), self.forget.whole_class)
        return _rows(self.contender.name, name, 0, [n._replace(metric=f"{n.metric}_oracle") for n in found])


def _rows(method: str, setting: str, seed: int, found: Sequence[Number]) -> list[BenchRow]:
    return [BenchRow(method=method, setting=setting, seed=seed, split=n.split, metric=n.metric, value=n.value) for n in found]


def _diverged(method: str, setting: str, seed: int) -> BenchRow:
    return BenchRow(method=method, setting=setting, seed=seed, split="forget", metric="accuracy", reason="diverged")
