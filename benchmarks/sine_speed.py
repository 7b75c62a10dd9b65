"""How much faster the sine suite's MinNorm-OG is than the algorithm written down plainly: python benchmarks/sine_speed.py

The plain program is what the paper's pseudocode says, for one network: gradients of the outputs by one backward pass for each sample, side by side in a matrix
d x n, its QR decomposition in float64, an autograd step of AdamW. The suite's program does all seeds at once and never forms that matrix. Both run the
paper's best setting for T = 1000 on the same networks, in turns, on one thread in one process. Printed are ratios of processor times for one network, the
median over the rounds with the range, and what both have come to.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from unlearned.bench._sine_methods import PUBLISHED, Choice, minnorm_og
from unlearned.bench._sine_models import Points, data, descend, initial
from unlearned.bench._sine_networks import module, onto_gradients
from unlearned.bench.sine import sup_error
from unlearned.engine.engine import Engine
from unlearned.engine.environment import environment
from unlearned.engine.settings import Compute
from unlearned.tasks import tasks


def plain_projection(network: nn.Module, x: Tensor) -> Tensor:
    """P_G θ (d,) by a QR decomposition in float64 of the gradients (d, n) of the outputs at `x` (n,)."""
    weights = list(network.parameters())
    columns = []
    for point in x:
        gradients = torch.autograd.grad(network(point.view(1, 1)).squeeze(), weights)
        columns.append(torch.cat([part.flatten() for part in gradients]))
    basis, _ = torch.linalg.qr(torch.stack(columns, dim=1).double())
    theta = parameters_to_vector(weights).detach()
    return (basis @ (basis.T @ theta.double())).to(theta.dtype)


def plain_minnorm_og(theta: Tensor, x: Tensor, y: Tensor, choice: Choice, budget: int, stale: bool = False) -> Tensor:
    """Parameters (d,) after T epochs of MinNorm-OG from `theta` (d,) on the points `x`, `y` (n,).

    `stale`: the loss was computed before the projection, and its graph is used with the weights after it.
    """
    network = module(math.isqrt(3 + len(theta)) - 2).to(theta.dtype)
    vector_to_parameters(theta.clone(), network.parameters())
    optimizer = torch.optim.AdamW(network.parameters(), lr=choice.lr)
    kappa = choice.lambda_reg
    for epoch in range(budget):
        loss = nn.functional.mse_loss(network(x[:, None])[:, 0], y)
        if epoch < budget - choice.t_gd and epoch % choice.t_proj == 0:
            now = parameters_to_vector(network.parameters()).detach()
            moved = now - kappa * (now - plain_projection(network, x))
            for weight, part in zip(network.parameters(), moved.split([weight.numel() for weight in network.parameters()]), strict=True):
                weight.data.copy_(part.view_as(weight))
            kappa *= choice.gamma
            if not stale:
                loss = nn.functional.mse_loss(network(x[:, None])[:, 0], y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return parameters_to_vector(network.parameters()).detach()


def seconds(work: Callable[[], object]) -> float:
    """Processor time of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seeds", type=int, default=10, help="networks in the stack")
    arguments.add_argument("--epochs", type=int, default=2000, help="epochs of training before unlearning")
    arguments.add_argument("--output", type=Path, help="write the rows as JSON")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    points = data(range(given.seeds))
    x, y = points.retained
    start = descend(initial(range(given.seeds), 300, "original"), points.all, given.epochs, 1e-3)
    network = module(300)
    vector_to_parameters(start[0].clone(), network.parameters())
    choice = PUBLISHED[1000]

    rows = []
    parts: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "projection": (lambda: plain_projection(network, x[0]), lambda: onto_gradients(start, x)),
        "T=1000": (
            lambda: plain_minnorm_og(start[0], x[0], y[0], choice, 1000),
            lambda: list(minnorm_og([choice], start, points.retained, 1000, stale=False)),
        ),
    }
    for name, (plain, stacked) in parts.items():
        plain(), stacked()  # warm up
        pairs = []
        for turn in range(given.rounds):
            # Who goes first changes from round to round: a machine that slows down would otherwise favour one.
            if turn % 2:
                a, b = seconds(plain), seconds(stacked) / given.seeds
            else:
                b, a = seconds(stacked) / given.seeds, seconds(plain)
            pairs.append((a, b))
            rows += [
                {"method": who, "setting": name, "seed": turn, "split": "retain", "metric": "cpu_seconds", "value": v}
                for who, v in (("plain", a), ("stacked", b))
            ]
        ratios = [a / b for a, b in pairs]
        plain_time, stacked_time = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(
            f"{name}: plain {plain_time:.3f} s, stacked {stacked_time:.4f} s per network; {statistics.median(ratios):.1f} times faster "
            f"(median of {given.rounds} rounds, {min(ratios):.1f} to {max(ratios):.1f})"
        )
    outcomes = (plain_minnorm_og(start[0], x[0], y[0], choice, 1000)[None], next(minnorm_og([choice], start[:1], Points(x[:1], y[:1]), 1000, stale=False))[1])
    print("sup error of the same network afterwards: plain {:.2f}, stacked {:.2f}".format(*(float(sup_error(theta)[0]) for theta in outcomes)))
    if given.output:
        engine = Engine(tasks.get("image-classification")(), Compute(device="cpu", threads=1))
        record = {
            "schema": "unlearned.bench/1",
            "suite": "sine-speed",
            "environment": environment(engine).model_dump(),
            "settings": {"rounds": given.rounds, "seeds": given.seeds, "epochs": given.epochs},
            "rows": rows,
        }
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
