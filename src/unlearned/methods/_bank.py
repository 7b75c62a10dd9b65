"""Models that a method unlearned, in the bank: the distribution that population attacks need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from unlearned.data.fingerprints import of_tensors
from unlearned.data.samples import Samples, union
from unlearned.engine.bank import Bank, Kept, Making
from unlearned.engine.engine import Engine
from unlearned.engine.training import Trained, Training
from unlearned.methods._method import Method
from unlearned.problem import Problem
from unlearned.tasks._task import Bundle, Task


@dataclass(frozen=True)
class Unlearned(Making):
    """A model of a bank that `method` made from the problem's original."""

    problem: Problem
    method: Method

    @property
    def title(self) -> str:
        return f"{self.method.name} (seed {self.seed})"

    def decided_by(self, task: Task) -> dict[str, Any]:
        del task
        return {
            "method": [self.method.name, self.method.model_dump(mode="json")],
            "sets": [self.problem.forget.fingerprint, self.problem.retain.fingerprint],
            "original": of_tensors(self.problem.original.model.state_dict()),
        }

    def make(self, engine: Engine) -> Bundle:
        return self.like.with_model(self.method.unlearn(self.problem, engine))


def shadow_models(bank: Bank, problem: Problem, method: Method, training: Training, seeds: Sequence[int], everything: Samples | None = None) -> list[Kept]:
    """For each seed an original trained on everything, from which `method` then unlearned the problem's forget set.

    The originals are in the bank, too: every method that is compared starts from the same ones. `everything` is what they are trained on where that is more
    than the sets of the problem.

    Raises:
        DivergedError: if a training or the method diverges.
    """
    everything = union(problem.forget, problem.retain) if everything is None else everything
    originals = bank.get([Trained(problem.original, seed, everything, training, "original") for seed in seeds], "shadow originals")
    makings = [Unlearned(problem.original, seed, replace(problem, original=original.bundle), method) for seed, original in zip(seeds, originals, strict=True)]
    return bank.get(makings, f"shadow models of {method.name}")
