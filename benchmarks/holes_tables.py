"""The tables of docs/benchmarks.md, from the rows of `holes`: python benchmarks/holes_tables.py benchmarks/results/holes.json

First, by method: what is left of the forget set, how far the benchmark and the probes moved, and how many holes were found: mean over seeds with Student's
interval at 95 %. Then the ways to search: holes for 1,000 questions, and how many times as many as random questions found, from ratios of the same seed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

Rows = Sequence[Mapping[str, Any]]
CHANGES = (("utility", "test"), ("utility", "retain"), ("adjacent_score", "probes"), ("latent_score", "probes"))
AFTER = (("knowledge", "forget"), ("adjacent_share_1", "probes"), ("adjacent_holes", "probes"), ("latent_share_1", "probes"), ("holes_per_1000", "probes"))
FOUND = ("distinct_per_1000", "different_per_1000", "unseen_per_1000")


def by_seed(rows: Rows, method: str, setting: str, metric: str, split: str) -> dict[int, float]:
    """Values of one number."""
    same = (r for r in rows if (r["method"], r["setting"], r["metric"], r["split"]) == (method, setting, metric, split))
    return {r["seed"]: r["value"] for r in same if r.get("value") is not None}


def told(values: Sequence[float]) -> str:
    """Mean with its interval."""
    x = np.asarray(values, dtype=np.float64)
    if not len(x):
        return "none"
    if len(x) < 2:
        return f"{x.mean():.2f}"
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return f"{x.mean():.2f} [{x.mean() - half:.2f}, {x.mean() + half:.2f}]" + (f" ({len(x)} seeds)" if len(x) < 3 else "")


def methods_table(rows: Rows) -> list[str]:
    """What each method did."""
    methods = dict.fromkeys(r["method"] for r in rows if r["setting"] == "after")
    titles = [f"{metric} ({split}), change" if metric == "utility" else f"{metric}, change" for metric, split in CHANGES] + [metric for metric, _ in AFTER]
    lines = ["| method | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    for method in methods:
        cells = []
        for metric, split in CHANGES:
            before, after = (by_seed(rows, method, when, metric, split) for when in ("before", "after"))
            cells.append(told([after[seed] - before[seed] for seed in sorted(before.keys() & after.keys())]))
        cells += [told(list(by_seed(rows, method, "after", metric, split).values())) for metric, split in AFTER]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return lines


def searches_table(rows: Rows) -> list[str]:
    """What each way to search found."""
    setting = next((r["setting"] for r in rows if r["setting"].startswith("search")), None)
    if setting is None:
        return []
    methods = dict.fromkeys(r["method"] for r in rows if r["setting"] == setting)
    lines = [f"| {setting} | " + " | ".join(FOUND) + " | distinct: times random |", "|---" * (len(FOUND) + 2) + "|"]
    base = by_seed(rows, "random", setting, FOUND[0], "probes")
    for method in methods:
        found = {metric: by_seed(rows, method, setting, metric, "probes") for metric in FOUND}
        ratios = [value / base[seed] for seed, value in found[FOUND[0]].items() if base.get(seed)]
        lines.append(f"| {method} | " + " | ".join(told(list(values.values())) for values in found.values()) + f" | {told(ratios)} |")
    return lines


if __name__ == "__main__":
    read = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["rows"]
    print("\n".join([*methods_table(read), "", *searches_table(read)]))
