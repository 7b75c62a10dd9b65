"""What one of several processes does in `test_processes`: `python -m tests.engine.processes OUT`; what it saw is written to OUT, one file per process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from torch import nn

from tests.models import bits, problem_of
from unlearned.api import forget
from unlearned.engine.engine import Engine
from unlearned.engine.keeping import Keep
from unlearned.engine.settings import Compute
from unlearned.tasks._task import Batch

# Batches that two processes divide evenly. AdamW would make large steps of rounding errors.
_SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 4, "optimizer": "sgd", "lr": 0.05, "alpha": 1.0}
RUNS: dict[str, dict[str, Any]] = {
    "grad-diff": {},
    "npo": {},
    "eru": {"zscore": True, "refresh": 2},
    "adv-npo": {"ascent_steps": 1, "inner": "expected"},
}


def seen(work: Path) -> dict[str, Any]:
    """Losses, batches, metrics and weights of some trainings on a tiny model."""
    found: dict[str, Any] = {}
    problem = problem_of("llama", forget=8, retain=12)
    for name, settings in RUNS.items():
        engine = Engine(problem.task, Compute(batch_size=3, checkpoint_seconds=0, device="cpu"), seed=3, work=work / name)
        losses: list[float] = []
        batches: list[list[str]] = []
        looks: list[float] = []

        def track(_: str, loss: float, __: int, into: list[float] = losses) -> None:
            into.append(loss)

        def to_device(batch: Batch, into: list[list[str]] = batches) -> Batch:
            into.append([str(row.tolist()) for row in batch["input_ids"]])
            return batch

        def judge(model: nn.Module, into: list[float] = looks, aside: Engine = engine.aside(0)) -> list[float]:
            into.append(float(aside.evaluate(model, problem.test, problem.task.probability).mean()))  # type: ignore[attr-defined]
            return into[-1:]

        engine.track = track  # type: ignore[method-assign]
        made = forget(problem, name, engine.keeping(Keep(1, judge)), **_SETTINGS, **settings)
        engine.to_device = to_device  # type: ignore[method-assign]
        forget(problem, name, engine, **{**_SETTINGS, **settings, "epochs": 1})
        engine.to_device = lambda batch: batch  # type: ignore[method-assign]
        metrics = {
            metric: engine.evaluate(made.model, problem.test, getattr(problem.task, metric)).tolist()
            for metric in ("knowledge", "utility", "log_likelihoods", "generations")
        }
        found[name] = {
            "losses": losses[:4],
            "batches": batches,
            "looks": looks,
            "metrics": metrics,
            "weights": {key: tensor.double().flatten().tolist() for key, tensor in bits(made.model).items()},
        }
    engine = Engine(problem.task, Compute(batch_size=3, device="cpu"))
    found["original"] = {
        m: engine.evaluate(problem.original.model, problem.test, getattr(problem.task, m)).tolist() for m in ("knowledge", "outputs", "generations")
    }
    return found


if __name__ == "__main__":
    out = Path(sys.argv[1])
    result = seen(out / "work")
    from accelerate import PartialState

    (out / f"{PartialState().process_index}.json").write_text(json.dumps(result))
    PartialState().destroy_process_group()
