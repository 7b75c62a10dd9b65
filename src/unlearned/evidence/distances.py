"""Distances between distributions: of answers, and of features."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unlearned.evidence.statistics import Array


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """½ Σ_y |p_y − q_y| over the last dimension, in [0, 1]."""
    return 0.5 * (p - q).abs().sum(dim=-1)


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence in bits over the last dimension, in [0, 1]; 0 log 0 = 0."""
    m = (p + q) / 2
    return sum(0.5 * (torch.xlogy(a, a) - torch.xlogy(a, m)).sum(dim=-1) for a in (p, q)) / torch.log(torch.tensor(2.0, dtype=p.dtype))


def frechet(left: Array, right: Array) -> float:
    """‖μ_1 − μ_2‖² + Tr(Σ_1 + Σ_2 − 2 (Σ_1 Σ_2)^{1/2}) of two samples of features, (N, D) and (M, D), N, M ≥ 2; 0 or larger."""
    means, covariances = zip(*((x.mean(axis=0), np.atleast_2d(np.cov(x, rowvar=False))) for x in (left, right)), strict=True)
    values, vectors = np.linalg.eigh(covariances[0])
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    # Σ_1 Σ_2 has the eigenvalues of the symmetric Σ_1^{1/2} Σ_2 Σ_1^{1/2}.
    cross = np.sqrt(np.linalg.eigvalsh(root @ covariances[1] @ root).clip(min=0)).sum()
    return max(0.0, float(((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * cross))
