from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("text_tables")


def row(method: str, setting: str, seed: int, value: float, metric: str = "deviation_score", split: str = "all") -> dict[str, Any]:
    return {"method": method, "setting": setting, "seed": seed, "split": split, "metric": metric, "value": value}


SCORES = {"lunar": [[10.0, 30.0], [20.0, 20.0]], "npo": [[60.0, 40.0], [50.0, 50.0]], "dpo": [[90.0, 90.0], [90.0, 90.0]]}
ROWS = [
    row(m, f"llama-small/{edge}", seed, value) for m, lines in SCORES.items() for edge, line in zip("AB", lines, strict=True) for seed, value in enumerate(line)
]


def test_a_ratio_is_that_of_means_and_its_interval_contains_it(tables: Any) -> None:
    """lunar: mean 20; npo, the best rival: 50. 50 / 20 = 2.5."""
    ours, best = np.array(SCORES["lunar"]), np.array(SCORES["npo"])
    assert tables.ratio(ours, best) == pytest.approx(2.5)
    low, high = tables.interval(ours, best)
    assert low < 2.5 < high
    assert tables.interval(np.full((2, 2), 5.0), np.full((2, 2), 15.0)) == pytest.approx((3.0, 3.0))


def test_the_tables_name_the_best_rival_and_requests_in_turn(tables: Any) -> None:
    turned = row("lunar", "llama-small/in turn", 0, 12.5, "deviation_score_in_turn", "request 1")
    shown = tables.show({"rows": [*ROWS, turned, row("lunar", "llama-small/B+C for the choice", 0, 1.0)]})
    assert "Best of dpo, npo: npo, 50.0." in shown
    assert "| lunar | 20.0 | 2.5 |" in shown
    assert "10.0 to 30.0" in shown
    assert "- lunar, deviation_score_in_turn request 1: 12.50" in shown
