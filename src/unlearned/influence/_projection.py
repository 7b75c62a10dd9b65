"""Random signs in the place of a large matrix: inner products of projected vectors are those of the vectors, on average."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_BUFFER = 2**24
"""Signs that are held at once: 64 MiB in float32."""


@dataclass(frozen=True)
class Rademacher:
    """x ↦ R x / √k with R (k, d) of independent signs ±1 (Achlioptas 2003). R is never held whole: its parts are drawn again from the seed."""

    dimensions: int
    """k."""
    seed: int

    def __call__(self, rows: Tensor) -> Tensor:
        """(B, d) to (B, k), at least in float32, because many terms are summed."""
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        size = rows.shape[1]
        height = max(1, _BUFFER // self.dimensions)
        total: Tensor = rows.new_zeros(len(rows), self.dimensions)
        for block, first in enumerate(range(0, size, height)):
            total += rows[:, first : first + height] @ self.signs(block, min(height, size - first)).to(rows)
        return total.div_(self.dimensions**0.5)

    def signs(self, block: int, height: int) -> Tensor:
        """Rows of Rᵀ, (height, k), in {−1, 1}."""
        drawn = np.random.default_rng([self.seed, block]).bytes(-(-height * self.dimensions // 8))
        bits = np.unpackbits(np.frombuffer(drawn, dtype=np.uint8), count=height * self.dimensions)
        return torch.from_numpy(bits.reshape(height, self.dimensions)).float().mul_(2).sub_(1)
