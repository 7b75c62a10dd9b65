"""Distances between distributions of answers."""

from __future__ import annotations

import torch
from torch import Tensor


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """½ Σ_y |p_y − q_y| over the last dimension, in [0, 1]."""
    return 0.5 * (p - q).abs().sum(dim=-1)


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence in bits over the last dimension, in [0, 1]; 0 log 0 = 0."""
    m = (p + q) / 2
    return sum(0.5 * (torch.xlogy(a, a) - torch.xlogy(a, m)).sum(dim=-1) for a in (p, q)) / torch.log(torch.tensor(2.0, dtype=p.dtype))
