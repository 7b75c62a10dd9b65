from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.methods.oracles import LinearClassifier
from tests.methods.test_neg_grad_plus import everything
from tests.models import bits, layer_of, linear_network, made, problem_of
from unlearned.api import forget
from unlearned.engine.batches import batch_positions
from unlearned.engine.engine import Engine
from unlearned.engine.gradients import summed_gradients
from unlearned.engine.randomness import derive_seed
from unlearned.methods.salun import SalUn, saliency_mask


def test_mask_by_hand() -> None:
    """Half of six: 5, −4 and 3 are the largest in magnitude. A rank within each tensor would take one of the first and two of the second."""
    gradients = {"a": torch.tensor([[5.0, -4.0]]), "b": torch.tensor([1.0, -2.0, 0.0, 3.0])}
    mask = saliency_mask(gradients, 0.5)
    assert mask["a"].tolist() == [[True, True]]
    assert mask["b"].tolist() == [False, False, False, True]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.77, 1.0])
def test_mask_against_sorting(share: float) -> None:
    generator = torch.Generator().manual_seed(1)
    gradients = {f"p{i}": torch.randn(shape, generator=generator, dtype=torch.float64) for i, shape in enumerate([(3, 4), (5,), (2, 3, 2)])}
    every = sorted((abs(value) for g in gradients.values() for value in g.flatten().tolist()), reverse=True)
    kept = set(every[: int(share * len(every))])
    for name, mask in saliency_mask(gradients, share).items():
        assert mask.flatten().tolist() == [abs(value) in kept for value in gradients[name].flatten().tolist()]


def test_mask_holds_exactly_its_share_also_among_equals() -> None:
    assert int(sum(mask.sum() for mask in saliency_mask({"a": torch.zeros(10), "b": torch.zeros(3)}, 0.5).values())) == 6


@pytest.mark.parametrize("training", [True, False])
def test_summed_gradients_against_a_loop(training: bool) -> None:
    """The sum keeps signs: batches may cancel. And it is taken in eval mode, whatever mode the model is in."""
    problem = problem_of("plain")
    reference = copy.deepcopy(problem.original.model).double().eval()
    expected = {name: torch.zeros_like(p) for name, p in reference.named_parameters()}
    for start in (0, 4):
        batch = problem.task.collate([problem.forget[i] for i in range(start, min(start + 4, 6))])
        reference.zero_grad()
        logits = reference(batch["pixel_values"].double())
        (-torch.log_softmax(logits, dim=1)[range(len(logits)), batch["labels"]].mean()).backward()
        for name, parameter in reference.named_parameters():
            assert parameter.grad is not None
            expected[name] += parameter.grad
    found = summed_gradients(Engine(problem.task), problem.original.model.train(training), problem.forget, 4)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-4, atol=1e-6)
    assert any(bool((value < 0).any()) for value in found.values())


def test_whole_run_by_hand() -> None:
    """Momentum and weight decay on all weights, then what the mask leaves out is put back."""
    problem = problem_of("linear", forget=9, retain=11, model=made(linear_network))
    layer = layer_of(problem.original.model, 1)
    model = LinearClassifier(layer.weight.detach(), layer.bias.detach())
    (x_f, y_f), (x_r, y_r) = everything(problem.forget), everything(problem.retain)
    seed, lr, momentum, decay, share = 3, 0.1, 0.9, 0.05, 0.3
    shuffled, _ = everything(problem.forget.shuffled(derive_seed(seed, "salun")))
    order = [int((x_f == x).all(dim=1).nonzero()) for x in shuffled]
    batches = [order[:4], order[4:8], order[8:]]
    parts = [model.cross_entropy_gradient(x_f[b], y_f[b]) for b in batches]
    summed = [torch.stack(group).sum(dim=0).abs() for group in zip(*parts, strict=True)]
    every = torch.cat([g.flatten() for g in summed]).sort(descending=True).values
    limit = int(share * len(every))
    assert float(every[limit - 1] - every[limit]) > 1e-6 * float(every[limit])  # no tie that rounding could turn
    masks = [g >= every[limit - 1] for g in summed]
    start = [model.weight, model.bias]
    velocity = [torch.zeros_like(p) for p in start]

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        gradient = model.cross_entropy_gradient(x, y)
        for i, (mask, name) in enumerate(zip(masks, ("weight", "bias"), strict=True)):
            parameter = getattr(model, name)
            velocity[i] = momentum * velocity[i] + gradient[i] + decay * parameter
            setattr(model, name, torch.where(mask, parameter - lr * velocity[i], start[i]))

    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "fit"))
        for epoch in range(2):
            for batch in batch_positions(9, 4, seed, "forget", 2 * epoch):
                step(x_f[batch], torch.randint(10, (len(batch),)))
            for batch in batch_positions(11, 4, seed, "retain", 2 * epoch + 1):
                step(x_r[batch], y_r[batch])
    settings: dict[str, Any] = {"lr": lr, "momentum": momentum, "weight_decay": decay, "batch_size": 4, "epochs": 2}
    result = layer_of(forget(problem, "salun", seed=seed, share=share, **settings).model, 1)
    torch.testing.assert_close(result.weight.double(), model.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result.bias.double(), model.bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("order", ["forget-then-retain", "union"])
def test_what_the_mask_leaves_out_keeps_its_bits(optimizer: str, order: str) -> None:
    """Momentum and weight decay move weights whose gradient is zero: masking gradients alone is not enough."""
    problem = problem_of("plain")
    original = problem.original.model
    samples = problem.forget.shuffled(derive_seed(0, "salun"))
    masks = saliency_mask(summed_gradients(Engine(problem.task), original, samples, 4), 0.5)
    settings: dict[str, Any] = {"optimizer": optimizer, "order": order, "lr": 0.05, "weight_decay": 0.1, "batch_size": 4, "epochs": 3, "max_grad_norm": 1.0}
    before, after = bits(original), bits(forget(problem, "salun", **settings).model)
    moved = 0
    for name, mask in masks.items():
        assert torch.equal(after[name][~mask], before[name][~mask])
        moved += int((after[name] != before[name]).sum())
    assert moved == sum(int(mask.sum()) for mask in masks.values())
    assert 0.49 < moved / sum(mask.numel() for mask in masks.values()) <= 0.5


def test_the_limit_on_gradients_is_one_on_the_weights_that_move() -> None:
    """One step of SGD whose gradients are scaled down to 0.01: the weights move by lr · 0.01, with nothing of the limit spent on what is put back."""
    problem = problem_of("linear", forget=4, retain=4, model=made(linear_network))
    before = layer_of(problem.original.model, 1)
    settings: dict[str, Any] = {"lr": 2.0, "momentum": 0.0, "weight_decay": 0.0, "max_grad_norm": 0.01, "epochs": 1, "share": 0.2}
    after = layer_of(forget(problem, "salun", order="union", **settings).model, 1)
    moved = torch.cat([(after.weight - before.weight).flatten(), after.bias - before.bias]).detach()
    assert float(moved.norm()) == pytest.approx(0.02, rel=1e-3)


def test_with_all_weights_it_is_random_label() -> None:
    problem = problem_of("plain")
    settings: dict[str, Any] = {"lr": 0.05, "batch_size": 8, "epochs": 2}
    plain = bits(forget(problem, "random-label", **settings).model)
    salun = bits(forget(problem, "salun", share=1.0, **settings).model)
    assert all(torch.equal(salun[name], plain[name]) for name in plain)


def test_adapters_are_refused() -> None:
    with pytest.raises(ValidationError, match="salun is about the weights of the model"):
        SalUn.model_validate({"lora": {}})
