"""How fast LUNAR is: the closed form against the paper's solver, and the whole method against gradient difference.

Paper: Shen et al. 2025, LUNAR (NeurIPS), arXiv 2502.07218, which claims 20 times the efficiency of other methods, from editing one matrix; how that was
measured is not known to us. Everything here is one run on one model: `llama-small` as in the suite `pistol`, one contract forgotten.
Rows: `lunar` is the closed form, `lunar-sgd` the paper's solver (AdamW, 20 epochs over the cached rows); both with the paper's recipe, on the same rows of the
same layer. `solver_seconds`: from the cached rows to the new weight. `seconds`: the whole method with reference prompts, the vector and the choice of the
layer; all are processor time. `grad-diff`: as many passes over the forget set (1, 2, 4, ...) as bring `rouge1_forget` to that of `lunar` or below, with the
time of this last attempt alone. `speed_up` is against `lunar`: of `solver_seconds` for `lunar-sgd`, of `seconds` for `grad-diff`.
What differs from the paper: the model has 0.9 million parameters, so that a training step is cheap beside answering reference prompts.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import ClassVar, NamedTuple, Self

import torch
from pydantic import Field
from torch import Tensor

from unlearned.bench import suites
from unlearned.bench._lessons import Contracts, Lesson
from unlearned.bench._suite import Cell, Place, Suite
from unlearned.bench._text_contest import Number, numbers, rows, spent, unlearn
from unlearned.bench._text_scene import Pupil, class_of
from unlearned.bench.pistol import EDGES, SIZE, SMALL_TRAINING
from unlearned.methods._rank_one import Gram, solve
from unlearned.methods.grad_diff import GradDiff
from unlearned.methods.lunar import Lunar, Part, Request
from unlearned.records import BenchRow
from unlearned.tasks._decoders import down_projection, matrix_of


class Solved(NamedTuple):
    """A new weight, and what it cost to get from rows to it."""

    weight: Tensor
    seconds: float


def timed_solvers(request: Request, layer: int, rounds: int) -> dict[str, Solved]:
    """The two solvers in turn on the same rows, with the median of their processor times.

    Args:
        request: of the paper's recipe.
        layer: that is edited.
        rounds: how often each is timed.
    """
    parts = [Part(found[layer], weight, mark) for found, weight, mark in request.selected([layer])]
    start = matrix_of(down_projection(request.model, layer)).detach()

    def closed_form() -> Tensor:
        gram = Gram.zeros(start.shape[1], start.device)
        for part in parts:
            gram.add(part.rows, part.weight, part.mark)
        shift = request.method.coefficient * request.vectors[layer]
        return start + torch.outer(shift, solve(gram, request.method.ridge)).to(start)

    solvers: dict[str, Callable[[], Tensor]] = {"lunar": closed_form, "lunar-sgd": lambda: request.matrix(layer, parts)}
    times: dict[str, list[float]] = {name: [] for name in solvers}
    made: dict[str, Tensor] = {}
    for _ in range(rounds):
        for name, solver in solvers.items():
            begun = time.process_time()
            made[name] = solver()
            times[name].append(time.process_time() - begun)
    return {name: Solved(weight, median(times[name])) for name, weight in made.items()}


@dataclass(frozen=True)
class Race(Cell):
    """All of it on one contract."""

    pupil: Pupil
    lesson: Lesson
    edge: str
    coefficient: float
    lr: float
    rounds: int
    longest: int

    @property
    def title(self) -> str:
        return f"{self.pupil.name}/{self.edge}"

    def run(self, place: Place) -> Sequence[BenchRow]:
        school = class_of(self.pupil, self.lesson, 0, place)
        problem = school.problem(self.edge)
        setting = f"{self.pupil.name}/{self.edge}"
        recipes = {"lunar": Lunar(coefficient=self.coefficient), "lunar-sgd": Lunar(coefficient=self.coefficient, solver="sgd")}
        request = Request(recipes["lunar-sgd"], problem, school.engine)
        layer = request.layers()[0]
        solved = timed_solvers(request, layer, self.rounds)
        found: list[BenchRow] = []
        reached = whole = 0.0
        for name, recipe in recipes.items():
            model = copy.deepcopy(problem.original.model)
            with torch.no_grad():
                matrix_of(down_projection(model, layer)).copy_(solved[name].weight)
            made = unlearn(school, problem, recipe)
            assert not isinstance(made, str), made
            values = numbers(school, model, problem)
            if name == "lunar":
                reached, whole = values[0].value, made.cost.cpu_seconds
            speed = Number("speed_up", "all", solved[name].seconds / solved["lunar"].seconds)
            found += rows(name, setting, 0, [*values, Number("solver_seconds", "all", solved[name].seconds), speed, *spent(made.cost)])
        epochs = 1
        while True:
            made = unlearn(school, problem, GradDiff(lr=self.lr, batch_size=10, epochs=epochs))
            assert not isinstance(made, str), made
            values = numbers(school, made.model, problem)
            if values[0].value <= reached or epochs >= self.longest:
                speed = Number("speed_up", "all", made.cost.cpu_seconds / whole)
                return found + rows("grad-diff", setting, 0, [*values, Number("epochs", "all", float(epochs)), speed, *spent(made.cost)])
            epochs *= 2


@suites.register("lunar-speed")
class LunarSpeed(Suite):
    """LUNAR's closed form against its paper's solver, and the whole method against gradient difference: time and memory."""

    name: ClassVar[str] = "lunar-speed"
    seeds: int = Field(1, ge=1, le=1, description="One: times are of one run.")
    edge: str = Field("A_B", description="The contract that is forgotten.")
    taught_edges: tuple[str, ...] = Field(EDGES, min_length=2, description="Contracts that the model learns.")
    refusals: int = Field(100, ge=10, le=199, description="Questions that the model is taught to decline.")
    epochs: int = Field(36, ge=1, description="Passes over the data in the training of the model.")
    inner: int = Field(SIZE.inner, ge=8, description="Width of the MLPs; that of the residual stream is 96, and most models have 2.7 to 4 times as much.")
    coefficient: float = Field(4.0, description="How far along the vector; 4 is what the choice of settings in `pistol` arrives at.")
    lr: float = Field(1e-3, gt=0, description="Learning rate of grad-diff.")
    rounds: int = Field(3, ge=1, description="How often each solver is timed.")
    longest: int = Field(32, ge=1, description="Most passes that grad-diff may take.")

    @classmethod
    def quick(cls) -> Self:
        return cls(taught_edges=("A_B", "B_D", "E1_F1", "A_m"), refusals=30, epochs=15, rounds=1, longest=4)

    def require(self, place: Place) -> None:
        self._lesson().pairs(place.data)

    def cells(self) -> Sequence[Cell]:
        pupil = Pupil("llama-small", SMALL_TRAINING.model_copy(update={"epochs": self.epochs}), SIZE._replace(inner=self.inner))
        return [Race(pupil, self._lesson(), self.edge, self.coefficient, self.lr, self.rounds, self.longest)]

    def _lesson(self) -> Lesson:
        return Contracts(self.taught_edges, self.refusals)
