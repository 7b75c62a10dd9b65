"""What every audit and every attack promises, on every kind of model that it is defined for."""

from __future__ import annotations

import functools
import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.conformance.table import ATTACKS, AUDITS, Row
from tests.models import bits, bundle_of, flags, generators, modes, problem_of, same_bits, scramble
from unlearned.attacks import attacks
from unlearned.attacks._attack import Attack
from unlearned.audits import audits
from unlearned.audits._audit import Audit
from unlearned.engine.bank import Kept
from unlearned.engine.engine import Engine
from unlearned.evidence.subject import Subject
from unlearned.records import LABEL, Cost, Finding

ROWS = {row.title: row for row in (*AUDITS, *ATTACKS)}
every_part = pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
COST = Cost(wall_seconds=2.0, cpu_seconds=3.0, peak_memory_bytes=1000, samples_seen=50, steps=5)


@pytest.fixture(autouse=True)
def stand_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a row puts in the place of a package."""
    row = request.node.callspec.params["row"]
    if row.stand_in is not None:
        row.stand_in(monkeypatch)


def part_of(row: Row) -> Audit | Attack:
    kind: Any = audits.get(row.name) if row in AUDITS else attacks.get(row.name)
    part = kind(**row.settings)
    assert isinstance(part, Audit | Attack)
    return part


def subject_of(
    kind: str, references: int = 2, *, shadows: int = 2, where: str | None = None, itself: bool = False, seed: int = 0, cost: Cost | None = COST
) -> Subject:
    """Original, unlearned, references and shadow models with unrelated weights; `itself`: one reference's weights in the place of all but the original."""
    problem = problem_of(kind, where=where)

    def kept(first: int, count: int) -> list[Kept]:
        return [Kept(bundle_of(kind, seed=300 if itself else first + i), cost, i) for i in range(count)]

    unlearned = bundle_of(kind, seed=300 if itself else 200)
    return Subject(problem, unlearned, kept(300, references), Engine(problem.task, seed=seed), cost, kept(400, shadows))


def subject_for(row: Row, **more: Any) -> Subject:
    """One with enough models to measure everything."""
    models = max(2, row.fewest)
    subject = subject_of(row.kind, **{"references": models, "shadows": models, "where": row.where, **more})
    return replace(subject, skipped=row.skipped)


@functools.cache
def found(title: str) -> tuple[Finding, ...]:
    return tuple(part_of(ROWS[title]).measure(subject_for(ROWS[title])))


@every_part
def test_findings_are_whole_records(row: Row) -> None:
    findings = found(row.title)
    for finding in findings:
        assert finding.audit == row.name
        assert finding.kind == ("attack" if row in ATTACKS else "audit")
        assert Finding.model_validate(json.loads(json.dumps(finding.model_dump(mode="json"), allow_nan=False))) == finding
        if finding.value is None:
            assert finding.reason
            continue
        assert math.isfinite(finding.value)
        if finding.unit == "share":
            assert 0 <= finding.value <= 1
        if finding.low is not None and finding.high is not None:
            assert finding.low <= finding.value <= finding.high or finding.interval is None or "bootstrap" in finding.interval
        assert finding.n > 0
    assert {finding.subject for finding in findings if finding.value is not None} == set(row.subjects)
    keys = [(f.metric, f.split, f.subject, f.budget, f.budget_unit) for f in findings]
    assert len(keys) == len(set(keys))


@every_part
def test_gap_is_the_distance_to_the_reference_row(row: Row) -> None:
    base = {(f.metric, f.split, f.budget, f.budget_unit): f.value for f in found(row.title) if f.subject == "reference"}
    gaps = [f for f in found(row.title) if f.gap is not None]
    assert gaps
    for finding in gaps:
        reference = base[finding.metric, finding.split, finding.budget, finding.budget_unit]
        assert reference is not None
        assert finding.value is not None
        assert finding.gap == pytest.approx(finding.value - reference)


@every_part
def test_measured_again_it_is_equal_and_nothing_was_changed(row: Row) -> None:
    """Other global generators, and models in a mode that nobody would restore by accident."""
    subject = subject_for(row)
    models = [model for _, model in subject.models()] + [shadow.bundle.model for shadow in subject.shadows]
    for model in models:
        model.train()
        list(model.modules())[-1].eval()
        assert len(set(modes(model).values())) == 2
    before = [(bits(model), modes(model), flags(model)) for model in models]
    scramble(4321)
    state = generators()
    findings = part_of(row).measure(subject)
    assert tuple(findings) == found(row.title)
    assert generators() == state
    for model, (weights, *rest) in zip(models, before, strict=True):
        assert same_bits(weights, bits(model))
        assert rest == [modes(model), flags(model)]
        assert all(parameter.grad is None for parameter in model.parameters())


@every_part
def test_reference_compared_with_itself_has_no_gap(row: Row) -> None:
    subject = subject_for(row, references=row.fewest, shadows=row.fewest, itself=True)
    # What only describes has nothing to be compared with.
    # A label is how probable it is that a model is no other than the references, of which few are known.
    measured = [f for f in part_of(row).measure(subject) if f.metric != LABEL]
    findings = [f for f in measured if f.subject == "unlearned" and f.value is not None and f.direction != "none"]
    assert findings
    ideal = {"tug_of_war": 1.0, "average_gap": 0.0, "total_variation": 0.0, "jensen_shannon": 0.0}
    for finding in findings:
        if finding.gap is None:  # the value is a distance already
            assert finding.value == pytest.approx(ideal[finding.metric], abs=1e-12)
        else:
            assert finding.gap == pytest.approx(0, abs=1e-12)


@every_part
def test_without_references_it_says_so(row: Row) -> None:
    findings = part_of(row).measure(subject_for(row, references=0))
    assert findings
    for finding in findings:
        assert finding.subject != "reference"
        assert finding.gap is None
        needs = finding.reason or ""
        assert (
            needs in {"no reference given", "no reference whose cost is known"}
            or finding.direction == "none"
            or needs.startswith(("a rate of", "no class", "no probe", "nothing was forgotten", "half of what"))
            or "references" in needs
        )


@every_part
def test_without_shadow_models_it_says_what_needs_them(row: Row) -> None:
    findings = part_of(row).measure(subject_for(row, shadows=0))
    assert findings
    whole = {(f.metric, f.split, f.subject, f.budget, f.budget_unit): f for f in found(row.title)}
    for finding in findings:
        before = whole.get((finding.metric, finding.split, finding.subject, finding.budget, finding.budget_unit))
        assert finding == before or (finding.value is None and "shadow models" in (finding.reason or ""))


SMALL = {title: row for title, row in ROWS.items() if row.kind == "plain" and row.name != "cost"}
on_the_plain_network = pytest.mark.parametrize("row", SMALL.values(), ids=list(SMALL))


@on_the_plain_network
def test_a_cost_that_is_not_known_does_not_matter_to_what_is_measured(row: Row) -> None:
    assert tuple(part_of(row).measure(subject_for(row, cost=None))) == found(row.title)


@on_the_plain_network
def test_no_gradient_is_left_on_the_values(row: Row) -> None:
    subject = subject_for(row)
    part_of(row).measure(subject)
    values = [*subject.values(subject.engine.task.losses, "forget").values(), subject.shadow_values(subject.engine.task.losses, "forget")]
    assert all(not tensor.requires_grad and tensor.dtype == torch.float64 for several in values for tensor in several)
