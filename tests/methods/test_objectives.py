"""That each method does what its name says, and stops when numbers lose their meaning."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.methods.oracles import LinearClassifier
from tests.methods.test_neg_grad_plus import everything
from tests.models import bits, layer_of, linear_network, made, problem_of, same_bits
from unlearned.api import forget
from unlearned.engine.batches import batch_positions
from unlearned.engine.engine import Engine
from unlearned.errors import DivergedError, InputError
from unlearned.problem import Problem


def mean_loss(problem: Problem, model: Any, split: str) -> float:
    return float(Engine(problem.task).evaluate(model, problem.sets[split], problem.task.losses).mean())


@pytest.mark.parametrize("kind", ["plain", "gpt2", "unet"])
@pytest.mark.parametrize(
    ("method", "settings", "split", "sign"),
    [
        ("fine-tune", {"epochs": 4, "lr": 0.01}, "retain", -1),
        ("gradient-ascent", {"epochs": 3, "lr": 0.01}, "forget", +1),
        ("neg-grad-plus", {"epochs": 4, "lr": 0.01, "alpha": 1.0}, "retain", -1),
        ("neg-grad-plus", {"epochs": 4, "lr": 0.01, "alpha": 0.0}, "forget", +1),
    ],
)
def test_loss_moves_the_way_it_should(kind: str, method: str, settings: dict[str, Any], split: str, sign: int) -> None:
    problem = problem_of(kind)
    result = forget(problem, method, batch_size=6, **settings).model
    assert sign * (mean_loss(problem, result, split) - mean_loss(problem, problem.original.model, split)) > 1e-3


@pytest.mark.parametrize(("method", "over", "sign"), [("fine-tune", "retain", 1.0), ("gradient-ascent", "forget", -1.0)])
def test_whole_run_with_momentum_and_weight_decay_by_hand(method: str, over: str, sign: float) -> None:
    """v ← μ v + g + λ θ; θ ← θ − η v."""
    problem = problem_of("linear", forget=7, retain=9, model=made(linear_network))
    layer = layer_of(problem.original.model, 1)
    by_hand = LinearClassifier(layer.weight.detach(), layer.bias.detach())
    x, y = everything(problem.sets[over])
    lr, momentum, decay, seed = 0.1, 0.9, 0.01, 6
    velocity = [torch.zeros_like(by_hand.weight), torch.zeros_like(by_hand.bias)]
    for number in range(3):
        for batch in batch_positions(len(x), 4, seed, over, number):
            gradient = by_hand.cross_entropy_gradient(x[batch], y[batch])
            parameters = (by_hand.weight, by_hand.bias)
            velocity = [momentum * v + sign * g + decay * p for v, g, p in zip(velocity, gradient, parameters, strict=True)]
            by_hand.step((velocity[0], velocity[1]), lr)
    result = forget(problem, method, seed=seed, lr=lr, momentum=momentum, weight_decay=decay, batch_size=4, epochs=3).model
    torch.testing.assert_close(layer_of(result, 1).weight.double(), by_hand.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer_of(result, 1).bias.double(), by_hand.bias, rtol=1e-5, atol=1e-6)


def test_retraining_never_sees_the_forget_set() -> None:
    """Another forget set, the same retain set: the same bits."""
    one, other = problem_of("plain"), problem_of("plain")
    changed = Problem(other.task, other.original, one.test.subset([0, 1, 2]), other.retain, other.test)
    results = [bits(forget(problem, "retrain", epochs=2, batch_size=8).model) for problem in (one, changed)]
    assert same_bits(*results)


def test_retraining_does_not_start_from_the_weights_of_the_original() -> None:
    one, other = problem_of("plain"), problem_of("plain")
    with torch.no_grad():
        for tensor in other.original.model.state_dict().values():
            tensor.copy_(tensor + 1)
    results = [bits(forget(problem, "retrain", epochs=1, batch_size=8).model) for problem in (one, other)]
    assert same_bits(*results)


LOOPING = ["retrain", "fine-tune", "gradient-ascent", "neg-grad-plus", "l1-sparse", "ridge", "noisy-gd"]
ON_IMAGES = ["scrub", "random-label", "salun", "npo", "bad-teacher", "boundary-shrink"]


@pytest.mark.parametrize(("method", "kind"), [*((m, k) for m in LOOPING for k in ("plain", "gpt2", "unet")), *((m, "plain") for m in ON_IMAGES)])
def test_divergence_is_noticed_and_the_original_untouched(method: str, kind: str) -> None:
    problem = problem_of(kind)
    before = bits(problem.original.model)
    with pytest.raises(DivergedError, match=r"diverged (at|by) step \d+.*original model is untouched.*Lower `lr`"):
        forget(problem, method, lr=1e6, epochs=8, batch_size=8)
    assert same_bits(before, bits(problem.original.model))


@pytest.mark.parametrize("method", [*LOOPING, *ON_IMAGES, "ssd", "svd"])
def test_a_pattern_that_matches_nothing_is_refused(method: str) -> None:
    problem = problem_of("plain")
    with pytest.raises(InputError, match="no trainable parameter matches 'nothing'"):
        forget(problem, method, parameters="nothing")
    with pytest.raises(InputError, match="is not a regular expression"):
        forget(problem, method, parameters="(")


def test_scrub_is_refused_where_it_is_not_defined() -> None:
    with pytest.raises(InputError, match="'scrub' is not defined for text-generation"):
        forget(problem_of("gpt2"), "scrub")
