"""How much slower the engine's loop is than a bare PyTorch loop on the same model and data: python benchmarks/loop_overhead.py

Both train the demo's network on the digits with the same optimiser, batches and number of steps, in turns, within one process. Printed is the median over
the rounds of the ratio of their processor times, with the range.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from unlearned.data.samples import Samples
from unlearned.demo import digits_network, digits_train
from unlearned.engine.batches import batch_positions
from unlearned.engine.engine import Engine
from unlearned.engine.environment import environment
from unlearned.engine.loop import Pass, Plan, fit
from unlearned.engine.settings import Compute, Optimisation
from unlearned.tasks import tasks
from unlearned.tasks._task import Bundle


class _Rows:
    """The same rows for both loops."""

    def __init__(self, samples: Samples) -> None:
        self.rows = [samples[i] for i in range(len(samples))]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Any:
        row = self.rows[position]
        return row["pixel_values"], row["labels"]


def bare(model: nn.Module, samples: Samples, how: Optimisation) -> float:
    """Processor seconds of a loop as a tutorial has it."""
    rows = _Rows(samples)
    optimizer = torch.optim.SGD(model.parameters(), lr=how.lr, momentum=how.momentum, weight_decay=how.weight_decay)
    model.train()
    start = time.process_time()
    for epoch in range(how.epochs):
        for images, labels in DataLoader(rows, batch_sampler=batch_positions(len(rows), how.batch_size, 0, epoch)):  # type: ignore[arg-type]
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
    return time.process_time() - start


def ours(engine: Engine, model: nn.Module, samples: Samples, how: Optimisation) -> float:
    """Processor seconds of the engine's loop."""

    def loss(model: nn.Module, forget: Any, retain: Any) -> Any:  # noqa: ARG001
        return engine.task.losses(model, retain).mean()

    start = time.process_time()
    fit(engine, model, Plan([Pass("retain", loss)] * how.epochs), {"retain": samples}, how, title="overhead", seed=0)
    return time.process_time() - start


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--output", type=Path, help="write the rows as JSON")
    given = arguments.parse_args()
    torch.set_num_threads(2)
    task = tasks.get("image-classification")()
    network = digits_network()
    samples = task.read(digits_train(), Bundle(network), "train")
    engine = Engine(task, Compute(device="cpu", threads=2))
    how = Optimisation(epochs=8, batch_size=128)
    pairs = []
    for turn in range(given.rounds + 1):
        first, second = copy.deepcopy(network), copy.deepcopy(network)
        # Who goes first changes from round to round: a machine that slows down would otherwise favour one.
        if turn % 2:
            a, b = bare(first, samples, how), ours(engine, second, samples, how)
        else:
            b, a = ours(engine, second, samples, how), bare(first, samples, how)
        pairs.append((a, b))
    ratios = [b / a for a, b in pairs[1:]]  # the first round warms up
    spread = f"median of {len(ratios)} rounds, {min(ratios) - 1:+.1%} to {max(ratios) - 1:+.1%}"
    print(f"loop overhead over bare PyTorch: {statistics.median(ratios) - 1:+.1%} ({spread})")
    if given.output:
        rows = [{"method": "engine", "setting": "demo network", "seed": i, "split": "train", "metric": "cpu_ratio", "value": r} for i, r in enumerate(ratios)]
        record = {
            "schema": "unlearned.bench/1",
            "suite": "loop-overhead",
            "environment": environment(engine).model_dump(),
            "settings": how.model_dump(),
            "rows": rows,
        }
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
