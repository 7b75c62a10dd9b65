"""Curvature against that of curvlinops (Dangel et al., github.com/f-dangel/curvlinops), an independent implementation, where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.influence.small import CLASSES, Small, perceptron, small
from unlearned.influence import _kronecker as kronecker
from unlearned.influence._gauss_newton import GaussNewton


def convolutions() -> nn.Module:
    """Several channels: in which order a patch is read must not matter."""
    return nn.Sequential(nn.Conv2d(1, 3, 2), nn.Tanh(), nn.Conv2d(3, 2, 2, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(8, CLASSES))


def theirs(case: Small, operator: str, **options: Any) -> Any:
    """Their operator for the mean loss of all points."""
    library = pytest.importorskip("curvlinops")
    data = [(case.batch["pixel_values"], case.batch["labels"])]
    parameters = list(case.model.parameters())
    return getattr(library, operator)(case.model, nn.CrossEntropyLoss(), parameters, data, check_deterministic=False, **options)


def directions(case: Small) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in case.model.parameters()]


@pytest.mark.parametrize("make", [perceptron, convolutions])
def test_products_with_the_gauss_newton_matrix(make: Callable[[], nn.Module]) -> None:
    case = small(make)
    along = directions(case)
    expected = theirs(case, "GGNLinearOperator") @ along
    names = [name for name, _ in case.model.named_parameters()]
    found = GaussNewton(case.engine, case.model, case.grounds.points, names)(torch.cat([v.flatten() for v in along]))
    assert torch.allclose(found, torch.cat([v.flatten() for v in expected]), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("make", [perceptron, convolutions])
def test_products_with_eigenvalue_corrected_factors(make: Callable[[], nn.Module]) -> None:
    case = small(make)
    along = directions(case)
    expected = theirs(case, "EKFACLinearOperator", fisher_type="type-2", separate_weight_and_bias=False) @ along
    names = [name for name, _ in case.model.named_parameters()]
    layers = kronecker.covered(case.model, names)
    factors = kronecker.factors(case.engine, case.model, case.grounds.points, layers, lambda: kronecker.all_answers, 5)
    assert len(factors) == len(names) // 2
    for number, factor in enumerate(factors.values()):
        both = [joined(*tensors[2 * number : 2 * number + 2]) for tensors in (along, expected)]
        found = factor.outputs @ (factor.eigenvalues * factor.rotated(both[0])) @ factor.inputs.T
        assert torch.allclose(found, both[1], rtol=1e-8, atol=1e-12)


def joined(weight: Tensor, bias: Tensor) -> Tensor:
    """As one matrix, in the order in which our layers read: channels of a patch fastest, the bias last."""
    rows = weight.permute(0, 2, 3, 1).flatten(1) if weight.dim() == 4 else weight
    return torch.cat([rows, bias[:, None]], dim=1)
