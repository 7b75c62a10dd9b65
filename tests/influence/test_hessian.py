from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tests.influence.small import (
    Small,
    convolution,
    dense_gauss_newton,
    dense_gradients,
    flat,
    minimised,
    named,
    perceptron,
    small,
    softmax_regression,
    transposed_perceptron,
)
from tests.models import facts, llama, made, tokenizer
from unlearned.api import make_problem
from unlearned.engine.engine import Engine
from unlearned.engine.randomness import derive_seed
from unlearned.errors import DivergedError, InputError
from unlearned.influence import _kronecker as kronecker
from unlearned.influence import hessian
from unlearned.influence._gauss_newton import (
    MOST_STEPS,
    GaussNewton,
    conjugate_gradients,
    largest_eigenvalue,
    lissa,
    mean_eigenvalue,
    relative_residual,
    steps_of_lissa,
)
from unlearned.influence._prune import Prune, choose
from unlearned.influence._rank import grounds_of, rank
from unlearned.influence._score import Grounds
from unlearned.influence.hessian import Hessian, Of
from unlearned.tasks._task import Batch, Bundle

CURVATURES: tuple[Literal["last-layer", "cg", "ekfac"], ...] = ("last-layer", "cg", "ekfac")


def names_of(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def dense(case: Small, of: Of, damping: float, queries: Tensor) -> Tensor:
    """Each score from dense matrices."""
    h = dense_gauss_newton(case) + damping * torch.eye(queries.shape[1], dtype=torch.float64)
    g = dense_gradients(case)
    solved = torch.linalg.solve(h, g.T).T
    if of == "self":
        return torch.stack([g[i] @ solved[i] for i in range(len(g))])
    if of == "parameters":
        norms: Tensor = solved.norm(dim=1)
        return norms
    along = solved @ queries.T
    means: Tensor = along.abs().mean(dim=1) if of == "prediction" else along.mean(dim=1)
    return means


def query_gradients(case: Small) -> Tensor:
    queries = case.grounds.queries
    batch = case.engine.task.collate([queries[i] for i in range(len(queries))])
    rows = []
    for i in range(len(queries)):
        loss = case.engine.task.losses(case.model, {name: tensor[i : i + 1] for name, tensor in batch.items()})[0]
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(case.model.parameters()))]))
    return torch.stack(rows)


def test_products_are_those_of_the_dense_matrix() -> None:
    for make in (perceptron, convolution):
        case = small(make, count=4)
        matrix = dense_gauss_newton(case)
        product = GaussNewton(case.engine, case.model, case.grounds.points, names_of(case.model), damping=0.25)
        v = torch.randn(product.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        assert torch.allclose(product(v), matrix @ v + 0.25 * v, atol=1e-13)
    assert largest_eigenvalue(lambda v: matrix @ v, len(v), 0, like=v, rounds=100) == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=1e-3)
    assert mean_eigenvalue(lambda v: matrix @ v, len(v), 0, like=v, rounds=400) == pytest.approx(float(matrix.diagonal().mean()), rel=0.1)


def test_conjugate_gradients_and_lissa_solve_as_a_dense_solver_does() -> None:
    generator = torch.Generator().manual_seed(2)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    a = root @ root.T + 0.5 * torch.eye(6, dtype=torch.float64)
    b = torch.randn(6, generator=generator, dtype=torch.float64)
    exact = torch.linalg.solve(a, b)
    assert torch.allclose(conjugate_gradients(lambda v: a @ v, b, 1e-12, 100), exact, atol=1e-10)
    scale = 1.5 * float(torch.linalg.eigvalsh(a)[-1])
    assert torch.allclose(lissa(lambda _, v: a @ v, b, scale, 3000, 1e-14), exact, atol=1e-10)
    # One step: h = v + (I − H/σ) v, divided by σ.
    one = lissa(lambda _, v: a @ v, b, scale, 1, 1e-14)
    assert torch.allclose(one, (2 * b - a @ b / scale) / scale)
    assert relative_residual(lambda v: a @ v, one, b) == pytest.approx(float((b - a @ one).norm() / b.norm()))
    assert relative_residual(lambda v: a @ v, exact, b) < 1e-12
    assert relative_residual(lambda v: a @ v, 0 * b, 0 * b) == 0
    with pytest.raises(DivergedError, match="Raise it"):
        lissa(lambda _, v: a @ v, b, scale / 10, 3000, 1e-14)


def test_lissa_makes_the_steps_that_the_smallest_eigenvalue_asks_for() -> None:
    """b lies along the eigenvector of λ itself: there is no slower case."""
    a = torch.diag(torch.tensor([0.01, 3.0], dtype=torch.float64))
    b = torch.tensor([1.0, 0.0], dtype=torch.float64)
    made: list[int] = []

    def counted(step: int, v: Tensor) -> Tensor:
        made.append(step)
        return a @ v

    steps = steps_of_lissa(0.01, 6.0, 1e-3)
    x = lissa(counted, b, 6.0, steps, 1e-3)
    assert relative_residual(lambda v: a @ v, x, b) <= 1e-3
    assert steps - 2 <= len(made) <= steps
    assert relative_residual(lambda v: a @ v, lissa(counted, b, 6.0, steps - 2, 1e-3), b) > 1e-3
    assert steps_of_lissa(1e-9, 6.0, 1e-3) == steps_of_lissa(7.0, 6.0, 1e-3) == MOST_STEPS
    assert steps_of_lissa(5.999, 6.0, 0.9) == 1


@pytest.mark.parametrize("of", ["self", "parameters", "prediction", "signed"])
def test_every_solver_gives_the_dense_scores(of: Of) -> None:
    case = small(perceptron)
    expected = dense(case, of, 0.05, query_gradients(case))
    by_cg = Hessian(of=of, curvature="cg", damping=0.05, tolerance=1e-10).rate(case.grounds, case.engine).values
    assert torch.allclose(by_cg, expected, rtol=1e-7)
    if of in {"prediction", "signed"}:
        by_lissa = Hessian(of=of, curvature="lissa", damping=0.5, iterations=60).rate(case.grounds, case.engine).values
        assert torch.allclose(by_lissa, dense(case, of, 0.5, query_gradients(case)), rtol=1e-4)


@pytest.mark.parametrize("curvature", ["cg", "lissa"])
def test_with_the_default_damping_the_weights_move_as_the_dense_solve_says(curvature: Literal["cg", "lissa"]) -> None:
    case = small(perceptron, count=4)
    matrix = dense_gauss_newton(case)
    seed = derive_seed(case.engine.seed, "hessian", "probes")
    damping = 0.1 * mean_eigenvalue(lambda v: matrix @ v, len(matrix), seed, like=matrix)
    expected = dense(case, "parameters", damping, query_gradients(case))
    found = Hessian(curvature=curvature).rate(case.grounds, case.engine)
    assert torch.allclose(found.values, expected, rtol=5e-3)
    assert found.notes == ()
    assert found.effects is not None
    few = Hessian(curvature=curvature, iterations=2 if curvature == "cg" else 200).rate(case.grounds, case.engine)
    assert bool((few.values < 0.9 * expected).any())
    assert few.effects is None
    [note] = few.notes
    h = matrix + damping * torch.eye(len(matrix), dtype=torch.float64)
    assert float(re.findall(r"residual is (\S+),", note)[0]) > Hessian().tolerance
    assert f"Raise `iterations` ({2 if curvature == 'cg' else 200}) or `damping` ({damping:.2g})" in note
    if curvature == "lissa":
        scale = 2 * (largest_eigenvalue(lambda v: matrix @ v, len(matrix), seed, like=matrix) + damping)
        keeps = torch.linalg.matrix_power(torch.eye(len(h), dtype=torch.float64) - h / scale, 201)
        rows = dense_gradients(case)
        largest = float(((rows @ keeps).norm(dim=1) / rows.norm(dim=1)).max())
        assert float(re.findall(r"residual is (\S+),", note)[0]) == pytest.approx(largest, rel=0.02)


def test_where_the_queries_are_not_solved_for_no_effect_is_bounded() -> None:
    case = small(perceptron)
    stops = Hessian(of="signed", curvature="cg", iterations=1).rate(case.grounds, case.engine)
    assert stops.effects is None
    ranking = rank(case.problem, Hessian(of="signed", curvature="cg", iterations=1), case.engine)
    assert ranking.notes == stops.notes
    with pytest.raises(InputError, match=r"bounds no effect.*not solved with to the end"):
        choose(ranking, Prune(tolerance=0.1))
    [note] = Hessian(of="signed", curvature="lissa", damping=1.0, batch_size=4).rate(case.grounds, case.engine).notes
    assert "Set `batch_size` to 12" in note


def test_probes_are_drawn_where_the_model_has_moved_to(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    @contextmanager
    def moved(model: nn.Module, device: torch.device) -> Iterator[nn.Module]:
        del device
        yield model.to("meta")

    def probed(*_: Any, like: Tensor) -> float:
        seen.append(like.device.type)
        raise DivergedError("probed")

    case = small.__wrapped__(perceptron)  # not the kept one: its weights are lost on `meta`
    monkeypatch.setattr(hessian, "on_device", moved)
    monkeypatch.setattr(hessian, "mean_eigenvalue", probed)
    with pytest.raises(DivergedError, match="probed"):
        Hessian(curvature="cg").rate(case.grounds, case.engine)
    assert seen == ["meta"]


@pytest.mark.parametrize("of", ["self", "parameters", "prediction", "signed"])
def test_the_last_layer_in_closed_form_is_the_dense_solve(of: Of) -> None:
    case = small(softmax_regression)
    expected = dense(case, of, 0.05, query_gradients(case))
    assert torch.allclose(Hessian(of=of, damping=0.05).rate(case.grounds, case.engine).values, expected, rtol=1e-9)


def test_leave_one_out_retraining_is_foretold() -> None:
    """L2-regularised logistic regression, minimised to a gradient of 1e-10 without each point in turn."""
    case = small(softmax_regression, count=24)
    penalty, n = 0.05, 24
    full = minimised(case, penalty, torch.ones(n, dtype=torch.float64), flat({name: p.detach() for name, p in case.model.named_parameters()}))
    queries = case.grounds.queries
    asked = case.engine.task.collate([queries[i] for i in range(len(queries))])

    def asked_loss(vector: Tensor) -> float:
        logits = torch.func.functional_call(case.model, named(case, vector), (asked["pixel_values"],))
        return float(nn.functional.cross_entropy(logits, asked["labels"]))

    with torch.no_grad():
        for name, parameter in case.model.named_parameters():
            parameter.copy_(named(case, full)[name])
    values = Hessian(of="signed", damping=penalty).rate(case.grounds, case.engine)
    exact = Hessian(of="signed", damping=penalty, leverage=True).rate(case.grounds, case.engine).values
    truth = [asked_loss(minimised(case, penalty, torch.arange(n) != z, full)) - asked_loss(full) for z in range(n)]
    assert np.corrcoef(truth, values.values)[0, 1] >= 0.99
    assert np.corrcoef(truth, exact)[0, 1] >= 0.995
    assert np.abs(np.array(truth) - exact.numpy() / n).max() < 0.15 * np.abs(truth).max()
    assert values.effects is not None
    assert torch.allclose(values.effects.sizes, values.values.abs() / n)
    small.cache_clear()


def test_effects_of_a_set_add_up_to_a_bound() -> None:
    """‖Σ_{z ∈ T} H⁻¹ g_z‖ / n ≤ Σ_{z ∈ T} ‖H⁻¹ g_z‖ / n for every T."""
    case = small(softmax_regression)
    effects = Hessian(of="parameters", damping=0.05).rate(case.grounds, case.engine).effects
    assert effects is not None
    h = dense_gauss_newton(case) + 0.05 * torch.eye(51, dtype=torch.float64)
    steps = torch.linalg.solve(h, dense_gradients(case).T).T / 12
    norm = torch.cat([p.detach().flatten() for p in case.model.parameters()]).norm()
    generator = np.random.default_rng(0)
    for _ in range(20):
        chosen = generator.random(12) < generator.random()
        assert steps[chosen].sum(dim=0).norm() / norm <= effects.sizes[chosen].sum() + 1e-12
    # Of a single point it is what happens.
    assert torch.allclose(steps.norm(dim=1) / norm, effects.sizes)


def blocks(case: Small) -> dict[str, Tensor]:
    """The dense matrix of each layer, weights with their bias, (out, in, out, in)."""
    matrix, found, start = dense_gauss_newton(case), {}, 0
    for name, layer in kronecker.covered(case.model, names_of(case.model)).items():
        weight = layer.get_parameter("weight").detach().flatten(1)
        out, width = weight.shape
        order = torch.cat([torch.arange(out * width).view(out, width), out * width + torch.arange(out)[:, None]], dim=1).flatten() + start
        found[name] = matrix[order][:, order].view(out, width + 1, out, width + 1)
        start += out * (width + 1)
    return found


def factors_of(case: Small, points: int | None = None) -> dict[str, kronecker.Factor]:
    layers = kronecker.covered(case.model, names_of(case.model))
    samples = case.grounds.points if points is None else case.grounds.points.subset(range(points))
    return kronecker.factors(case.engine, case.model, samples, layers, lambda: kronecker.all_answers, 5)


@pytest.mark.parametrize("make", [perceptron, convolution])
def test_corrected_eigenvalues_are_the_diagonal_of_the_dense_matrix_in_the_eigenbasis(make: Callable[[], nn.Module]) -> None:
    case = small(make)
    found = factors_of(case)
    assert len(found) == 2
    for name, block in blocks(case).items():
        factor = found[name]
        one = torch.eye(len(factor.inputs), dtype=torch.float64)
        assert torch.allclose(factor.inputs.T @ factor.inputs, one, atol=1e-12)
        diagonal = torch.einsum("ou,ia,oipj,pu,ja->ua", factor.outputs, factor.inputs, block, factor.outputs, factor.inputs)
        assert torch.allclose(factor.eigenvalues, diagonal, atol=1e-12)


def test_of_a_single_point_the_factors_of_linear_layers_are_exact() -> None:
    """Then the dense matrix is S ⊗ a aᵀ."""
    case = small(perceptron, count=4)
    layers = kronecker.covered(case.model, names_of(case.model))
    alone = Small(case.problem, Grounds(case.problem.original, case.grounds.points.subset([0]), case.grounds.queries), case.engine)
    found = factors_of(alone)
    for name, block in blocks(alone).items():
        f = found[name]
        whole = torch.einsum("ou,ia,ua,pu,ja->oipj", f.outputs, f.inputs, f.eigenvalues, f.outputs, f.inputs)
        assert torch.allclose(whole, block, atol=1e-12)
    assert list(layers) == ["1", "3"]


def test_gradients_of_layers_are_those_of_autograd() -> None:
    for make in (perceptron, convolution):
        case = small(make)
        layers = kronecker.covered(case.model, names_of(case.model))
        rows = [
            torch.cat([part.gradients.flatten(1) for part in found.values()], dim=1)
            for found in kronecker.parts(case.engine, case.model, case.grounds.points, layers, kronecker.errors, 5)
        ]
        assert torch.cat(rows).norm(dim=1).allclose(dense_gradients(case).norm(dim=1), atol=1e-13)


def test_drawn_answers_give_the_same_curvature_on_average() -> None:
    case = small(perceptron)
    layers = kronecker.covered(case.model, names_of(case.model))
    signals, exact = kronecker.drawn(0), factors_of(case)
    total = dict.fromkeys(layers, torch.zeros(()))
    for _ in range(100):
        for parts in kronecker.parts(case.engine, case.model, case.grounds.points, layers, signals, 12):
            for name, part in parts.items():
                total[name] = total[name] + exact[name].rotated(part.gradients).square().sum(dim=0) / (12 * 100)
    for name, factor in exact.items():
        assert torch.allclose(total[name], factor.eigenvalues, rtol=0.3, atol=0.03 * float(factor.eigenvalues.max()))


def test_factored_scores_are_those_of_the_matrix_that_the_factors_stand_for() -> None:
    case = small(perceptron)
    found = factors_of(case)
    g = dense_gradients(case)
    start, inverses = 0, []
    for name, layer in kronecker.covered(case.model, names_of(case.model)).items():
        f = found[name]
        out, width = layer.get_parameter("weight").shape
        whole = torch.einsum("ou,ia,ua,pu,ja->oipj", f.outputs, f.inputs, f.eigenvalues, f.outputs, f.inputs).reshape(out * (width + 1), -1)
        order = torch.cat([torch.arange(out * width).view(out, width), out * width + torch.arange(out)[:, None]], dim=1).flatten() + start
        inverses.append((order, torch.linalg.inv(whole + 0.05 * torch.eye(len(whole), dtype=torch.float64))))
        start += out * (width + 1)
    solved = torch.zeros_like(g)
    for order, inverse in inverses:
        solved[:, order] = g[:, order] @ inverse
    cases: tuple[tuple[Of, Tensor], ...] = (
        ("self", (g * solved).sum(dim=1)),
        ("parameters", solved.norm(dim=1)),
        ("signed", (solved @ query_gradients(case).T).mean(dim=1)),
    )
    for of, expected in cases:
        values = Hessian(of=of, curvature="ekfac", damping=0.05, fisher="expected").rate(case.grounds, case.engine).values
        assert torch.allclose(values, expected, rtol=1e-8)


def test_layers_of_gpt2_have_the_factors_of_linear_layers() -> None:
    case, twin = small(perceptron), small.__wrapped__(transposed_perceptron)
    with torch.no_grad():
        for ours, theirs in zip(twin.model.parameters(), case.model.parameters(), strict=True):
            ours.copy_(theirs.T if theirs.ndim == 2 else theirs)
    ofs: tuple[Of, ...] = ("self", "parameters", "signed")
    for of in ofs:
        values, expected = (Hessian(of=of, curvature="ekfac", fisher="expected").rate(each.grounds, each.engine).values for each in (twin, case))
        torch.testing.assert_close(values, expected, rtol=1e-9, atol=0)


def test_layers_up_to_the_largest_factor_are_covered() -> None:
    n = kronecker.LARGEST
    layers = {"fits": nn.Linear(n, 1, bias=False), "one too many": nn.Linear(n, 1), "says": nn.Linear(1, n), "says too many": nn.Linear(1, n + 1)}
    layers |= {"turned": Conv1D(n, 1), "turned one too many": Conv1D(1, n)}
    assert set(kronecker.covered(nn.ModuleDict(layers), [f"{name}.weight" for name in layers])) == {"fits", "says", "turned"}


def texts(dtype: torch.dtype) -> tuple[Grounds, Engine]:
    """A small Llama with an output layer of its own, and five questions and answers of different lengths."""
    model: Any = made(llama)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    train = facts(0, 5)
    problem = make_problem(Bundle(model.to(dtype), {"tokenizer": tokenizer()}), train=train, test=facts(100, 2), forget=train["id"][:1], task="text-generation")
    engine = Engine(problem.task)
    return grounds_of(problem, engine, None)[0], engine


def read_and_said(model: nn.Module, layers: dict[str, nn.Module], batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
    """What each layer reads of a single text, (T, in), and its logits, (T, V)."""
    read: dict[str, Tensor] = {}
    handles = [layer.register_forward_hook(lambda _, inputs, __, name=name: read.update({name: inputs[0][0].detach()})) for name, layer in layers.items()]
    logits: Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[0]
    for handle in handles:
        handle.remove()
    return read, logits


@pytest.mark.parametrize("batch_size", [1, 4])
def test_factors_of_texts_do_not_depend_on_which_texts_share_a_batch(batch_size: int) -> None:
    """A and the eigenvalues from each text by itself, without padding; of the output layer's A only positions that predict an answer."""
    grounds, engine = texts(torch.float64)
    model, task = grounds.original.model, engine.task
    layers = kronecker.covered(model, names_of(model))
    assert "lm_head" in layers
    moments: dict[str, Tensor] = {}
    gradients: dict[str, list[Tensor]] = {name: [] for name in layers}
    for i in range(len(grounds.points)):
        batch = task.collate([grounds.points[i]])
        answered = batch["labels"][0, 1:] != -100
        read, logits = read_and_said(model, layers, batch)
        logits = logits[:-1][answered]
        for name, a in read.items():
            rows = a[:-1][answered] if name == "lm_head" else a
            moments[name] = moments.get(name, 0) + rows.T @ rows
        p = logits.detach().softmax(dim=-1)
        for c in range(p.shape[1]):
            signal = (p[:, c] / len(p)).sqrt()[:, None] * (p - torch.eye(p.shape[1], dtype=p.dtype)[c])
            found = torch.autograd.grad(logits, [layer.get_parameter("weight") for layer in layers.values()], signal, retain_graph=True)
            for name, gradient in zip(layers, found, strict=True):
                gradients[name].append(gradient)
    factors = kronecker.factors(engine, model, grounds.points, layers, lambda: kronecker.all_answers, batch_size)
    assert factors.keys() == layers.keys()
    for name, factor in factors.items():
        turned = factor.inputs.T @ moments[name] @ factor.inputs
        assert (turned - turned.diagonal().diag()).abs().max() < 1e-9 * turned.diagonal().max(), name
        expected = factor.rotated(torch.stack(gradients[name])).square().sum(dim=0) / len(grounds.points)
        torch.testing.assert_close(factor.eigenvalues, expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("make", ["texts", "images"])
def test_drawn_answers_do_not_depend_on_which_samples_share_a_batch(make: str) -> None:
    if make == "texts":
        grounds, engine = texts(torch.float64)
    else:
        grounds, engine = (case := small(perceptron)).grounds, case.engine
    model = grounds.original.model
    layers = kronecker.covered(model, names_of(model))
    found = [kronecker.factors(engine, model, grounds.points, layers, lambda: kronecker.drawn(3), size) for size in (1, 2, 64)]
    for name, factor in found[0].items():
        for other in found[1:]:
            torch.testing.assert_close(other[name].eigenvalues, factor.eigenvalues, rtol=1e-6, atol=1e-12)
    another = kronecker.factors(engine, model, grounds.points, layers, lambda: kronecker.drawn(4), 2)
    assert any(not torch.allclose(another[name].eigenvalues, factor.eigenvalues, rtol=1e-2) for name, factor in found[0].items())


def test_a_language_model_in_bfloat16_has_factors_in_float32() -> None:
    grounds, engine = texts(torch.bfloat16)
    layers = kronecker.covered(grounds.original.model, names_of(grounds.original.model))
    found = kronecker.factors(engine, grounds.original.model, grounds.points, layers, lambda: kronecker.drawn(0), 4)
    assert {tensor.dtype for factor in found.values() for tensor in factor} == {torch.float32}
    values = Hessian(of="signed", curvature="ekfac").rate(grounds, engine).values
    assert bool(values.isfinite().all())
    assert float(values.abs().min()) > 0


@pytest.mark.parametrize(("of", "systems"), [("signed", 1), ("prediction", 6)])
def test_queries_whose_mean_counts_are_solved_for_at_once(of: Of, systems: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean over queries of g_qᵀ H⁻¹ g_z is (mean g_q)ᵀ H⁻¹ g_z."""
    case = small(perceptron)
    apart = [
        Hessian(of="signed", damping=0.05, curvature=curvature, tolerance=1e-12, fisher="expected")
        .rate(Grounds(case.problem.original, case.grounds.points, case.grounds.queries.subset([q])), case.engine)
        .values
        for curvature in CURVATURES
        for q in range(6)
    ]
    solved: list[Tensor] = []
    held: list[int] = []
    solve, factored, closed = conjugate_gradients, hessian._Factored, hessian._Closed

    def counted(product: Any, right: Tensor, *rest: Any) -> Tensor:
        solved.append(right)
        return solve(product, right, *rest)

    def kept(*parts: Any) -> Any:
        held.extend(len(tensor) for tensor in parts[4].values())
        return factored(*parts)

    def kept_whole(*parts: Any) -> Any:
        held.append(len(parts[2]))
        return closed(*parts)

    monkeypatch.setattr(hessian, "conjugate_gradients", counted)
    monkeypatch.setattr(hessian, "_Factored", kept)
    monkeypatch.setattr(hessian, "_Closed", kept_whole)
    for number, curvature in enumerate(CURVATURES):
        each = torch.stack(apart[6 * number : 6 * number + 6])
        score = Hessian(of=of, damping=0.05, curvature=curvature, tolerance=1e-12, fisher="expected", batch_size=4)
        found = score.rate(case.grounds, case.engine).values
        assert torch.allclose(found, each.mean(dim=0) if of == "signed" else each.abs().mean(dim=0), rtol=1e-9, atol=1e-12)
    assert len(solved) == systems
    assert held == [systems] * 3  # one last layer, two layers with factors


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValidationError, match="leverage is defined for the last layer"):
        Hessian(curvature="cg", leverage=True)
    case = small(perceptron)
    with pytest.raises(InputError, match=r"ekfac is made of linear layers and convolutions, and none of a fitting size is among these parameters"):
        Hessian(curvature="ekfac", parameters="bias").rate(case.grounds, case.engine)
    with pytest.raises(InputError, match=r"no trainable parameter matches"):
        Hessian(curvature="cg", parameters="absent").rate(case.grounds, case.engine)
