from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats

from tests.models import problem_of
from unlearned.engine.bank import Bank
from unlearned.engine.engine import Engine
from unlearned.engine.training import Training
from unlearned.errors import InputError
from unlearned.influence import _stage
from unlearned.influence._gate import Gated, distances_to, held_against, judged, pass_gate, welch
from unlearned.influence._prune import Prune, Split, at_share, choose, high, largest, low, thinned
from unlearned.influence._rank import Ranking
from unlearned.influence._score import Effects
from unlearned.influence._stage import prune
from unlearned.influence.gradient_norm import GradientNorm
from unlearned.influence.random import Random
from unlearned.records import Cost, Pruning, Removal

COST = Cost(wall_seconds=1, cpu_seconds=1, peak_memory_bytes=1, samples_seen=1, steps=1)
VALUES = torch.tensor([0.5, -0.1, 3.0, 0.2, -4.0, 0.0, 0.3, 1.0, -0.2, 0.7], dtype=torch.float64)
"""Four points to forget, six to retain."""


def ranking(*, effects: bool = True) -> Ranking:
    return Ranking(Random(), VALUES, Effects(VALUES.abs() / 10, "the loss") if effects else None, 4, "nothing", (), COST)


def test_what_is_nearest_to_zero_goes_first_whatever_its_sign() -> None:
    assert low(VALUES, 3) == [1, 3, 5]
    assert low(torch.tensor([0.2, -0.1, 0.1, 0.1]), 2) == [1, 2]  # of equal ones the first
    assert high(VALUES, 2) == [2, 4]
    assert low(VALUES, 0) == []


def test_a_fraction_is_of_each_set() -> None:
    both = choose(ranking(), Prune(fraction=0.5))
    assert both.dropped == {"forget": [1, 3], "retain": [1, 2, 4]}
    assert both.bound == pytest.approx((0.1 + 0.2 + 0.0 + 0.3 + 0.2) / 10)
    assert choose(ranking(), Prune(fraction=0.5, of="forget")).dropped == {"forget": [1, 3]}
    assert choose(ranking(), Prune(fraction=0.0)).dropped == {"forget": [], "retain": []}
    assert choose(ranking(effects=False), Prune(fraction=0.5)).bound is None
    values = torch.rand(200, dtype=torch.float64)
    even = Ranking(Random(), values, None, 100, "", (), COST)
    for share, count in ((0.0, 0), (0.29, 29), (0.5, 50), (0.58, 58), (0.999, 99), (1.0, 100)):  # floating point: 0.29 · 100 is 28.999...
        found = at_share(even, ("forget", "retain"), share)
        assert {len(positions) for positions in found.dropped.values()} == {count}


def test_a_threshold_is_of_the_absolute_value() -> None:
    found = choose(ranking(), Prune(threshold=0.2))
    assert found.dropped == {"forget": [1, 3], "retain": [1, 4]}
    assert found.share is None
    with pytest.raises(InputError, match="the whole retain set would be dropped"):
        choose(ranking(), Prune(threshold=9.0))
    assert choose(ranking(), Prune(threshold=9.0, of="forget")).dropped == {"forget": [0, 1, 2, 3]}


def test_the_largest_share_within_the_tolerance_is_found() -> None:
    for tolerance in (0.0, 0.02, 0.08, 0.3, 10.0):
        found = largest(ranking(), ("forget", "retain"), tolerance)
        assert found.share is not None
        bounds = [at_share(ranking(), ("forget", "retain"), p / 100).bound for p in range(100)]
        naive = max(p for p, bound in enumerate(bounds) if bound is not None and bound <= tolerance)
        assert found.share == naive / 100
        assert found.bound == bounds[naive]
    assert choose(ranking(), Prune(tolerance=0.02)).share == largest(ranking(), ("forget", "retain"), 0.02).share
    with pytest.raises(InputError, match="bounds no effect"):
        choose(ranking(effects=False), Prune(tolerance=0.1))


@pytest.mark.parametrize("given", [{}, {"fraction": 0.5, "threshold": 1.0}, {"fraction": 1.5}, {"fraction": 0.5, "gate": 1}])
def test_settings_that_say_too_little_or_too_much_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Prune(**given)


def test_nothing_dropped_is_the_same_problem_and_all_dropped_is_none() -> None:
    problem = problem_of("plain", forget=4, retain=6)
    same = thinned(problem, {"forget": [], "retain": []})
    assert same is not None
    assert same.fingerprint == problem.fingerprint
    assert thinned(problem, {"forget": [0, 1, 2, 3]}) is None
    less = thinned(problem, {"forget": [1], "retain": [0, 5]})
    assert less is not None
    assert less.forget.ids == [problem.forget.ids[i] for i in (0, 2, 3)]
    assert less.retain.ids == [problem.retain.ids[i] for i in (1, 2, 3, 4)]


def test_welchs_interval_is_that_of_scipy() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(0.3, 1.0, 4), random.normal(0.0, 0.2, 3)
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert welch(a.tolist(), b.tolist()) == pytest.approx((expected.low, expected.high))
    assert welch([1.0, 1.0], [0.5, 0.5]) == (0.5, 0.5)


def test_models_are_held_against_those_of_other_seeds() -> None:
    full = [torch.tensor([float(i), 0.0]) for i in (0, 1, 4)]
    own = [torch.tensor([10.0, 0.0])] * 3

    def distance(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        return (p - q).abs()

    assert distances_to(own, full, distance) == pytest.approx([(4.5 + 3.0) / 2, (5.0 + 3.0) / 2, (5.0 + 4.5) / 2])
    assert distances_to(full, full, distance) == pytest.approx([(0.5 + 2.0) / 2, (0.5 + 1.5) / 2, (2.0 + 1.5) / 2])


def removal(removed: Any, metric: str, apart: bool) -> Removal:
    return Removal(removed=removed, metric=metric, value=0, full=0, low=0, high=0, interval="x", told_apart=apart)


def test_only_the_low_points_decide() -> None:
    for others, told in ((("high",), "as many of the highest scores is;"), (("high", "random"), "highest scores or without as many at random is;")):
        found = judged([removal("low", "utility", False), *(removal(name, "utility", True) for name in others)], "5 models", COST)
        assert found.passed
        assert told in found.words
        assert found.notes == ()
        assert found.cost == COST
    found = judged([removal("low", "utility", False), removal("low", "confidence", True), removal("high", "utility", False)], "5 models", COST)
    assert not found.passed
    assert "by confidence (0 without them, 0 on everything, difference 0 to 0), with 5 models" in found.words
    assert found.notes == ()


def test_what_is_not_told_apart_is_not_called_equal() -> None:
    """Of three models each, a loss of two standard deviations passes: t(4; 0.975) · √(2/3) = 2.27 of them would be seen."""
    spread = np.array([-1.0, 0.0, 1.0]) * 0.01
    full = 0.9 + spread
    unseen, same = (held_against("low", "utility", (full - loss).tolist(), full.tolist()) for loss in (0.02, 0.0))
    half = float(stats.t.ppf(0.975, 4)) * (2 / 3) ** 0.5 * 0.01
    assert unseen.half_width == pytest.approx(half)
    assert half == pytest.approx(0.0227, abs=1e-4)
    assert held_against("low", "utility", (full - 1.01 * half).tolist(), full.tolist()).told_apart
    high, random = (held_against(name, "total_variation", (0.1 + spread).tolist(), (0.1 + spread).tolist()) for name in ("high", "random"))
    for small in (unseen, same):
        blind = judged([small, random, high, held_against("low", "total_variation", spread.tolist(), spread.tolist())], "3 models", None)
        assert blind.passed
        assert "nothing was told apart" in blind.words
        assert "3 models show a difference above 0.023 in utility, 0.023 in total variation" in blind.words
        assert "like training on everything" not in blind.words
        [note] = blind.notes
        assert "says nothing for the dropped points" in note
    seeing = judged([unseen, random, held_against("high", "utility", (full - 0.1).tolist(), full.tolist())], "3 models", None)
    assert "above 0.023 in utility" in seeing.words
    assert seeing.notes == ()


TRAINING = Training(optimizer="adam", lr=0.05, batch_size=12, epochs=5)


def test_the_gate_tells_apart_what_matters(tmp_path: Path) -> None:
    """A linear model; the 'low' points are all of one class that nothing else teaches, or three that repeat others."""
    problem = problem_of("linear", forget=6, retain=30, test=30)
    labels = torch.tensor([*problem.forget.fact("label"), *problem.retain.fact("label")])
    engine = Engine(problem.task)
    for harmful in (False, True):
        values = torch.ones(36, dtype=torch.float64)
        values[labels < 4 if harmful else torch.arange(36) == 20] = 0.0
        told = Ranking(Random(), values, None, 6, "", (), COST)
        dropped: dict[Split, list[int]] = {split: torch.nonzero(told.part(split) == 0)[:, 0].tolist() for split in ("forget", "retain")}
        found = pass_gate(problem, told, dropped, TRAINING, Bank(engine, tmp_path), engine, 3)
        assert found.passed is not harmful
        assert {(r.removed, r.metric) for r in found.removals} == {
            (name, metric) for name in ("low", "random", "high") for metric in ("utility", "total_variation", "confidence")
        }
        assert found.cost is not None
        assert all(r.low <= r.value - r.full <= r.high for r in found.removals)


def test_the_gate_decides_on_validation_data_where_there_are_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of("linear", forget=2, retain=10, test=6)
    given = replace(problem, validation=problem.test.subset(range(2)), test=problem.test.subset(range(2, 6)))
    engine = Engine(problem.task)
    told = Ranking(Random(), torch.arange(12, dtype=torch.float64), None, 2, "", (), COST)
    asked: list[list[str]] = []
    evaluate = Engine.evaluate

    def watched(self: Engine, model: Any, samples: Any, *rest: Any) -> Any:
        asked.append(samples.ids)
        return evaluate(self, model, samples, *rest)

    monkeypatch.setattr(Engine, "evaluate", watched)
    for case, where in ((given, "the validation set"), (problem, "test data")):
        asked.clear()
        assert case.validation is not None or case is problem
        found = pass_gate(case, told, {"retain": [0]}, TRAINING, Bank(engine, tmp_path), engine, 2)
        expected = case.test if case.validation is None else case.validation
        assert asked
        assert all(ids == expected.ids for ids in asked)
        assert f"2 models of each kind on {where}" in found.words


def test_a_diffusion_model_is_pruned_and_gated(tmp_path: Path) -> None:
    """By the losses and the explained share: there are no classes to hold against each other."""
    problem = problem_of("unet", forget=2, retain=6, test=3)
    engine = Engine(problem.task)
    how = Training(optimizer="adam", lr=0.01, batch_size=8, epochs=1)
    found = prune(problem, GradientNorm(), Prune(fraction=0.5), engine, how, Bank(engine, tmp_path))
    assert found.pruning.dropped == {"forget": 1, "retain": 3}
    assert {(r.removed, r.metric) for r in found.pruning.gate} == {(name, metric) for name in ("low", "random", "high") for metric in ("utility", "confidence")}
    assert all(np.isfinite([r.value, r.full, r.half_width]).all() for r in found.pruning.gate)
    assert "3 models of each kind on test data show a difference above" in found.pruning.gate_words


def pruned(how: Prune, tmp_path: Path, **more: Any) -> _stage.Pruned:
    problem = problem_of("plain", forget=4, retain=6)
    engine = Engine(problem.task)
    return prune(problem, Random(), how, engine, TRAINING, Bank(engine, tmp_path), **more)


def test_the_stage_writes_down_what_was_done_and_refuses_what_the_gate_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = pruned(Prune(fraction=0.5, gate=0), tmp_path)
    assert found.pruning.dropped == {"forget": 2, "retain": 3}
    assert found.pruning.total == {"forget": 4, "retain": 6}
    assert found.pruning.rule.startswith("the lowest 50 % of each set (")
    assert found.pruning.gate == ()
    assert found.pruning.statement.startswith("2 of 4 points of the forget set were skipped: they were not unlearned.")
    assert "never satisfies a request" in found.pruning.statement
    assert list(found.costs) == ["scoring"]
    assert Pruning.model_validate_json(found.pruning.model_dump_json()) == found.pruning
    ids = problem_of("plain", forget=4, retain=6).forget.ids
    assert not any(name in found.pruning.model_dump_json() for name in ids)
    gates = iter([Gated((removal("low", "utility", False),), True, "fine", COST, ("it saw little",)), Gated((), False, "told apart", COST)])
    monkeypatch.setattr(_stage, "pass_gate", lambda *_: next(gates))
    passed = pruned(Prune(fraction=0.5), tmp_path)
    assert passed.pruning.gate_words == "fine"
    assert passed.pruning.notes[-1] == "it saw little"
    assert list(passed.costs) == ["scoring", "gate"]
    with pytest.raises(InputError, match="prune: told apart"):
        pruned(Prune(fraction=0.5), tmp_path)


def test_a_request_for_deletion_is_not_skipped_by_accident(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 samples of a request for deletion would be skipped"):
        pruned(Prune(fraction=0.5, gate=0), tmp_path, deletion_request=True)
    assert pruned(Prune(fraction=0.5, gate=0, of="retain"), tmp_path, deletion_request=True).pruning.skipped == 0
    told = pruned(Prune(fraction=0.5, gate=0, skip_requested=True), tmp_path, deletion_request=True)
    assert told.pruning.deletion_request


def test_replacing_the_problem_keeps_its_checks() -> None:
    problem = problem_of("plain", forget=4, retain=6)
    with pytest.raises(InputError):
        replace(problem, forget=problem.forget.subset([]))
