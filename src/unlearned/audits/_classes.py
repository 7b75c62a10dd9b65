"""Which samples are of the classes that are to be forgotten."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unlearned.data.samples import Samples


def of_classes(samples: Samples, forget: Samples) -> NDArray[np.bool_] | None:
    """Whether each sample has a label that occurs in the forget set, (n,); None if samples have no labels."""
    if "label" not in forget.facts or "label" not in samples.facts:
        return None
    return np.isin(np.array(samples.fact("label")), np.array(forget.fact("label")))
