"""Whole audits on tiny models against numbers taken from the models by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from tests.conformance.test_measurements import COST, subject_of
from tests.models import TASK_OF, bundle_of, problem_of
from unlearned.api import audit
from unlearned.audits import audits
from unlearned.audits.cost import CostAudit
from unlearned.audits.membership import Membership
from unlearned.audits.output_distance import OutputDistance
from unlearned.audits.utility import Utility
from unlearned.engine.bank import Kept
from unlearned.engine.engine import Engine
from unlearned.evidence.subject import Subject
from unlearned.evidence.verdict import Limits
from unlearned.problem import Problem
from unlearned.records import Cost, Finding, pick


def probabilities(problem: Problem, model: nn.Module, split: str) -> tuple[np.ndarray, np.ndarray]:
    samples = problem.sets[split]
    with torch.no_grad():
        rows = [torch.softmax(model(samples[i]["pixel_values"][None]).double(), dim=1)[0].numpy() for i in range(len(samples))]
    return np.array(rows), np.array([int(samples[i]["labels"]) for i in range(len(samples))])


def only(findings: list[Finding], **wanted) -> Finding:
    [finding] = pick(findings, **wanted)
    return finding


def test_accuracies_and_summaries() -> None:
    subject = subject_of("plain", references=3)
    findings = Utility().measure(subject)
    table = []
    for _, model in subject.models():
        row = []
        for split in ("forget", "retain", "test"):
            p, y = probabilities(subject.problem, model, split)
            row.append(float((p.argmax(axis=1) == y).mean()))
        table.append(row)
    for column, split in enumerate(("forget", "retain", "test")):
        for who, value in (("original", table[0][column]), ("unlearned", table[1][column]), ("reference", float(np.mean([r[column] for r in table[2:]])))):
            assert only(findings, metric="accuracy", split=split, subject=who).value == pytest.approx(value)
    centre = [sum(r[c] for r in table[2:]) / 3 for c in range(3)]
    expected = 1.0
    for c in range(3):
        expected *= 1 - abs(table[1][c] - centre[c])
    assert only(findings, metric="tug_of_war", subject="unlearned").value == pytest.approx(expected)
    leave_one_out = []
    for left in range(3):
        product = 1.0
        for c in range(3):
            others = [table[2 + i][c] for i in range(3) if i != left]
            product *= 1 - abs(table[2 + left][c] - sum(others) / 2)
        leave_one_out.append(product)
    assert only(findings, metric="tug_of_war", subject="reference").value == pytest.approx(np.mean(leave_one_out))


def test_membership_auc_ranks_by_confidence() -> None:
    subject = subject_of("plain")
    findings = Membership().measure(subject)
    forget, test = (probabilities(subject.problem, subject.unlearned.model, split) for split in ("forget", "test"))
    members, others = (p[range(len(y)), y] for p, y in (forget, test))
    wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(members, others))
    assert only(findings, metric="auc", split="forget", subject="unlearned").value == pytest.approx(wins / (len(members) * len(others)))
    same = np.isin(test[1], forget[1])
    assert 0 < same.sum() < len(same)
    wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(members, others[same]))
    assert only(findings, metric="auc", split="forget-same-class", subject="unlearned").value == pytest.approx(wins / (len(members) * same.sum()))


def test_rates_need_enough_test_samples() -> None:
    small = Membership().measure(subject_of("linear"))
    assert "at least 100 test samples, there are 16" in (only(small, metric="tpr_at_1pct_fpr").reason or "")
    problem = problem_of("linear", test=120)
    large = Membership().measure(Subject(problem, bundle_of("linear", 200), [], Engine(problem.task)))
    assert only(large, metric="tpr_at_1pct_fpr", subject="unlearned").value is not None
    assert only(large, metric="tpr_at_0.1pct_fpr").value is None


def test_distances_are_averaged_over_references_and_samples() -> None:
    subject = subject_of("plain", references=3)
    findings = OutputDistance().measure(subject)
    p = [probabilities(subject.problem, model, "test")[0] for _, model in subject.models()]
    expected = np.mean([0.5 * abs(p[1][i] - p[r][i]).sum() for r in (2, 3, 4) for i in range(len(p[1]))])
    assert only(findings, metric="total_variation", split="test", subject="unlearned").value == pytest.approx(expected, rel=1e-5)
    among = np.mean([0.5 * abs(p[a][i] - p[b][i]).sum() for a, b in ((2, 3), (2, 4), (3, 4)) for i in range(len(p[1]))])
    assert only(findings, metric="total_variation", split="test", subject="reference").value == pytest.approx(among, rel=1e-5)


def test_cost_beside_retraining() -> None:
    subject = subject_of("linear")
    cheap = Cost(wall_seconds=0.5, cpu_seconds=1.5, peak_memory_bytes=2000, samples_seen=10, steps=1)
    findings = CostAudit().measure(Subject(subject.problem, subject.unlearned, subject.references, subject.engine, cheap))
    found = {f.metric: f.value for f in pick(findings, subject="unlearned")}
    assert found["wall_seconds"] == 0.5
    assert found["wall_seconds_ratio"] == pytest.approx(0.25)
    assert found["cpu_seconds_ratio"] == pytest.approx(0.5)
    assert found["peak_memory_ratio"] == pytest.approx(2)
    assert found["samples_seen_ratio"] == pytest.approx(0.2)


def test_cost_of_a_model_from_elsewhere_is_absent_with_its_reason() -> None:
    subject = subject_of("linear")
    findings = CostAudit().measure(Subject(subject.problem, subject.unlearned, subject.references, subject.engine))
    assert {f.reason for f in pick(findings, subject="unlearned")} == {"the model was made elsewhere"}


def test_a_whole_record_with_its_verdict() -> None:
    subject = subject_of("plain", references=1, itself=True)
    bank = [Kept(subject.references[0].bundle, COST, 0)]
    wide = Limits(utility_gap=1, membership_gap=1, relearn_gap=1)
    record = audit(subject.problem, subject.unlearned, bank, attacks=["relearn"], cost=COST, engine=subject.engine, limits=wide)
    assert record.verdict.status == "passed"
    assert all(check.passed for check in record.verdict.checks)
    made = {name for name in audits if audits.get(name).by_default and "image-classification" in (audits.get(name).tasks or TASK_OF.values())}
    assert {f.audit for f in record.findings} == {"relearn", *made}
    assert "undecided" in audit(subject.problem, subject.unlearned, audits=["utility"], engine=subject.engine).verdict.status
