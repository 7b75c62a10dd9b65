"""What audits and attacks are given: the models to compare and the data to compare them on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor, nn

from unlearned.engine.bank import Kept
from unlearned.engine.engine import Engine
from unlearned.problem import Problem
from unlearned.records import Cost, Picture, Pruning, SubjectName
from unlearned.tasks._task import Batch, Bundle

Made = TypeVar("Made")
Measure = Callable[[nn.Module, Batch], Tensor]


@dataclass(frozen=True)
class Subject:
    """The original (in `problem`), the unlearned and the reference models, perhaps shadow models, and the sets.

    Values that several audits need are computed once and kept.
    """

    problem: Problem
    unlearned: Bundle
    references: Sequence[Kept]
    engine: Engine
    cost: Cost | None = None
    """What unlearning cost; None if the unlearned model was made elsewhere."""
    shadows: Sequence[Kept] = ()
    """Further models that were unlearned as this one was, each from an original of another seed: for attacks on the distribution of models."""
    pictures: list[Picture] = field(default_factory=list, repr=False)
    """Generated images that audits and attacks add to the report, where a setting asks for them."""
    skipped: Sequence[int] = ()
    """Positions in the forget set of points that were left out of the unlearning."""
    pruning: Pruning | None = None
    """How it was decided which points to leave out; None: none was."""
    other_costs: Mapping[str, Cost] = field(default_factory=dict)
    """Of what was done besides, by its name."""
    _kept: dict[tuple[str, str, str], Tensor] = field(default_factory=dict, repr=False)
    _made: dict[str, Any] = field(default_factory=dict, repr=False)

    def models(self) -> list[tuple[SubjectName, nn.Module]]:
        """All models: original, unlearned, then each reference."""
        named: list[tuple[SubjectName, nn.Module]] = [("original", self.problem.original.model), ("unlearned", self.unlearned.model)]
        return named + [("reference", reference.bundle.model) for reference in self.references]

    def values(self, measure: Measure, split: str) -> dict[SubjectName, list[Tensor]]:
        """`measure` of every model on a set, one value per sample: lists of one for original and unlearned, one per reference.

        Args:
            measure: a bound method of the task, such as `task.losses`.
            split: name of a set of the problem.
        """
        result: dict[SubjectName, list[Tensor]] = {"original": [], "unlearned": [], "reference": []}
        for number, (name, model) in enumerate(self.models()):
            result[name].append(self._value(measure, split, str(number), model))
        return result

    def value(self, measure: Measure, split: str, model: nn.Module) -> Tensor:
        """The same of one of the models, or of any other."""
        numbers = [number for number, (_, known) in enumerate(self.models()) if known is model]
        return self._value(measure, split, str(numbers[0]), model) if numbers else self.engine.evaluate(model, self.problem.sets[split], measure)

    def shadow_values(self, measure: Measure, split: str) -> list[Tensor]:
        """The same of every shadow model."""
        return [self._value(measure, split, f"shadow {i}", shadow.bundle.model) for i, shadow in enumerate(self.shadows)]

    def once(self, name: str, make: Callable[[], Made]) -> Made:
        """What `make` returns, made once for all audits that ask under this name."""
        if name not in self._made:
            self._made[name] = make()
        made: Made = self._made[name]
        return made

    def _value(self, measure: Measure, split: str, who: str, model: nn.Module) -> Tensor:
        samples = self.problem.sets[split]
        if getattr(measure, "__self__", None) is not self.engine.task:  # only a method of the task is known by its name
            return self.engine.evaluate(model, samples, measure)
        key = (measure.__name__, split, who)
        if key not in self._kept:
            self._kept[key] = self.engine.evaluate(model, samples, measure)
        return self._kept[key]
