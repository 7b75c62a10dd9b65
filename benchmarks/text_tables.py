"""The tables of docs/benchmarks.md, from the rows of `pistol`, `tofu` or `facts`: python benchmarks/text_tables.py benchmarks/results/pistol.json

For each model, methods in rows: means over forget sets and seeds, with the least and the most of the deviation score. Then how many times lower the deviation
score of LUNAR and of our variants is than that of the best of gradient-ascent, grad-diff, dpo and npo, where best is the least mean: mean of the best / mean of
the method, with a bootstrap over forget sets, and over seeds within each. Then requests in turn beside the same requests alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from class_tables import best_of, table
from numpy.typing import NDArray

OURS = ("lunar", "lunar-tuned", "margin-redirect", "margin-redirect-gentle")
RIVALS = ("gradient-ascent", "grad-diff", "dpo", "npo")
COLUMNS = (
    ("deviation_score", "all"),
    ("rouge1_forget", "forget"),
    ("rouge1_retain", "retain"),
    ("rouge1_factual", "factual"),
    ("mrr_forget", "forget"),
    ("refusal_rate", "forget"),
    ("refusal_rate", "retain"),
    ("refusal_quality", "forget"),
    ("fluency", "forget"),
    ("forget_quality", "forget"),
    ("model_utility", "all"),
    ("tensors_changed", "all"),
    ("seconds", "all"),
)


def ratio(ours: NDArray[np.float64], best: NDArray[np.float64]) -> float:
    """Mean of the best / mean of ours."""
    return float(best.mean() / ours.mean())


def interval(ours: NDArray[np.float64], best: NDArray[np.float64], rounds: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap at 95 % of `ratio`: forget sets are drawn, then seeds of each, for both methods together, as they share both."""
    random = np.random.default_rng(0)
    sets, seeds = ours.shape
    drawn = []
    for _ in range(rounds):
        i = random.integers(0, sets, sets)[:, None]
        j = random.integers(0, seeds, (sets, seeds))
        drawn.append(ratio(ours[i, j], best[i, j]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def show(record: Mapping[str, Any]) -> str:
    """All tables, as Markdown."""
    rows = record["rows"]
    plain = [row["setting"] for row in rows if "/" in row["setting"] and " " not in row["setting"]]
    lines: list[str] = []
    for model in dict.fromkeys(setting.partition("/")[0] for setting in plain):
        settings = sorted({setting for setting in plain if setting.startswith(f"{model}/")})
        lines += [f"### {model}, mean over {', '.join(setting.partition('/')[2] for setting in settings)}", "", *_means(rows, settings), ""]
        lines += [*_ratios(rows, settings), "", *_in_turn(rows, f"{model}/in turn"), ""]
    return "\n".join(lines)


def _means(rows: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> list[str]:
    tables = {column: table(rows, settings, *column) for column in COLUMNS}
    shown = [column for column in COLUMNS if tables[column]]
    methods = list(dict.fromkeys(name for column in shown for name in tables[column]))
    titles = [f"{metric} ({split})" if metric == "refusal_rate" else metric for metric, split in shown]
    lines = ["| method | " + " | ".join(titles) + " | least to most |", "|---" * (len(shown) + 2) + "|"]
    for name in methods:
        cells = [f"{tables[column][name].mean():.2f}" if name in tables[column] else "" for column in shown]
        scores = tables[COLUMNS[0]].get(name)
        cells.append("" if scores is None else f"{scores.min():.1f} to {scores.max():.1f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _ratios(rows: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> list[str]:
    scores = table(rows, settings, *COLUMNS[0])
    rivals = [name for name in RIVALS if name in scores]
    if not rivals:
        return []
    best = best_of(scores, rivals)
    lines = [
        f"Best of {', '.join(rivals)}: {best}, {scores[best].mean():.1f}.",
        "",
        "| method | deviation score | times lower | 95 % interval |",
        "|---|---|---|---|",
    ]
    for name in (name for name in OURS if name in scores):
        low, high = interval(scores[name], scores[best])
        lines.append(f"| {name} | {scores[name].mean():.1f} | {ratio(scores[name], scores[best]):.1f} | {low:.1f} to {high:.1f} |")
    return lines


def _in_turn(rows: Sequence[Mapping[str, Any]], setting: str) -> list[str]:
    found: dict[str, dict[str, dict[int, list[float]]]] = {}
    for row in rows:
        if row["setting"] == setting:
            found.setdefault(row["method"], {}).setdefault(row["metric"] + " " + row["split"], {}).setdefault(row["seed"], []).append(row["value"])
    return [
        f"- {method}, {metric}: " + ", ".join(f"{values[0]:.2f}" for _, values in sorted(by_seed.items()))
        for method, metrics in found.items()
        for metric, by_seed in metrics.items()
    ]


if __name__ == "__main__":
    print(show(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
