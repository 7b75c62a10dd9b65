"""Influence: points of low influence are left out of unlearning. How many, until it shows, and how much time does that save?

Paper: Kleiman et al. 2025, arXiv 2512.05254, say that up to about half of the time can be saved. Their data, models, methods and tables are not known to us: no
number of theirs stands beside ours.
Experiment: a random tenth of Fashion-MNIST is to be forgotten. A score ranks all training points; the lowest p percent of the forget set and of the retain set
are dropped; a method unlearns what is left. What it made is measured on the *full* sets, and on the dropped forget points by themselves.
Rows: setting SCORE/METHOD/p. `accuracy`; `membership_auc`, forget set against test set; `skipped_membership_auc`, the dropped forget points against the test
set, and `..._unpruned`, the same points after unlearning everything; `tv`, total variation to retrained models on the forget set; `seconds`, processor time of
scoring and unlearning together; setting SCORE/METHOD, `scoring_seconds`, that of scoring by itself. Controls: `random` drops as many points at random;
`fewer-steps` drops none and stops after as large a share of the steps (of texts: after as many steps as random points leave). At p = 0 nothing is scored.
`original` and `retrain` (a retrained model against the others) stand beside. SCORE, forget only and SCORE, retain only: one of the two sets is thinned and the
other kept whole; with p = 0 and with both sets thinned these are the four cells of a design.
`largest_p_within_interval`: the largest p up to which, at every p, the mean over seeds of test accuracy, membership, membership of the skipped points and tv
stays within the 95 % interval over seeds that they have without pruning. `time_saved_within_interval`: the share of the median time that this saves, with
scoring; `..._amortised`: scoring not counted, as if scores were there. A control may do as well: then the score is not what saves the time.
`fewer-steps` skips no points, so that it is judged by three of the four.
Settings of methods are chosen as in `sample-unlearning`, on another random tenth.
What differs from work at full size: as in `class-unlearning`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from unlearned.audits._membership import auc
from unlearned.bench import suites
from unlearned.bench._cells import Originals
from unlearned.bench._contest import accuracies, attempts, best, distance, membership
from unlearned.bench._fewer_steps import FEWER, can_stop, shortened
from unlearned.bench._forget_sets import RandomShare
from unlearned.bench._grids import CONTENDERS, Contender
from unlearned.bench._images import require_images
from unlearned.bench._influence_texts import PrunedTexts, taking_part
from unlearned.bench._lessons import Contracts
from unlearned.bench._scene import Scale, Scene, scene_of
from unlearned.bench._suite import Cell, Place, Suite
from unlearned.bench._text_cells import TextChoice
from unlearned.bench._text_grids import CONTENDERS as TEXT_CONTENDERS
from unlearned.bench._text_scene import SMOLLM2, ModelName, Pupil, fine_tuned
from unlearned.bench.pistol import SIZE, SMALL_TRAINING
from unlearned.engine.bank import Kept
from unlearned.engine.engine import Engine
from unlearned.evidence.statistics import t_interval
from unlearned.influence import scores
from unlearned.influence._prune import SPLITS, Chosen, at_share, thinned
from unlearned.influence._rank import Ranking, rank
from unlearned.methods._bank import Unlearned
from unlearned.methods._method import Method, ObjectiveMethod
from unlearned.records import BenchRow

SCORES: Mapping[str, Mapping[str, Any]] = {
    "gradient-norm": {},
    "hessian": {},
    "less": {"checkpoints": 3, "dimensions": 512},
    "el2n": {},
    "random": {},
}
"""Scores that take part, with their settings."""
_REFUSALS = 30
_ALONE: tuple[Literal["forget", "retain"], ...] = ("forget", "retain")
_JUDGED = (("accuracy", "test"), ("membership_auc", "forget"), ("tv", "forget"))


class Saved(NamedTuple):
    """How far a score carries a method."""

    percent: int
    time: float
    amortised: float


@dataclass(frozen=True)
class Pruned(Cell):
    """A method after a score, at every p, from one original."""

    scale: Scale
    choice: Scale
    percent: int
    score: str
    method: str
    shares: tuple[int, ...]
    alone: tuple[int, ...]
    """p at which each set is thinned alone, too."""
    seed: int

    @property
    def title(self) -> str:
        return f"{self.score}/{self.method}, seed {self.seed}"

    def run(self, place: Place) -> Sequence[BenchRow]:
        method = chosen(self.choice, self.percent, self.method, place)
        scene = scene_of(self.scale, RandomShare(self.percent, 0).positions(self.scale, place), place)
        whole = scene.unlearn(method, self.seed)
        rows = self._rows(f"{self._name}/0", scene, whole, 0.0)
        if self.score == FEWER:
            assert isinstance(method, ObjectiveMethod)
            for p in self.shares:
                rows += self._rows(f"{self._name}/{p}", scene, scene.unlearn(shortened(method, 1 - p / 100), self.seed), 0.0) if p else []
            return rows
        ranking = ranking_of(self.scale, self.percent, self.score, self.seed, place)
        for p in self.shares:
            rows += self._at(f"{self._name}/{p}", scene, method, whole, ranking, at_share(ranking, SPLITS["both"], p / 100)) if p else []
        for p in self.alone:
            for of in _ALONE:
                setting = f"{self.score}, {of} only/{self.method}/{p}"
                rows += self._at(setting, scene, method, whole, ranking, at_share(ranking, SPLITS[of], p / 100))
        return [*rows, self._row(self._name, "all", "scoring_seconds", ranking.cost.cpu_seconds)]

    @property
    def _name(self) -> str:
        return f"{self.score}/{self.method}"

    def _at(self, setting: str, scene: Scene, method: Method, whole: Kept, ranking: Ranking, chosen: Chosen) -> list[BenchRow]:
        left = thinned(scene.problems[self.seed], chosen.dropped)
        assert left is not None
        made = scene.bank.get([Unlearned(scene.originals[0].bundle, self.seed, left, method)], method.name)[0]
        rows = self._rows(setting, scene, made, ranking.cost.cpu_seconds)
        skipped = chosen.dropped.get("forget")
        for metric, model in (("skipped_membership_auc", made), ("skipped_membership_auc_unpruned", whole)) if skipped else ():
            rows.append(self._row(setting, "forget-skipped", metric, skipped_membership(scene, self.seed, model, skipped or ())))
        return rows

    def _rows(self, setting: str, scene: Scene, made: Kept, scoring: float) -> list[BenchRow]:
        assert made.cost is not None
        found = [*measured(scene, self.seed, made, scene.references), ("all", "seconds", scoring + made.cost.cpu_seconds)]
        return [self._row(setting, split, metric, value) for split, metric, value in found]

    def _row(self, setting: str, split: str, metric: str, value: float) -> BenchRow:
        return BenchRow(method=self.method, setting=setting, seed=self.seed, split=split, metric=metric, value=value)


@dataclass(frozen=True)
class Beside(Cell):
    """What the numbers are to be read beside: the original, and a retrained model against the others."""

    scale: Scale
    percent: int
    seed: int

    @property
    def title(self) -> str:
        return f"original and retrained, seed {self.seed}"

    def run(self, place: Place) -> Sequence[BenchRow]:
        scene = scene_of(self.scale, RandomShare(self.percent, 0).positions(self.scale, place), place)
        references = scene.references
        pairs = [("original", scene.originals[self.seed], references)]
        if self.seed < len(references) > 1:
            pairs.append(("retrain", references[self.seed], [kept for i, kept in enumerate(references) if i != self.seed]))
        rows = []
        for name, kept, others in pairs:
            for split, metric, value in measured(scene, self.seed, kept, others):
                rows.append(BenchRow(method=name, setting=name, seed=self.seed, split=split, metric=metric, value=value))
        return rows


def measured(scene: Scene, seed: int, made: Kept, references: Sequence[Kept]) -> list[tuple[str, str, float]]:
    """Split, metric and value of what is measured on the full sets."""
    subject = scene.subject(seed, made, references)
    found = [(number.split, number.metric, number.value) for number in accuracies(subject)]
    return [*found, ("forget", "membership_auc", membership(subject).value), ("forget", "tv", distance(subject).value)]


def chosen(scale: Scale, percent: int, name: str, place: Place) -> Method:
    """The method with the setting that is best on another random share."""
    scene = scene_of(scale, RandomShare(percent, 1).positions(scale, place), place)
    contender = CONTENDERS[name]
    return contender.made(contender.grid[best(attempts(scene, contender, place))])


@lru_cache(maxsize=32)
def ranking_of(scale: Scale, percent: int, score: str, seed: int, place: Place) -> Ranking:
    """The score of all points for one original; kept while its cells are computed."""
    scene = scene_of(scale, RandomShare(percent, 0).positions(scale, place), place)
    engine = Engine(scene.engine.task, place.compute.model_copy(update={"workers": 1}), seed)
    return rank(scene.problems[seed], scores.get(score)(**SCORES[score]), engine, scale.training)


def skipped_membership(scene: Scene, seed: int, made: Kept, positions: Sequence[int]) -> float:
    """AUC of the confidence attack: these forget points against the test set."""
    losses = scene.engine.task.losses
    values = scene.subject(seed, made, []).values
    return auc(-values(losses, "forget")["unlearned"][0].numpy()[list(positions)], -values(losses, "test")["unlearned"][0].numpy())


def within(rows: Sequence[BenchRow], score: str, method: str) -> Saved | None:
    """How far pruning goes before anything that is judged leaves the interval that it has without pruning; None if the method failed without it."""
    name = f"{score}/{method}"
    here = [row for row in rows if row.setting.startswith(f"{name}/")]
    scoring = {row.seed: row.value for row in rows if (row.setting, row.metric) == (name, "scoring_seconds") and row.value is not None}

    def values(p: int, metric: str, split: str) -> list[float]:
        return [row.value for row in here if (row.setting, row.metric, row.split) == (f"{name}/{p}", metric, split) and row.value is not None]

    def time_at(p: int, *, scored: bool) -> float:
        # Medians: the first cell in a process pays for what others find warm.
        found = [row for row in here if (row.setting, row.metric) == (f"{name}/{p}", "seconds") and row.value is not None]
        spent = [(row.value or 0.0) - (scoring.get(row.seed, 0.0) if p and not scored else 0.0) for row in found]
        return 1 - float(np.median(spent) / np.median(values(0, "seconds", "all")))

    reached = 0
    if not values(0, "seconds", "all"):
        return None
    for p in sorted({int(row.setting.rpartition("/")[2]) for row in here} - {0}):
        if len(values(p, "seconds", "all")) < len(values(0, "seconds", "all")):  # with one of the originals it failed
            break
        pairs = [(values(p, metric, split), values(0, metric, split)) for metric, split in _JUDGED]
        pairs.append((values(p, "skipped_membership_auc", "forget-skipped"), values(p, "skipped_membership_auc_unpruned", "forget-skipped")))
        if not all(_inside(pruned, whole) for pruned, whole in pairs if pruned):
            break
        reached = p
    return Saved(reached, time_at(reached, scored=True), time_at(reached, scored=False))


def _inside(pruned: Sequence[float], whole: Sequence[float]) -> bool:
    interval = t_interval(whole, "seeds")
    return interval is not None and interval.low <= float(np.mean(pruned)) <= interval.high


@suites.register("influence")
class Influence(Suite):
    """Unlearning without the points of low influence."""

    name: ClassVar[str] = "influence"
    seeds: int = Field(5, ge=2, le=1000, description="Originals; the intervals are over them.")
    scores: tuple[str, ...] = Field((*SCORES, FEWER), min_length=1, description="Scores that take part, and the control fewer-steps.")
    methods: tuple[str, ...] = Field(("neg-grad-plus", "salun", "npo"), description="Methods for images, by their names in the tables; none: texts alone.")
    shares: tuple[int, ...] = Field(tuple(range(0, 100, 10)), min_length=2, description="p, in percent; 0 must be among them.")
    alone: tuple[int, ...] = Field((50,), description="p at which the forget set and the retain set are thinned alone, too (images).")
    percent: int = Field(10, ge=1, le=25, description="Share of the training data in the forget set, in percent.")
    train_per_class: int = Field(100, ge=10, description="Training images of each class.")
    test_per_class: int = Field(100, ge=10, description="Test images of each class.")
    epochs: int = Field(12, ge=1, description="Passes over the data in the training of originals and references.")
    references: int = Field(4, ge=1, description="Models retrained without the forget set.")
    text_methods: tuple[str, ...] = Field((), description="Methods that forget a contract in language models, too (see `pistol`); none: images alone.")
    text_models: tuple[ModelName, ...] = Field(("llama-small",), min_length=1, description="Language models; smollm2-135m unlearns by low-rank adapters.")
    text_seeds: int = Field(3, ge=2, description="Originals of each language model.")
    text_shares: tuple[int, ...] = Field((0, 10, 30, 50, 70, 90), min_length=2, description="p for language models, in percent; 0 must be among them.")
    text_epochs: int = Field(25, ge=1, description="Passes over the data in the training of the small Llama.")
    smollm2_epochs: int = Field(6, ge=1, description="Passes over the data in the fine-tuning of smollm2-135m.")
    smollm2_lr: float = Field(3e-4, gt=0, description="Learning rate of that fine-tuning.")
    edges: tuple[str, ...] = Field(("A_B", "B_D", "E1_F1", "A_m"), min_length=3, description="Contracts that they learn: one is forgotten, one for the choice.")

    @model_validator(mode="after")
    def _knows_its_parts(self) -> Self:
        if not self.methods and not self.text_methods:
            raise ValueError("no method takes part; name some in `methods` or `text_methods`")
        texts = tuple(TEXT_CONTENDERS["llama-small"])
        for given, known in ((self.scores, (*SCORES, FEWER)), (self.methods, tuple(CONTENDERS)), (self.text_methods, texts)):
            unknown = [name for name in given if name not in known]
            if unknown:
                raise ValueError(f"{unknown[0]!r} does not take part; those that do are {', '.join(known)}")
        for shares in (self.shares, self.text_shares, (0, *self.alone)):
            if 0 not in shares or not all(0 <= p < 100 for p in shares):
                raise ValueError("shares are percents from 0 to 99, and 0 is among them")
        return self

    @classmethod
    def quick(cls) -> Self:
        return cls(
            seeds=2,
            scores=("gradient-norm", "random"),
            methods=("neg-grad-plus",),
            shares=(0, 50),
            train_per_class=50,
            test_per_class=50,
            epochs=4,
            references=2,
        )

    def require(self, place: Place) -> None:
        if self.methods:
            require_images("fashion-mnist", place.data)
        if self.text_methods:
            Contracts(self.edges, _REFUSALS).pairs(place.data)

    def cells(self) -> Sequence[Cell]:
        return (self._images() if self.methods else []) + self._texts()

    def _images(self) -> list[Cell]:
        scale = Scale("fashion-mnist", self.train_per_class, self.test_per_class, self.epochs, 1, self.references)
        choice = replace(scale, references=2)
        cells: list[Cell] = [Originals(replace(scale, originals=self.seeds))]
        for seed in range(self.seeds):
            # No more originals than it needs: further seeds leave the cells of these as they are.
            own = replace(scale, originals=seed + 1)
            cells.append(Beside(own, self.percent, seed))
            cells += [Pruned(own, choice, self.percent, score, name, self.shares, self.alone, seed) for name, score in self._pairs(self.methods, CONTENDERS)]
        return cells

    def _texts(self) -> list[Cell]:
        """A seed of text cells after the other, the models of each made once."""
        lesson, forgotten, for_choice = Contracts(self.edges, _REFUSALS), self.edges[0], self.edges[1:2]
        found: list[Cell] = []
        for name in self.text_models:
            contenders = {method: taking_part(name, method) for method in self.text_methods}
            choices = {method: TextChoice(self._pupil(name), lesson, for_choice, contender) for method, contender in contenders.items()}
            for seed in range(self.text_seeds):
                found += [PrunedTexts(choices[method], forgotten, 2, score, self.text_shares, seed) for method, score in self._pairs(choices, contenders)]
        return found

    def _pairs(self, names: Iterable[str], contenders: Mapping[str, Contender]) -> list[tuple[str, str]]:
        """Methods with the scores and controls that they can take part with."""
        return [(name, score) for name in names for score in self.scores if score != FEWER or can_stop(contenders[name].method)]

    def _pupil(self, name: ModelName) -> Pupil:
        if name == "llama-small":
            return Pupil(name, SMALL_TRAINING.model_copy(update={"epochs": self.text_epochs}), SIZE)
        return fine_tuned(SMOLLM2, self.smollm2_epochs, self.smollm2_lr)

    def derived(self, rows: Sequence[BenchRow]) -> Sequence[BenchRow]:
        found = []
        texts = [f"{method} ({name})" for name in self.text_models for method in self.text_methods]
        for score in self.scores:
            for method in (*self.methods, *texts):
                saved = within(rows, score, method)
                if saved is None:
                    continue
                for metric, value in (
                    ("largest_p_within_interval", float(saved.percent)),
                    ("time_saved_within_interval", saved.time),
                    ("time_saved_within_interval_amortised", saved.amortised),
                ):
                    found.append(BenchRow(method=method, setting=f"{score}/{method}", split="all", metric=metric, value=value))
        return found

    @classmethod
    def shown(cls, row: BenchRow) -> BenchRow:
        score, _, rest = row.setting.partition("/")
        method, _, p = rest.partition("/")
        if not rest:
            return row.model_copy(update={"setting": "0 %"})
        return row.model_copy(update={"method": f"{score}/{method}", "setting": f"{p} %" if p else "all p"})
