"""What a diffusion model draws when it is asked for the concept, and when it is asked for the rest.

For each sample of a set one image is generated from its prompt (or class) and its own noise, the same for all models, and the task's judge looks at it.
On split `forget`: `concept_rate`, the share of images in which the judge sees the sample's class; `unlearning_accuracy` (UA), one minus that; the judge's
mean probability of the class, `concept_probability`, and the mean entropy of its answer, `judge_entropy`, in nats (the two of Heng and Soh 2023, arXiv
2305.10120). On split `retain`: `retain_accuracy` (IRA of Zhang et al. 2024, UnlearnCanvas, arXiv 2402.11846), the share in which it sees the right class; and
`frechet`, the Fréchet distance between Gaussians fitted to the judge's features of generated and of true images: not FID, whose features are those of
Inception. With a second judge of another kind of concept (styles, where objects are forgotten): `cross_accuracy` (CRA) on both splits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from torch import Tensor

from unlearned.audits import audits
from unlearned.audits._audit import Audit
from unlearned.data.samples import Samples
from unlearned.errors import Fault, InputError
from unlearned.evidence.comparison import Measured, absent, compare
from unlearned.evidence.distances import frechet
from unlearned.evidence.pictures import first_of_each, show
from unlearned.evidence.statistics import t_interval, wilson
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Direction, Finding, SubjectName
from unlearned.tasks._judges import Judge, judge_of
from unlearned.tasks._task import ModelSource, model_source
from unlearned.tasks.image_generation import ImageGeneration

_METRICS = {
    "concept_rate": "forget",
    "unlearning_accuracy": "forget",
    "concept_probability": "forget",
    "judge_entropy": "forget",
    "retain_accuracy": "retain",
    "frechet": "retain",
}


@audits.register("generation")
class Generation(Audit):
    """Rate of the concept, accuracy on the rest, distance from true images."""

    name: ClassVar[str] = "generation"
    tasks: ClassVar[frozenset[str] | None] = frozenset({"image-generation"})
    samples: int = Field(1000, ge=1, description="Most images that are generated for a set, from its first samples.")
    cross_judge: ModelSource | None = Field(None, description="An image classifier for concepts of another kind; None: they are not looked at.")
    cross_column: str = Field("cross", description="Column of the data with the class of each sample by that judge.")
    pictures: int = Field(0, ge=0, le=64, description="Generated images of each set that the report shows; 0: none, as they may show what was to be forgotten.")

    @field_validator("cross_judge", mode="before")
    @classmethod
    def _shorthand(cls, given: Any) -> Any:
        return model_source(given) if isinstance(given, str) else given

    def faults(self, problem: Problem) -> list[Fault]:
        if self.cross_judge is None:
            return []
        try:
            judge_of(self.cross_judge)
        except InputError as error:
            return [fault._replace(field="cross_judge") for fault in error.faults]
        if any(self.cross_column not in samples.facts for samples in (problem.forget, problem.retain)):
            return [Fault("cross_column", f"the data has no column {self.cross_column!r}.", f"Its columns: {', '.join(problem.forget.facts)}.")]
        return []

    def measure(self, subject: Subject) -> list[Finding]:
        task = subject.engine.task
        assert isinstance(task, ImageGeneration)
        for split in ("forget", "retain"):
            chosen = subject.problem.sets[split]
            chosen = chosen.subset(range(min(self.pictures, len(chosen)))) if split == "forget" else first_of_each(chosen, self.pictures)
            show(subject, subject.models(), chosen, split)
        if task.judge is None:
            reason = "no judge says what an image shows (task.judge)"
            return [absent(self.name, metric, split, reason, unit=_unit(metric)) for metric, split in _METRICS.items()]
        sets = {split: _first(subject.problem.sets[split], self.samples) for split in ("forget", "retain")}
        made = {
            split: [(who, subject.engine.evaluate(model, samples, task.images).float()) for who, model in subject.models()] for split, samples in sets.items()
        }
        findings = self._judged(made, sets, task.the_judge) + self._distances(made["retain"], sets["retain"], task.the_judge)
        return findings + (self._crossed(made, sets) if self.cross_judge else [])

    def _judged(self, made: dict[str, list[tuple[SubjectName, Tensor]]], sets: dict[str, Samples], judge: Judge) -> list[Finding]:
        findings = []
        for split, images in made.items():
            labels = torch.tensor(sets[split].fact("label"))
            answers = [(who, judge.probabilities(several)) for who, several in images]
            seen = [(who, (p.argmax(dim=1) == labels).double().numpy()) for who, p in answers]
            if split == "retain":
                findings += self._compared("retain_accuracy", split, seen, _share, "higher")
                continue
            own = [(who, p.gather(1, labels[:, None])[:, 0].double().numpy()) for who, p in answers]
            entropy = [(who, torch.special.entr(p.double()).sum(dim=1).numpy()) for who, p in answers]
            findings += self._compared("concept_rate", split, seen, _share)
            findings += self._compared("unlearning_accuracy", split, [(who, 1 - values) for who, values in seen], _share)
            findings += self._compared("concept_probability", split, own, _mean)
            findings += self._compared("judge_entropy", split, entropy, _mean)
        return findings

    def _distances(self, made: list[tuple[SubjectName, Tensor]], samples: Samples, judge: Judge) -> list[Finding]:
        if len(samples) < 2:
            return [absent(self.name, "frechet", "retain", "a covariance needs at least two images", unit="")]
        try:
            true = judge.features((torch.stack([samples[i]["pixel_values"] for i in range(len(samples))]) + 1) / 2).double().numpy()
            features = [(who, judge.features(images).double().numpy()) for who, images in made]
        except InputError as error:
            return [absent(self.name, "frechet", "retain", f"the judge shows no features: {error.faults[0].what}", unit="")]
        return self._compared("frechet", "retain", features, lambda found: Measured(frechet(found, true), None, len(found)), "lower")

    def _crossed(self, made: dict[str, list[tuple[SubjectName, Tensor]]], sets: dict[str, Samples]) -> list[Finding]:
        assert self.cross_judge is not None
        judge = judge_of(self.cross_judge)
        findings = []
        for split, images in made.items():
            labels = torch.tensor(sets[split].fact(self.cross_column))
            seen = [(who, (judge.probabilities(several).argmax(dim=1) == labels).double().numpy()) for who, several in images]
            findings += self._compared("cross_accuracy", split, seen, _share, "higher")
        return findings

    def _compared(
        self,
        metric: str,
        split: str,
        values: list[tuple[SubjectName, NDArray[np.float64]]],
        summary: Callable[[NDArray[np.float64]], Measured],
        direction: Direction = "reference",
    ) -> list[Finding]:
        measured: dict[SubjectName, list[Measured]] = {}
        for who, found in values:
            if np.isnan(found).any():
                raise InputError(Fault("model", "a model generates images with NaN.", "Check its weights; they may have grown until float32 overflows."))
            measured.setdefault(who, []).append(summary(found))
        return compare(self.name, metric, split, measured, unit=_unit(metric), direction=direction)


def _first(samples: Samples, most: int) -> Samples:
    return samples.subset(range(min(most, len(samples))))


def _unit(metric: str) -> str:
    return {"judge_entropy": "nats", "frechet": ""}.get(metric, "share")


def _share(values: NDArray[np.float64]) -> Measured:
    return Measured(float(values.mean()), wilson(float(values.sum()), len(values)), len(values))


def _mean(values: NDArray[np.float64]) -> Measured:
    return Measured(float(values.mean()), t_interval(values, "samples"), len(values))
