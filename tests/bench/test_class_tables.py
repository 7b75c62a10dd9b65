from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def tables() -> Any:
    file = Path(__file__).parents[2] / "benchmarks" / "class_tables.py"
    spec = importlib.util.spec_from_file_location("class_tables", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(method: str, setting: str, seed: int, metric: str, value: float | None) -> dict[str, Any]:
    return {"method": method, "setting": setting, "seed": seed, "split": "forget", "metric": metric, "value": value}


GAPS = {"trw": [[0.1, 0.1], [0.2, 0.2]], "scrub": [[0.2, 0.4], [0.3, 0.3]], "ssd": [[0.4, 0.4], [0.4, 0.2]], "original": [[0.0, 0.0], [0.0, 0.0]]}
ROWS = [row(method, f"cifar10/{i}", seed, "tv", value) for method, lines in GAPS.items() for i, line in enumerate(lines) for seed, value in enumerate(line)]


def test_rows_become_tables_by_forget_set_and_seed(tables: Any) -> None:
    found = tables.table([*ROWS, row("half", "cifar10/0", 0, "tv", 0.5), row("none", "cifar10/0", 0, "tv", None)], ["cifar10/0", "cifar10/1"], "tv", "forget")
    assert {name: values.tolist() for name, values in found.items()} == GAPS


def test_the_reduction_is_relative_to_the_best_baseline(tables: Any) -> None:
    """trw: mean 0.15; scrub: 0.3; ssd: 0.35. Reduction: (0.3 − 0.15) / 0.3 = 50 %."""
    gaps = {name: np.array(values) for name, values in GAPS.items()}
    assert tables.best_of(gaps, ["ssd", "scrub", "absent"]) == "scrub"
    assert tables.reduction(gaps["trw"], gaps["scrub"]) == pytest.approx(0.5)
    low, high = tables.interval(gaps["trw"], gaps["scrub"])
    assert low == pytest.approx(1 - 0.2 / 0.3)  # the second class drawn twice
    assert low < 0.5 < high <= 0.75 + 1e-9  # at most the first class with the worse seed of scrub throughout
    retain = {"trw": 0.8, "scrub": 0.7, "ssd": 0.8, "original": 0.9}
    kept = [row(method, f"cifar10/{i}", seed, "accuracy", value) | {"split": "retain"} for method, value in retain.items() for i in (0, 1) for seed in (0, 1)]
    shown = tables.show({"settings": {"data": ["cifar10"]}, "rows": ROWS + kept})
    assert "| tv | trw | 0.150 | scrub | 0.300 | +50% |" in shown
    assert "| tv | trw | 0.150 | ssd | 0.350 | +57% |" in shown  # scrub keeps less than trw does
    assert "original |" in shown
