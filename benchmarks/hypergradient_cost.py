"""What a step with a hypergradient costs beside a plain one: time, peak memory, and exact against central-difference products.

A rehearsal of one inner step and K = 5 on the UNet of the suite `resilience`, batch 32, one thread. The plain step is that of the same method without
rehearsals: gradient ascent and distillation. Ratios are medians over interleaved repetitions, so that other work on the machine falls on both.

Run: python benchmarks/hypergradient_cost.py [REPETITIONS]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
import warnings

import torch
from peak_memory import peak_bytes

from unlearned.api import forget
from unlearned.bench._pictures import digits
from unlearned.engine.engine import Engine
from unlearned.engine.finetuning import FineTuning
from unlearned.engine.hypergradient import Proximal, hypergradient, norm_of
from unlearned.engine.settings import Compute
from unlearned.methods.resalign import ResAlign
from unlearned.problem import Problem

STEPS = 3
BATCH = 32
VARIANTS = {"plain": {"beta": 0.0}, "exact": {}, "differences": {"products": "differences"}, "first order": {"iterations": 1}}


def problem() -> tuple[Problem, Engine]:
    bed = digits()
    task, train = bed.task.bound(bed.drawer), bed.train
    labels = train.fact("label")
    chosen = [i for i, label in enumerate(labels) if label == 3]
    rest = [i for i, label in enumerate(labels) if label != 3]
    return Problem(task, bed.drawer, train.subset(chosen), train.subset(rest), bed.held_out), Engine(task, Compute(threads=1))


def method(variant: str) -> ResAlign:
    pool = (FineTuning(id="one", lr=0.01, steps=1, batch_size=BATCH),)
    sizes = {"steps": STEPS, "forget_batch_size": BATCH, "batch_size": BATCH, "lora": None, "parameters": r"^unet\."}
    return ResAlign(pool=pool, rehearsals=1, gamma=0.01, norm_limit=None, **sizes, **VARIANTS[variant])  # type: ignore[arg-type]


def seconds(variant: str) -> float:
    """Processor time of a step; what is done once is left out by taking away a run of one step."""
    sizes = []
    for steps in (1, 1 + STEPS):
        made, engine = problem()
        begun = time.process_time()
        forget(made, method(variant).model_copy(update={"steps": steps}), engine)
        sizes.append(time.process_time() - begun)
    return (sizes[1] - sizes[0]) / STEPS


def peak(variant: str) -> float:
    """Peak memory of a process that does nothing else, in MiB."""
    done = subprocess.run([sys.executable, __file__, "--peak-of", variant], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def measure_peak(variant: str) -> None:
    """In a process of its own: print what `peak` returns."""
    made, engine = problem()
    forget(made, method(variant), engine)
    print(peak_bytes() / 2**20)


def agreement() -> float:
    """Relative distance of the hypergradients by central differences from the exact one, in float32."""
    made, engine = problem()
    model = made.original.model.eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("unet."))
    weights = [p for p in model.parameters() if p.requires_grad]
    batches = [made.task.collate([samples[i] for i in range(BATCH)]) for samples in (made.forget, made.retain)]
    found = []
    for products in ("exact", "differences"):
        how = Proximal(gamma=0.01, products=products)
        outer, inner = (lambda batch=batch: engine.task.losses(model, batch).mean() for batch in batches)
        found.append(hypergradient(outer, inner, weights, weights, how).gradient)
    return norm_of([a - b for a, b in zip(*found, strict=True)]) / norm_of(found[0])


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--peak-of"]:
        measure_peak(sys.argv[2])
        return
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    warnings.simplefilter("ignore")
    times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(repetitions):
        for variant in VARIANTS:
            times[variant].append(seconds(variant))
    ratios = {v: statistics.median(t / p for t, p in zip(times[v], times["plain"], strict=True)) for v in VARIANTS}
    result = {"times_of_a_plain_step": ratios, "peak_mib": {v: peak(v) for v in VARIANTS}, "differences_from_exact": agreement()}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
