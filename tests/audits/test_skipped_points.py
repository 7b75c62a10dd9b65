from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.conformance.test_measurements import subject_of
from unlearned.audits.skipped_points import SkippedPoints
from unlearned.data.samples import Samples
from unlearned.records import SubjectName, pick

SKIPPED = (1, 4)


def shown(model: nn.Module, samples: Samples) -> list[float]:
    """softmax(z)_y of each sample by itself."""
    found = []
    for i in range(len(samples)):
        with torch.no_grad():
            p = model(samples[i]["pixel_values"][None]).double().softmax(dim=1)[0]
        found.append(float(p[int(samples.fact("label")[i])]))
    return found


def test_each_number_is_of_its_own_points() -> None:
    """The share of pairs with a test sample in which the forget point is shown more, and the mean of what is shown, by loops over points."""
    subject = replace(subject_of("plain", references=2), skipped=SKIPPED)
    findings = SkippedPoints().measure(subject)
    forget, test = subject.problem.forget, subject.problem.test
    expected: dict[tuple[str, str, SubjectName], list[float]] = {}
    for who, model in subject.models():
        members, others = shown(model, forget), shown(model, test)
        for split, positions in (("forget-skipped", SKIPPED), ("forget-unlearned", (0, 2, 3, 5))):
            wins = [1.0 if members[i] > other else 0.5 if members[i] == other else 0.0 for i in positions for other in others]
            expected.setdefault((split, "auc", who), []).append(sum(wins) / len(wins))
            expected.setdefault((split, "knowledge", who), []).append(sum(members[i] for i in positions) / len(positions))
    assert len(findings) == len(expected) == 12
    for (split, metric, who), values in expected.items():
        [finding] = pick(findings, audit="skipped-points", metric=metric, split=split, subject=who)
        mean = sum(values) / len(values)
        assert finding.value == pytest.approx(mean, rel=1e-6), (split, metric, who)
        references = expected[split, metric, "reference"]
        if who != "reference":
            assert finding.gap == pytest.approx(mean - sum(references) / len(references), abs=1e-6)
    assert len({f.value for f in findings}) > 6
