"""What audits of language models share: answers of all models to all samples, and findings from one number per sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

from unlearned.evidence.comparison import Measured, compare
from unlearned.evidence.statistics import Array, t_interval
from unlearned.evidence.subject import Subject
from unlearned.records import Direction, Finding, SubjectName
from unlearned.tasks._task import Batch
from unlearned.tasks.text_generation import TextGeneration


def text_task(subject: Subject) -> TextGeneration:
    """The subject's task, which is one of text."""
    task = subject.engine.task
    assert isinstance(task, TextGeneration)
    return task


def whole(subject: Subject, split: str) -> Batch:
    """All samples of a set as one batch."""
    samples = subject.problem.sets[split]
    return subject.engine.task.collate([samples[i] for i in range(len(samples))])


def from_generations(subject: Subject, split: str, measure: Callable[[Tensor, Batch], Tensor]) -> dict[SubjectName, list[Array]]:
    """One number per sample of each model, from its greedy answers: these are made once for all audits.

    Args:
        subject: the models.
        split: name of a set.
        measure: of generations (N, T, 2) and samples: (N,).
    """
    batch = whole(subject, split)
    made = subject.values(text_task(subject).generations, split)
    return {who: [measure(each, batch).double().numpy() for each in several] for who, several in made.items()}


def mean_findings(
    audit: str, metric: str, split: str, values: Mapping[SubjectName, Sequence[Array]], *, unit: str = "share", direction: Direction = "reference"
) -> list[Finding]:
    """Findings of the mean over samples, with t intervals."""
    measured = {who: [Measured(float(np.mean(each)), t_interval(each, "samples"), len(each)) for each in several] for who, several in values.items()}
    return compare(audit, metric, split, measured, unit=unit, direction=direction)
