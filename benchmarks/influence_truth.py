"""How well each score foretells retraining: the linear datamodeling score on the digits. python benchmarks/influence_truth.py

Networks are trained on random halves of 500 digits, several seeds for each half. For a query q and a half S, a score that is right has Σ_{z ∈ S} s(z, q) in the
order of −ℓ(q) after training on S. The number is Spearman's rank correlation over the halves (Park et al. 2023, TRAK, section 2), mean over queries with its
95 % interval over them. Scores without a sign do not depend on the query: theirs is one correlation, with the mean loss over all queries.
The last line is what another set of seeds foretells: no score can be expected to do better.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.engine.randomness import derive_seed
from unlearned.engine.settings import Compute
from unlearned.engine.training import Training, train
from unlearned.evidence.statistics import t_interval
from unlearned.influence import scores
from unlearned.influence._score import Grounds
from unlearned.tasks import tasks
from unlearned.tasks._task import Bundle

POINTS, QUERIES = 500, 16
TRAINING = Training(optimizer="adam", lr=0.003, batch_size=50, epochs=15, weight_decay=0.01)
SETTINGS: list[tuple[str, str, dict[str, Any]]] = [
    ("hessian, last layer", "hessian", {"of": "signed"}),
    ("hessian, conjugate gradients", "hessian", {"of": "signed", "curvature": "cg", "iterations": 50}),
    ("hessian, LiSSA", "hessian", {"of": "signed", "curvature": "lissa", "iterations": 200}),
    ("hessian, EKFAC", "hessian", {"of": "signed", "curvature": "ekfac", "fisher": "expected"}),
    ("less", "less", {"dimensions": 1024}),
    ("tracin", "tracin", {}),
    ("gradient-norm, last layer", "gradient-norm", {"layer": "last"}),
    ("gradient-norm, all layers", "gradient-norm", {"layer": "all"}),
    ("loss", "loss", {}),
    ("el2n", "el2n", {}),
    ("random", "random", {}),
]


def network() -> nn.Module:
    """A perceptron with 2,410 weights."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))


def digits(part: slice) -> Samples:
    """Digits as samples."""
    found = load_digits()
    pixels = torch.from_numpy((found.images[part] / 16).astype(np.float32))[:, None]
    rows = [{"pixel_values": image, "labels": label} for image, label in zip(pixels, torch.from_numpy(found.target[part]), strict=True)]
    return Samples(rows, [f"digit-{i}" for i in range(*part.indices(len(found.target)))], {"label": found.target[part].tolist()})


def losses_after(engine: Engine, like: Bundle, points: Samples, halves: list[list[int]], queries: Samples, seeds: list[int]) -> Tensor:
    """Loss of each query after training on each half, mean over seeds, (halves, queries)."""
    found = []
    for half in halves:
        models = [train(engine, like, points.subset(half), TRAINING, seed).model for seed in seeds]
        found.append(torch.stack([engine.evaluate(model, queries, engine.task.losses) for model in models]).mean(dim=0))
    return torch.stack(found)


def correlations(predicted: Tensor, truth: Tensor) -> list[float]:
    """Spearman over halves, for each query; both (halves, queries)."""
    return [float(spearmanr(predicted[:, q], truth[:, q]).statistic) for q in range(truth.shape[1])]


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--halves", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = tasks.get("image-classification")()
    engine = Engine(task, Compute(device="cpu"))
    points, queries = digits(slice(0, POINTS)), digits(slice(1000, 1000 + QUERIES))
    like = Bundle(network())
    original = train(engine, like, points, TRAINING, seed=derive_seed(0, "original"))
    random = np.random.default_rng(0)
    halves = [sorted(random.permutation(POINTS)[: POINTS // 2].tolist()) for _ in range(options.halves)]
    first, second = (losses_after(engine, like, points, halves, queries, [derive_seed(i, which) for i in range(options.seeds)]) for which in "ab")
    inside = torch.zeros(len(halves), POINTS, dtype=torch.float64)
    for i, half in enumerate(halves):
        inside[i, half] = 1

    def told(name: str, values: list[float]) -> None:
        interval = t_interval(values, "queries")
        ends = "" if interval is None else f"  [{interval.low:.2f}, {interval.high:.2f}]"
        print(f"{name:<32} {np.mean(values):6.2f}{ends}", flush=True)

    print(f"linear datamodeling score, {len(halves)} halves of {POINTS} digits, {options.seeds} seeds each, {QUERIES} queries")
    for name, score, settings in SETTINGS:
        part = scores.get(score)(**settings)
        if type(part).signed:
            rows = [part.rate(Grounds(original, points, queries.subset([q]), TRAINING), engine).values for q in range(QUERIES)]
            told(name, correlations(inside @ torch.stack(rows, dim=1), -first))
        else:
            total = inside @ part.rate(Grounds(original, points, queries, TRAINING), engine).values
            told(name, correlations(total[:, None], -first.mean(dim=1, keepdim=True)))
    told("(another set of seeds)", correlations(-second, -first))


if __name__ == "__main__":
    main()
