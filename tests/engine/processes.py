"""What one of several processes does in `test_processes`: `python -m tests.engine.processes OUT`; what it saw is written to OUT, one file per process."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.models import bits, problem_of
from unlearned.api import forget
from unlearned.engine.engine import Engine
from unlearned.engine.keeping import Keep
from unlearned.engine.settings import Compute
from unlearned.problem import Problem
from unlearned.tasks._task import Batch

# Batches that two processes divide evenly. AdamW would make large steps of rounding errors.
_SETTINGS: dict[str, Any] = {"epochs": 1, "batch_size": 4, "optimizer": "sgd", "lr": 0.05, "alpha": 1.0}
RUNS: dict[str, dict[str, Any]] = {"grad-diff": {}, "npo": {}, "eru": {"zscore": True, "refresh": 1}}
METRICS = ("knowledge", "generations", "log_likelihoods")


class Seeing(Engine):
    """An engine that notes losses and the batches that are trained on."""

    def __init__(self, problem: Problem, work: Path) -> None:
        super().__init__(problem.task, Compute(batch_size=3, checkpoint_seconds=0, device="cpu"), seed=3, work=work)
        self.losses: list[float] = []
        self.drawn: list[list[str]] = []

    def track(self, title: str, values: Mapping[str, float], step: int) -> None:
        del title, step
        self.losses += [values["loss"]] if "loss" in values else []

    def to_device(self, batch: Batch) -> Batch:
        if torch.is_grad_enabled():
            self.drawn.append([str(row.tolist()) for row in batch["input_ids"]])
        return batch


def seen(work: Path) -> dict[str, Any]:
    """Losses, batches, metrics and weights of some trainings on a tiny model."""
    found: dict[str, Any] = {}
    problem = problem_of("llama", forget=8, retain=8, test=7)
    for name, settings in RUNS.items():
        engine = Seeing(problem, work / name)
        looks: list[float] = []

        def judge(model: nn.Module, engine: Engine = engine, looks: list[float] = looks) -> list[float]:
            looks.append(float(engine.evaluate(model, problem.test, problem.task.log_likelihoods).mean()))
            return looks[-1:]

        made = forget(problem, name, engine.keeping(Keep(1, judge)), **_SETTINGS, **settings)
        metrics = {metric: engine.evaluate(made.model, problem.test, getattr(problem.task, metric)).tolist() for metric in METRICS}
        weights = {key: tensor.double().flatten().tolist() for key, tensor in bits(made.model).items()}
        found[name] = {"losses": engine.losses, "batches": engine.drawn, "looks": looks, "metrics": metrics, "weights": weights}
    found["original"] = {metric: engine.evaluate(problem.original.model, problem.test, getattr(problem.task, metric)).tolist() for metric in METRICS}
    return found


if __name__ == "__main__":
    out = Path(sys.argv[1])
    result = seen(out / "work")
    from accelerate import PartialState

    (out / f"{PartialState().process_index}.json").write_text(json.dumps(result))
    PartialState().destroy_process_group()
