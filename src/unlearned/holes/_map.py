"""Probes on a plane: near each other where they are alike."""

from __future__ import annotations

import numpy as np

from unlearned.evidence.statistics import Array


def on_a_plane(directions: Array) -> Array:
    """The first two principal components, (N, 2): no other projection onto a plane keeps more of the squared distances.

    Args:
        directions: (N, D). Fewer than three rows, or rows that are all equal, give zeros where there is no component.
    """
    centred = directions - directions.mean(axis=0) if len(directions) else directions
    left, sizes, right = np.linalg.svd(centred, full_matrices=False)
    # A component is as good as its negative: the one is taken whose largest loading is positive, so that equal probes give equal maps.
    signs = np.array([1.0 if row[np.abs(row).argmax()] >= 0 else -1.0 for row in right])
    places: Array = (left * sizes * signs)[:, :2]
    return np.pad(places, ((0, 0), (0, 2 - places.shape[1])))
