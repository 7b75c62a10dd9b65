"""Gradients of what a model says about each sample of a batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from unlearned.engine.engine import evaluating
from unlearned.tasks._task import Batch

Ask = Callable[[nn.Module, Batch], Tensor]
"""Numbers per sample, (B, K), of a model and a batch; such as `task.constraints`."""

_CHUNK = 64
"""Gradients that are computed side by side."""


class Numbers(Protocol):
    """What was asked of a model about a batch: n = B · K numbers, sample by sample, and their gradients."""

    count: int
    """n."""

    def gradients(self, names: Sequence[str]) -> dict[str, Tensor]:
        """∂f_i/∂θ for the parameters of these names: by name, (n, ...)."""

    def weighted(self, weights: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Σ_i w_i ∂f_i/∂θ by one backward pass: by name, (...). Weights (n,)."""


def numbers_of(model: nn.Module, ask: Ask, batch: Batch, *, joint: bool = False) -> Numbers:
    """Numbers about the samples of a batch.

    Each sample by itself, the model in eval mode: gradients are computed side by side where torch can map the model over samples, else one by one, to the same
    numbers up to rounding. Or jointly: the layers of batch normalisation that are in train mode stay in it, so that f_i depends on all samples and the
    statistics follow the batch; all other layers are in eval mode.

    Args:
        model: not wrapped. Its modes are put back.
        ask: (B, K) of model and batch.
        batch: the samples.
        joint: statistics of the batch.
    """
    return _Joint(model, ask, batch) if joint else _Apart(model, ask, batch)


class _Apart:
    def __init__(self, model: nn.Module, ask: Ask, batch: Batch) -> None:
        self._model, self._ask, self._batch = model, ask, batch
        with evaluating(model), torch.no_grad():
            first = ask(model, {name: tensor[:1] for name, tensor in batch.items()})
        self._type, self._columns = first.dtype, first.shape[1]
        self._samples = len(next(iter(batch.values())))
        self.count = self._samples * self._columns

    def gradients(self, names: Sequence[str]) -> dict[str, Tensor]:
        with evaluating(self._model):
            try:
                return self._mapped(names)
            except (RuntimeError, ValueError, TypeError, AttributeError):  # a layer that looks at values, or draws, or writes in place
                return self._one_by_one(names)

    def weighted(self, weights: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        with evaluating(self._model):
            values = self._ask(self._model, self._batch).flatten()
            return _gradient((values * weights.to(values)).sum(), self._model, names)

    def _mapped(self, names: Sequence[str]) -> dict[str, Tensor]:
        asked = _Asked(self._model, self._ask)
        own = dict(self._model.named_parameters())
        weights = {f"model.{name}": own[name].detach() for name in names}
        device = next(iter(own.values())).device

        def number(weights: dict[str, Tensor], sample: Batch, column: Tensor) -> Tensor:
            values = functional_call(asked, weights, ({name: tensor.unsqueeze(0) for name, tensor in sample.items()},))
            return torch.sum(values[0] * column)

        rows = vmap(grad(number), in_dims=(None, 0, 0))
        batch = {name: tensor.repeat_interleave(self._columns, dim=0) for name, tensor in self._batch.items()}
        columns = torch.eye(self._columns, dtype=self._type, device=device).repeat(self._samples, 1)
        starts = range(0, self.count, _CHUNK)
        # No gradients outside of `grad`, for parameters of other names. An operation that torch maps by a loop gives the same numbers: it need not tell.
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
            parts = [rows(weights, {name: tensor[i : i + _CHUNK] for name, tensor in batch.items()}, columns[i : i + _CHUNK]) for i in starts]
        if len(parts) == 1:
            return {name: parts[0][f"model.{name}"] for name in names}
        return {name: torch.cat([part.pop(f"model.{name}") for part in parts]) for name in names}

    def _one_by_one(self, names: Sequence[str]) -> dict[str, Tensor]:
        rows = _empty(self._model, names, self.count)
        for i in range(self._samples):
            values = self._ask(self._model, {name: tensor[i : i + 1] for name, tensor in self._batch.items()})[0]
            for k in range(self._columns):
                for name, gradient in _gradient(values[k], self._model, names, keep=k + 1 < self._columns).items():
                    rows[name][i * self._columns + k] = gradient
        return rows


class _Joint:
    def __init__(self, model: nn.Module, ask: Ask, batch: Batch) -> None:
        self._model = model
        with _only_normalisation_trains(model):
            self._values = ask(model, batch).flatten()
        self.count = len(self._values)

    def gradients(self, names: Sequence[str]) -> dict[str, Tensor]:
        rows = _empty(self._model, names, self.count)
        for i in range(self.count):
            for name, gradient in _gradient(self._values[i], self._model, names, keep=True).items():
                rows[name][i] = gradient
        return rows

    def weighted(self, weights: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        return _gradient((self._values * weights.to(self._values)).sum(), self._model, names, keep=True)


class _Asked(nn.Module):
    """A question to a model, as a module: `functional_call` replaces the weights of one."""

    def __init__(self, model: nn.Module, ask: Ask) -> None:
        super().__init__()
        self.model, self._ask = model, ask

    def forward(self, batch: Batch) -> Tensor:
        return self._ask(self.model, batch)


@contextmanager
def _only_normalisation_trains(model: nn.Module) -> Iterator[None]:
    training = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.training]
    with evaluating(model):
        for layer in training:
            layer.train()
        yield


def _gradient(value: Tensor, model: nn.Module, names: Sequence[str], *, keep: bool = False) -> dict[str, Tensor]:
    own = dict(model.named_parameters())
    found = torch.autograd.grad(value, [own[name] for name in names], retain_graph=keep, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def _empty(model: nn.Module, names: Sequence[str], n: int) -> dict[str, Tensor]:
    own = dict(model.named_parameters())
    return {name: own[name].new_empty(n, *own[name].shape) for name in names}
