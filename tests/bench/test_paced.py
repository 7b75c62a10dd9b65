"""The baselines of the paper that are other methods than ours of that name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.methods.oracles import LinearClassifier
from unlearned.api import forget
from unlearned.bench._colours import GRAY, GREEN, RED
from unlearned.bench._headed import HeadedImages
from unlearned.bench._paced import BudgetRetrain, PacedSalUn, PacedScrub, divergence
from unlearned.bench._tinted import tinted
from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.engine.gradients import summed_gradients
from unlearned.engine.settings import Compute
from unlearned.problem import Problem
from unlearned.tasks._task import Bundle

SGD: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "batch_size": 64}


def samples(count: int, colour: tuple[int, int, int], number: int, name: str) -> Samples:
    images = torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(number))
    answers = {"labels": torch.arange(count) % 10, "colours": torch.full((count,), number)}
    return tinted(images, range(count), torch.tensor(colour).expand(count, 3), answers, [name] * count)


def problem(seed: int = 0) -> Problem:
    torch.manual_seed(seed)
    original = Bundle(nn.Sequential(nn.Flatten(), nn.Linear(12, 13)))
    return Problem(HeadedImages(colours=3), original, samples(6, RED, 1, "red"), samples(9, GRAY, 0, "gray"), samples(4, GREEN, 2, "test"))


def layer(model: Any) -> Any:
    return model[1]


def next_label(labels: Tensor, classes: int, among: str) -> Tensor:
    assert among == "other"
    return (labels + 1) % classes


def everywhere(gradients: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    assert share == 0.5
    return {name: torch.ones_like(gradient, dtype=torch.bool) for name, gradient in gradients.items()}


def test_the_divergence_of_two_heads_is_the_sum_of_theirs() -> None:
    task, generator = HeadedImages(colours=3), torch.Generator().manual_seed(2)
    student, teacher = (torch.randn(5, 13, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = 0.0
    for s, t in zip(student, teacher, strict=True):
        for part in (slice(0, 10), slice(10, 13)):
            p, q = t[part].softmax(0), s[part].softmax(0)
            expected += float((p * (p / q).log()).sum()) / 5
    assert float(divergence(task, student, teacher)) == pytest.approx(expected, rel=1e-12)
    assert float(divergence(task, student, student)) == pytest.approx(0, abs=1e-12)


def test_scrub_descends_and_ascends_in_turn() -> None:
    here = problem()
    method = PacedScrub(epochs=5, descent_epochs=2, **SGD)
    plan = method.plan(here, Engine(here.task, Compute(device="cpu")))
    assert [pass_.over for pass_ in plan.passes] == ["both", "forget", "both", "both", "both"]
    forget, retain = (here.task.collate([s[i] for i in range(len(s))]) for s in (here.forget, here.retain))
    model = problem(1).original.model
    task: Any = here.task
    teacher = {name: here.original.model(batch["pixel_values"]) for name, batch in (("f", forget), ("r", retain))}
    descent = plan.passes[0].loss(model, forget, retain)
    torch.testing.assert_close(descent, task.losses(model, retain).mean() + 0.1 * divergence(task, model(retain["pixel_values"]), teacher["r"]))
    ascent = plan.passes[1].loss(model, forget, {})
    torch.testing.assert_close(ascent, -0.1 * divergence(task, model(forget["pixel_values"]), teacher["f"]))
    assert ascent.item() < 0


def test_salun_moves_only_the_salient_half() -> None:
    here = problem()
    engine = Engine(here.task, Compute(device="cpu"))
    found = forget(here, PacedSalUn(epochs=2, lr=0.1, **SGD), engine).model
    gradients = torch.cat([g.flatten() for g in summed_gradients(engine, here.original.model, here.forget, 64).values()]).abs()
    moved = torch.cat([(a != b).flatten() for a, b in zip(found.parameters(), here.original.model.parameters(), strict=True)])
    assert moved.sum() == len(gradients) // 2
    assert gradients[moved].min() >= gradients[~moved].max()


def test_salun_teaches_other_labels_beside_the_retain_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """With λ_GA 0.5 and the next class as the other label, one step against the gradient written down."""
    monkeypatch.setattr("unlearned.bench._paced.random_labels", next_label)
    monkeypatch.setattr("unlearned.bench._paced.saliency_mask", everywhere)
    here = problem()
    found = layer(forget(here, PacedSalUn(epochs=1, lr=0.1, lambda_ga=0.5, **SGD)).model)
    start = layer(here.original.model)
    for part, column, size in ((slice(0, 10), "labels", 10), (slice(10, 13), "colours", 3)):
        by_hand = LinearClassifier(start.weight[part].detach(), start.bias[part].detach())
        batches = [here.task.collate([s[i] for i in range(len(s))]) for s in (here.retain, here.forget)]
        x_r, x_f = (batch["pixel_values"].flatten(1).double() for batch in batches)
        of_r = by_hand.cross_entropy_gradient(x_r, batches[0][column])
        of_f = by_hand.cross_entropy_gradient(x_f, (batches[1][column] + 1) % size)
        by_hand.step((of_r[0] + 0.5 * of_f[0], of_r[1] + 0.5 * of_f[1]), 0.1)
        torch.testing.assert_close(found.weight[part].double(), by_hand.weight, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.bias[part].double(), by_hand.bias, rtol=1e-5, atol=1e-6)


def test_retraining_within_the_budget_owes_nothing_to_the_original() -> None:
    method = BudgetRetrain(epochs=2, lr=0.1, paced_by="forget", **SGD)
    models = [forget(problem(seed), method, seed=3).model for seed in (0, 1)]
    assert torch.equal(layer(models[0]).weight, layer(models[1]).weight)
    assert not torch.equal(layer(models[0]).weight, layer(forget(problem(0), method, seed=4).model).weight)
