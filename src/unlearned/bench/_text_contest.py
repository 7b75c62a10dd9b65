"""How methods are compared on language models: what is measured of a model, and the choice of a setting on other groups than the reported ones."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import nn

from unlearned.audits.answer_ranks import reciprocal_ranks
from unlearned.audits.deviation_score import deviation_score
from unlearned.audits.fluency import distinct_pairs
from unlearned.audits.refusal_quality import by_wording
from unlearned.audits.tofu import Tofu
from unlearned.bench._grids import Contender
from unlearned.bench._lessons import Lesson
from unlearned.bench._suite import Place
from unlearned.bench._text_scene import Class, Pupil, class_of
from unlearned.data.fingerprints import of_json
from unlearned.data.samples import Samples
from unlearned.engine.bank import Kept
from unlearned.engine.files import write_text
from unlearned.errors import DivergedError, InputError
from unlearned.evidence.subject import Subject
from unlearned.methods._method import Method
from unlearned.problem import Problem
from unlearned.records import BenchRow, Cost
from unlearned.tasks._generation import true_answers
from unlearned.tasks._refusals import REFUSALS, declines
from unlearned.tasks._task import DataSource


class Number(NamedTuple):
    """One measured number."""

    metric: str
    split: str
    value: float


class Shown(NamedTuple):
    """What a model made of one set, one value per sample."""

    recall: list[float]
    """ROUGE-1 recall."""
    rank: list[float]
    """Mean reciprocal rank of the true tokens."""
    said: list[str]


def shown(school: Class, model: nn.Module, samples: Samples) -> Shown:
    """Answers of a model, measured."""
    task = school.task
    made = school.engine.evaluate(model, samples, task.generations)
    batch = task.collate([samples[i] for i in range(len(samples))])
    ranks = reciprocal_ranks(made[..., 1], (true_answers(batch) >= 0).sum(dim=1))
    return Shown(task.recall(made, batch).tolist(), ranks.tolist(), task.said(made))


def numbers(school: Class, model: nn.Module, problem: Problem) -> list[Number]:
    """Everything that is reported of one model on one problem."""
    forget, retain, factual = (shown(school, model, samples) for samples in (problem.forget, problem.retain, problem.test))
    recalls = [fmean(each.recall) for each in (forget, retain, factual)]
    quality = by_wording(forget.said, REFUSALS).max(axis=1).clip(0, 1)
    return [
        Number("rouge1_forget", "forget", recalls[0]),
        Number("rouge1_retain", "retain", recalls[1]),
        Number("rouge1_factual", "factual", recalls[2]),
        Number("deviation_score", "all", deviation_score(recalls[0], recalls[1])),
        Number("mrr_forget", "forget", fmean(forget.rank)),
        Number("refusal_quality", "forget", float(np.mean(quality))),
        Number("refusal_rate", "forget", fmean(map(declines, forget.said))),
        Number("fluency", "forget", fmean(map(distinct_pairs, forget.said))),
        Number("refusal_rate", "retain", fmean(map(declines, retain.said))),
    ]


def tofu_numbers(school: Class, model: nn.Module, problem: Problem, references: Sequence[Kept], place: Place) -> list[Number]:
    """What the audit `tofu` says of it, with the world facts as the only other set: this model was taught no real authors."""
    assert place.data is not None
    audit = Tofu(world_facts=DataSource(source=str(place.data / "tofu" / "world_facts_perturbed.json")))
    subject = Subject(problem, problem.original.with_model(model), references, school.engine)
    found = [finding for finding in audit.measure(subject) if finding.subject == "unlearned" and finding.metric in {"forget_quality", "model_utility"}]
    return [Number(finding.metric, finding.split, finding.value) for finding in found if finding.value is not None]


def changed(model: nn.Module, original: nn.Module) -> Number:
    """How many weight tensors differ from the original's."""
    before = original.state_dict()
    return Number("tensors_changed", "all", float(sum(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())))


def spent(cost: Cost) -> list[Number]:
    """Processor time, and the largest memory of the process."""
    return [Number("seconds", "all", cost.cpu_seconds), Number("peak_mib", "all", cost.peak_memory_bytes / 2**20)]


class Made(NamedTuple):
    """What a method made."""

    model: nn.Module
    cost: Cost


def unlearn(school: Class, problem: Problem, method: Method) -> Made | str:
    """The unlearned model, or why there is none."""
    with school.engine.measuring() as meter:
        try:
            model = method.unlearn(problem, school.engine)
        except (DivergedError, InputError) as error:
            return "diverged" if isinstance(error, DivergedError) else str(error.faults[0].what)
    return Made(model, meter.cost)


def score(school: Class, model: nn.Module, problem: Problem) -> float:
    """The deviation score alone."""
    recalls = (fmean(shown(school, model, samples).recall) for samples in (problem.forget, problem.retain))
    return deviation_score(*recalls)


def attempts(pupil: Pupil, lesson: Lesson, groups: Sequence[str], contender: Contender, place: Place) -> list[float | None]:
    """Mean deviation score over these groups of each setting of the grid, with the first seed; None where it diverges. Computed once and kept."""
    key = of_json([repr(pupil), repr(lesson), list(groups), repr(contender), str(place.data)])[:32]
    file = place.cache / "attempts" / f"{key}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        if not file.exists():
            school = class_of(pupil, lesson, 0, place)
            found = [_attempt(school, groups, contender.made(setting)) for setting in contender.grid]
            write_text(file, json.dumps(found) + "\n", "--cache")
    kept: list[float | None] = json.loads(file.read_text(encoding="utf-8"))
    return kept


def _attempt(school: Class, groups: Sequence[str], method: Method) -> float | None:
    scores = []
    for group in groups:
        problem = school.problem(group)
        made = unlearn(school, problem, method)
        if isinstance(made, str):
            return None
        try:
            scores.append(score(school, made.model, problem))
        except InputError:  # it answers with NaN
            return None
    return fmean(scores)


def best(scores: Sequence[float | None]) -> int:
    """Position of the least score; the first, if nothing has one."""
    filled = [math.inf if each is None else each for each in scores]
    return filled.index(min(filled))


def rows(method: str, setting: str, seed: int | None, found: Sequence[Number]) -> list[BenchRow]:
    """Numbers as rows."""
    return [BenchRow(method=method, setting=setting, seed=seed, split=n.split, metric=n.metric, value=n.value) for n in found]
