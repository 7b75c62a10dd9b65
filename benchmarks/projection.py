"""What a projection on n gradients costs, beside a QR decomposition in float64: python benchmarks/projection.py

Three questions, one run, one thread:
- d = 1,005,110, n = 50: both are given the same gradients in float32, of the largest logits of a perceptron 96-950-950-10 at random inputs. Printed are their
  largest difference relative to the largest entry, and the median over the rounds of the ratio of processor times, with the range.
- The same sizes: how much memory each adds, measured in a process of its own, as the growth of its peak after the gradients are there.
- d = 91,201, n = 50: the perceptron 1-300-300-1 with SiLU at 50 points. Printed is the processor time of a whole step of the method and of its two parts;
  and, for three networks after training, how far projections with several cuts, and the QR decomposition, are from what gradients in float64 give.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from peak_memory import peak_bytes
from torch import Tensor, nn

from unlearned.engine.engine import Engine
from unlearned.engine.environment import environment
from unlearned.engine.output_gradients import numbers_of
from unlearned.engine.projection import CUT, coefficients, combined, inner_products, project
from unlearned.engine.settings import Compute
from unlearned.records import BenchRecord, BenchRow
from unlearned.tasks import tasks
from unlearned.tasks._task import Batch

N = 50


def by_inner_products(rows: list[Tensor], weights: list[Tensor], cut: float = CUT) -> Tensor:
    """P_G θ as the package computes it, (d,)."""
    solution = coefficients(inner_products(rows, weights), cut)
    return torch.cat([combined(row, solution).flatten() for row in rows])


def by_qr(rows: list[Tensor], weights: list[Tensor]) -> Tensor:
    """Q Qᵀθ with Q from the d x n matrix in float64, (d,)."""
    matrix = torch.cat([row.flatten(1) for row in rows], dim=1).T.double()
    q = torch.linalg.qr(matrix).Q
    return q @ (q.T @ torch.cat([weight.flatten() for weight in weights]).double())


WAYS: dict[str, Callable[[list[Tensor], list[Tensor]], Tensor]] = {"inner-products": by_inner_products, "qr": by_qr}


def large() -> nn.Module:
    """A classifier with a million weights."""
    return nn.Sequential(nn.Linear(96, 950), nn.SiLU(), nn.Linear(950, 950), nn.SiLU(), nn.Linear(950, 10))


def small() -> nn.Module:
    """The network of the sine experiment."""
    return nn.Sequential(nn.Linear(1, 300), nn.SiLU(), nn.Linear(300, 300), nn.SiLU(), nn.Linear(300, 1))


def largest(model: nn.Module, batch: Batch) -> Tensor:
    """The largest output of each sample, (B, 1); of one output, that."""
    return torch.amax(model(batch["x"]), dim=1, keepdim=True)


def gradients_of(model: nn.Module, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients of each tensor of weights, (n, ...), and the tensors."""
    named = {name: weight.detach() for name, weight in model.named_parameters()}
    return list(numbers_of(model, largest, {"x": x}).gradients(list(named)).values()), list(named.values())


def processor_seconds(what: Callable[[], object]) -> float:
    """Of one call."""
    start = time.process_time()
    what()
    return time.process_time() - start


def added_memory(way: str) -> tuple[int, int]:
    """Bytes by which the peak of a fresh process grows when it projects, and bytes of the gradients that it is given."""
    done = subprocess.run([sys.executable, __file__, "--memory-of", way], check=True, capture_output=True, text=True)
    grown, given = done.stdout.split()
    return int(grown), int(given)


def measure_memory(way: str) -> None:
    """In a process of its own: print what `added_memory` returns."""
    torch.set_num_threads(1)
    weights = [weight.detach() for weight in large().parameters()]
    rows = [torch.randn(N, *weight.shape) for weight in weights]
    WAYS[way]([row[:, :1] for row in rows], [weight[:1] for weight in weights])  # libraries load what they need
    before = peak_bytes()
    WAYS[way](rows, weights)
    print(peak_bytes() - before, sum(row.nbytes for row in rows))


def points() -> Tensor:
    """Where the sine experiment has its samples, (n, 1)."""
    return (torch.rand(N, 1) * 2 - 1) * 5 * math.pi


def trained(model: nn.Module, x: Tensor) -> None:
    """3,000 steps on the sine of the points."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(3000):
        optimizer.zero_grad()
        F.mse_loss(model(x), x.sin()).backward()
        optimizer.step()


class Notes:
    """The rows of the record."""

    def __init__(self) -> None:
        self.rows: list[BenchRow] = []

    def add(self, method: str, setting: str, metric: str, values: list[float]) -> None:
        """One row for each value."""
        self.rows += [BenchRow(method=method, setting=setting, seed=i, split="gradients", metric=metric, value=value) for i, value in enumerate(values)]


def compare_memory(notes: Notes) -> None:
    """At a million weights."""
    memory = {way: added_memory(way) for way in WAYS}
    (ours, held), (theirs, _) = memory["inner-products"], memory["qr"]
    print(f"memory added at d = 1,005,110: {ours / 2**20:.1f} MiB, QR {theirs / 2**20:.0f} MiB: {ours / theirs:.4f} of it")
    print(f"  with the gradients themselves ({held / 2**20:.0f} MiB): {(ours + held) / (theirs + held):.3f} of it")
    for way, (grown, size) in memory.items():
        notes.add(way, "d=1005110", "added_bytes", [float(grown)])
        notes.add(way, "d=1005110", "added_bytes_with_gradients", [float(grown + size)])


def compare_time(notes: Notes, rounds: int) -> None:
    """At a million weights, with the difference of the results."""
    gradients, weights = gradients_of(large(), torch.randn(N, 96))
    found = {way: project_by(gradients, weights) for way, project_by in WAYS.items()}
    off = float((found["inner-products"] - found["qr"]).abs().max() / found["qr"].abs().max())
    print(f"largest relative difference at d = {len(found['qr']):,}: {off:.1e}")
    notes.add("inner-products", "d=1005110", "largest_relative_difference", [off])
    pairs = []
    for turn in range(rounds):
        # Who goes first changes from round to round: a machine that slows down would otherwise favour one.
        order = list(WAYS) if turn % 2 else list(WAYS)[::-1]
        pairs.append({way: processor_seconds(partial(WAYS[way], gradients, weights)) for way in order})
    ratios = [pair["qr"] / pair["inner-products"] for pair in pairs]
    print(f"time: {statistics.median(ratios):.1f} times as fast as QR ({spread(ratios)})")
    notes.add("inner-products", "d=1005110", "times_as_fast", ratios)
    for way in WAYS:
        notes.add(way, "d=1005110", "processor_seconds", [pair[way] for pair in pairs])


def time_step(notes: Notes, engine: Engine, rounds: int) -> None:
    """The whole step on the network of the sine experiment, and its parts."""
    model, x = small(), points()
    gradients, weights = gradients_of(model, x)
    parts: dict[str, Callable[[], object]] = {
        "whole step": lambda: project(engine, model, largest, {"x": x}, 1e-6),
        "gradients": lambda: gradients_of(model, x),
        "projection": lambda: by_inner_products(gradients, weights),
    }
    for name, part in parts.items():
        part()
        seconds = [processor_seconds(part) for _ in range(4 * rounds)]
        print(f"d = {sum(w.numel() for w in weights):,}, {name}: {statistics.median(seconds) * 1e3:.1f} ms ({spread([s * 1e3 for s in seconds])})")
        notes.add("inner-products", "d=91201", f"processor_seconds: {name}", seconds)


def compare_cuts(notes: Notes) -> None:
    """On trained networks, whose gradients nearly depend on each other."""
    distances: dict[str, list[float]] = {}
    for seed in range(3):
        torch.manual_seed(seed)
        model, x = small(), points()
        trained(model, x)
        exact = by_qr(*gradients_of(copy.deepcopy(model).double(), x.double()))
        gradients, weights = gradients_of(model, x)
        found = {f"cut {cut:.0e}": by_inner_products(gradients, weights, cut).double() for cut in (1e-10, 1e-12, CUT)} | {"QR": by_qr(gradients, weights)}
        size = torch.cat([weight.flatten() for weight in weights]).double().norm()
        for name, projection in found.items():
            distances.setdefault(name, []).append(float((projection - exact).norm() / size))
    print("trained networks: distance from the projection on gradients in float64, as a share of the length of the weights")
    for name, values in distances.items():
        print(f"  {name}: {', '.join(f'{value:.3f}' for value in values)}")
        notes.add("qr" if name == "QR" else "inner-products", f"d=91201, trained, {name}", "distance", values)


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--output", type=Path, help="write the rows as JSON")
    arguments.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.memory_of:
        measure_memory(given.memory_of)
        return
    torch.set_num_threads(1)
    torch.manual_seed(0)
    notes = Notes()
    compare_memory(notes)  # first: a child's peak begins with what its parent held
    compare_time(notes, given.rounds)
    engine = Engine(tasks.get("image-classification")(), Compute(device="cpu", threads=1))
    time_step(notes, engine, given.rounds)
    compare_cuts(notes)
    if given.output:
        settings = {"rounds": given.rounds, "n": N, "threads": 1}
        record = BenchRecord(suite="projection", environment=environment(engine), settings=settings, rows=tuple(notes.rows))
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(record.to_json(), encoding="utf-8")


def spread(values: list[float]) -> str:
    """Smallest and largest."""
    return f"{len(values)} rounds, {min(values):.1f} to {max(values):.1f}"


if __name__ == "__main__":
    main()
