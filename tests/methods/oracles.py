"""The models and losses of the oracles, written with loops and plain algebra in float64; nothing here calls the code under test."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def softmax_rows(logits: Tensor) -> Tensor:
    """One row at a time, one class at a time."""
    rows = []
    for row in logits.tolist():
        top = max(row)
        weights = [math.exp(value - top) for value in row]
        rows.append([weight / sum(weights) for weight in weights])
    return torch.tensor(rows, dtype=torch.float64)


class LinearClassifier:
    """Logits W x + b on flattened images, with the gradients written down."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight.double().clone(), bias.double().clone()

    def logits(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias

    def cross_entropy_gradient(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Of the mean cross-entropy: with p = softmax(W x + b), ∂/∂W = (1/B) Σ (p − e_y) xᵀ."""
        error = softmax_rows(self.logits(x))
        for i, label in enumerate(y.tolist()):
            error[i, label] -= 1
        return error.T @ x / len(x), error.sum(dim=0) / len(x)

    def distillation_gradient(self, x: Tensor, teacher: LinearClassifier, temperature: float) -> tuple[Tensor, Tensor]:
        """Of T² KL(q ‖ p), q and p softened: with respect to the student's logits it is T (p − q)."""
        p = softmax_rows(self.logits(x) / temperature)
        q = softmax_rows(teacher.logits(x) / temperature)
        error = temperature * (p - q)
        return error.T @ x / len(x), error.sum(dim=0) / len(x)

    def step(self, gradient: tuple[Tensor, Tensor], lr: float) -> None:
        self.weight = self.weight - lr * gradient[0]
        self.bias = self.bias - lr * gradient[1]
