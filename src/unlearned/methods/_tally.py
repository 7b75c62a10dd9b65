"""What the hypergradients through a pool of fine-tunings came to, counted on the way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unlearned.engine.finetuning import Pool
from unlearned.engine.hypergradient import Solution
from unlearned.records import Rehearsals, Rehearsed

_COLUMNS = ("times", "left_out", "given_up", "damping", "residual", "ratio")


class Tally:
    """Counts and sums for each fine-tuning. They live in the memory of the plan, so that an interrupted training goes on with them.

    Args:
        pool: the fine-tunings.
        memory: of the plan.
    """

    def __init__(self, pool: Pool, memory: dict[str, Tensor]) -> None:
        self._pool, self._memory = pool, memory
        memory.update({f"rehearsed/{name}": torch.zeros(len(pool), dtype=torch.float64) for name in _COLUMNS})
        memory["rehearsed/direct_norm"] = torch.zeros((), dtype=torch.float64)

    def add(self, number: int, solution: Solution) -> None:
        """A hypergradient through this fine-tuning of the pool, followed or given up."""
        self._column("times")[number] += 1
        if solution.given_up:
            self._column("given_up")[number] += 1
            return
        self._column("damping")[number] += solution.damping
        self._column("residual")[number] += solution.residual
        self._column("ratio")[number] = max(solution.ratio, float(self._column("ratio")[number]))

    def leave_out(self, numbers: Sequence[int], norm: float) -> None:
        """These fine-tunings were drawn, but the direct gradient has this norm, which no damping brings below the limit."""
        for name in ("times", "left_out"):
            self._column(name)[list(numbers)] += 1
        self._column("direct_norm").clamp_(min=norm)

    def exhibit(self, source: str) -> Rehearsals:
        """What the report shows."""
        rows = []
        for number, tuning in enumerate(self._pool):
            of = {name: float(self._column(name)[number]) for name in _COLUMNS}
            times, left_out, given_up = (int(of[name]) for name in ("times", "left_out", "given_up"))
            followed = times - left_out - given_up
            means = {name: of[name] / followed if followed else None for name in ("damping", "residual")}
            rows.append(Rehearsed(id=tuning.id, times=times, left_out=left_out, given_up=given_up, ratio=of["ratio"] if followed else None, **means))
        norm = float(self._column("direct_norm")) if any(row.left_out for row in rows) else None
        return Rehearsals(source=source, direct_norm=norm, fine_tunings=tuple(rows))

    def _column(self, name: str) -> Tensor:
        return self._memory[f"rehearsed/{name}"]
