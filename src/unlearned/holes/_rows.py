"""Directions of texts, (N, D), rows of length 1: dense, or sparse where most of their many numbers are 0."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from scipy.sparse import csr_array

from unlearned.evidence.statistics import Array

Rows: TypeAlias = Array | csr_array


def dense(rows: Rows) -> Array:
    """The same as a dense array."""
    return np.asarray(rows.toarray() if isinstance(rows, csr_array) else rows, dtype=np.float64)


def cosines(first: Rows, second: Rows) -> Array:
    """Of each row with each row of another, (N, M)."""
    return dense(first @ second.T)


def total(rows: Rows) -> Array:
    """Sum of the rows, (D,)."""
    return np.asarray(rows.sum(axis=0), dtype=np.float64)
