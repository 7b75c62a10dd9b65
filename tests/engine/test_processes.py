"""Several processes give the numbers of one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engine.processes import RUNS, seen

WORLD = 2


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return seen(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes saw that were started as a launcher starts them."""
    out = tmp_path_factory.mktemp("together")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(WORLD), "LOCAL_WORLD_SIZE": str(WORLD)}
    shared |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(WORLD)]
    command = [sys.executable, "-m", "tests.engine.processes", str(out)]
    root = Path(__file__).parents[2]
    started = [subprocess.Popen(command, cwd=root, env={**os.environ, **shared, **rank}, stderr=subprocess.PIPE, text=True) for rank in ranks]
    try:
        for process in started:
            _, errors = process.communicate(timeout=900)
            assert process.returncode == 0, errors
    finally:
        for process in started:
            process.kill()
            process.communicate()
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(WORLD)]


def test_losses_metrics_and_weights_are_those_of_one_process(alone: dict[str, Any], together: list[dict[str, Any]]) -> None:
    for name in RUNS:
        one = alone[name]
        assert len(one["losses"]) == len(one["looks"]) == 2
        for other in (each[name] for each in together):
            assert other["losses"] == pytest.approx(one["losses"], rel=1e-5, abs=1e-5)  # a difference of two terms
            assert other["looks"] == pytest.approx(one["looks"], rel=1e-5)
            assert other["metrics"]["log_likelihoods"] == pytest.approx(one["metrics"]["log_likelihoods"], rel=1e-5)
            assert other["metrics"]["generations"] == one["metrics"]["generations"]
            assert other["metrics"]["knowledge"] == one["metrics"]["knowledge"]
            for parameter, values in one["weights"].items():
                assert other["weights"][parameter] == pytest.approx(values, rel=1e-5, abs=1e-6)


def test_metrics_of_the_same_model_are_gathered_to_the_last_bit_on_all_processes(alone: dict[str, Any], together: list[dict[str, Any]]) -> None:
    """Seven samples in batches of three: one process has two batches, the other one."""
    assert len(alone["original"]["log_likelihoods"]) == 7
    assert all(each["original"] == alone["original"] for each in together)


def test_processes_draw_different_samples_which_together_are_the_batches_of_one(alone: dict[str, Any], together: list[dict[str, Any]]) -> None:
    """Of both sets. Texts of one batch are padded to its longest, so that they are compared without padding."""

    def texts(batch: list[str]) -> list[list[int]]:
        return sorted([token for token in json.loads(row) if token] for row in batch)

    for whole, first, second in zip(*(each["grad-diff"]["batches"] for each in (alone, *together)), strict=True):
        assert len(first) == len(second) == 2
        assert texts(first + second) == texts(whole)
        assert texts(first) != texts(second)
