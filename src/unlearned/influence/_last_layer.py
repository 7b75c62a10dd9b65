"""The last layer of a classifier: its gradients and its curvature have closed forms.

With x = [h, 1] (h alone where the layer has no bias), p = softmax(z) and weights W (C, D): the gradient of a sample is (p − e_y) xᵀ, its Hessian
(diag(p) − p pᵀ) ⊗ x xᵀ. The loss is convex in W, so that this is the Gauss-Newton matrix too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine, evaluating
from unlearned.errors import InputError
from unlearned.influence._score import no_last_layer
from unlearned.tasks._heads import head_of
from unlearned.tasks._task import finest


class Seen(NamedTuple):
    """What the last layer has of a batch, in float64 on a CPU."""

    probabilities: Tensor
    """p, (B, C)."""
    inputs: Tensor
    """x, (B, D)."""
    targets: Tensor
    """y, (B,)."""

    @property
    def residuals(self) -> Tensor:
        """P − e_y, (B, C)."""
        found = self.probabilities.clone()
        found[torch.arange(len(found), device=found.device), self.targets] -= 1
        return found


def seen(engine: Engine, model: nn.Module, samples: Samples) -> Iterator[Seen]:
    """Of all samples in order, in eval mode.

    Raises:
        InputError: if the logits are not the output of a linear layer on vectors.
    """
    with evaluating(model), torch.no_grad():
        for batch in engine.batches(samples):
            if "pixel_values" not in batch:
                raise no_last_layer()
            try:
                head = head_of(model, batch["pixel_values"])
            except InputError as error:
                raise no_last_layer() from error
            kind = finest(head.features.device)
            h = head.features.to(kind)
            logits = h @ head.layer.weight.to(kind).T
            if head.layer.bias is not None:
                logits = logits + head.layer.bias.to(kind)
                h = torch.cat([h, h.new_ones(len(h), 1)], dim=1)
            engine.meter.count(len(h))
            yield Seen(logits.softmax(dim=1), h, batch["labels"])


def gradient_norms(residuals: Tensor, inputs: Tensor) -> Tensor:
    """‖(p − e_y) xᵀ‖ = ‖p − e_y‖ ‖x‖, (B,); residuals (B, C), inputs (B, D)."""
    norms: Tensor = residuals.norm(dim=1) * inputs.norm(dim=1)
    return norms


def gradients(residuals: Tensor, inputs: Tensor) -> Tensor:
    """(p − e_y) xᵀ as rows, class by class, (B, C · D)."""
    return (residuals[:, :, None] * inputs[:, None, :]).flatten(1)


def curvature(probabilities: Tensor, inputs: Tensor) -> Tensor:
    """Σ_b (diag(p) − p pᵀ) ⊗ x xᵀ, (C · D, C · D), class by class.

    Args:
        probabilities: p, (B, C).
        inputs: x, (B, D).
    """
    classes, width = probabilities.shape[1], inputs.shape[1]
    total = inputs.new_zeros(classes, width, classes, width)
    for i in range(classes):
        for j in range(i, classes):
            weights = probabilities[:, i] * (float(i == j) - probabilities[:, j])
            total[i, :, j] = inputs.T @ (weights[:, None] * inputs)
            total[j, :, i] = total[i, :, j]
    return total.view(classes * width, classes * width)


def left_out(residuals: Tensor, probabilities: Tensor, inputs: Tensor, inverse: Tensor, n: int) -> Tensor:
    """Residuals r' with which H⁻¹ (r' xᵀ) / n is the Newton step of leaving the sample out: (H − h_z/n)⁻¹ g_z = H⁻¹ Jᵀ (I − A K / n)⁻¹ r.

    A = diag(p) − p pᵀ and K = J H⁻¹ Jᵀ with J = I ⊗ xᵀ.

    Args:
        residuals: r, (B, C).
        probabilities: p, (B, C).
        inputs: x, (B, D).
        inverse: H⁻¹, (C · D, C · D).
        n: points over which the loss is averaged.
    """
    classes, width = probabilities.shape[1], inputs.shape[1]
    blocks = inverse.view(classes, width, classes, width)
    leverage = torch.einsum("bd,cdef,bf->bce", inputs, blocks, inputs)
    a = torch.diag_embed(probabilities) - probabilities[:, :, None] * probabilities[:, None, :]
    return newton_residuals(residuals, a, leverage, n)


def newton_residuals(residuals: Tensor, a: Tensor, leverage: Tensor, n: int) -> Tensor:
    """(I − A K / n)⁻¹ r, (B, C): exact for a quadratic loss with A = I. Residuals (B, C), A and K (B, C, C)."""
    one = torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
    solved: Tensor = torch.linalg.solve(one - a @ leverage / n, residuals)
    return solved
