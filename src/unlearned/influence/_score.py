"""The seam of influence scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.engine.training import Training
from unlearned.errors import Fault, InputError
from unlearned.settings import Settings
from unlearned.tasks._task import Bundle


@dataclass(frozen=True)
class Grounds:
    """What scores are computed from."""

    original: Bundle
    points: Samples
    """The training points that are scored: all that the original model was trained on."""
    queries: Samples
    """What it should matter to: held-out samples, or an unwanted answer."""
    training: Training | None = None
    """How the original was trained; for scores that look at a training on its way."""


class Effects(NamedTuple):
    """First-order effects that add up: what changes when a set T of points is left out of the training is at most Σ_{z ∈ T} size_z."""

    sizes: Tensor
    """(N,) float64, ≥ 0."""
    of: str
    """What changes, as in "the mean loss on the queries"."""


class Values(NamedTuple):
    """A number for each point, in order."""

    values: Tensor
    """(N,) float64. Points whose number is near 0 matter little."""
    effects: Effects | None = None
    """None: the score bounds no effect."""
    notes: tuple[str, ...] = ()
    """What must be known to read them, and was found on the way."""


class Score(Settings, ABC):
    """An influence score with its settings."""

    name: ClassVar[str]
    tasks: ClassVar[frozenset[str] | None] = None
    """Tasks that it is defined for; None: all."""
    signed: ClassVar[bool] = False
    """Whether it may say which points are for the queries' answers (above 0) and which are against them: what tracing needs."""
    by_gradients: ClassVar[bool] = True
    """Whether it says little where the original fits its training data so well that all gradients are near 0."""

    @property
    def asks(self) -> bool:
        """Whether it depends on the queries."""
        return False

    @property
    def bounds(self) -> bool:
        """Whether it can bound the effect of leaving out many."""
        return False

    @property
    def content(self) -> str:
        """Of a score that is read from elsewhere: a hash of what is there, which decides a run with the settings. No file: it is empty."""
        return ""

    @abstractmethod
    def rate(self, grounds: Grounds, engine: Engine) -> Values:
        """A number for each point. No model is changed.

        Raises:
            InputError: if the settings do not fit the model.
            DivergedError: if a training or a solver diverges.
        """

    def faults(self, grounds: Grounds) -> list[Fault]:
        """What keeps it from being computed, found before any work; fields are those of the score's settings, or `training`."""
        del grounds
        return []


def needs_training(grounds: Grounds, name: str) -> list[Fault]:
    """The fault of a score that looks at a training which is not described."""
    if grounds.training is not None:
        return []
    return [Fault("training", f"{name} looks at a training on its way, and it is not said how the original was trained.", "Add `training:` (epochs, lr, ...).")]


def no_last_layer() -> InputError:
    """What is said of a model without a linear last layer on one vector per sample."""
    return InputError(
        Fault("score", "this model has no linear last layer that reads one vector for each sample.", "Look at all parameters, or choose another score.")
    )
