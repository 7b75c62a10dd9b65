"""The attack by a support-vector machine: on numbers that are known, on whole audits, and once for all that use it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.audits import digits
from tests.conformance.test_measurements import subject_of
from tests.models import bundle_of, problem_of
from unlearned.audits import svc_mia
from unlearned.audits._membership import svc_nonmember_share
from unlearned.audits.svc_mia import SvcMia
from unlearned.audits.utility import Utility
from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.evidence.subject import Subject
from unlearned.records import Finding


def confidence(model: nn.Module, samples: Samples) -> np.ndarray:
    with torch.no_grad():
        rows = [torch.softmax(model(samples[i]["pixel_values"][None]).double(), dim=1)[0, int(samples[i]["labels"])] for i in range(len(samples))]
    return np.array([float(row) for row in rows])


def value(findings: list[Finding], metric: str, subject: str = "unlearned") -> Finding:
    [finding] = [f for f in findings if (f.metric, f.subject) == (metric, subject)]
    return finding


def test_salun_learns_from_retain_and_test_and_judges_forget() -> None:
    subject = subject_of("plain")
    sets, model = subject.problem.sets, subject.unlearned.model
    retain, test, forget = (confidence(model, sets[name]) for name in ("retain", "test", "forget"))
    expected = svc_nonmember_share(retain, test, forget, subject.engine.seed)
    assert value(SvcMia().measure(subject), "nonmember_share").value == pytest.approx(expected)


def test_classes_are_learnt_from_retain_and_forget_and_judged_on_their_test_samples() -> None:
    subject = subject_of("plain", where="label in [3, 4, 5]")
    sets, model = subject.problem.sets, subject.unlearned.model
    test = confidence(model, sets["test"])[np.isin(sets["test"].fact("label"), [3, 4, 5])]
    assert 0 < len(test) < len(sets["test"])
    expected = svc_nonmember_share(confidence(model, sets["retain"]), confidence(model, sets["forget"]), test, subject.engine.seed)
    finding = value(SvcMia().measure(subject), "class_nonmember_share")
    assert finding.value == pytest.approx(expected)
    assert (finding.split, finding.n) == ("test-same-class", len(test))


@pytest.mark.parametrize(
    ("kind", "reason"), [("plain", "no class is forgotten as a whole: the retain set has samples of the same classes"), ("gpt2", "the samples have no labels")]
)
def test_where_no_class_is_forgotten_the_form_for_classes_says_so(kind: str, reason: str) -> None:
    finding = value(SvcMia().measure(subject_of(kind)), "class_nonmember_share")
    assert finding.value is None
    assert reason in (finding.reason or "")


def test_what_the_audit_of_utility_needs_of_it_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counting(members: np.ndarray, others: np.ndarray, scored: np.ndarray, seed: int) -> float:
        made.append(len(scored))
        return svc_nonmember_share(members, others, scored, seed)

    monkeypatch.setattr(svc_mia, "svc_nonmember_share", counting)
    subject = subject_of("plain")
    gap = next(f for f in Utility().measure(subject) if (f.metric, f.subject) == ("average_gap", "unlearned"))
    shares = {who: value(SvcMia().measure(subject), "nonmember_share", who).value for who in ("unlearned", "reference")}
    assert len(made) == 4
    assert gap.value is not None
    assert shares["unlearned"] is not None
    assert shares["reference"] is not None
    assert gap.value >= abs(shares["unlearned"] - shares["reference"]) / 4 - 1e-12


def test_retrained_sits_at_the_references_and_the_broken_model_does_not() -> None:
    for name, bank in (("same", digits.retrained(100, 9)), ("broken", digits.broken(200, 9))):
        found = SvcMia().measure(digits.subject(bank, digits.retrained(0)))
        unlearned, reference = value(found, "nonmember_share"), value(found, "nonmember_share", "reference")
        assert None not in (unlearned.low, unlearned.high, reference.value)
        inside = unlearned.low <= reference.value <= unlearned.high  # type: ignore[operator]
        assert inside is (name == "same")


def test_references_say_what_retraining_shows() -> None:
    problem = problem_of("plain")
    findings = SvcMia().measure(Subject(problem, bundle_of("plain", 1), [], Engine(problem.task)))
    assert value(findings, "nonmember_share").reason == "no reference given"
