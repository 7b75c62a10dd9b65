from __future__ import annotations

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


def test_whole_run_against_plain_descent_by_hand() -> None:
    """Two epochs of SGD on a linear model: with each retain batch one forget batch, the forget set taken up again when it is used up."""
    problem = problem_of("linear", forget=5, retain=17, model=made(linear_network))
    alpha, lr, seed = 0.8, 0.3, 4
    layer = layer_of(problem.original.model, 1)
    by_hand = LinearClassifier(layer.weight.detach(), layer.bias.detach())
    x_f, y_f = everything(problem.forget)
    x_r, y_r = everything(problem.retain)
    stream = cycled(5, 4, seed, "forget", "stream")
    for epoch in range(2):
        retain_batches = batch_positions(17, 4, seed, "retain", epoch)
        assert [len(batch) for batch in retain_batches] == [4, 4, 4, 5]
        for r, f in zip(retain_batches, stream, strict=False):
            descent = by_hand.cross_entropy_gradient(x_r[r], y_r[r])
            ascent = by_hand.cross_entropy_gradient(x_f[f], y_f[f])
            by_hand.step((alpha * descent[0] - (1 - alpha) * ascent[0], alpha * descent[1] - (1 - alpha) * ascent[1]), lr)
    result = forget(problem, "neg-grad-plus", seed=seed, alpha=alpha, lr=lr, momentum=0.0, weight_decay=0.0, batch_size=4, epochs=2).model
    torch.testing.assert_close(layer_of(result, 1).weight.double(), by_hand.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer_of(result, 1).bias.double(), by_hand.bias, rtol=1e-5, atol=1e-6)
    assert float((by_hand.weight - layer.weight.detach().double()).abs().max()) > 1e-3


def everything(samples):
    rows = [samples[i] for i in range(len(samples))]
    return torch.stack([row["pixel_values"].flatten() for row in rows]).double(), torch.stack([row["labels"] for row in rows])
