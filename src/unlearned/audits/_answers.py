"""What audits of language models share: answers of all models to all samples, and findings from one number per sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

from unlearned.data.samples import Samples
from unlearned.evidence.comparison import Measured, compare
from unlearned.evidence.statistics import Array, t_interval
from unlearned.evidence.subject import Measure, Subject
from unlearned.records import Direction, Finding, SubjectName
from unlearned.tasks._task import Batch
from unlearned.tasks.text_generation import TextGeneration


def text_task(subject: Subject) -> TextGeneration:
    """The subject's task, which is one of text."""
    task = subject.engine.task
    assert isinstance(task, TextGeneration)
    return task


def whole(subject: Subject, samples: Samples) -> Batch:
    """All samples of a set as one batch."""
    return subject.engine.task.collate([samples[i] for i in range(len(samples))])


def values_on(subject: Subject, measure: Measure, samples: Samples) -> dict[SubjectName, list[Tensor]]:
    """`measure` of every model, one value per sample; kept for other audits where the samples are a set of the problem."""
    for name, each in subject.problem.sets.items():
        if each is samples:
            return subject.values(measure, name)
    result: dict[SubjectName, list[Tensor]] = {"original": [], "unlearned": [], "reference": []}
    for who, model in subject.models():
        result[who].append(subject.engine.evaluate(model, samples, measure))
    return result


def from_generations(subject: Subject, samples: Samples, measure: Callable[[Tensor, Batch], Tensor]) -> dict[SubjectName, list[Array]]:
    """One number per sample of each model, from its greedy answers: on the sets of the problem these are made once for all audits.

    Args:
        subject: the models.
        samples: the questions.
        measure: of generations (N, T, 2) and samples: (N,).
    """
    batch = whole(subject, samples)
    made = values_on(subject, text_task(subject).generations, samples)
    return {who: [measure(each, batch).double().numpy() for each in several] for who, several in made.items()}


def mean_findings(
    audit: str, metric: str, split: str, values: Mapping[SubjectName, Sequence[Array]], *, unit: str = "share", direction: Direction = "reference"
) -> list[Finding]:
    """Findings of the mean over samples, with t intervals."""
    measured = {who: [Measured(float(np.mean(each)), t_interval(each, "samples"), len(each)) for each in several] for who, several in values.items()}
    return compare(audit, metric, split, measured, unit=unit, direction=direction)
