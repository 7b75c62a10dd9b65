"""The gate: a training without the dropped points must not be told from a training on everything, by more than the noise of seeds.

Models are trained on everything, without the low points that were dropped, without as many random points, and without as many of the highest scores. Each is
held against those on everything, on the validation set or else on test data: by utility, by the predictions (total variation, classifiers only), and by the
confidence exp(−loss) in each sample. For distances, a model's number is its mean distance to the models on everything, of other seeds than its own: what these
have among themselves is the noise. Two groups are told apart where Welch's 95 % interval of the difference of their means leaves 0: for utility on either side,
for distances above. A model on everything is in the distances of the others, so that their numbers depend on each other.

What is not told apart need not be equal: a difference is seen where it is above the half-width of its interval, which few seeds leave wide. The gate says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from unlearned.data.samples import Samples, union
from unlearned.engine.bank import Bank, Kept
from unlearned.engine.engine import Engine
from unlearned.engine.randomness import derive_seed
from unlearned.engine.training import Trained, Training
from unlearned.evidence.distances import total_variation
from unlearned.influence._prune import Split, high, thinned
from unlearned.influence._rank import Ranking
from unlearned.problem import Problem
from unlearned.records import Cost, Removal
from unlearned.tasks._task import Batch

Removed = Literal["low", "random", "high"]
NAMES: tuple[Removed, ...] = ("low", "random", "high")


class Gated(NamedTuple):
    """What the gate found."""

    removals: tuple[Removal, ...]
    passed: bool
    words: str
    cost: Cost | None
    """Of the trainings; None if all were made elsewhere."""
    notes: tuple[str, ...] = ()
    """What must be known to read it."""


def welch(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """95 % interval of mean(first) − mean(second) of independent values with variances of their own (Welch 1947); at least two values each."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    parts = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    difference, square = float(a.mean() - b.mean()), float(sum(parts))
    if square == 0:
        return difference, difference
    freedom = square**2 / (parts[0] ** 2 / (len(a) - 1) + parts[1] ** 2 / (len(b) - 1))
    half = float(stats.t.ppf(0.975, freedom)) * square**0.5
    return difference - half, difference + half


def distances_to(own: Sequence[Tensor], full: Sequence[Tensor], distance: Callable[[Tensor, Tensor], Tensor]) -> list[float]:
    """Mean distance of each model to those on everything of other seeds: a value for each seed.

    Args:
        own: what the models said, one for each seed.
        full: what the models on everything said, of the same seeds in the same order.
        distance: of two answers, a value for each sample.
    """
    return [float(np.mean([float(distance(mine, other).mean()) for j, other in enumerate(full) if j != i])) for i, mine in enumerate(own)]


def pass_gate(problem: Problem, ranking: Ranking, dropped: dict[Split, list[int]], training: Training, bank: Bank, engine: Engine, models: int) -> Gated:
    """Train and compare.

    Args:
        problem: with all points.
        ranking: whose lowest points were dropped.
        dropped: positions in each set.
        training: how the original was trained.
        bank: keeps the models.
        engine: computes.
        models: for each of the four sets, at least 2.

    Raises:
        DivergedError: if a training diverges.
    """
    sets: dict[str, Samples] = {"none": union(problem.forget, problem.retain)}
    for name in NAMES:
        sets[name] = _without(problem, ranking, dropped, name, engine.seed)
    seeds = [derive_seed(engine.seed, "gate", i) for i in range(models)]
    kept: dict[str, list[Kept]] = {}
    for left_out, samples in sets.items():
        makings = [Trained(problem.original, seed, samples, training, f"gate, without {left_out}") for seed in seeds]
        kept[left_out] = bank.get(makings, f"gate: models without {left_out} points")
    # Test data are only reported, wherever there are others.
    on, where = (problem.test, "test data") if problem.validation is None else (problem.validation, "the validation set")
    removals = tuple(removal for metric in _metrics(problem) for removal in _compared(on, kept, engine, metric))
    costs = [model.cost for several in kept.values() for model in several if model.cost is not None]
    total = None
    for cost in costs:
        total = cost if total is None else total + cost
    return judged(removals, f"{models} models of each kind on {where}", total)


def judged(removals: Sequence[Removal], of: str, cost: Cost | None) -> Gated:
    """Whether the low points may be dropped, and why: refused where their removal is told apart in any metric.

    Args:
        removals: what the trainings differ in.
        of: how many models were compared, and on what.
        cost: of the trainings.
    """
    told = {name: [removal.metric for removal in removals if removal.removed == name and removal.told_apart] for name in NAMES}
    if told["low"]:
        by = " and ".join(_told(removal) for removal in removals if removal.removed == "low" and removal.told_apart)
        why = f"by {by}, with {of}: they are not of low influence"
        return Gated(tuple(removals), False, f"training without the dropped points is told apart from training on everything, {why}", cost)
    least = [f"{removal.half_width:.2g} in {removal.metric.replace('_', ' ')}" for removal in removals if removal.removed == "low"]
    power = f"{of} show a difference above {', '.join(least)}, and none that is smaller"
    others: dict[Removed, str] = {"high": "as many of the highest scores", "random": "as many at random"}
    seen = [words for name, words in others.items() if told[name]]
    if seen:
        words = f"training without the dropped points is not told from training on everything, while training without {' or without '.join(seen)} is; {power}"
        return Gated(tuple(removals), True, words, cost)
    words = f"nothing was told apart, neither training without the dropped points nor without {' nor without '.join(others.values())}; {power}"
    note = "The gate could tell nothing apart, not even training without the highest scores: it says nothing for the dropped points. Raise `gate`."
    return Gated(tuple(removals), True, words, cost, (note,))


def _told(removal: Removal) -> str:
    interval = f"difference {removal.low:.2g} to {removal.high:.2g}"
    return f"{removal.metric.replace('_', ' ')} ({removal.value:.3g} without them, {removal.full:.3g} on everything, {interval})"


def _without(problem: Problem, ranking: Ranking, dropped: dict[Split, list[int]], name: Removed, seed: int) -> Samples:
    positions = dropped
    if name == "high":
        positions = {split: high(ranking.part(split), len(low)) for split, low in dropped.items()}
    elif name == "random":
        random = np.random.default_rng(derive_seed(seed, "gate", "random"))
        positions = {split: sorted(random.permutation(len(ranking.part(split)))[: len(low)].tolist()) for split, low in dropped.items()}
    left = thinned(problem, positions)
    return union(left.forget, left.retain) if left is not None else problem.retain.without([problem.retain.ids[i] for i in positions.get("retain", [])])


def _metrics(problem: Problem) -> tuple[str, ...]:
    batch = problem.task.collate([problem.test[0]])
    return ("utility", "total_variation", "confidence") if problem.task.classes(batch) is not None else ("utility", "confidence")


def _compared(samples: Samples, kept: dict[str, list[Kept]], engine: Engine, metric: str) -> list[Removal]:
    task = engine.task

    def answers(model: nn.Module, batch: Batch) -> Tensor:
        return task.outputs(model, batch).softmax(dim=-1)

    def confidences(model: nn.Module, batch: Batch) -> Tensor:
        return torch.exp(-task.losses(model, batch))

    asked = {"utility": task.utility, "total_variation": answers, "confidence": confidences}[metric]
    said = {name: [engine.evaluate(model.bundle.model, samples, asked) for model in several] for name, several in kept.items()}
    if metric == "utility":
        values = {name: [float(each.mean()) for each in several] for name, several in said.items()}
    else:
        distance = total_variation if metric == "total_variation" else _apart
        values = {name: distances_to(several, said["none"], distance) for name, several in said.items()}
    return [held_against(name, metric, values[name], values["none"]) for name in NAMES]


def held_against(removed: Removed, metric: str, values: Sequence[float], full: Sequence[float]) -> Removal:
    """What the removal changes: a value for each seed without the points, and one for each seed on everything."""
    low, high = welch(values, full)
    apart = low > 0 or (metric == "utility" and high < 0)
    value, whole = float(np.mean(values)), float(np.mean(full))
    how = f"Welch 95 % over {len(values)} seeds"
    return Removal(removed=removed, metric=metric, value=value, full=whole, low=low, high=high, interval=how, told_apart=bool(apart))


def _apart(p: Tensor, q: Tensor) -> Tensor:
    return (p - q).abs()
