"""Classes of the forget set, for what is measured class by class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unlearned.data.samples import Samples
from unlearned.problem import Problem


def of_classes(samples: Samples, forget: Samples) -> NDArray[np.bool_] | None:
    """Whether each sample has a label that occurs in the forget set, (n,); None if samples have no labels."""
    if "label" not in forget.facts or "label" not in samples.facts:
        return None
    return np.isin(np.array(samples.fact("label")), np.array(forget.fact("label")))


def whole_classes(problem: Problem) -> list[int] | str:
    """The classes that are forgotten, in order; or, if samples of them are retained or none has a label, why there are none."""
    if "label" not in problem.forget.facts:
        return "the samples have no labels, so that no class is forgotten"
    classes = sorted({int(label) for label in problem.forget.fact("label")})
    shared = sum(int(label) in classes for label in problem.retain.fact("label"))
    if shared:
        return f"this is defined where whole classes are forgotten; {shared} samples of the forgotten classes are retained"
    return classes
