"""Gradients of the loss of each sample, a few at a time: how many samples there are decides the time and not the memory."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine, evaluating
from unlearned.engine.executor import fan_out
from unlearned.engine.output_gradients import numbers_of
from unlearned.engine.settings import Compute
from unlearned.errors import Fault, InputError
from unlearned.tasks._task import Batch, Task

HELD = 2**25
"""Numbers of gradients that are held at once: 128 MiB in float32."""
_MOST = 512


def samples_at_once(size: int) -> int:
    """How many gradients of that many numbers are computed at once."""
    return max(1, min(_MOST, HELD // size))


def sample_gradients(engine: Engine, model: nn.Module, samples: Samples, names: Sequence[str]) -> Iterator[Tensor]:
    """∂ℓ_z/∂θ in eval mode for each sample z in order, as rows (b, d): the parameters of these names, one behind the other. Unchanged: the model.

    Args:
        engine: computes and counts.
        model: on the engine's device.
        samples: in order.
        names: of parameters; d numbers together.
    """
    own = dict(model.named_parameters())
    size = sum(own[name].numel() for name in names)

    def ask(model: nn.Module, batch: Batch) -> Tensor:
        return engine.task.losses(model, batch)[:, None]

    for batch in engine.batches(samples, samples_at_once(size)):
        gradients = numbers_of(model, ask, batch).gradients(names)
        yield torch.cat([gradients.pop(name).flatten(1) for name in names], dim=1)
        engine.meter.count(len(next(iter(batch.values()))))


def mean_gradient(engine: Engine, model: nn.Module, samples: Samples, names: Sequence[str]) -> Tensor:
    """(1/n) Σ_z ∂ℓ_z/∂θ in eval mode, (d,): see `sample_gradients`."""
    own = dict(model.named_parameters())
    parameters = [own[name] for name in names]
    total = torch.zeros(sum(p.numel() for p in parameters), dtype=parameters[0].dtype, device=engine.device)
    with evaluating(model):
        for batch in engine.batches(samples):
            found = torch.autograd.grad(engine.task.losses(model, batch).sum(), parameters, materialize_grads=True)
            total += torch.cat([gradient.flatten() for gradient in found])
            engine.meter.count(len(next(iter(batch.values()))))
    return total / len(samples)


def trained_names(model: nn.Module, pattern: str, field: str) -> list[str]:
    """Names of the parameters that require gradients and match a regular expression.

    Raises:
        InputError: if none matches; `field` is named in the message.
    """
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad and re.search(pattern, name)]
    if not names:
        some = ", ".join(name for name, _ in list(model.named_parameters())[:3])
        raise InputError(Fault(field, f"no trainable parameter matches {pattern!r}.", f"Parameters are called {some}, ..."))
    return names


Work = Callable[[Engine, Samples, int], Tensor]
"""Numbers of each sample, (b, ...), of an engine, samples, and the position of the first of them."""


@dataclass(frozen=True)
class _Piece:
    samples: Samples
    start: int


class _Pieces(Sequence[_Piece]):
    """Made when they are asked for, each with its own samples alone."""

    def __init__(self, samples: Samples, length: int) -> None:
        self._samples = samples
        self._starts = range(0, len(samples), length)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: Any) -> Any:
        start = self._starts[number]
        return _Piece(self._samples.subset(range(start, min(start + self._starts.step, len(self._samples)))).packed(), start)


@dataclass(frozen=True)
class _Worker:
    """What all pieces have in common."""

    task: Task
    compute: Compute
    seed: int
    work: Work

    def __call__(self, piece: _Piece) -> tuple[Tensor, float]:
        """What the work says of a piece, and the processor time that it took."""
        begun = time.process_time()
        values = self.work(Engine(self.task, self.compute, self.seed), piece.samples, piece.start).cpu().double()
        return values, time.process_time() - begun


def over_pieces(engine: Engine, samples: Samples, work: Work, size: int = _MOST) -> Tensor:
    """What `work` says of each sample, in order, (N, ...), in float64 on the CPU; computed in `compute.workers` processes.

    Args:
        engine: computes.
        samples: all of them.
        work: picklable, if there are several processes.
        size: samples in a piece are a multiple of it.
    """
    workers = engine.compute.workers
    if workers == 1:
        return work(engine, samples, 0).cpu().double()
    length = size * -(-len(samples) // (4 * workers * size))
    compute = engine.compute.model_copy(update={"workers": 1, "threads": max(1, torch.get_num_threads() // workers)})
    pieces = _Pieces(samples, length)
    found = dict(fan_out(_Worker(engine.task, compute, engine.seed, work), pieces, workers))
    engine.meter.count(len(samples), len(pieces))
    engine.meter.beside(sum(seconds for _, seconds in found.values()))
    return torch.cat([found[i][0] for i in range(len(pieces))])
