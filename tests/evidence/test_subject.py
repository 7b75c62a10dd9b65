from __future__ import annotations

import torch

from tests.models import bundle_of, problem_of
from unlearned.api import make_subject
from unlearned.audits._membership import auc


def test_two_measures_of_one_name_are_two_measures() -> None:
    problem = problem_of("plain")
    subject = make_subject(problem, problem.original)
    one = subject.values(lambda model, batch: torch.zeros(len(batch["labels"])), "test")  # noqa: ARG005
    two = subject.values(lambda model, batch: torch.ones(len(batch["labels"])), "test")  # noqa: ARG005
    assert float(one["original"][0].sum()) == 0
    assert float(two["original"][0].sum()) == len(problem.test)


def test_shadow_models_are_measured_as_all_others_and_once() -> None:
    problem = problem_of("plain")
    shadows = [bundle_of("plain", seed) for seed in (1, 2)]
    subject = make_subject(problem, problem.original, [bundle_of("plain", 3)], shadows=shadows)
    values = subject.shadow_values(problem.task.losses, "test")
    for value, shadow in zip(values, shadows, strict=True):
        assert torch.equal(value, subject.engine.evaluate(shadow.model, problem.test, problem.task.losses))
    assert subject.shadow_values(problem.task.losses, "test")[1] is values[1]
    assert not torch.equal(values[0], subject.values(problem.task.losses, "test")["original"][0])


def test_what_is_made_once_is_made_once_for_each_name() -> None:
    subject = make_subject(problem_of("plain"), bundle_of("plain"))
    made: list[str] = []

    def make() -> int:
        made.append("made")
        return len(made)

    assert [subject.once("a", make), subject.once("a", make), subject.once("b", make)] == [1, 1, 2]


def test_losses_of_confident_answers_keep_their_order() -> None:
    """Margins of 25 to 30 differ in the tenth digit of the loss: float32 rounds all of them to 0 and the attack would see only ties."""
    problem = problem_of("plain")
    margins = torch.linspace(25, 30, 40)
    batch = {"labels": torch.zeros(40, dtype=torch.long), "pixel_values": torch.zeros(40, 1, 8, 8)}
    logits = torch.stack([margins, torch.zeros(40)], dim=1)
    with torch.no_grad():
        losses = problem.task.losses_from(logits, batch)
    assert losses.dtype == torch.float64
    assert auc(-losses[20:].numpy(), -losses[:20].numpy()) == 1.0
