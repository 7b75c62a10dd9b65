"""The tables of docs/benchmarks.md, from the rows of a suite: python benchmarks/class_tables.py benchmarks/results/class-unlearning.json

For each data set, methods in rows: means over forget sets and seeds. Then how much smaller the gap of a method to retraining is than that of the best baseline:
(gap_best − gap) / gap_best, where best is the baseline with the least mean gap. The interval is a bootstrap over classes, and over seeds within each.
Once against all baselines, and once against those that keep at least as much accuracy on the retain set: a ruined model is hard to tell from a retrained one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LADDER = ("delete", "trw-beta0", "trw", "trw-features", "trw-confusion", "trw-oracle")
NOT_BASELINES = {"original", "retrain", *LADDER}
COLUMNS = (
    ("accuracy", "forget"),
    ("accuracy", "retain"),
    ("accuracy", "test"),
    ("membership", "forget"),
    ("u_lira", "forget"),
    ("u_lira_gap", "forget"),
    ("mia_nn", "forget-test"),
    ("mia_nn_gap", "forget-test"),
    ("tv", "forget"),
    ("cost_ratio", "all"),
)
GAPS = (("u_lira_gap", "forget"), ("mia_nn_gap", "forget-test"), ("tv", "forget"))

Table = Mapping[str, NDArray[np.float64]]
"""By method: (forget sets, seeds)."""


def table(rows: Iterable[Mapping[str, Any]], settings: Sequence[str], metric: str, split: str) -> dict[str, NDArray[np.float64]]:
    """Values by method, (forget sets, seeds); methods that lack one are left out."""
    found: dict[str, dict[tuple[str, int], float]] = {}
    for row in rows:
        if (row["metric"], row["split"]) == (metric, split) and row["setting"] in settings and row.get("value") is not None:
            found.setdefault(row["method"], {})[row["setting"], row["seed"]] = row["value"]
    seeds = sorted({seed for values in found.values() for _, seed in values})
    wanted = [[(setting, seed) for seed in seeds] for setting in settings]
    whole = {method: values for method, values in found.items() if len(values) == len(settings) * len(seeds)}
    return {method: np.array([[values[place] for place in line] for line in wanted]) for method, values in whole.items()}


def best_of(gaps: Table, baselines: Iterable[str]) -> str:
    """The baseline with the least mean gap."""
    return min((name for name in baselines if name in gaps), key=lambda name: float(gaps[name].mean()))


def reduction(gap: NDArray[np.float64], best: NDArray[np.float64]) -> float:
    """(mean best − mean gap) / mean best."""
    return float(1 - gap.mean() / best.mean())


def interval(gap: NDArray[np.float64], best: NDArray[np.float64], rounds: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap at 95 % of `reduction`: forget sets are drawn, then seeds of each, for both methods together, as they share both."""
    random = np.random.default_rng(0)
    sets, seeds = gap.shape
    drawn = []
    for _ in range(rounds):
        i = random.integers(0, sets, sets)[:, None]
        j = random.integers(0, seeds, (sets, seeds))
        drawn.append(reduction(gap[i, j], best[i, j]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def show(record: Mapping[str, Any]) -> str:
    """All tables, as Markdown."""
    lines = []
    for data in record["settings"]["data"]:
        settings = sorted({row["setting"] for row in record["rows"] if row["setting"].startswith(f"{data}/") and " " not in row["setting"]})
        kinds = [settings] if all(name.rpartition("/")[2].isdigit() for name in settings) else [[name] for name in settings]
        for group in kinds:
            lines += [f"### {data}, mean over {len(group)} classes" if len(group) > 1 else f"### {group[0]}", "", *_means(record["rows"], group), ""]
            if len(group) > 1:
                lines += ["Against all baselines:", "", *_reductions(record["rows"], group, keeping=False), ""]
                lines += ["Against those that keep at least as much:", "", *_reductions(record["rows"], group, keeping=True), ""]
    return "\n".join(lines)


def _means(rows: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> list[str]:
    tables = {column: table(rows, settings, *column) for column in COLUMNS}
    shown = [column for column in COLUMNS if tables[column]]
    methods = list(dict.fromkeys(name for column in shown for name in tables[column]))
    lines = ["| method | " + " | ".join(metric if metric != "accuracy" else f"acc. {split}" for metric, split in shown) + " |", "|---" * (len(shown) + 1) + "|"]
    for name in methods:
        cells = [f"{tables[column][name].mean():.3f}" if name in tables[column] else "" for column in shown]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _reductions(rows: Sequence[Mapping[str, Any]], settings: Sequence[str], *, keeping: bool) -> list[str]:
    lines = ["| gap | method | gap | best baseline | its gap | reduction | 95 % interval |", "|---|---|---|---|---|---|---|"]
    kept = table(rows, settings, "accuracy", "retain")
    for metric, split in GAPS:
        gaps = table(rows, settings, metric, split)
        for name in (name for name in LADDER if name in gaps):
            baselines = [b for b in gaps if b not in NOT_BASELINES and not (keeping and kept[b].mean() < kept[name].mean())]
            if not baselines:
                continue
            best = best_of(gaps, baselines)
            low, high = interval(gaps[name], gaps[best])
            share = reduction(gaps[name], gaps[best])
            lines.append(f"| {metric} | {name} | {gaps[name].mean():.3f} | {best} | {gaps[best].mean():.3f} | {share:+.0%} | {low:+.0%} to {high:+.0%} |")
    return lines


if __name__ == "__main__":
    print(show(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
