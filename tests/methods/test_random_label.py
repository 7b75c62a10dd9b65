from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.methods.oracles import LinearClassifier
from tests.methods.test_neg_grad_plus import everything
from tests.models import layer_of, linear_network, made, plain_network, problem_of
from unlearned.api import forget
from unlearned.engine.batches import batch_positions, mixed
from unlearned.engine.engine import Engine
from unlearned.engine.randomness import derive_seed
from unlearned.methods.random_label import RandomLabel, random_labels


@pytest.mark.parametrize(("among", "classes"), [("any", 5), ("other", 5), ("other", 2)])
def test_labels_are_uniform_over_what_they_are_drawn_from(among: Any, classes: int) -> None:
    """Each count is within five standard deviations of its expectation; the true label never comes among the others."""
    n = 20_000
    for true in range(classes):
        drawn = random_labels(torch.full((n,), true), classes, among, torch.Generator().manual_seed(true))
        share = 1 / classes if among == "any" else 1 / (classes - 1)
        for label, count in enumerate(torch.bincount(drawn, minlength=classes).tolist()):
            expected = 0 if among == "other" and label == true else n * share
            assert abs(count - expected) <= 5 * math.sqrt(expected * (1 - share))


def test_each_sample_avoids_its_own_label() -> None:
    labels = torch.arange(7).repeat(500)
    drawn = random_labels(labels, 7, "other", torch.Generator().manual_seed(0))
    assert not bool((drawn == labels).any())
    assert bool((random_labels(labels, 7, "any", torch.Generator().manual_seed(0)) == labels).any())
    assert (int(drawn.min()), int(drawn.max())) == (0, 6)


def test_a_mixed_batch_holds_both_parts() -> None:
    one, other = {"x": torch.zeros(2, 3), "only_here": torch.zeros(2)}, {"x": torch.ones(1, 3)}
    assert mixed(one, other)["x"].tolist() == [[0.0] * 3] * 2 + [[1.0] * 3]
    assert mixed(one, other).keys() == {"x"}
    assert mixed(one, {}) is one
    assert mixed({}, other) is other


def by_hand(problem: Any, seed: int, order: str, drawn: str, lr: float, epochs: int) -> LinearClassifier:
    """Any labels, from the generator of the run, one draw for each batch with forget samples; or other labels, one draw of a generator of its own for all."""
    layer = layer_of(problem.original.model, 1)
    model = LinearClassifier(layer.weight.detach(), layer.bias.detach())
    (x_f, y_f), (x_r, y_r) = everything(problem.forget), everything(problem.retain)
    n = len(y_f)

    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "labels"))
        fixed = torch.randint(9, (n,))
        fixed = fixed + (fixed >= y_f).long()
        torch.manual_seed(derive_seed(seed, "fit"))

        def labels(positions: list[int]) -> torch.Tensor:
            return fixed[positions] if drawn == "once" else torch.randint(10, (len(positions),))

        number = 0
        for _ in range(epochs):
            if order == "union":
                for batch in batch_positions(n + len(y_r), 4, seed, "union", number):
                    f, r = [i for i in batch if i < n], [i - n for i in batch if i >= n]
                    parts = [labels(f)] if f else []
                    model.step(model.cross_entropy_gradient(torch.cat([x_f[f], x_r[r]]), torch.cat([*parts, y_r[r]])), lr)
            else:
                for batch in batch_positions(n, 4, seed, "forget", number):
                    model.step(model.cross_entropy_gradient(x_f[batch], labels(batch)), lr)
                number += 1
                for batch in batch_positions(len(y_r), 4, seed, "retain", number):
                    model.step(model.cross_entropy_gradient(x_r[batch], y_r[batch]), lr)
            number += 1
    return model


@pytest.mark.parametrize(("order", "among", "drawn"), [("forget-then-retain", "any", "anew"), ("union", "any", "anew"), ("union", "other", "once")])
def test_whole_run_by_hand(order: Any, among: Any, drawn: Any) -> None:
    problem = problem_of("linear", forget=7, retain=13, model=made(linear_network))
    expected = by_hand(problem, 5, order, drawn, 0.2, 2)
    settings: dict[str, Any] = {"lr": 0.2, "momentum": 0.0, "weight_decay": 0.0, "batch_size": 4, "epochs": 2}
    result = layer_of(forget(problem, "random-label", seed=5, order=order, labels=among, drawn=drawn, **settings).model, 1)
    torch.testing.assert_close(result.weight.double(), expected.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result.bias.double(), expected.bias, rtol=1e-5, atol=1e-6)


def test_labels_drawn_once_are_those_of_the_seed_and_not_of_the_generators() -> None:
    problem = problem_of("plain", forget=24)

    def drawn(seed: int, scrambled: int) -> list[int]:
        torch.manual_seed(scrambled)
        samples = RandomLabel(drawn="once", labels="other").sets(problem, Engine(problem.task, seed=seed))["forget"]
        return [int(samples[i]["drawn"]) for i in range(24)]

    with torch.random.fork_rng():
        assert drawn(1, 1) == drawn(1, 2)
        assert drawn(1, 1) != drawn(2, 1)
        assert all(label != true for label, true in zip(drawn(1, 1), problem.forget.fact("label"), strict=True))


def test_a_union_batch_is_normalised_as_a_whole() -> None:
    """Two passes through the model, one for each part, would use other batch statistics."""
    problem = problem_of("plain", model=made(plain_network))
    plan = RandomLabel(order="union", labels="other", drawn="once").plan(problem, Engine(problem.task))
    model = problem.original.model.train()
    layer_of(model, 7).p = 0.0
    forgotten = problem.task.collate([problem.forget[i] for i in range(4)])
    forgotten["drawn"] = (forgotten["labels"] + 1) % 10
    retained = problem.task.collate([problem.retain[i] for i in range(4)])
    with torch.no_grad():
        logits = model(torch.cat([forgotten["pixel_values"], retained["pixel_values"]]))
        labels = torch.cat([forgotten["drawn"], retained["labels"]])
        expected = -torch.log_softmax(logits.double(), dim=1)[range(8), labels].mean()
        assert float(plan.passes[0].loss(model, forgotten, retained)) == pytest.approx(float(expected), rel=1e-6)
