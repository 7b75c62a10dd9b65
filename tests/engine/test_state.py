"""Checkpoints, files written in one step, random generators, the meter."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim import SGD, Adam, AdamW

from tests.models import bits, generators, layer_of, made, plain_network, same_bits, scramble
from unlearned.engine.checkpoints import load_state, save_state
from unlearned.engine.files import atomic_directory, sweep, write_text
from unlearned.engine.loop import only
from unlearned.engine.meter import Meter
from unlearned.engine.randomness import derive_seed, generator_states, replaying, restore_generators, seeded
from unlearned.errors import InputError
from unlearned.records import Cost


def trained(kind, steps: int = 3, **options):
    model = made(plain_network, seed=3).train()
    optimizer = kind(model.parameters(), lr=0.01, **options)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.rand(4, 1, 8, 8)).square().mean().backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize(("kind", "options"), [(Adam, {}), (AdamW, {"amsgrad": True}), (SGD, {"momentum": 0.9}), (SGD, {})])
def test_checkpoint_holds_everything(kind, options, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, optimizer = trained(kind, **options)
    save_state(tmp_path / "c", model, optimizer, {"step": 3, "cost": {"a": 0.5}})
    drawn = torch.rand(3), np.random.rand(3)
    other, again = trained(kind, steps=1, **options)
    scramble(9)
    assert load_state(tmp_path / "c", other, again) == {"step": 3, "cost": {"a": 0.5}}
    assert same_bits(bits(model), bits(other))
    expected, found = optimizer.state_dict()["state"], again.state_dict()["state"]
    assert expected.keys() == found.keys()
    for index, state in expected.items():
        assert state.keys() == found[index].keys()
        for name, value in state.items():
            assert torch.equal(value, found[index][name]) if isinstance(value, torch.Tensor) else value == found[index][name]
    assert torch.equal(torch.rand(3), drawn[0])
    assert np.array_equal(np.random.rand(3), drawn[1])


def test_checkpoint_is_no_pickle_and_replaces_the_one_before(tmp_path: Path) -> None:
    model, optimizer = trained(Adam)
    save_state(tmp_path / "c", model, optimizer, {"step": 1})
    save_state(tmp_path / "c", model, optimizer, {"step": 2})
    (newest,) = (tmp_path / "c").iterdir()
    assert sorted(path.name for path in newest.iterdir()) == ["state.json", "state.safetensors"]
    assert (newest / "state.safetensors").read_bytes()[8:9] == b"{"
    assert load_state(tmp_path / "c", model, optimizer) == {"step": 2}
    assert load_state(tmp_path / "none", model, optimizer) is None


def fails_midway(path: Path) -> None:
    def fill() -> None:
        with atomic_directory(path) as fresh:
            (fresh / "half").write_text("x")
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        fill()


def test_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    fails_midway(path)
    assert list((tmp_path / "a").iterdir()) == []
    with atomic_directory(path) as fresh:
        (fresh / "one").write_text("1")
        assert not path.exists()
    fails_midway(path)
    assert [p.name for p in path.iterdir()] == ["one"]
    with atomic_directory(path) as fresh:
        (fresh / "two").write_text("2")
    assert [p.name for p in path.iterdir()] == ["two"]
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]


def test_text_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "t", "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="disk is full"):
        write_text(tmp_path / "t", "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("t", "old")]


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".x.abcd1234").mkdir()
    (tmp_path / ".x.efgh5678").write_text("half")
    (tmp_path / "x").write_text("whole")
    (tmp_path / ".xy.abcd1234").write_text("another's")
    sweep(tmp_path / "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".xy.abcd1234", "x"]


def test_seeded_puts_the_generators_back_also_after_an_error() -> None:
    scramble(5)
    before = generators()
    drawn = []

    def draw() -> None:
        with seeded(3):
            drawn.append((float(torch.rand(1)), float(np.random.rand()), random.random()))
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            draw()
    assert drawn[0] == drawn[1]
    assert generators() == before


def test_generators_continue_where_they_were() -> None:
    scramble(6)
    torch.rand(3)
    states = generator_states()
    drawn = torch.rand(2), np.random.rand(2)
    restore_generators(states)
    assert torch.equal(torch.rand(2), drawn[0])
    assert np.array_equal(np.random.rand(2), drawn[1])


def test_seeds_of_different_purposes_differ() -> None:
    seeds = [derive_seed(seed, *purpose) for seed in range(20) for purpose in ((), ("a",), ("b",), ("a", 1), ("a", 2))]
    assert len(set(seeds)) == 100
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert derive_seed(7, "a", 1) == derive_seed(7, "a", 1)


def test_meter_counts_and_carries() -> None:
    meter = Meter(torch.device("cpu"))
    with meter:
        meter.count(3)  # preparation, which the attempt before had counted too
        meter.carry(Cost(wall_seconds=100, cpu_seconds=50, peak_memory_bytes=1, samples_seen=7, steps=4))
        meter.count(10)
        meter.count(5, steps=2)
    cost = meter.cost
    assert (cost.samples_seen, cost.steps) == (22, 7)
    assert cost.wall_seconds >= 100
    assert cost.cpu_seconds >= 50
    assert cost.peak_memory_bytes > 10**6


def test_only_some_parameters_require_gradients_for_a_while() -> None:
    model = plain_network()
    layer_of(model, 0).weight.requires_grad_(False)
    before = [p.requires_grad for p in model.parameters()]
    with only(model, r"^(0|8)\."):
        assert [name for name, p in model.named_parameters() if p.requires_grad] == ["0.bias", "8.weight", "8.bias"]
    assert [p.requires_grad for p in model.parameters()] == before


def test_the_generator_of_an_apple_gpu_is_put_back_as_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in for a device that is not here: one state, which `torch.manual_seed` and draws change."""
    state = torch.tensor([1, 2, 3], dtype=torch.uint8)

    def draw() -> None:
        state.add_(1)

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", state.clone)
    monkeypatch.setattr(torch.mps, "set_rng_state", state.copy_)
    states = generator_states()
    draw()
    with replaying(states):
        assert state.tolist() == [1, 2, 3]
        draw()
    assert state.tolist() == [2, 3, 4]
    with seeded(0):
        draw()
    assert state.tolist() == [2, 3, 4]
    model, optimizer = trained(Adam, steps=1)
    save_state(tmp_path / "c", model, optimizer, {"step": 1})
    draw()
    load_state(tmp_path / "c", model, optimizer)
    assert state.tolist() == [2, 3, 4]
