"""What every method promises, on every kind of model that it is defined for."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from tests.conformance.table import HEAD, METHODS, Row
from tests.models import bits, bundle_of, flags, generators, modes, problem_of, same_bits, scramble
from unlearned.api import Forgotten, forget
from unlearned.engine.engine import Engine
from unlearned.engine.meter import Meter
from unlearned.engine.randomness import derive_seed
from unlearned.engine.settings import Compute
from unlearned.methods import methods
from unlearned.methods._method import Method
from unlearned.problem import Problem
from unlearned.tasks._task import ModelSource

every_method = pytest.mark.parametrize("row", METHODS, ids=[row.title for row in METHODS])


class Run(NamedTuple):
    """A run, and what could be seen of it from outside."""

    done: Forgotten
    problem: Problem
    weights: tuple[dict[str, Tensor], dict[str, Tensor]]
    """Of the original model, before and after; so are the others."""
    modes: tuple[dict[str, bool], dict[str, bool]]
    flags: tuple[dict[str, bool], dict[str, bool]]
    generators: tuple[Any, Any]

    @property
    def bits(self) -> dict[str, Tensor]:
        return bits(self.done.model)


def method_of(row: Row, **more: Any) -> Method:
    if row.inside:
        more = {row.inside: row.settings[row.inside] | more}
    return methods.get(row.name)(**row.settings | more)


def run(row: Row, *, seed: int = 0, prepare: Callable[[nn.Module], object] = nn.Module.eval, scrambled: int = 5, **more: Any) -> Run:
    problem = problem_of(row.kind, where=row.where)
    model = problem.original.model
    prepare(model)
    scramble(scrambled)
    before = bits(model), modes(model), flags(model), generators()
    done = forget(problem, method_of(row, **more), Engine(problem.task, seed=seed))
    return Run(done, problem, (before[0], bits(model)), (before[1], modes(model)), (before[2], flags(model)), (before[3], generators()))


def some_layers_in_train_mode(model: nn.Module) -> None:
    """A state that nobody would restore by accident."""
    for layer, training in zip(model.modules(), itertools.cycle((True, False)), strict=False):
        layer.training = training


def train_mode_with_a_frozen_parameter(model: nn.Module) -> None:
    model.train()
    next(model.parameters()).requires_grad_(False)


# Several behaviours are seen in the same run: each is run once.
@functools.cache
def undisturbed(row_title: str) -> Run:
    return run(ROWS[row_title])


@functools.cache
def disturbed(row_title: str) -> Run:
    """The same seed, but other global generators, and an original in a strange mode."""
    return run(ROWS[row_title], prepare=some_layers_in_train_mode, scrambled=1234)


@functools.cache
def partly_frozen(row_title: str) -> Run:
    return run(ROWS[row_title], prepare=train_mode_with_a_frozen_parameter)


ROWS = {row.title: row for row in METHODS}


@every_method
def test_same_seed_same_bits_whatever_the_generators_and_the_modes(row: Row) -> None:
    first, second = undisturbed(row.title), disturbed(row.title)
    assert first.generators[0] != second.generators[0]
    assert same_bits(first.bits, second.bits)
    assert (first.done.cost.steps, first.done.cost.samples_seen) == (second.done.cost.steps, second.done.cost.samples_seen)
    assert first.done.cost.steps > 0


@every_method
def test_another_seed_gives_another_result_where_there_is_chance(row: Row) -> None:
    first, other = undisturbed(row.title).bits, run(row, seed=1).bits
    close = all(torch.allclose(tensor, other[name], rtol=1e-5, atol=1e-7) for name, tensor in first.items())
    assert close is not row.random


@every_method
def test_result_differs_from_the_original(row: Row) -> None:
    seen = undisturbed(row.title)
    assert not same_bits(seen.bits, seen.weights[0])


@every_method
@pytest.mark.parametrize("how", [undisturbed, disturbed, partly_frozen], ids=["eval", "mixed", "train"])
def test_original_is_untouched_in_whatever_mode_it_is(row: Row, how: Callable[[str], Run]) -> None:
    seen = how(row.title)
    assert same_bits(*seen.weights)
    assert seen.modes[0] == seen.modes[1]
    assert seen.flags[0] == seen.flags[1]
    assert all(parameter.grad is None for parameter in seen.problem.original.model.parameters())


@every_method
def test_result_is_in_eval_mode_on_the_cpu_with_the_flags_of_the_original(row: Row) -> None:
    seen = undisturbed(row.title)
    result = seen.done.model
    assert not any(modes(result).values())
    assert {tensor.device.type for tensor in seen.bits.values()} == {"cpu"}
    assert type(result) is type(seen.problem.original.model)
    assert flags(result) == seen.flags[0]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in seen.bits.values() if tensor.is_floating_point())
    assert not {id(p) for p in result.parameters()} & {id(p) for p in seen.problem.original.model.parameters()}


@every_method
def test_companions_go_with_the_result(row: Row) -> None:
    assert undisturbed(row.title).done.bundle.companions.keys() == bundle_of(row.kind).companions.keys()


# Retraining starts from new weights, all of which are trained.
NOT_RETRAIN = [row for row in METHODS if row.name != "retrain"]


@pytest.mark.parametrize("row", NOT_RETRAIN, ids=[row.title for row in NOT_RETRAIN])
def test_frozen_parameters_of_the_original_stay_frozen(row: Row) -> None:
    seen = partly_frozen(row.title)
    name = next(iter(seen.flags[0]))
    assert flags(seen.done.model) == seen.flags[0]
    assert torch.equal(seen.bits[name], seen.weights[0][name])


@every_method
def test_only_the_chosen_parameters_move(row: Row) -> None:
    pattern = row.settles or row.chosen or HEAD[row.kind]
    seen = undisturbed(row.title) if row.settles else run(row, parameters=pattern)
    start = seen.problem.original.model
    if row.name == "retrain":
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(0, "weights"))
            start = seen.problem.task.fresh(seen.problem.original).model
    chosen = {name for name, _ in start.named_parameters() if re.search(pattern, name)}
    assert 0 < len(chosen) < len(list(start.parameters()))
    before = bits(start)
    moved = {name for name in before if not torch.equal(before[name], seen.bits[name])}
    assert moved <= chosen if row.partial else moved == chosen
    assert moved


@every_method
def test_global_generators_are_left_as_they_were(row: Row) -> None:
    seen = undisturbed(row.title)
    assert seen.generators[0] == seen.generators[1]


@every_method
def test_saved_and_restored_it_says_the_same(row: Row, tmp_path: Path) -> None:
    problem = problem_of(row.kind, where=row.where)
    task, engine = problem.task, Engine(problem.task)
    result = undisturbed(row.title).done.bundle
    task.save(result, tmp_path)
    restored = [task.restore(tmp_path, problem.original)]
    if row.kind != "plain":  # what `from_pretrained` can read
        restored.append(task.load(ModelSource(source=str(tmp_path)), "model"))
    said = engine.evaluate(result.model, problem.test, task.outputs)
    for bundle in restored:
        assert not any(modes(bundle.model).values())
        assert torch.equal(engine.evaluate(bundle.model, problem.test, task.outputs), said)
        assert bundle.companions.keys() == result.companions.keys()
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".bin", ".pt", ".pkl", ".ckpt"}]


class InterruptedHereError(Exception):
    pass


def interrupt_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """The process dies in the `calls`-th step, after the weights have moved."""
    counted = Meter.count
    left: Iterator[int] = iter(range(calls - 1, -1, -1))

    def count(self: Meter, samples: int, steps: int = 1) -> None:
        if not next(left):
            raise InterruptedHereError
        counted(self, samples, steps)

    monkeypatch.setattr(Meter, "count", count)


# Passes take three steps: before any was saved, within a pass, at the end of one, within the second.
STOPS = [(row, step) for row in METHODS for step in ((1, 2, 4, 5) if row.kind == "plain" else (5,))]


@pytest.mark.parametrize(("row", "step"), STOPS, ids=[f"{row.title}-{step}" for row, step in STOPS])
def test_interrupted_and_continued_it_ends_with_the_same_bits(row: Row, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(row.kind, where=row.where)

    def engine() -> Engine:
        return Engine(problem.task, Compute(checkpoint_seconds=0), work=tmp_path)

    with monkeypatch.context() as patch:
        interrupt_after(patch, step)
        with pytest.raises(InterruptedHereError):
            forget(problem, method_of(row), engine())
    scramble(step)
    continued = forget(problem, method_of(row), engine())
    whole = undisturbed(row.title).done
    assert same_bits(bits(continued.model), bits(whole.model))
    assert (continued.cost.steps, continued.cost.samples_seen) == (whole.cost.steps, whole.cost.samples_seen)
    assert continued.exhibits == whole.exhibits


LOOPING = [row for row in METHODS if row.name != "ssd" and row.kind in {"plain", "gpt2", "unet"}]


@pytest.mark.parametrize("row", LOOPING, ids=[row.title for row in LOOPING])
def test_interruption_inside_the_loss_loses_no_step(row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed three times, each time a little further: what was done before is not done again."""
    problem = problem_of(row.kind, where=row.where)
    losses = type(problem.task).losses
    calls = 0

    def counting(self: Any, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        nonlocal calls
        calls += 1
        if calls in {2, 3, 5}:
            raise InterruptedHereError
        return losses(self, model, batch)

    monkeypatch.setattr(type(problem.task), "losses", counting)
    for _ in range(4):
        try:
            continued = forget(problem, method_of(row), Engine(problem.task, Compute(checkpoint_seconds=0), work=tmp_path))
            break
        except InterruptedHereError:
            continue
    assert same_bits(bits(continued.model), undisturbed(row.title).bits)
