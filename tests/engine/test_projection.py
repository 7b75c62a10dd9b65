"""The projection against a QR decomposition of the dense matrix of gradients, in float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.models import bits, layer_of, made, modes, problem_of, same_bits
from unlearned.engine import output_gradients, projection
from unlearned.engine.engine import Engine
from unlearned.engine.loop import train_mode
from unlearned.engine.output_gradients import _Apart, numbers_of
from unlearned.engine.projection import CUT, Inner, coefficients, combined, inner_products, project, step_towards
from unlearned.errors import DivergedError
from unlearned.tasks._task import Batch


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 7), nn.SiLU(), nn.Linear(7, 5), nn.SiLU(), nn.Linear(5, 2))


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.SiLU(), nn.Dropout(0.5), nn.Linear(6, 2))


def outputs(model: nn.Module, batch: Batch) -> Tensor:
    found = model(batch["x"])
    assert isinstance(found, Tensor)
    return found


def points(n: int, seed: int = 0) -> Batch:
    return {"x": torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))}


def engine() -> Engine:
    return Engine(problem_of("linear").task)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


def dense(model: nn.Module, batch: Batch) -> Tensor:
    """G, (d, n): one backward pass for each output of each sample by itself."""
    columns = []
    for x in batch["x"]:
        for k in range(2):
            model.zero_grad()
            model(x[None])[0, k].backward()
            columns.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad and p.grad is not None]))
    model.zero_grad()
    return torch.stack(columns, dim=1)


def by_qr(gradients: Tensor, theta: Tensor) -> Tensor:
    q: Tensor = torch.linalg.qr(gradients).Q
    return q @ (q.T @ theta)


@pytest.mark.parametrize("kappa", [1.0, 0.3])
def test_step_equals_that_of_a_qr_decomposition_and_is_stationary(kappa: float) -> None:
    """Δ = −κ (I − QQᵀ) θ: orthogonal to every gradient, and (1 + λ) Δ + θ in their span, with λ = 1/κ − 1."""
    model, batch = made(perceptron).double(), points(8)
    theta, g = flat(model), dense(model, batch)
    assert project(engine(), model, outputs, batch, kappa) == 16
    delta = flat(model) - theta
    torch.testing.assert_close(delta, -kappa * (theta - by_qr(g, theta)), rtol=0, atol=1e-10)
    assert float((g.T @ delta).abs().max()) < 1e-10
    stationary = delta / kappa + theta
    assert float((stationary - by_qr(g, stationary)).norm()) < 1e-10
    assert float(delta.norm()) > 0.1


def test_gram_route_equals_qr_route_on_any_matrix() -> None:
    generator = torch.Generator().manual_seed(3)
    shapes = [(4, 6), (6,), (3, 2, 5), (1,)]
    weights = [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]
    rows = [torch.randn(9, *shape, dtype=torch.float64, generator=generator) for shape in shapes]
    solution = coefficients(inner_products(rows, weights))
    g = torch.cat([row.flatten(1) for row in rows], dim=1).T
    expected = by_qr(g, torch.cat([weight.flatten() for weight in weights]))
    torch.testing.assert_close(torch.cat([combined(row, solution).flatten() for row in rows]), expected, rtol=0, atol=1e-10)


def test_pieces_that_fit_the_buffer_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, weight = torch.randn(5, 7, 11), torch.randn(7, 11)
    whole = inner_products([rows], [weight])
    monkeypatch.setattr(projection, "_BUFFER", 15)  # three columns at a time
    pieces = inner_products([rows], [weight])
    dense = rows.flatten(1).double()
    for got in (whole, pieces):
        torch.testing.assert_close(got.gram, dense @ dense.T, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(got.along, dense @ weight.flatten().double(), rtol=1e-13, atol=1e-13)
        assert got.gram.dtype == torch.float64
    torch.testing.assert_close(combined(rows, torch.arange(5.0, dtype=torch.float64)).flatten(), (torch.arange(5.0) @ rows.flatten(1)))


@pytest.mark.parametrize("shards", [2, 3])
def test_weights_divided_among_processes_give_the_same_step(shards: int) -> None:
    """Each process holds a slice of every tensor; it adds its inner products to those of the others, and combines its own slice."""
    model, batch = made(perceptron).double(), points(6)
    named = dict(model.named_parameters())
    rows = numbers_of(model, outputs, batch).gradients(list(named))
    held = [torch.split(p.detach().flatten(), -(-p.numel() // shards)) for p in named.values()]
    held_rows = [row.flatten(1).split(-(-row[0].numel() // shards), dim=1) for row in rows.values()]
    sums = []
    for rank in range(shards):
        mine = [(r[rank], w[rank]) for r, w in zip(held_rows, held, strict=True) if rank < len(w)]
        sums.append(inner_products([r for r, _ in mine], [w for _, w in mine]))
    total = Inner(torch.stack([s.gram for s in sums]).sum(dim=0), torch.stack([s.along for s in sums]).sum(dim=0))
    solution = coefficients(total)
    for pieces, piece_rows in zip(held, held_rows, strict=True):
        for piece, piece_row in zip(pieces, piece_rows, strict=True):
            piece.copy_(piece - 0.4 * (piece - combined(piece_row, solution)))
    whole = made(perceptron).double()
    project(engine(), whole, outputs, batch, 0.4)
    torch.testing.assert_close(torch.cat([piece for pieces in held for piece in pieces]), flat(whole), rtol=0, atol=1e-12)


def test_every_process_holding_all_weights_may_add_its_sums_too() -> None:
    """A common factor on M and a changes no coefficient."""
    rows, weights = [torch.randn(4, 30, dtype=torch.float64)], [torch.randn(30, dtype=torch.float64)]
    inner = inner_products(rows, weights)
    torch.testing.assert_close(coefficients(Inner(3 * inner.gram, 3 * inner.along)), coefficients(inner), rtol=1e-12, atol=0)


def test_gradients_that_repeat_or_vanish_span_no_more() -> None:
    rows = torch.randn(3, 40)
    weight = torch.randn(40)
    more = torch.cat([rows, rows[:1] * 2, torch.zeros(2, 40), rows[:1] + rows[1:2] * 1e-9])
    fewer, same = (combined(r, coefficients(inner_products([r], [weight]))) for r in (rows, more))
    torch.testing.assert_close(same, fewer, rtol=0, atol=1e-6)


def test_directions_that_float32_can_tell_are_kept_and_a_larger_cut_drops_them() -> None:
    """Gradients U Σ Vᵀ with singular values 1, 0.1, ..., 1e-6: all but what lies below the root of the cut."""
    generator = torch.Generator().manual_seed(8)
    u, v = (torch.linalg.qr(torch.randn(size, 7, dtype=torch.float64, generator=generator)).Q for size in (60, 7))
    sigma = 10.0 ** -torch.arange(7, dtype=torch.float64)
    rows, theta = v @ torch.diag(sigma) @ u.T, torch.randn(60, dtype=torch.float64, generator=generator)
    inner = inner_products([rows], [theta])
    for cut, kept in ((CUT, 7), (1e-7, 4), (0.5, 1)):
        basis = u[:, :kept]
        torch.testing.assert_close(combined(rows, coefficients(inner, cut)), basis @ (basis.T @ theta), rtol=0, atol=1e-4 if kept == 7 else 1e-8)


def test_without_any_direction_everything_shrinks() -> None:
    solution = coefficients(inner_products([torch.zeros(2, 4)], [torch.ones(4)]))
    assert solution.tolist() == [0.0, 0.0]


def test_full_strength_gives_the_projection_itself() -> None:
    weight, target = torch.randn(50), torch.randn(50)
    step_towards([weight], [target], 1.0)
    assert torch.equal(weight, target)


def test_gradients_that_are_not_finite_stop_the_run() -> None:
    model = made(perceptron).double()
    with torch.no_grad():
        layer_of(model, 0).weight.fill_(torch.inf)
    with pytest.raises(DivergedError, match="not finite"):
        project(engine(), model, outputs, points(4), 1.0)


@pytest.mark.parametrize("joint", [False, True])
def test_taken_in_groups_it_ends_with_one_backward_pass_to_the_same_weights(joint: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for limit in (2**28, 50):
        monkeypatch.setattr(projection, "ROWS_LIMIT", limit)
        model = made(normalised).double()
        train_mode(model)
        project(engine(), model, outputs, points(4), 0.7, joint=joint)
        results.append((flat(model), bits(model)))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=1e-10)
    assert int(results[1][1]["1.num_batches_tracked"]) == int(joint)  # one forward pass, however many groups


def test_only_weights_that_require_gradients_are_projected() -> None:
    model, batch = made(perceptron).double(), points(4)
    layer_of(model, 2).requires_grad_(False)
    before, theta, g = bits(model), flat(model), dense(model, batch)
    project(engine(), model, outputs, batch, 1.0)
    assert torch.equal(before["2.weight"], bits(model)["2.weight"])
    torch.testing.assert_close(flat(model), by_qr(g, theta), rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["plain", "resnet", "vit", "gpt2"])
def test_gradients_side_by_side_equal_those_one_by_one(kind: str) -> None:
    """GPT-2 looks at the values of its mask, which cannot be mapped: it is what the loop is for."""
    problem = problem_of(kind)
    model = problem.original.model.train()
    numbers = numbers_of(model, problem.task.constraints, problem.task.collate([problem.retain[i] for i in range(3)]))
    assert isinstance(numbers, _Apart)
    names = [name for name, _ in model.named_parameters()]
    before = modes(model), bits(model)
    found = numbers.gradients(names)
    assert (modes(model), same_bits(before[1], bits(model))) == (before[0], True)
    model.eval()
    loop = numbers._one_by_one(names)
    for name in names:
        assert found[name].shape == (3, *dict(model.named_parameters())[name].shape)
        torch.testing.assert_close(found[name], loop[name], rtol=1e-4, atol=1e-6)
    if kind == "gpt2":
        with pytest.raises(RuntimeError, match="vmap"):
            numbers._mapped(names)
    else:
        numbers._mapped(names)


def test_columns_of_a_sample_come_together_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = made(perceptron).double(), points(5)
    expected = dense(model, batch).T
    for chunk in (64, 3):
        monkeypatch.setattr(output_gradients, "_CHUNK", chunk)
        rows = numbers_of(model, outputs, batch).gradients([name for name, _ in model.named_parameters()])
        torch.testing.assert_close(torch.cat([row.flatten(1) for row in rows.values()], dim=1), expected, rtol=0, atol=1e-12)


def test_joint_gradients_are_those_of_batch_statistics() -> None:
    """f_i with the batch's own mean and variance, differentiated through both; dropout is off."""
    model, batch = made(normalised).double(), points(6)
    train_mode(model)
    rows = numbers_of(model, outputs, batch, joint=True).gradients([name for name, _ in model.named_parameters()])
    first, norm, last = (layer_of(model, i) for i in (0, 1, 4))
    hidden = batch["x"] @ first.weight.T + first.bias
    scaled = (hidden - hidden.mean(dim=0)) / torch.sqrt(hidden.var(dim=0, unbiased=False) + norm.eps) * norm.weight + norm.bias
    values = (nn.functional.silu(scaled) @ last.weight.T + last.bias).flatten()
    for i, value in enumerate(values):
        expected = torch.autograd.grad(value, list(model.parameters()), retain_graph=True)
        for (_, row), reference in zip(rows.items(), expected, strict=True):
            torch.testing.assert_close(row[i], reference, rtol=0, atol=1e-10)
    momentum = 0.1
    torch.testing.assert_close(norm.running_mean, momentum * hidden.detach().mean(dim=0), rtol=0, atol=1e-12)
    assert all(modes(model).values())


def test_a_frozen_normalisation_keeps_its_statistics() -> None:
    model = made(normalised).double()
    layer_of(model, 1).requires_grad_(False)
    train_mode(model)
    before = bits(model)
    project(engine(), model, outputs, points(6), 0.5, joint=True)
    assert all(torch.equal(before[name], bits(model)[name]) for name in before if name.startswith("1."))


class TwoProcesses:
    """What this process sees of two that hold the same weights; the other one has samples of its own."""

    num_processes = 2
    process_index = 0
    device = torch.device("cpu")

    def __init__(self, other: dict[tuple[int, ...], list[Tensor]]) -> None:
        self._other = other

    def unwrap_model(self, model: nn.Module) -> nn.Module:
        return model

    def pad_across_processes(self, rows: Tensor, dim: int) -> Tensor:
        assert dim == 0
        if rows.ndim == 1 and not rows.is_floating_point():
            return rows
        return torch.cat([rows, rows.new_zeros(8 - len(rows), *rows.shape[1:])])

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        assert reduction == "sum"
        return 2 * tensor  # the other one has the same

    def gather(self, rows: Tensor) -> Tensor:
        if not rows.is_floating_point():
            return torch.tensor([int(rows), 8])
        return torch.cat([rows, self._other[tuple(rows.shape[1:])].pop(0)])


def test_samples_of_all_processes_span_the_directions() -> None:
    """This process has two samples, four numbers; the other four samples. Both must make the step that one process makes with all six."""
    model, batch = made(perceptron).double(), points(6)
    mine, theirs = ({"x": part} for part in batch["x"].split([2, 4]))
    other: dict[tuple[int, ...], list[Tensor]] = {}
    for rows in numbers_of(model, outputs, theirs).gradients([name for name, _ in model.named_parameters()]).values():
        other.setdefault(tuple(rows.shape[1:]), []).append(rows)
    alone = copy.deepcopy(model)
    project(engine(), alone, outputs, batch, 0.6)
    several: Any = copy.copy(engine())
    several.accelerator = TwoProcesses(other)
    project(several, model, outputs, mine, 0.6)
    torch.testing.assert_close(flat(model), flat(alone), rtol=0, atol=1e-10)
