"""PPO against worked arithmetic and naive loops, in float64."""

from __future__ import annotations

import pytest
import torch

from unlearned.holes._ppo import advantages_of, clipped_policy_loss, clipped_value_loss, token_rewards, whitened

MASK = torch.tensor([[1.0, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.float64)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_the_score_comes_at_the_last_token_and_rewards_are_cut_off() -> None:
    ratio, entropy = random(2, 4), random(2, 4).abs()
    found = token_rewards(torch.tensor([3.0, 40.0], dtype=torch.float64), ratio, entropy, MASK, kl=0.1, entropy_weight=0.01)
    plain = -0.1 * ratio + 0.01 * entropy
    assert found[0, 2].item() == pytest.approx(float(plain[0, 2]) + 3)
    assert found[1, 1].item() == 10
    assert torch.equal(found[0, :2], plain[0, :2])
    assert found[0, 3] == 0
    assert found.abs().max() <= 10


def test_advantages_against_the_sum_of_the_definition() -> None:
    rewards, values, gamma, lam = random(2, 4) * MASK, random(2, 4), 0.9, 0.8
    advantages, returns = advantages_of(rewards, values, MASK, gamma, lam)
    for row, length in enumerate((3, 2)):
        v = [*values[row, :length].tolist(), 0.0]
        delta = [float(rewards[row, t]) + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            expected = sum((gamma * lam) ** k * delta[t + k] for k in range(length - t))
            assert advantages[row, t].item() == pytest.approx(expected, abs=1e-12)
            assert returns[row, t].item() == pytest.approx(expected + v[t], abs=1e-12)
    assert (advantages * (1 - MASK)).abs().sum() == 0


def test_whitening_sees_only_what_counts() -> None:
    x = random(2, 4)
    found = whitened(x, MASK)
    chosen = found[MASK.bool()]
    assert chosen.mean().item() == pytest.approx(0, abs=1e-12)
    assert chosen.square().mean().item() == pytest.approx(1, abs=1e-6)
    assert torch.equal(found, whitened(torch.where(MASK.bool(), x, 100.0), MASK))


def test_losses_against_a_loop() -> None:
    new, old, advantages, values, before, returns = (random(2, 4) + i for i in range(6))
    policy, value = [], []
    for i, t in MASK.nonzero().tolist():
        ratio = float((new - old)[i, t].exp())
        a = float(advantages[i, t])
        policy.append(-min(ratio * a, min(max(ratio, 0.8), 1.2) * a))
        v, b, r = (float(each[i, t]) for each in (values, before, returns))
        near = b + min(max(v - b, -0.2), 0.2)
        value.append(0.5 * max((v - r) ** 2, (near - r) ** 2))
    assert clipped_policy_loss(new, old, advantages, MASK, 0.2).item() == pytest.approx(sum(policy) / 5, rel=1e-12)
    assert clipped_value_loss(values, before, returns, MASK, 0.2).item() == pytest.approx(sum(value) / 5, rel=1e-12)
