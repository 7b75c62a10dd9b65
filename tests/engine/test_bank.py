from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.test_methods import InterruptedHereError, interrupt_after
from tests.models import bits, bundle_of, problem_of, same_bits
from unlearned.api import forget
from unlearned.data.samples import Samples
from unlearned.engine import training
from unlearned.engine.bank import Bank, Kept
from unlearned.engine.engine import Engine
from unlearned.engine.executor import fan_out
from unlearned.engine.settings import Compute
from unlearned.engine.training import Trained, Training, train
from unlearned.errors import DivergedError, Fault, InputError
from unlearned.problem import Problem
from unlearned.tasks._task import Bundle, ModelSource

HOW = Training(epochs=2, batch_size=8)


class References:
    """A bank of models that are trained on the retain set."""

    def __init__(self, cache: Path, problem: Problem, how: Training = HOW, **compute: Any) -> None:
        self.bank = Bank(Engine(problem.task, Compute(**compute)), cache)
        self.problem, self.how = problem, how

    def making(self, seed: int) -> Trained:
        return Trained(self.problem.original, seed, self.problem.retain, self.how)

    def get(self, seeds: list[int]) -> list[Kept]:
        return self.bank.get([self.making(seed) for seed in seeds], "reference models")

    def entry(self, seed: int) -> Path:
        return self.bank.entry(self.making(seed))


def bank_of(cache: Path, kind: str = "plain", how: Training = HOW, **compute: Any) -> References:
    return References(cache, problem_of(kind), how, **compute)


def test_two_workers_give_the_same_bits_as_one(tmp_path: Path) -> None:
    one = bank_of(tmp_path / "one").get([1, 2])
    two = bank_of(tmp_path / "two", workers=2).get([1, 2])
    for left, right in zip(one, two, strict=True):
        assert same_bits(bits(left.bundle.model), bits(right.bundle.model))
        assert left.cost is not None
        assert right.cost is not None
        assert (left.cost.steps, left.cost.samples_seen) == (right.cost.steps, right.cost.samples_seen) == (6, 36)
    assert not same_bits(bits(one[0].bundle.model), bits(one[1].bundle.model))


@pytest.mark.parametrize("kind", ["plain", "gpt2", "unet"])
def test_a_reference_is_made_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []

    def counting(engine: Engine, bundle: Bundle, samples: Samples, how: Training, seed: int, **more: Any) -> Bundle:
        trained.append(seed)
        return train(engine, bundle, samples, how, seed, **more)

    monkeypatch.setattr(training, "train", counting)
    first = bank_of(tmp_path, kind).get([5, 6])
    again = bank_of(tmp_path, kind).get([6, 5, 7])
    assert trained == [5, 6, 7]
    assert same_bits(bits(first[0].bundle.model), bits(again[1].bundle.model))
    assert again[1].cost == first[0].cost
    assert [reference.seed for reference in again] == [6, 5, 7]


def test_a_reference_is_what_the_method_retrain_makes_with_that_seed(tmp_path: Path) -> None:
    [reference] = bank_of(tmp_path).get([9])
    assert same_bits(bits(reference.bundle.model), bits(forget(problem_of("plain"), "retrain", seed=9, epochs=2, batch_size=8).model))


def test_an_interrupted_training_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [whole] = bank_of(tmp_path / "whole").get([3])
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        with pytest.raises(InterruptedHereError):
            bank_of(tmp_path / "cut", checkpoint_seconds=0).get([3])
    steps: list[int] = []
    monkeypatch.setattr(Engine, "track", lambda _self, _title, _loss, step: steps.append(step))
    [continued] = bank_of(tmp_path / "cut", checkpoint_seconds=0).get([3])
    assert steps == [5, 6]
    assert same_bits(bits(whole.bundle.model), bits(continued.bundle.model))
    assert not [path for path in (tmp_path / "cut").iterdir() if path.suffix == ".part"]


def test_whatever_decides_the_result_decides_the_entry(tmp_path: Path) -> None:
    problem = problem_of("plain")
    problem.task.save(bundle_of("resnet"), _made(tmp_path / "start"))

    def entry(how: Training = HOW, seed: int = 0, kind: str = "plain", retain: int = 18) -> Path:
        other = problem_of(kind, retain=retain)
        return References(tmp_path, other, how).entry(seed)

    entries = [
        entry(),
        entry(seed=1),
        entry(retain=17),
        entry(kind="linear"),
        entry(HOW.model_copy(update={"lr": 0.02})),
        entry(HOW.model_copy(update={"epochs": 3})),
        entry(HOW.model_copy(update={"start": ModelSource(source=str(tmp_path / "start"))}), kind="resnet"),
        entry(kind="resnet"),
    ]
    assert len(set(entries)) == len(entries)
    assert entry() == entries[0]


def test_the_entry_does_not_depend_on_the_weights_of_the_original(tmp_path: Path) -> None:
    entries = {References(tmp_path, problem_of("plain", model=bundle_of("plain", seed).model)).entry(0) for seed in (1, 2)}
    assert len(entries) == 1


def test_a_reference_that_was_fine_tuned_starts_from_the_model_that_it_names(tmp_path: Path) -> None:
    problem = problem_of("resnet")
    problem.task.save(bundle_of("resnet", seed=77), _made(tmp_path / "start"))
    how = Training(epochs=1, batch_size=8, lr=1e-9, momentum=0, weight_decay=0, start=ModelSource(source=str(tmp_path / "start")))
    [reference] = References(tmp_path / "cache", problem, how).get([0])
    weights = dict(reference.bundle.model.named_parameters())
    for name, parameter in bundle_of("resnet", seed=77).model.named_parameters():
        assert float((weights[name] - parameter).detach().abs().max()) < 1e-6


def test_a_diverged_reference_leaves_no_entry(tmp_path: Path) -> None:
    bank = bank_of(tmp_path, how=Training(epochs=8, batch_size=8, lr=1e6))
    with pytest.raises(DivergedError, match=r"reference \(seed 1\) diverged"):
        bank.get([1])
    assert not (bank.entry(1)).exists()


def square(x: int) -> int:
    if x == 13:
        raise ValueError("thirteen")
    return x * x


def test_jobs_come_back_with_their_positions_and_errors_are_raised() -> None:
    assert list(fan_out(square, [3, 1, 2], 1)) == [(0, 9), (1, 1), (2, 4)]
    assert list(fan_out(square, [], 2)) == []
    with pytest.raises(ValueError, match="thirteen"):
        list(fan_out(square, [1, 13, 2], 1))


class Noted:
    """Notes how often it is pickled."""

    pickled = 0

    def __getstate__(self) -> dict[str, Any]:
        type(self).pickled += 1
        return self.__dict__


class Square(Noted):
    def __call__(self, job: Number) -> int:
        return job.value**2


class Number(Noted):
    def __init__(self, value: int) -> None:
        self.value = value


def test_processes_are_sent_the_work_once_and_jobs_as_they_become_free() -> None:
    found = fan_out(Square(), [Number(i) for i in range(8)], 2)
    results = [next(found)]
    assert Number.pickled == 3
    results += found
    assert sorted(results) == [(i, i * i) for i in range(8)]
    assert (Square.pickled, Number.pickled) == (1, 8)


def test_errors_survive_the_way_back_from_another_process() -> None:
    error = InputError(Fault("a", "b.", "c."), Fault("d", "e.", "f."))
    again = pickle.loads(pickle.dumps(error))
    assert (again.faults, str(again)) == (error.faults, str(error))


def _made(path: Path) -> Path:
    path.mkdir()
    return path
