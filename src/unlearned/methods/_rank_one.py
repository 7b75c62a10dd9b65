"""The smallest change of a matrix that shifts its output on some rows and leaves it on others: W + c r uᵀ."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from unlearned.tasks._task import finest


@dataclass
class Gram:
    """Sums over rows h of weight s and mark m: G = Σ s h hᵀ and b = Σ s m h, in float64, so that they can grow over requests.

    As long as there are fewer rows than a row is wide, the rows themselves are held: they are smaller than G, and so is the system that they lead to. Rows that
    were to be shifted before are to be left where they are now: `settle` forgets their marks.
    """

    width: int
    """p."""
    device: torch.device
    rows: int = 0
    """How many so far."""
    _held: list[tuple[Tensor, float, float]] | None = field(default_factory=list)
    """Rows with their weight and mark; None once they are summed."""
    _sums: tuple[Tensor, Tensor] | None = None

    @classmethod
    def zeros(cls, width: int, device: torch.device | str = "cpu") -> Gram:
        """Of no rows; where a device has no float64, on the CPU."""
        place = torch.device(device)
        return cls(width, place if finest(place) == torch.float64 else torch.device("cpu"))

    def add(self, rows: Tensor, weight: float, mark: float) -> None:
        """Add rows (N, p) of one weight and one mark: 1 for rows to shift, 0 for rows to keep."""
        self.rows += len(rows)
        h = rows.to(self.device, torch.float64)
        if self._held is not None and self.rows < self.width:
            self._held.append((h, weight, mark))
            return
        g, b = self.sums()
        g += weight * h.T @ h
        if mark:
            b += weight * mark * h.sum(dim=0)

    def settle(self) -> None:
        """All rows so far are to be kept from now on."""
        if self._held is not None:
            self._held = [(h, weight, 0.0) for h, weight, _ in self._held]
        if self._sums is not None:
            self._sums[1].zero_()

    def held(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Rows H (N, p), weights and marks (N,), while they are held; None once they are summed, or where there are none."""
        if not self._held:
            return None
        counts = torch.tensor([len(h) for h, _, _ in self._held])
        described = torch.tensor([pair for _, *pair in self._held], dtype=torch.float64)
        weights, marks = described.repeat_interleave(counts, dim=0).T.to(self.device)
        return torch.cat([h for h, _, _ in self._held]), weights, marks

    def sums(self) -> tuple[Tensor, Tensor]:
        """G (p, p) and b (p,); rows that were held are summed."""
        if self._sums is None:
            g, b = (torch.zeros(*size, dtype=torch.float64, device=self.device) for size in ((self.width, self.width), (self.width,)))
            for h, weight, mark in self._held or ():
                g += weight * h.T @ h
                b += weight * mark * h.sum(dim=0)
            self._held, self._sums = None, (g, b)
        return self._sums


def solve(gram: Gram, ridge: float) -> Tensor:
    """U = (G + λI)⁻¹ b, (p,), by the dual form while there are fewer rows than dimensions; with λ = 0 the solution of smallest norm.

    Args:
        gram: of the rows.
        ridge: λ ≥ 0.
    """
    few = gram.held()
    if few is not None and ridge > 0:
        return solve_dual(*few, ridge)
    g, b = gram.sums()
    if ridge > 0:
        solved: Tensor = torch.linalg.solve(g + ridge * torch.eye(len(g), dtype=g.dtype, device=g.device), b)
        return solved
    values, vectors = torch.linalg.eigh(g)
    kept = values > 1e-12 * values[-1].clamp_min(torch.finfo(values.dtype).tiny)
    inverse = torch.where(kept, 1 / torch.where(kept, values, 1.0), 0.0)
    u: Tensor = vectors @ (inverse * (vectors.T @ b))
    return u


def solve_dual(rows: Tensor, weights: Tensor, marks: Tensor, ridge: float) -> Tensor:
    """The same u from N × N instead of p × p: Hᵀ S½ (S½ H Hᵀ S½ + λI)⁻¹ S½ m; cheaper where there are fewer rows than inner dimensions.

    Args:
        rows: H, (N, p).
        weights: s > 0, (N,).
        marks: m, (N,).
        ridge: λ ≥ 0; with 0 the rows have to be independent.
    """
    scaled = weights.sqrt()[:, None] * rows
    inner = scaled @ scaled.T + ridge * torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
    u: Tensor = scaled.T @ torch.linalg.solve(inner, weights.sqrt() * marks)
    return u


def solve_towards_zero(rows: Tensor, weights: Tensor, targets: Tensor, ridge: float) -> Tensor:
    """The whole matrix W = [(HᵀSH + λI)⁻¹ HᵀS A]ᵀ, (q, p): ridge regression as usual, which shrinks what the rows do not hold. Not of rank one for λ > 0.

    Args:
        rows: H, (N, p).
        weights: (N,).
        targets: A, (N, q).
        ridge: λ > 0.
    """
    h = weights[:, None] * rows
    w: Tensor = torch.linalg.solve(rows.T @ h + ridge * torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device), h.T @ targets).T
    return w
