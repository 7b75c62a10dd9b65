from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.methods.oracles import LinearClassifier
from tests.models import layer_of, linear_network, made, problem_of
from unlearned.api import forget
from unlearned.engine.batches import batch_positions, cycled
from unlearned.methods.neg_grad_plus import neg_grad_plus_loss


def test_loss_by_hand() -> None:
    """0.9 · (1 + 2 + 6)/3 − 0.1 · (4 + 8)/2 = 2.7 − 0.6 = 2.1."""
    value = neg_grad_plus_loss(torch.tensor([4.0, 8.0], dtype=torch.float64), torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64), 0.9)
    assert float(value) == pytest.approx(2.1, rel=1e-14)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.95, 1.0])
def test_loss_against_a_loop(alpha: float) -> None:
    generator = torch.Generator().manual_seed(3)
    forget_losses, retain_losses = torch.rand(5, generator=generator).double(), torch.rand(7, generator=generator).double()
    expected = 0.0
    for value in retain_losses.tolist():
        expected += alpha * value / 7
    for value in forget_losses.tolist():
        expected -= (1 - alpha) * value / 5
    assert float(neg_grad_plus_loss(forget_losses, retain_losses, alpha)) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("paced_by", ["retain", "forget"])
def test_whole_run_against_plain_descent_by_hand(paced_by: Any) -> None:
    """Two epochs of SGD on a linear model: with each batch of the set that paces one of the other set, which is taken up again when it is used up."""
    problem = problem_of("linear", forget=5, retain=17, model=made(linear_network))
    alpha, lr, seed = 0.8, 0.3, 4
    layer = layer_of(problem.original.model, 1)
    by_hand = LinearClassifier(layer.weight.detach(), layer.bias.detach())
    x_f, y_f = everything(problem.forget)
    x_r, y_r = everything(problem.retain)
    other, sizes = {"retain": "forget", "forget": "retain"}[paced_by], {"forget": 5, "retain": 17}
    stream = cycled(sizes[other], 4, seed, other, "stream")
    for epoch in range(2):
        paced = batch_positions(sizes[paced_by], 4, seed, paced_by, epoch)
        assert [len(batch) for batch in paced] == {"retain": [4, 4, 4, 5], "forget": [5]}[paced_by]
        for first, second in zip(paced, stream, strict=False):
            r, f = (first, second) if paced_by == "retain" else (second, first)
            descent = by_hand.cross_entropy_gradient(x_r[r], y_r[r])
            ascent = by_hand.cross_entropy_gradient(x_f[f], y_f[f])
            by_hand.step((alpha * descent[0] - (1 - alpha) * ascent[0], alpha * descent[1] - (1 - alpha) * ascent[1]), lr)
    given: dict[str, Any] = {"seed": seed, "alpha": alpha, "lr": lr, "momentum": 0.0, "weight_decay": 0.0, "batch_size": 4, "epochs": 2}
    result = forget(problem, "neg-grad-plus", paced_by=paced_by, **given).model
    torch.testing.assert_close(layer_of(result, 1).weight.double(), by_hand.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer_of(result, 1).bias.double(), by_hand.bias, rtol=1e-5, atol=1e-6)
    assert float((by_hand.weight - layer.weight.detach().double()).abs().max()) > 1e-3


def test_fine_tuning_at_the_forget_sets_pace_is_its_descent_without_the_ascent() -> None:
    problem = problem_of("resnet", forget=6, retain=17)
    how: dict[str, Any] = {"seed": 3, "lr": 0.05, "batch_size": 2, "epochs": 2, "paced_by": "forget"}
    tuned, descended = (forget(problem, name, **how | more).model for name, more in (("fine-tune", {}), ("neg-grad-plus", {"alpha": 1.0})))
    # Not their running statistics: the ascent's forward pass has gone through the normalisation, too.
    for (name, weight), (_, other) in zip(tuned.named_parameters(), descended.named_parameters(), strict=True):
        assert torch.equal(weight, other), name


def everything(samples):
    rows = [samples[i] for i in range(len(samples))]
    return torch.stack([row["pixel_values"].flatten() for row in rows]).double(), torch.stack([row["labels"] for row in rows])
