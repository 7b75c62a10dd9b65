"""What attacks on language models share: the task, questions as text, answers under a change of the model, and the choice of such a change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import numpy as np
from torch import nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.engine.randomness import derive_seed
from unlearned.errors import Fault, InputError
from unlearned.evidence.statistics import Array
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.tasks._decoders import blocks_of
from unlearned.tasks.text_generation import TextGeneration

Choice = TypeVar("Choice")
NO_QUESTIONS = "the samples are texts without a question that could be put otherwise"
NO_ROOM = "with more words around them, the questions are longer than the model's context"


def text_task(engine: Engine) -> TextGeneration:
    """The engine's task, which is one of text."""
    task = engine.task
    assert isinstance(task, TextGeneration)
    return task


def block_faults(problem: Problem, layers: Sequence[int] | None = None) -> list[Fault]:
    """What keeps an attack from reaching hidden states: no blocks that are known, or numbers of blocks that there are not."""
    try:
        count = len(blocks_of(problem.original.model))
    except InputError as error:
        return [fault._replace(field="name") for fault in error.faults]
    wrong = [layer for layer in layers or () if not 0 <= layer < count]
    if wrong:
        return [Fault("layers", f"there is no layer {wrong[0]}; the model has {count}, counted from 0.", f"Give numbers from 0 to {count - 1}.")]
    return []


def put_otherwise(samples: Samples, questions: Sequence[str], task: TextGeneration, problem: Problem) -> Samples:
    """The same samples with other questions; answers, and what a conversation says before, stay."""
    columns: dict[str, Any] = {"id": samples.ids}
    if "prompt" in samples.facts:
        columns |= {"prompt": list(questions), "answer": samples.fact("answer")}
    else:
        turns = zip(samples.fact("messages"), questions, strict=True)
        columns["messages"] = [[*before[:-2], {**before[-2], "content": question}, before[-1]] for before, question in turns]
    return task.read(columns, problem.original, "attack")


def those_that_fit(sets: Sequence[Samples], task: TextGeneration, problem: Problem) -> list[Samples]:
    """The sets whose samples the model's context holds."""
    return [samples for samples in sets if not task.faults(problem.original, samples, "attack")]


def tried_on(subject: Subject, attack: str, count: int) -> Samples:
    """A few forget samples on which an attacker tries what to do."""
    shuffled = subject.problem.forget.shuffled(derive_seed(subject.engine.seed, attack, "tried"))
    return shuffled.subset(range(min(count, len(shuffled))))


def best_of(
    candidates: Sequence[Choice],
    subject: Subject,
    model: nn.Module,
    some: Samples,
    changed: Callable[[Choice], AbstractContextManager[None]],
) -> Choice:
    """The candidate under which the model shows most of some samples; the first among equals."""
    if len(candidates) == 1:
        return candidates[0]
    return candidates[int(np.argmax([knowledge_under(changed(each), subject, model, some).mean() for each in candidates]))]


def knowledge_under(change: AbstractContextManager[None], subject: Subject, model: nn.Module, samples: Samples) -> Array:
    """Knowledge of each sample, (N,), while a change lasts."""
    with change:
        return subject.engine.evaluate(model, samples, subject.engine.task.knowledge).numpy()
