"""Which state of a training is its result: the last one, or the best of those that a judge saw every few steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Keep(NamedTuple):
    """Keep the best state."""

    every: int
    """Steps between looks; the last state is looked at as well, the first, before any step, is not."""
    judge: Callable[[nn.Module], Sequence[float]]
    """Scores a model, which it does not change: the larger is better, the first number counts before the second. Always equally many, without NaN."""
    tell: Callable[[int, Sequence[float]], object] = lambda _, __: None
    """Told at the end which state was kept: its number of steps and its score."""


class Best:
    """The best state so far. It lives in the memory of the plan, so that an interrupted training goes on with it.

    Args:
        keep: when to look, and who judges; None: never, the last state is the best.
        model: what is trained.
        memory: of the plan.
    """

    def __init__(self, keep: Keep | None, model: nn.Module, memory: dict[str, Tensor]) -> None:
        self._keep, self._model, self._memory = keep, model, memory

    def look(self, step: int, *, last: bool) -> None:
        """After a step: judge the model if it is time, and keep its state if nothing before was as good."""
        if self._keep is None or (step % self._keep.every and not last):
            return
        score = torch.tensor(list(self._keep.judge(self._model)), dtype=torch.float64)
        before = self._memory.get("best/score")
        if before is not None and score.tolist() <= before.tolist():
            return
        self._memory["best/score"], self._memory["best/step"] = score, torch.tensor(step)
        for name, tensor in self._changing().items():
            self._memory[f"best/state/{name}"] = tensor.detach().cpu().clone()

    def put_back(self) -> None:
        """The model gets the best state, if any was looked at."""
        if self._keep is None or "best/step" not in self._memory:
            return
        with torch.no_grad():
            for name, tensor in self._changing().items():
                tensor.copy_(self._memory[f"best/state/{name}"])
        self._keep.tell(int(self._memory["best/step"]), self._memory["best/score"].tolist())

    def _changing(self) -> dict[str, Tensor]:
        """What training changes: trained parameters, and buffers such as running statistics."""
        parameters = {name: parameter for name, parameter in self._model.named_parameters() if parameter.requires_grad}
        return {**parameters, **dict(self._model.named_buffers())}
