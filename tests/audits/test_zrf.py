"""Likeness to a model with random weights: on distributions that are known, and on whole audits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch import nn

from tests.audits import digits
from tests.conformance.test_measurements import subject_of
from tests.models import problem_of
from unlearned.audits.zrf import Zrf, likeness
from unlearned.engine.engine import Engine
from unlearned.engine.randomness import derive_seed, seeded
from unlearned.evidence.subject import Subject
from unlearned.records import Finding


def value(findings: list[Finding], subject: str = "unlearned") -> Finding:
    [finding] = [f for f in findings if f.subject == subject]
    return finding


def test_likeness_against_scipy_and_at_its_ends() -> None:
    p, q = (torch.from_numpy(np.random.default_rng(seed).dirichlet(np.full(5, 0.4), size=6)) for seed in (0, 1))
    np.testing.assert_allclose(likeness(p, q), [1 - jensenshannon(a, b, base=2) ** 2 for a, b in zip(p.numpy(), q.numpy(), strict=True)], rtol=1e-10)
    one, other = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.5, 0.5]])
    assert float(likeness(one, one)) == 1
    assert float(likeness(one, other)) == pytest.approx(0)


def test_the_random_model_itself_scores_one() -> None:
    subject = subject_of("plain")
    with seeded(derive_seed(subject.engine.seed, "zrf")):
        random = subject.engine.task.fresh(subject.problem.original)
    findings = Zrf().measure(replace(subject, unlearned=random))
    assert value(findings).value == pytest.approx(1, abs=1e-12)
    other = value(findings, "original").value
    assert other is not None
    assert other < 1 - 1e-6


def test_by_hand() -> None:
    subject = subject_of("linear", seed=3)
    with seeded(derive_seed(3, "zrf")):
        random = subject.engine.task.fresh(subject.problem.original).model
    expected = []
    for i in range(len(subject.problem.forget)):
        image = subject.problem.forget[i]["pixel_values"][None]
        with torch.no_grad():
            p, q = (torch.softmax(model(image).double(), dim=1)[0].numpy() for model in (subject.unlearned.model, random))
        expected.append(1 - jensenshannon(p, q, base=2) ** 2)
    assert value(Zrf().measure(subject)).value == pytest.approx(np.mean(expected), rel=1e-6)


def test_who_knows_more_is_less_like_it_and_retrained_sits_at_the_references() -> None:
    references = digits.retrained(0, 4)
    same, original = (value(Zrf().measure(digits.subject(bank, references))) for bank in (digits.retrained(100, 1), digits.originals(200, 1)))
    assert same.gap is not None
    assert original.gap is not None
    assert abs(same.gap) < 0.02
    assert original.gap < -0.04
    assert same.low is not None
    assert same.high is not None
    assert same.low < (same.value or 0) - same.gap < same.high


def test_a_model_that_cannot_be_made_anew_is_a_reason() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(10))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.scale * pixels.flatten(1)[:, :10]

    problem = problem_of("linear", model=Scaled())
    [finding] = Zrf().measure(Subject(problem, problem.original, [], Engine(problem.task)))
    assert finding.value is None
    assert (finding.reason or "").startswith("there is no random model: layer")
