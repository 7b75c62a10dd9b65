"""The language-model part of the suite `influence`: a contract that a model knows by heart is to be forgotten, and points of low influence are left out.

Measured on the full sets: `accuracy`, the share of answer tokens that are the first choice; `membership_auc`, questions of the contract against facts about the
world, which are no fair comparison by themselves, so that what counts is the distance to the unpruned method; `tv`, total variation between the next-token
distributions of the model and of retrained models, mean over the tokens of the forget set's answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from unlearned.audits._membership import auc
from unlearned.bench._fewer_steps import FEWER, shortened, steps_of
from unlearned.bench._grids import Contender
from unlearned.bench._suite import Cell, Place
from unlearned.bench._text_cells import TextChoice, references_of
from unlearned.bench._text_contest import Made, unlearn
from unlearned.bench._text_grids import CONTENDERS
from unlearned.bench._text_scene import Class, ModelName, class_of
from unlearned.engine.bank import Kept
from unlearned.engine.engine import Engine
from unlearned.evidence.distances import total_variation
from unlearned.influence import scores
from unlearned.influence._prune import at_share, thinned
from unlearned.influence._rank import rank
from unlearned.influence._score import Score
from unlearned.methods._method import Method, ObjectiveMethod
from unlearned.problem import Problem
from unlearned.records import BenchRow
from unlearned.tasks._task import Batch

SCORES: Mapping[str, Mapping[str, Any]] = {
    "gradient-norm": {},
    "hessian": {"curvature": "ekfac"},
    "less": {"checkpoints": 2, "dimensions": 512},
    "el2n": {},
    "random": {},
}
"""Scores that take part, with their settings for language models."""
ADAPTERS: Mapping[str, Any] = {"rank": 8, "alpha": 16}
"""By which SmolLM2 unlearns; `less` looks at their gradients."""


def taking_part(model: ModelName, method: str) -> Contender:
    """A method with the grid of the other suites; SmolLM2 by adapters, with rates ten times those of whole weights."""
    contender = CONTENDERS[model][method]
    if model == "llama-small":
        return contender
    grid = tuple({**setting, "lr": 10 * setting["lr"]} for setting in contender.grid)
    return replace(contender, shared={**contender.shared, "lora": ADAPTERS}, grid=grid)


def score_for(model: ModelName, name: str) -> Score:
    """A score with its settings."""
    return scores.get(name)(**SCORES[name], **({"lora": ADAPTERS} if (model, name) == ("smollm2-135m", "less") else {}))


def token_distance(model: Tensor, references: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Mean over references and an answer's tokens of the total variation of next-token distributions, (B,).

    Args:
        model: probabilities, (B, T, V).
        references: of each reference, (B, T, V).
        weights: of the tokens, (B, T); each row adds up to 1.
    """
    each = [(weights * total_variation(model, other)).sum(dim=1) for other in references]
    return torch.stack(each).mean(dim=0)


@dataclass(frozen=True)
class PrunedTexts(Cell):
    """A method after a score, at every p, from one original."""

    choice: TextChoice
    group: str
    references: int
    score: str
    shares: tuple[int, ...]
    seed: int

    @property
    def title(self) -> str:
        return f"{self.choice.pupil.name}: {self.score}/{self.choice.contender.name}, seed {self.seed}"

    def run(self, place: Place) -> Sequence[BenchRow]:
        choice = self.choice
        school = class_of(choice.pupil, choice.lesson, self.seed, place)
        problem = school.problem(self.group)
        references = references_of(school, self.seed, self.group, self.references)
        method = choice.contender.made(choice.contender.grid[choice.chosen(place)])
        whole = unlearn(school, problem, method)
        if isinstance(whole, str):
            return [self._row(0, "all", "seconds", None, whole)]
        rows = self._rows(0, school, problem, references, whole, 0.0)
        engine = Engine(school.task, place.compute.model_copy(update={"workers": 1}), self.seed)
        if self.score == FEWER:
            return [*rows, *self._stopped(school, problem, references, method, engine)]
        ranking = rank(problem, score_for(choice.pupil.name, self.score), engine, school.how)
        for p in self.shares:
            if p:
                dropped = at_share(ranking, ("forget", "retain"), p / 100).dropped
                rows += self._at(p, school, problem, references, (whole, method), dropped["forget"], thinned(problem, dropped), ranking.cost.cpu_seconds)
        rows.append(
            BenchRow(
                method=named(choice),
                setting=f"{self.score}/{named(choice)}",
                seed=self.seed,
                split="all",
                metric="scoring_seconds",
                value=ranking.cost.cpu_seconds,
            )
        )
        return rows

    def _at(
        self,
        p: int,
        school: Class,
        problem: Problem,
        references: Sequence[Kept],
        unpruned: tuple[Made, Method],
        skipped: Sequence[int],
        left: Problem | None,
        scoring: float,
    ) -> list[BenchRow]:
        whole, method = unpruned
        assert left is not None
        made = unlearn(school, left, method)
        if isinstance(made, str):
            return [self._row(p, "all", "seconds", None, made)]
        rows = self._rows(p, school, problem, references, made, scoring)
        for metric, model in (("skipped_membership_auc", made.model), ("skipped_membership_auc_unpruned", whole.model)):
            rows.append(self._row(p, "forget-skipped", metric, _membership(school, model, problem, skipped)))
        return rows

    def _stopped(self, school: Class, problem: Problem, references: Sequence[Kept], method: Method, engine: Engine) -> list[BenchRow]:
        """After as many steps as what random points leave would take: batches are few here, and the share of the points is not that of the steps."""
        assert isinstance(method, ObjectiveMethod)
        ranking = rank(problem, score_for(self.choice.pupil.name, "random"), engine, school.how)
        whole, rows = steps_of(method, problem, school.engine), []
        for p in filter(None, self.shares):
            left = thinned(problem, at_share(ranking, ("forget", "retain"), p / 100).dropped)
            assert left is not None
            made = unlearn(school, problem, shortened(method, steps_of(method, left, school.engine) / whole))
            rows += [self._row(p, "all", "seconds", None, made)] if isinstance(made, str) else self._rows(p, school, problem, references, made, 0.0)
        return rows

    def _rows(self, p: int, school: Class, problem: Problem, references: Sequence[Kept], made: Made, scoring: float) -> list[BenchRow]:
        task, engine = school.task, school.engine
        found = [(split, "accuracy", float(engine.evaluate(made.model, problem.sets[split], task.utility).mean())) for split in ("forget", "retain", "test")]
        found.append(("forget", "membership_auc", _membership(school, made.model, problem, range(len(problem.forget)))))
        others = [kept.bundle.model for kept in references]

        def apart(model: nn.Module, batch: Batch) -> Tensor:
            said = task.choices(model, batch)
            return token_distance(said.logits.softmax(dim=-1), [task.choices(other, batch).logits.softmax(dim=-1) for other in others], said.weights)

        found.append(("forget", "tv", float(engine.evaluate(made.model, problem.forget, apart).mean())))
        found.append(("all", "seconds", scoring + made.cost.cpu_seconds))
        return [self._row(p, split, metric, value) for split, metric, value in found]

    def _row(self, p: int, split: str, metric: str, value: float | None, reason: str | None = None) -> BenchRow:
        method = named(self.choice)
        return BenchRow(method=method, setting=f"{self.score}/{method}/{p}", seed=self.seed, split=split, metric=metric, value=value, reason=reason)


def named(choice: TextChoice) -> str:
    """A method of language models in the tables, beside one of that name for images."""
    return f"{choice.contender.name} ({choice.pupil.name})"


def _membership(school: Class, model: nn.Module, problem: Problem, positions: Sequence[int]) -> float:
    losses = {split: school.engine.evaluate(model, problem.sets[split], school.task.losses).numpy() for split in ("forget", "test")}
    return auc(-losses["forget"][list(positions)], -losses["test"])
