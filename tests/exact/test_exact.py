"""The theorems of Block et al. 2025, in float64 to 1e-8, against pseudoinverses and worked examples; and that each solver refuses what no theorem covers."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unlearned
from tests.models import bits, same_bits
from unlearned import forget_deep_linear, forget_linear, forget_two_layer
from unlearned.errors import InputError
from unlearned.exact.deep_linear import first_layer_change, least_weights, predictor
from unlearned.exact.two_layer import complement, fewer_neurons, without_traces

F64 = torch.float64


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def said(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        found = model(x)
    assert isinstance(found, Tensor)
    return found


def data_for(model: nn.Module, n: int, d: int, seed: int = 9) -> tuple[Tensor, Tensor]:
    """Inputs, and what the model says of them: it fits."""
    x = numbers(n, d, seed=seed)
    return x, said(model, x)


def layers_of(model: nn.Module) -> list[Any]:
    return list(model.children())


def weights_of(model: nn.Module) -> list[Tensor]:
    return [parameter.detach() for parameter in model.parameters()]


def network(*widths: int, seed: int = 1, between: Callable[[], nn.Module] | None = None) -> nn.Sequential:
    """Linear layers without bias, perhaps with an activation between them."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        layer = nn.Linear(a, b, bias=False, dtype=F64)
        layer.weight.data = numbers(b, a, seed=seed + i)
        layers += [layer] if between is None or not i else [between(), layer]
    return nn.Sequential(*layers)


def close(left: Any, right: Any) -> None:
    torch.testing.assert_close(left, right, rtol=0, atol=1e-8)


# Linear models.


@pytest.mark.parametrize("outputs", [1, 3])
def test_theorem_2(outputs: int) -> None:
    model = nn.Linear(12, outputs, bias=False, dtype=F64)
    x, y = data_for(model, 8, 12)
    before = bits(model)
    done = forget_linear(model, x[:5], y[:5])
    least = (torch.linalg.pinv(x[:5]) @ y[:5]).T
    close(weights_of(done.model)[0], least)
    assert done.theorem == "Theorem 2"
    assert done.after == pytest.approx(done.bound, abs=1e-8)
    assert done.after == pytest.approx(float(least.norm()), abs=1e-8)
    assert done.before == pytest.approx(float(before["weight"].norm()))
    assert done.residual < 1e-8
    assert float((said(done.model, x[5:]) - y[5:]).abs().max()) > 0.1
    assert same_bits(before, bits(model))
    assert not done.model.training


def test_retained_samples_that_repeat_and_targets_of_one_dimension_change_nothing() -> None:
    model = nn.Linear(6, 1, bias=False, dtype=F64)
    x, y = data_for(model, 3, 6)
    one, twice = forget_linear(model, x, y[:, 0]), forget_linear(model, x[[0, 1, 2, 0, 1]], y[[0, 1, 2, 0, 1]])
    close(weights_of(one.model)[0], weights_of(twice.model)[0])


def test_weights_keep_their_type_and_flags() -> None:
    model = nn.Linear(6, 1, bias=False)
    model.weight.requires_grad_(False)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    done = forget_linear(model, x, model(x))
    (weight,) = done.model.parameters()
    assert weight.dtype == torch.float32
    assert not weight.requires_grad
    assert done.residual < 1e-6


# Deep linear networks.


@pytest.mark.parametrize("widths", [(10, 7, 1), (10, 4, 6, 1), (10, 5, 3, 4, 1)])
def test_lemma_1_and_theorem_3(widths: tuple[int, ...]) -> None:
    model = network(*widths)
    x, y = data_for(model, 7, 10)
    done = forget_deep_linear(model, x[:4], y[:4])
    weights, new = weights_of(model), weights_of(done.model)
    least = torch.linalg.pinv(x[:4]) @ y[:4, 0]
    close(predictor(new), least)
    for old, same in zip(weights[1:], new[1:], strict=True):
        assert torch.equal(old, same)
    v = predictor(weights[1:])
    delta = new[0] - weights[0]
    outside = predictor(weights) - least
    close(delta, -torch.outer(v, outside) / v.square().sum())
    close(delta @ x[:4].T @ torch.ones(4, dtype=F64), torch.zeros(len(v), dtype=F64))
    assert float((v @ delta @ x[:4].T).abs().max()) < 1e-8
    assert done.after == pytest.approx(float(least.norm()), abs=1e-8)
    assert done.after == pytest.approx(done.bound, abs=1e-8)
    assert done.before == pytest.approx(float(predictor(weights).norm()))
    assert done.residual < 1e-8
    assert done.theorem.startswith("Theorem 3")


def test_lemma_1_is_the_least_change_of_the_first_layer() -> None:
    """Any other change with the same predictor is longer."""
    weights = weights_of(network(5, 4, 1))
    kept = numbers(5, seed=4)
    delta = first_layer_change(weights, kept)
    v = predictor(weights[1:])
    other = delta + numbers(4, 5, seed=7)
    other -= torch.outer(v, v @ other - v @ delta) / v.square().sum()
    close(predictor([weights[0] + other, weights[1]]), kept)
    assert float(other.norm()) > float(delta.norm())


@pytest.mark.parametrize("m", [3, 5])
def test_where_all_layers_may_move_the_linearised_problem_fails(m: int) -> None:
    """D = {(e1, 1), (e2, 1)}, D_r = {(e1, 1)}, c = e1 + e2, A = I: feasible to first order, and the new predictor is 0."""
    e = torch.eye(m, dtype=F64)
    c, a = e[0] + e[1], torch.eye(m, dtype=F64)
    delta_c = -e[2]
    delta_a = torch.outer(e[2], e[0]) - torch.outer(e[1], e[1]) - torch.outer(e[2], e[2])
    assert float(delta_c @ a @ e[0] + c @ delta_a @ e[0]) == 0
    assert predictor([a + delta_a, (c + delta_c)[None]]).tolist() == [0.0] * m
    model = network(m, m, 1)
    first, last = layers_of(model)
    first.weight.data, last.weight.data = a.clone(), c[None].clone()
    assert float((said(model, e[:2]) - 1).abs().max()) == 0
    done = forget_deep_linear(model, e[:1], torch.ones(1, dtype=F64))  # with only the first layer moving
    close(predictor(weights_of(done.model)), e[0])
    assert done.after == pytest.approx(1.0)
    assert done.before == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_theorem_4(depth: int) -> None:
    model = network(9, *[5, 4, 6][: depth - 1], 1)
    x, y = data_for(model, 6, 9)
    done = forget_deep_linear(model, x[:3], y[:3], complexity="parameter-norm")
    new = weights_of(done.model)
    w_r = torch.linalg.pinv(x[:3]) @ y[:3, 0]
    rho = float(w_r.norm())
    close(predictor(new), w_r)
    squared = sum(float(weight.square().sum()) for weight in new)
    assert squared == pytest.approx(depth * rho ** (2 / depth), abs=1e-8)
    assert done.after**2 == pytest.approx(squared, abs=1e-8)
    assert done.bound == pytest.approx(done.after, abs=1e-8)
    assert done.after < done.before
    assert done.residual < 1e-8
    assert done.theorem == "Theorem 4"
    close(new[0], rho ** ((1 - depth) / depth) * torch.outer(torch.eye(5, dtype=F64)[0], w_r))
    assert [weight.shape for weight in new] == [weight.shape for weight in weights_of(model)]


@pytest.mark.parametrize("depth", [2, 3])
def test_theorem_4_no_descent_from_there_finds_less(depth: int) -> None:
    """Nearby weights with the same predictor have a larger norm."""
    kept = numbers(4, seed=3)
    best = least_weights(kept, [3] * (depth - 1))
    least = sum(float(weight.square().sum()) for weight in best)
    for seed in range(20):
        near = [weight + 0.05 * numbers(*weight.shape, seed=100 * seed + i) for i, weight in enumerate(best)]
        near[0] = near[0] + first_layer_change(near, kept)
        close(predictor(near), kept)
        assert sum(float(weight.square().sum()) for weight in near) > least


def test_nothing_retained_but_zeros_leaves_nothing() -> None:
    model = network(4, 3, 1)
    x = torch.zeros(2, 4, dtype=F64)
    done = forget_deep_linear(model, x, torch.zeros(2, dtype=F64), complexity="parameter-norm")
    assert not any(bool(weight.any()) for weight in weights_of(done.model))
    assert done.after == done.bound == 0
    assert forget_deep_linear(model, x, torch.zeros(2, dtype=F64)).after == pytest.approx(0, abs=1e-12)
    assert forget_linear(nn.Linear(4, 1, bias=False, dtype=F64), x, torch.zeros(2, dtype=F64)).after == 0


# Two-layer networks.


def reduced_columns(basis: Tensor) -> tuple[Tensor, list[int]]:
    """Column-echelon form by elimination, one column at a time: 1 at its pivot, 0 at the other pivots."""
    basis = basis.clone()
    pivots: list[int] = []
    for column in range(basis.shape[1]):
        free = [row for row in range(len(basis)) if row not in pivots]
        pivot = max(free, key=lambda row: float(basis[row, column].abs()))
        basis[:, column] = basis[:, column] / basis[pivot, column]
        for other in range(basis.shape[1]):
            if other != column:
                basis[:, other] = basis[:, other] - basis[pivot, other] * basis[:, column]
        pivots.append(pivot)
    return basis, pivots


def test_lemma_6_the_basis_is_in_echelon_form_and_orthogonal_to_all_features() -> None:
    features = torch.relu(numbers(5, 12, seed=2))
    features = torch.cat([features, features[:2].sum(dim=0, keepdim=True)])  # dimension 5
    basis, pivots = complement(features, 1e-12)
    assert basis.shape == (12, 7)
    close(basis[pivots], torch.eye(7, dtype=F64))
    close(features @ basis, torch.zeros(6, 7, dtype=F64))
    # The same pivots, by elimination from an unrelated basis of the same space.
    null = torch.linalg.svd(features)[2][5:].T
    close(basis, null @ torch.linalg.inv(null[pivots]))


def test_theorem_5_against_elimination() -> None:
    features, c = torch.relu(numbers(4, 9, seed=5)), numbers(9, seed=6)
    ours = fewer_neurons(c, complement(features, 1e-12))
    basis, pivots = reduced_columns(torch.linalg.svd(features)[2][4:].T)
    theirs = c - sum((c[j] * basis[:, i] for i, j in enumerate(pivots)), torch.zeros(9, dtype=F64))
    for new in (ours, theirs):
        close(features @ new, features @ c)
        assert int((new.abs() > 1e-10).sum()) <= 4
    assert int((ours != 0).sum()) == 4


@pytest.mark.parametrize("between", [nn.ReLU, nn.Tanh, nn.SiLU, nn.Softplus, nn.Identity])
@pytest.mark.parametrize("n", [1, 4, 30])
def test_theorem_5_and_proposition_1(between: Callable[[], nn.Module], n: int) -> None:
    model = network(6, 16, 1, between=between)
    x, y = data_for(model, n, 6)
    before = bits(model)
    done = forget_two_layer(model, x, y)
    a, c = weights_of(done.model)
    features = said(between(), x @ before["0.weight"].T)
    assert done.bound == int(torch.linalg.matrix_rank(features)) <= min(n, 16)
    assert int((c != 0).sum()) <= done.bound
    assert done.after <= done.bound
    assert done.before == 16
    close(said(done.model, x), y)
    assert done.residual < 1e-8
    # No trace: rows without a neuron are 0, the others as they were; and with the old rows the function is the same everywhere.
    dead = c[0] == 0
    assert not bool(a[dead].any())
    assert torch.equal(a[~dead], before["0.weight"][~dead])
    anywhere = 10 * numbers(50, 6, seed=77)
    traced = copy.deepcopy(done.model)
    layers_of(traced)[0].weight.data = before["0.weight"]
    close(said(done.model, anywhere), said(traced, anywhere))
    assert same_bits(before, bits(model))


def test_neurons_that_are_off_for_all_retained_samples_go() -> None:
    """Two ReLU neurons see only positive x, one only negative x: with x = 1 retained, one neuron is left."""
    model = network(1, 3, 1, between=nn.ReLU)
    first, _, last = layers_of(model)
    first.weight.data = torch.tensor([[1.0], [2.0], [-1.0]], dtype=F64)
    last.weight.data = torch.tensor([[1.0, 1.0, 5.0]], dtype=F64)
    done = forget_two_layer(model, torch.ones(1, 1, dtype=F64), torch.tensor([3.0], dtype=F64))
    assert [weight.tolist() for weight in weights_of(done.model)] == [[[0.0], [2.0], [0.0]], [[0.0, 1.5, 0.0]]]
    assert (done.before, done.after, done.bound) == (3, 1, 1)


def test_features_that_are_all_zero_need_no_neuron() -> None:
    model = network(2, 4, 1, between=nn.ReLU)
    done = forget_two_layer(model, torch.zeros(3, 2, dtype=F64), torch.zeros(3, dtype=F64))
    assert done.after == done.bound == 0
    assert not bool(torch.cat([p.flatten() for p in done.model.parameters()]).any())


def test_proposition_1_leaves_other_rows_alone() -> None:
    first = numbers(3, 2, seed=1)
    assert torch.equal(without_traces(first, torch.tensor([0.0, 2.0, -1.0])), torch.stack([torch.zeros(2, dtype=F64), first[1], first[2]]))


# What is refused.

SOLVERS = [forget_linear, forget_deep_linear, forget_two_layer]
FITTING: dict[str, Callable[[], Any]] = {
    "forget_linear": lambda: nn.Linear(6, 1, bias=False, dtype=F64),
    "forget_deep_linear": lambda: network(6, 5, 1),
    "forget_two_layer": lambda: network(6, 5, 1, between=nn.ReLU),
}
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.__name__)


@every_solver
def test_a_model_that_does_not_fit_is_refused(solver: Any) -> None:
    model = FITTING[solver.__name__]()
    x, y = data_for(model, 4, 6)
    with pytest.raises(InputError, match=r"misses a retained target by 0\.5"):
        solver(model, x, y + torch.tensor([[0.0], [0.5], [0.0], [0.0]]))
    solver(model, x, y + 1e-6, tolerance=1e-4)
    with pytest.raises(InputError, match="more than 1e-08"):
        solver(model, x / 100, y / 100 + 1e-6, tolerance=1e-8)
    with pytest.raises(InputError, match="tolerance: it is 0"):
        solver(model, x, y, tolerance=0)


@every_solver
def test_data_that_do_not_fit_the_model_are_refused_for_every_reason_at_once(solver: Any) -> None:
    model = FITTING[solver.__name__]()
    with pytest.raises(InputError) as caught:
        solver(model, torch.full((3, 5), torch.nan, dtype=F64), torch.zeros(2, dtype=F64))
    assert [(fault.field, fault.what) for fault in caught.value.faults] == [
        ("inputs", "each has 5 numbers, and the model takes 6."),
        ("targets", "they have shape (2,), for 3 samples and 1 outputs."),
        ("inputs", "they hold NaN or infinity."),
    ]
    for wrong in (torch.zeros(3, dtype=F64), torch.zeros(3, 6, dtype=torch.int64), torch.zeros(0, 6, dtype=F64)):
        with pytest.raises(InputError, match="inputs"):
            solver(model, wrong, torch.zeros(len(wrong), dtype=F64))


def biased(*widths: int) -> nn.Sequential:
    return nn.Sequential(*[nn.Linear(a, b, dtype=F64) for a, b in itertools.pairwise(widths)])


@pytest.mark.parametrize(
    ("solver", "model", "reasons"),
    [
        (forget_linear, nn.Linear(6, 1), ["layer 0 has a bias"]),
        (forget_linear, network(6, 5, 1), ["it is a Sequential, not a linear map"]),
        (forget_deep_linear, nn.Linear(6, 1), ["it is a Linear"]),
        (forget_deep_linear, network(6, 1), ["it has 1 linear layers"]),
        (forget_deep_linear, network(6, 4, 2), ["it has 2 outputs"]),
        (forget_deep_linear, network(6, 4, 1, between=nn.ReLU), ["layer 1 is a ReLU, not a linear map"]),
        (forget_deep_linear, nn.Sequential(*biased(6, 4, 3), *network(5, 2)), ["layer 0 has a bias", "layer 1 has a bias", "layers 1 and 2", "2 outputs"]),
        (forget_two_layer, network(6, 4, 1), ["it is a Sequential of 2 layers"]),
        (forget_two_layer, nn.Linear(6, 1), ["it is a Linear,"]),
        (forget_two_layer, network(6, 4, 1, between=lambda: nn.Softmax(dim=1)), ["layer 1 is a Softmax, which is not known"]),
        (
            forget_two_layer,
            nn.Sequential(nn.Linear(6, 4), nn.PReLU(), nn.Linear(3, 2)),
            ["0 has a", "2 has a", "PReLU", "2 outputs", "4 numbers"],
        ),
        (forget_two_layer, nn.Sequential(nn.ReLU(), nn.ReLU(), nn.Linear(3, 1, bias=False)), ["layer 0 is a ReLU, not a linear map"]),
    ],
)
def test_models_that_no_theorem_covers_are_refused_for_every_reason_at_once(solver: Any, model: nn.Module, reasons: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        solver(model, torch.zeros(3, 6, dtype=F64), torch.zeros(3, dtype=F64))
    about_model = [fault for fault in caught.value.faults if fault.field == "model"]
    assert len(about_model) == len(reasons)
    for fault, reason in zip(about_model, reasons, strict=True):
        assert reason in fault.what


def test_layers_that_share_their_weights_are_refused() -> None:
    model = network(6, 6, 6, 1)
    first, second, _ = layers_of(model)
    second.weight = first.weight
    with pytest.raises(InputError, match="two of its layers share their weights"):
        forget_deep_linear(model, *data_for(model, 3, 6))


def test_a_first_layer_that_nothing_reads_cannot_be_what_moves() -> None:
    model = network(6, 4, 1)
    layers_of(model)[1].weight.data.zero_()
    x, y = data_for(model, 3, 6)
    with pytest.raises(InputError, match=r"what follows its first layer is 0.*complexity parameter-norm"):
        forget_deep_linear(model, x, y)
    assert forget_deep_linear(model, x, y, complexity="parameter-norm").after == pytest.approx(0, abs=1e-8)


def test_another_complexity_is_refused() -> None:
    model = network(6, 4, 1)
    wrong: Any = "rank"
    with pytest.raises(InputError, match="there is no 'rank'"):
        forget_deep_linear(model, *data_for(model, 3, 6), complexity=wrong)


def test_the_solvers_are_public() -> None:
    assert {solver.__name__ for solver in SOLVERS} | {"Exact"} <= set(unlearned.__all__)
