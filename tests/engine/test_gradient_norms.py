"""Norms of the gradients of single samples against one backward pass for each, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import Tensor, nn

from tests.influence.small import CLASSES, dense_gradients, small, transposed_perceptron
from tests.models import problem_of
from unlearned.engine import gradient_norms as norms
from unlearned.engine.engine import Engine, evaluating
from unlearned.engine.layer_parts import Part, patches
from unlearned.problem import Problem


def convolutional() -> nn.Module:
    """Strided, dilated, without bias, normalised with statistics that are not 0 and 1, and written into by what comes next."""
    norm = nn.BatchNorm2d(4)
    norm.running_mean = torch.tensor([0.3, -0.2, 0.1, 0.0])
    norm.running_var = torch.tensor([0.5, 1.5, 2.0, 0.2])
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=(1, 2), bias=False), norm, nn.ReLU(inplace=True)),
        *(nn.Conv2d(4, 6, (2, 3), stride=(1, 2), dilation=(2, 1)), nn.GroupNorm(2, 6), nn.Tanh()),
        *(nn.Conv2d(6, 6, 1, groups=3), nn.Flatten(), nn.Linear(24, 5), nn.LayerNorm(5), nn.BatchNorm1d(5), nn.Linear(5, CLASSES, bias=False)),
    )


class Odd(nn.Module):
    """A weight that is used without its layer being called, one that belongs to no layer, a layer that is called twice, one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.idle = nn.Linear(16, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.tensor([1.5]))
        self.last = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x.flatten(1)))
        h = torch.tanh(self.second(torch.tanh(self.second(h))))
        out: Tensor = self.last(self.scale * F.linear(h, self.last.weight.T @ self.last.weight))
        return out


class Turned(nn.Module):
    """Positions first: with as many samples as positions nothing but the numbers shows that samples come second."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 5), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.tanh(self.first(x.reshape(-1, 2, 8).transpose(0, 1))).sum(dim=0))
        return out


@pytest.mark.parametrize("make", [convolutional, Odd, Turned])
def test_they_are_those_of_one_backward_pass_each(make: Callable[[], nn.Module]) -> None:
    case = small(make)
    names = [name for name, _ in case.model.named_parameters()]
    with evaluating(case.model):
        expected = dense_gradients(case).norm(dim=1)
    assert torch.allclose(norms.gradient_norms(case.engine, case.model, case.grounds.points, names), expected, rtol=1e-10)


def test_of_some_parameters_alone() -> None:
    case = small(convolutional)
    names = ["3.bias", "4.weight", "8.weight"]
    rows = dict(zip([n for n, _ in case.model.named_parameters()], dense_gradients(case).split([p.numel() for p in case.model.parameters()], 1), strict=True))
    expected = torch.cat([rows[name] for name in names], dim=1).norm(dim=1)
    assert torch.allclose(norms.gradient_norms(case.engine, case.model, case.grounds.points, names), expected, rtol=1e-10)


def test_what_a_call_shows_needs_no_gradients_of_single_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions, linear layers, normalisations, an output layer that is tied to the embedding."""

    def refused(*_: Any) -> NoReturn:
        raise AssertionError("a gradient of a single sample was computed")

    case, texts = small(convolutional), problem_of("llama", forget=2, retain=3, test=2)
    monkeypatch.setattr(norms, "sample_gradients", refused)
    for engine, model, points in ((case.engine, case.model, case.grounds.points), (Engine(texts.task), texts.original.model, texts.retain)):
        assert torch.isfinite(norms.gradient_norms(engine, model, points, [name for name, _ in model.named_parameters()])).all()


def test_the_layers_of_gpt2_are_read_in_two_factors_as_linear_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> NoReturn:
        raise AssertionError("a gradient of a single sample was computed")

    case = small(transposed_perceptron)
    with evaluating(case.model):
        expected = dense_gradients(case).norm(dim=1)
    for name in ("sample_gradients", "_mapped"):
        monkeypatch.setattr(norms, name, refused)
    found = norms.gradient_norms(case.engine, case.model, case.grounds.points, [name for name, _ in case.model.named_parameters()])
    assert torch.allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "pixel", "vit"])
def test_of_models_of_every_task(kind: str) -> None:
    problem: Problem = problem_of(kind, forget=2, retain=3, test=2)
    engine, model = Engine(problem.task), problem.original.model
    text = problem.task.name == "text-generation"
    model = model.double() if text else model
    parameters = dict(model.named_parameters())
    expected = []
    with evaluating(model):
        for i in range(3):
            loss = engine.task.losses(model, engine.task.collate([problem.retain[i]]))[0]
            rows = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
            expected.append(torch.stack([gradient.norm() for gradient in rows]).norm())
    # A batch of texts of different lengths is padded.
    found = norms.gradient_norms(engine, model, problem.retain, list(parameters))
    assert torch.allclose(found, torch.stack(expected), rtol=1e-10 if text else 1e-4)


def test_a_single_sample_has_one_too() -> None:
    case = small(convolutional)
    names = [name for name, _ in case.model.named_parameters()]
    assert torch.allclose(norms.gradient_norms(case.engine, case.model, case.grounds.points.subset([0]), names), dense_gradients(case)[:1].norm(dim=1))


def test_few_positions_and_many_give_the_same_square() -> None:
    generator = torch.Generator().manual_seed(0)
    for positions in (2, 30):
        a, delta = (torch.randn(3, positions, width, generator=generator, dtype=torch.float64) for width in (7, 11))
        loop = [sum(torch.outer(d, x) for d, x in zip(delta[b], a[b], strict=True)) for b in range(3)]
        assert torch.allclose(Part(a, delta).squares, torch.stack([torch.as_tensor(g).square().sum() for g in loop]), rtol=1e-12)


def test_patches_are_those_of_unfold() -> None:
    layer = nn.Conv2d(3, 1, (2, 3), stride=(2, 1), padding=(1, 2), dilation=(1, 2))
    x = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    unfolded = F.unfold(x, layer.kernel_size, (1, 2), (1, 2), (2, 1)).transpose(1, 2)  # channels slowest
    assert torch.equal(patches(layer, x).unflatten(2, (6, 3)).transpose(2, 3).flatten(2), unfolded)
