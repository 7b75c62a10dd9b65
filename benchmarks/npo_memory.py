"""What a reference model costs that is not there: peak memory of NPO with precomputed log-likelihoods beside NPO with a second copy of the model.

Both train adapters on questions about two made-up people, with the same data, order and seed, in float32 on one thread, each in a process of its own. The one
computes log π_θ*(y|x) of each sample once, before the first step, as the method `npo` does; the other holds a frozen copy and asks it in each step. Peaks are
those from the moment when the model is loaded to the last step, above what the process held before it was loaded, when it had done the same with a tiny model
(so that libraries do not count); those of the whole process stand beside them. Merging the adapters, which puts the result beside the original, is no part of
it. Linux alone: the kernel's mark of the peak is set back.

Run: python benchmarks/npo_memory.py MODEL [STEPS]
MODEL: the directory or hub id of any decoder.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import warnings
from collections.abc import Callable

import psutil
import torch
from peak_memory import forget_peak, peak_bytes
from torch import Tensor, nn

from unlearned.api import make_problem
from unlearned.demo.text_generation import FORGOTTEN, Text, people_test, people_train
from unlearned.engine.adapters import Lora, with_adapter
from unlearned.engine.engine import Engine, frozen
from unlearned.engine.loop import Pass, Plan, fit
from unlearned.engine.randomness import seeded
from unlearned.engine.settings import Compute
from unlearned.methods.npo import NPO, npo_loss
from unlearned.tasks._task import Batch, Bundle
from unlearned.tasks.text_generation import TextGeneration

MIB = 2**20
BATCH = 1
VARIANTS = ("precomputed", "two copies")


def trained(variant: str, source: str | Bundle, steps: int) -> dict[str, object]:
    """Losses of the steps, and peaks in MiB."""
    before = psutil.Process().memory_info().rss
    problem = make_problem(source, train=people_train(), test=people_test(), forget=f"person in {list(FORGOTTEN)}", task=TextGeneration())
    engine = Engine(problem.task, Compute(device="cpu", threads=1, batch_size=BATCH))
    method = NPO(lora=Lora(), lr=1e-3, batch_size=BATCH, epochs=-(-steps * BATCH // len(problem.forget)))
    losses: list[float] = []
    gc.collect()
    forget_peak()  # that of loading is not that of training

    def watched(loss: Callable[[nn.Module, Batch, Batch], Tensor]) -> Callable[[nn.Module, Batch, Batch], Tensor]:
        def recorded(model: nn.Module, forget: Batch, retain: Batch) -> Tensor:
            found = loss(model, forget, retain)
            losses.append(float(found.detach()))
            return found

        return recorded

    log_likelihoods = engine.task.log_likelihoods
    if variant == "precomputed":
        sets = method.sets(problem, engine)
        loss = method.plan(problem, engine).passes[0].loss
    else:
        reference = frozen(problem.original.model)
        sets = {"forget": problem.forget, "retain": problem.retain}

        def loss(model: nn.Module, forget: Batch, _: Batch) -> Tensor:
            with torch.no_grad():
                known = log_likelihoods(reference, forget).float()
            return npo_loss(log_likelihoods(model, forget), known, method.beta).mean()

    with seeded(0):
        model = with_adapter(problem.original.model, Lora(), ".*")
    plan = Plan([Pass("forget", watched(loss))] * method.epochs, max_steps=steps)
    fit(engine, model, plan, sets, method.model_copy(update={"parameters": ".*"}), title="npo", seed=0)
    peak = peak_bytes()
    weights = sum(tensor.nbytes for tensor in {id(p): p for p in problem.original.model.parameters()}.values())
    return {"losses": losses, "peak": (peak - before) / MIB, "process": peak / MIB, "weights": weights / MIB}


def main() -> None:
    if sys.argv[1] in VARIANTS:
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        trained(sys.argv[1], Text().blank(), 1)
        print(json.dumps(trained(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
        return
    source, steps = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "12"
    run = [sys.executable, __file__]
    one, two = (json.loads(subprocess.run([*run, v, source, steps], check=True, capture_output=True, text=True).stdout.splitlines()[-1]) for v in VARIANTS)
    apart = [abs(a - b) for a, b in zip(one["losses"], two["losses"], strict=True)]
    found = {name: {what: round(made[what]) for what in ("weights", "peak", "process")} for name, made in zip(VARIANTS, (one, two), strict=True)}
    ratios = {what: round(one[what] / two[what], 3) for what in ("peak", "process")}
    largest = {"loss": max(two["losses"]), "difference": max(apart), "relative": max(d / abs(b) for d, b in zip(apart, two["losses"], strict=True))}
    print(json.dumps({"mib": found, "ratios": ratios, "steps": len(apart), "largest": largest}, indent=1))


if __name__ == "__main__":
    main()
