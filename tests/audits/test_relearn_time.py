from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from tests.methods.oracles import LinearClassifier, softmax_rows
from tests.methods.test_neg_grad_plus import everything
from tests.models import bundle_of, images, layer_of
from unlearned.api import choose_audits, make_problem
from unlearned.audits.relearn_time import RelearnTime
from unlearned.data.samples import union
from unlearned.engine.bank import Kept
from unlearned.engine.batches import batch_positions
from unlearned.engine.engine import Engine
from unlearned.engine.training import Training, train
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import NO_REFERENCE, Finding, SubjectName, pick
from unlearned.tasks._task import Bundle

SETTINGS: dict[str, Any] = {"lr": 0.05, "batch_size": 4, "alpha": 0.1, "cap": 60}


@pytest.fixture(scope="module")
def subject() -> Subject:
    """A linear original that knows class 3, one model that hides it, and three that never met it."""
    bundle = bundle_of("linear")
    problem = make_problem(bundle, train=images(0, 200), test=images(300, 40), forget="label == 3")
    engine = Engine(problem.task, seed=5)
    how = Training(epochs=15, lr=0.5, batch_size=32, weight_decay=0.0)
    original = train(engine, bundle, union(problem.forget, problem.retain), how, 0)
    hidden = copy.deepcopy(original.model)
    with torch.no_grad():
        layer_of(hidden, 1).bias[3] -= 8
    bank = [Kept(train(engine, bundle, problem.retain, how, seed), None, seed) for seed in (1, 2, 3)]
    return Subject(Problem(problem.task, original, problem.forget, problem.retain, problem.test), original.with_model(hidden), bank, engine)


def of(subject: Subject, unlearned: Bundle, references: list[Kept]) -> Subject:
    return Subject(subject.problem, unlearned, references, subject.engine)


def steps_by_hand(subject: Subject, model: nn.Module, target: float, *, every: int = 1) -> int:
    """SGD with momentum 0.9 on the forget set; the first step after which accuracy there is high enough."""
    x, y = everything(subject.problem.forget)
    layer = layer_of(model, 1)
    by_hand = LinearClassifier(layer.weight.detach().clone(), layer.bias.detach().clone())
    velocity = [torch.zeros_like(by_hand.weight), torch.zeros_like(by_hand.bias)]
    batches = [batch for number in range(40) for batch in batch_positions(len(y), 4, subject.engine.seed, "forget", number)]
    for step, batch in enumerate(batches):
        p = softmax_rows(by_hand.logits(x))
        if step % every == 0 and float((p.argmax(dim=1) == y).double().mean()) >= target:
            return step
        gradient = by_hand.cross_entropy_gradient(x[batch], y[batch])
        velocity = [0.9 * v + g for v, g in zip(velocity, gradient, strict=True)]
        by_hand.step((velocity[0], velocity[1]), 0.05)
    raise AssertionError("never")


def value(findings: list[Finding], metric: str, who: SubjectName) -> float | None:
    [finding] = pick(findings, metric=metric, subject=who)
    return finding.value


@pytest.mark.parametrize("every", [1, 4])
def test_times_by_hand(subject: Subject, every: int) -> None:
    findings = RelearnTime(**SETTINGS, every=every).measure(subject)
    x, y = everything(subject.problem.forget)
    with torch.no_grad():
        target = 0.9 * float((subject.problem.original.model(x.float()).argmax(dim=1) == y).double().mean())
    assert target > 0.8
    hidden = steps_by_hand(subject, subject.unlearned.model, target, every=every)
    references = [steps_by_hand(subject, kept.bundle.model, target, every=every) for kept in subject.references]
    assert value(findings, "relearn_time", "original") == 0
    assert value(findings, "relearn_time", "unlearned") == hidden
    assert value(findings, "relearn_time", "reference") == pytest.approx(sum(references) / 3)
    assert value(findings, "anamnesis_index", "unlearned") == pytest.approx(3 * hidden / sum(references))
    assert value(findings, "anamnesis_index", "reference") == pytest.approx(1)
    assert 0 < hidden < min(references)


@pytest.mark.parametrize("score", ["utility", "knowledge", "likelihood"])
def test_of_the_retrained_model_itself_the_index_is_one(subject: Subject, score: Any) -> None:
    [first, *_] = subject.references
    findings = RelearnTime(**SETTINGS, score=score).measure(of(subject, first.bundle, [first]))
    assert value(findings, "anamnesis_index", "unlearned") == 1
    assert (value(findings, "relearn_time", "unlearned") or 0) > 0


def test_a_classifiers_knowledge_is_its_likelihood(subject: Subject) -> None:
    knowledge, likelihood = (RelearnTime(**SETTINGS, score=score).measure(subject) for score in ("knowledge", "likelihood"))
    assert knowledge == likelihood
    assert knowledge != RelearnTime(**SETTINGS).measure(subject)


def test_a_model_that_does_not_get_there_has_a_bound_in_words(subject: Subject) -> None:
    """References as the unlearned model, the hidden one as the reference: two steps are enough for the one, not for the other."""
    needed = value(RelearnTime(**SETTINGS).measure(subject), "relearn_time", "unlearned")
    assert needed is not None
    hidden, slow = Kept(subject.unlearned, None, None), subject.references[0].bundle
    findings = RelearnTime(**SETTINGS | {"cap": int(needed)}).measure(of(subject, slow, [hidden]))
    assert value(findings, "relearn_time", "reference") == needed
    [time] = pick(findings, metric="relearn_time", subject="unlearned")
    assert (time.value, time.reason) == (None, f"not reached within the cap of {needed:g} steps")
    [index] = pick(findings, metric="anamnesis_index", subject="unlearned")
    assert (index.value, index.reason) == (None, f"not reached within the cap of {needed:g} steps: the index is above 1")


def test_references_that_do_not_get_there_are_counted(subject: Subject) -> None:
    needed = value(RelearnTime(**SETTINGS).measure(subject), "relearn_time", "unlearned")
    assert needed is not None
    bank = [Kept(subject.unlearned, None, None), *subject.references[:2]]
    findings = RelearnTime(**SETTINGS | {"cap": int(needed)}).measure(of(subject, subject.unlearned, bank))
    words = f"2 of 3 references did not reach it within the cap of {needed:g} steps"
    [time] = pick(findings, metric="relearn_time", subject="unlearned")
    assert (time.value, time.gap, time.reason) == (needed, None, words)
    [reference] = pick(findings, metric="relearn_time", subject="reference")
    assert (reference.value, reference.reason) == (None, words)
    [index] = pick(findings, metric="anamnesis_index")
    assert (index.value, index.reason) == (None, words)


def test_nothing_to_divide_by(subject: Subject) -> None:
    there = Kept(subject.problem.original, None, None)
    findings = RelearnTime(**SETTINGS).measure(of(subject, subject.unlearned, [there]))
    assert value(findings, "relearn_time", "reference") == 0
    assert "without training" in (pick(findings, metric="anamnesis_index")[0].reason or "")
    alone = RelearnTime(**SETTINGS).measure(of(subject, subject.unlearned, []))
    assert {f.reason for f in alone} == {NO_REFERENCE}


def test_an_original_that_knows_nothing_sets_no_aim(subject: Subject) -> None:
    blind = copy.deepcopy(subject.problem.original.model)
    with torch.no_grad():
        layer_of(blind, 1).bias[3] -= 1000
    problem = subject.problem
    problem = Problem(problem.task, problem.original.with_model(blind), problem.forget, problem.retain, problem.test)
    findings = RelearnTime(**SETTINGS).measure(Subject(problem, subject.unlearned, subject.references, subject.engine))
    assert {(f.value, f.reason) for f in findings} == {(None, "the original shows nothing of the forget set that could be reached")}


def test_a_rate_that_is_too_high_is_said(subject: Subject) -> None:
    findings = RelearnTime(**SETTINGS | {"lr": 1e12}).measure(subject)
    assert len(findings) == 2
    assert all("diverged" in (f.reason or "") for f in findings)


def test_it_trains_models_and_is_not_made_unless_it_is_named() -> None:
    assert "relearn-time" not in {audit.name for audit in choose_audits(None, "image-classification")}
    assert [audit.name for audit in choose_audits(["relearn-time"], "image-classification")] == ["relearn-time"]
