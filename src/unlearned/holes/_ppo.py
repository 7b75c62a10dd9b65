"""Proximal policy optimisation (Schulman et al. 2017) on sequences of tokens, as curiosity-driven red-teaming uses it (Hong et al. 2024): functions of tensors.

Shapes: (B, T) for B sequences of T tokens; `mask` is 1 on tokens that count and 0 behind the end of each sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 10.0
"""Rewards of a token are cut off at ± this."""


def token_rewards(scores: Tensor, log_ratio: Tensor, entropy: Tensor, mask: Tensor, kl: float, entropy_weight: float) -> Tensor:
    """−β log(π/π_ref) + λ H at each token, and the sequence's score at its last one; cut off at ±10, 0 behind the end.

    Args:
        scores: (B,).
        log_ratio: log π − log π_ref of the tokens.
        entropy: of π at the tokens.
        mask: at least one token of each sequence counts.
        kl: β.
        entropy_weight: λ.
    """
    rewards = -kl * log_ratio + entropy_weight * entropy
    last = mask.sum(dim=1).long() - 1
    rewards = rewards.scatter_add(1, last[:, None], scores[:, None].to(rewards))
    return rewards.clamp(-LARGEST, LARGEST) * mask


def advantages_of(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantages (Schulman et al. 2016): A_t = Σ_k (γλ)^k δ_{t+k}, δ_t = r_t + γ V_{t+1} − V_t, V = 0 behind the end; and returns A + V."""
    values = values * mask
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    deltas = (rewards + gamma * following - values) * mask
    advantage, found = torch.zeros_like(deltas[:, 0]), []
    for t in reversed(range(deltas.shape[1])):
        advantage = deltas[:, t] + gamma * lam * advantage
        found.append(advantage)
    advantages = torch.stack(found[::-1], dim=1) * mask
    return advantages, (advantages + values) * mask


def whitened(x: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the tokens that count, 0 elsewhere."""
    n = mask.sum()
    mean = (x * mask).sum() / n
    variance = ((x - mean).square() * mask).sum() / n
    return (x - mean) / (variance + 1e-8).sqrt() * mask


def clipped_policy_loss(log_probs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Mean over tokens of max(−ρ A, −clip(ρ, 1 − ε, 1 + ε) A), ρ = π/π_old."""
    ratio = torch.exp((log_probs - old) * mask)
    worst = torch.maximum(-ratio * advantages, -ratio.clamp(1 - clip, 1 + clip) * advantages)
    return (worst * mask).sum() / mask.sum()


def clipped_value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """½ mean over tokens of max((V − R)², (V_clipped − R)²), V_clipped within ε of the old value."""
    near = old + (values - old).clamp(-clip, clip)
    worst = torch.maximum((values - returns).square(), (near - returns).square())
    return 0.5 * (worst * mask).sum() / mask.sum()
