"""What an attack costs a model elsewhere: on the test samples outside the forgotten classes, which it was not to bring back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from unlearned.attacks._curves import mean_of
from unlearned.errors import InputError
from unlearned.evidence.classes import of_classes
from unlearned.evidence.comparison import Measured, absent, compare
from unlearned.evidence.distances import frechet
from unlearned.evidence.statistics import Array
from unlearned.evidence.subject import Subject
from unlearned.records import Finding, SubjectName
from unlearned.tasks.image_generation import ImageGeneration, seen


class Look(NamedTuple):
    """What one model is good for."""

    utility: Array
    """Of each sample, (N,)."""
    features: Array | None
    """The judge's, of the image that was generated for each sample, (N, D); None where there are none."""


class Elsewhere:
    """Looks at models on the test samples whose class is not forgotten; on all of them where samples have no classes.

    Args:
        subject: has the sets.
        attack: whose findings these are.
    """

    def __init__(self, subject: Subject, attack: str) -> None:
        self._subject, self._attack = subject, attack
        test = subject.problem.test
        forgotten = of_classes(test, subject.problem.forget)
        self._chosen = np.arange(len(test)) if forgotten is None else np.flatnonzero(~forgotten)
        self._samples = test.subset(self._chosen.tolist())
        self._split = "test" if len(self._chosen) == len(test) else "test-rest"

    def look(self, model: nn.Module) -> Look | None:
        """What a model is good for there; None: there is no such sample."""
        if not len(self._samples):
            return None
        engine, task = self._subject.engine, self._subject.engine.task
        if isinstance(task, ImageGeneration) and task.judge is not None:
            images = engine.evaluate(model, self._samples, task.images).float()
            utility = seen(task.judged(images), torch.tensor(self._samples.fact("label"))).double().numpy()
            return Look(utility, _features(task, images))
        if any(known is model for _, known in self._subject.models()):  # measured once for all that ask
            return Look(self._subject.value(task.utility, "test", model).numpy()[self._chosen], None)
        return Look(engine.evaluate(model, self._samples, task.utility).numpy(), None)

    def findings(self, attacked: Sequence[tuple[SubjectName, tuple[Look | None, Look | None]]]) -> list[Finding]:
        """`utility` and, of what diffusion models draw for a judge, `frechet`, of models before and after the attack."""
        found: list[Finding] = []
        for number, ending in enumerate(("before", "after")):
            if not len(self._samples):
                reason = "every class of the test set occurs in the forget set"
                found.append(absent(self._attack, f"utility_{ending}", self._split, reason, unit="share", kind="attack"))
                continue
            kept: dict[SubjectName, list[Look]] = {}
            for who, looks in attacked:
                kept.setdefault(who, []).extend(look for look in (looks[number],) if look is not None)
            utility = {who: [mean_of(look.utility) for look in several] for who, several in kept.items()}
            found += compare(self._attack, f"utility_{ending}", self._split, utility, unit="share", direction="none", kind="attack")
            task = self._subject.engine.task
            if isinstance(task, ImageGeneration) and task.judge is not None:
                found += self._distances(task, f"frechet_{ending}", kept)
        return found

    def _distances(self, task: ImageGeneration, metric: str, kept: Mapping[SubjectName, Sequence[Look]]) -> list[Finding]:
        features = {who: [look.features for look in several] for who, several in kept.items()}
        reason = None
        if any(each is None for several in features.values() for each in several):
            reason = "the judge shows no features, or an image is not finite"
        elif len(self._samples) < 2:
            reason = "a covariance needs at least two images"
        if reason is not None:
            return [absent(self._attack, metric, self._split, reason, unit="", kind="attack")]
        pixels = torch.stack([self._samples[i]["pixel_values"] for i in range(len(self._samples))])
        true = task.the_judge.features((pixels + 1) / 2).double().numpy()
        measured = {who: [Measured(frechet(each, true), None, len(each)) for each in several if each is not None] for who, several in features.items()}
        return compare(self._attack, metric, self._split, measured, unit="", direction="none", kind="attack")


def _features(task: ImageGeneration, images: torch.Tensor) -> Array | None:
    if not bool(images.isfinite().all()):
        return None
    try:
        return task.the_judge.features(images).double().numpy()
    except InputError:  # a judge that shows none
        return None
