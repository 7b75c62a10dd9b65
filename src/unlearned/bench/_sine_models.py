"""Data and fully trained networks of the sine experiment; each network is trained once and kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from filelock import FileLock
from safetensors.torch import load_file, save
from torch import Tensor

from unlearned.bench._sine_networks import forward, fresh, gradient
from unlearned.data.fingerprints import of_json
from unlearned.engine.files import write_bytes
from unlearned.engine.randomness import derive_seed

RETAINED, FORGOTTEN, POISON = 50, 5, 1.5
EDGE = 5 * math.pi
LR = 1e-3
_VERSION = 1
"""Counts changes of data or training; networks of another version are not used."""


class Points(NamedTuple):
    """Samples of several seeds, one row each."""

    x: Tensor  # (S, n)
    y: Tensor  # (S, n)


class Data(NamedTuple):
    """What stays and what is to be forgotten."""

    retained: Points
    forgotten: Points

    @property
    def all(self) -> Points:
        """Both, the forgotten ones last."""
        return Points(*(torch.cat(pair, dim=1) for pair in zip(*self, strict=True)))

    def to(self, device: torch.device) -> Data:
        """On a device."""
        return Data(*(Points(part.x.to(device), part.y.to(device)) for part in self))


@dataclass(frozen=True)
class Training:
    """Decides a fully trained network."""

    kind: Literal["original", "retrain-full"]
    """The poisoned network, trained on all points; or the ground truth, trained on the retained ones."""
    seed: int
    width: int
    epochs: int

    def file(self, cache: Path) -> Path:
        """Where its parameters lie."""
        return cache / "sine" / f"{of_json([_VERSION, asdict(self)])[:32]}.safetensors"


def data(seeds: Sequence[int]) -> Data:
    """50 retained points x ~ U[-5π, 5π] with y = sin x, and 5 poisoned ones with y = 1.5, for each seed; float32."""
    rows = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(derive_seed(seed, "sine", "points"))
        rows.append((2 * torch.rand(RETAINED + FORGOTTEN, generator=generator, dtype=torch.float64) - 1) * EDGE)
    x = torch.stack(rows)
    y = x.sin()
    y[:, RETAINED:] = POISON
    return Data(*(Points(x[:, part].float(), y[:, part].float()) for part in (slice(RETAINED), slice(RETAINED, None))))


def initial(seeds: Sequence[int], width: int, purpose: str) -> Tensor:
    """Initial parameters (S, d)."""
    return torch.stack([fresh(derive_seed(seed, "sine", purpose), width) for seed in seeds])


def error_signal(out: Tensor, y: Tensor) -> Tensor:
    """Derivative of the mean squared error of each row by its outputs; `out` and `y` are (B, n)."""
    return (out - y) * (2 / y.shape[1])


class Descent:
    """A stack of networks under AdamW with PyTorch's defaults, among them weight decay 0.01.

    Args:
        theta: parameters (S, d) to start from; they are copied.
        lr: learning rate.
    """

    def __init__(self, theta: Tensor, lr: float) -> None:
        self.theta = theta.clone()
        self.epoch = 0
        self._optimizer = torch.optim.AdamW([self.theta], lr=lr, fused=True)

    def step(self, direction: Tensor) -> None:
        """One step; `direction` is a gradient (S, d)."""
        self.theta.grad = direction
        self._optimizer.step()
        self.epoch += 1


def descend(theta: Tensor, where: Points, epochs: int, lr: float) -> Tensor:
    """Full-batch AdamW on the mean squared error of each network on its own points; the result is a new (S, d)."""
    descent = Descent(theta, lr)
    for _ in range(epochs):
        passed = forward(descent.theta, where.x)
        descent.step(gradient(descent.theta, passed, error_signal(passed.out, where.y)))
    return descent.theta


def trained(trainings: Sequence[Training], cache: Path, device: torch.device) -> Tensor:
    """Parameters (S, d), on the device. What is not in the cache is trained, all in one stack.

    Args:
        trainings: of one kind, width and length.
        cache: where they are kept.
        device: where they are trained.
    """
    files = [training.file(cache) for training in trainings]
    (cache / "sine").mkdir(parents=True, exist_ok=True)
    with ExitStack() as locks:
        # In the order of their names, so that two processes never wait for each other.
        for file in sorted(files):
            locks.enter_context(FileLock(file.with_suffix(".lock")))
        missing = [position for position, file in enumerate(files) if not file.exists()]
        if missing:
            first, seeds = trainings[0], [trainings[position].seed for position in missing]
            where = data(seeds).to(device)
            start = initial(seeds, first.width, first.kind).to(device)
            theta = descend(start, where.all if first.kind == "original" else where.retained, first.epochs, LR)
            for position, row in zip(missing, theta.cpu(), strict=True):
                write_bytes(files[position], save({"theta": row.clone()}), "cache")
    return torch.stack([load_file(file)["theta"] for file in files]).to(device)
