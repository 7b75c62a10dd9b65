"""The smallest change of a matrix that shifts its output on some rows and leaves it on others: W + c r uᵀ."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Gram:
    """Sums over rows h of weight s and mark m: G = Σ s h hᵀ, b = Σ s m h and n. In float64, so that they can grow over requests.

    Rows that were to be shifted before are to be left where they are now: `settle` forgets their marks.
    """

    g: Tensor
    b: Tensor
    rows: int = 0

    @classmethod
    def zeros(cls, width: int, device: torch.device | str = "cpu") -> Gram:
        """Of no rows."""
        return cls(torch.zeros(width, width, dtype=torch.float64, device=device), torch.zeros(width, dtype=torch.float64, device=device))

    def add(self, rows: Tensor, weight: float, mark: float) -> None:
        """Add rows (N, p) of one weight and one mark: 1 for rows to shift, 0 for rows to keep."""
        h = rows.to(self.g)
        self.g += weight * h.T @ h
        if mark:
            self.b += weight * mark * h.sum(dim=0)
        self.rows += len(h)

    def settle(self) -> None:
        """All rows so far are to be kept from now on."""
        self.b.zero_()


def solve(gram: Gram, ridge: float) -> Tensor:
    """U = (G + λI)⁻¹ b, (p,); with λ = 0 the solution of smallest norm.

    Args:
        gram: of the rows.
        ridge: λ ≥ 0.
    """
    if ridge > 0:
        solved: Tensor = torch.linalg.solve(gram.g + ridge * torch.eye(len(gram.g), dtype=gram.g.dtype, device=gram.g.device), gram.b)
        return solved
    values, vectors = torch.linalg.eigh(gram.g)
    kept = values > 1e-12 * values[-1].clamp_min(torch.finfo(values.dtype).tiny)
    inverse = torch.where(kept, 1 / torch.where(kept, values, 1.0), 0.0)
    u: Tensor = vectors @ (inverse * (vectors.T @ gram.b))
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
