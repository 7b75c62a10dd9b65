from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.methods.refusals import refused
from tests.models import bits, layer_of, made, problem_of
from unlearned.api import forget
from unlearned.engine.engine import Engine
from unlearned.methods import svd
from unlearned.methods.svd import balanced, input_rows, projected, scaled_projection, unlearning_projection


def activations(seed: int, n: int = 12, d: int = 5, rank: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, d, dtype=torch.float64, generator=generator)
    return a if rank is None else a[:, :rank] @ torch.randn(rank, d, dtype=torch.float64, generator=generator)


def by_svd(a: Tensor, alpha: float) -> Tensor:
    """M from the singular value decomposition of the activations in columns, one direction at a time."""
    u, sigma, _ = torch.linalg.svd(a.T, full_matrices=False)
    m = torch.zeros(a.shape[1], a.shape[1], dtype=torch.float64)
    for i in range(len(sigma)):
        share = float(sigma[i]) ** 2 / sum(float(s) ** 2 for s in sigma)
        m += alpha * share / ((alpha - 1) * share + 1) * torch.outer(u[:, i], u[:, i])
    return m


@pytest.mark.parametrize("alpha", [0.25, 1.0, 3.0, 100.0, 1000.0])
@pytest.mark.parametrize("rank", [None, 2])
def test_gram_route_is_the_svd_route(alpha: float, rank: int | None) -> None:
    a = activations(1, rank=rank)
    torch.testing.assert_close(scaled_projection(a.T @ a, alpha), by_svd(a, alpha), rtol=1e-9, atol=1e-12)


def test_more_directions_than_samples() -> None:
    a = activations(2, n=3, d=7)
    torch.testing.assert_close(scaled_projection(a.T @ a, 10.0), by_svd(a, 10.0), rtol=1e-9, atol=1e-12)


def test_worked_example() -> None:
    """Σ² = diag(3, 1): s = (3/4, 1/4). α 3: Λ = (9/4)/(5/2) = 0.9 and (3/4)/(3/2) = 0.5. Retain: σ² = (0, 2), α any: Λ = (0, 1).
    P = I − M_f + M_f M_r = diag(1 − 0.9, 1 − 0.5 + 0.5) = diag(0.1, 1): the direction that both share stays."""
    known = scaled_projection(torch.diag(torch.tensor([3.0, 1.0], dtype=torch.float64)), 3.0)
    kept = scaled_projection(torch.diag(torch.tensor([0.0, 2.0], dtype=torch.float64)), 100.0)
    torch.testing.assert_close(known, torch.diag(torch.tensor([0.9, 0.5], dtype=torch.float64)))
    p = unlearning_projection(kept, known)
    torch.testing.assert_close(p, torch.diag(torch.tensor([0.1, 1.0], dtype=torch.float64)))
    weight = torch.tensor([[2.0, 5.0], [-1.0, 3.0]], dtype=torch.float64)
    torch.testing.assert_close(projected(weight, p[None]), torch.tensor([[0.2, 5.0], [-0.1, 3.0]], dtype=torch.float64))


def test_alpha_one_keeps_the_shares_and_a_large_one_tends_to_the_span() -> None:
    a = activations(3, rank=3)
    gram = a.T @ a
    torch.testing.assert_close(scaled_projection(gram, 1.0), gram / gram.trace(), rtol=1e-12, atol=1e-14)
    basis = torch.linalg.svd(a.T, full_matrices=False)[0][:, :3]
    torch.testing.assert_close(scaled_projection(gram, 1e9), basis @ basis.T, rtol=1e-5, atol=1e-5)


def test_what_changes_nothing() -> None:
    """M_r = I: all is kept. M_f = 0: nothing is known. No activation at all: M = 0."""
    identity = torch.eye(4, dtype=torch.float64)
    m = scaled_projection(activations(4, d=4).T @ activations(4, d=4), 5.0)
    torch.testing.assert_close(unlearning_projection(identity, m), identity, rtol=0, atol=1e-15)
    torch.testing.assert_close(unlearning_projection(m, torch.zeros_like(m)), identity, rtol=0, atol=1e-15)
    assert not scaled_projection(torch.zeros(4, 4, dtype=torch.float64), 5.0).any()


def test_projection_is_not_symmetric_and_stands_transposed() -> None:
    """W Pᵀ x = W (x − M_f x + M_r M_f x): first what is known of x, then what of that is kept."""
    kept, known = (by_svd(activations(seed), 4.0) for seed in (5, 6))
    p, weight, x = unlearning_projection(kept, known), activations(7, n=3), activations(8, n=1)[0]
    assert float((p - p.T).abs().max()) > 0.01
    torch.testing.assert_close(projected(weight, p[None]) @ x, weight @ (x - known @ x + kept @ (known @ x)), rtol=1e-12, atol=1e-14)


LAYERS: list[Any] = [
    (nn.Linear(6, 4), (3, 6)),
    (nn.Linear(6, 4, bias=False), (2, 5, 6)),
    (nn.Conv2d(3, 4, 3, padding=1), (2, 3, 5, 6)),
    (nn.Conv2d(3, 4, (3, 2), stride=(2, 1), dilation=(1, 2), padding=(0, 1)), (2, 3, 7, 6)),
    (nn.Conv2d(4, 6, 3, groups=2, padding="same"), (2, 4, 5, 5)),
    (nn.Conv2d(4, 8, 3, groups=4, padding=1, padding_mode="reflect"), (2, 4, 5, 5)),
    (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 2, 5, 5)),
    (nn.Conv2d(3, 5, 1, bias=False), (2, 3, 4, 4)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=[str(layer) for layer, _ in LAYERS])
def test_rows_times_weight_is_what_the_layer_computes(layer: Any, shape: tuple[int, ...]) -> None:
    layer = copy.deepcopy(layer).double()
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = input_rows(layer, x)
    groups = getattr(layer, "groups", 1)
    weight = layer.weight.detach().reshape(groups, -1, rows.shape[-1])
    out = rows @ weight.mT  # (G, N, O/G)
    expected = layer(x).detach() - (0 if layer.bias is None else layer.bias.detach().reshape(-1, *[1] * (0 if isinstance(layer, nn.Linear) else 2)))
    if isinstance(layer, nn.Linear):
        torch.testing.assert_close(out[0], expected.flatten(0, -2))
    else:
        per_position = expected.flatten(2).permute(0, 2, 1).flatten(0, 1)  # (B · L, O)
        torch.testing.assert_close(out.permute(1, 0, 2).flatten(1), per_position)


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=[str(layer) for layer, _ in LAYERS])
def test_projected_weights_act_as_the_projection_of_the_input(layer: Any, shape: tuple[int, ...]) -> None:
    layer = copy.deepcopy(layer).double()
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = input_rows(layer, x)
    p = torch.randn(len(rows), rows.shape[-1], rows.shape[-1], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight = layer.weight.detach()
    new = projected(weight, p)
    assert new.shape == weight.shape
    of_projected = (rows @ p) @ weight.reshape(len(rows), -1, rows.shape[-1]).mT
    torch.testing.assert_close(rows @ new.reshape(len(rows), -1, rows.shape[-1]).mT, of_projected)


def grouped_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 10),
    )


def test_whole_run_against_loops_over_patches() -> None:
    """Inputs of the original in every layer, not of the layers before that were already changed; patches cut out by hand; biases and statistics stay."""
    problem = problem_of("plain", forget=5, retain=13, model=made(grouped_network))
    reference = copy.deepcopy(problem.original.model).double().eval()
    # With at least this many samples allowed of each class, all are used.
    result = forget(problem, "svd", alpha_retain=7.0, alpha_forget=20.0, batch_size=4).model
    inputs: dict[str, dict[str, Tensor]] = {}
    for split in ("forget", "retain"):
        x = torch.stack([problem.sets[split][i]["pixel_values"] for i in range(len(problem.sets[split]))]).double()
        inputs[split] = {}
        for i, layer in enumerate(reference.children()):
            inputs[split][str(i)] = x.detach()
            x = layer(x)

    def patches(x: Tensor, stride: int) -> Tensor:
        padded = torch.zeros(*x.shape[:2], x.shape[2] + 2, x.shape[3] + 2, dtype=torch.float64)
        padded[:, :, 1:-1, 1:-1] = x
        corners = range(0, x.shape[2], stride)
        return torch.stack([image[:, i : i + 3, j : j + 3].flatten() for image in padded for i in corners for j in corners])

    def new(weight: Tensor, forgotten: Tensor, retained: Tensor) -> Tensor:
        m_f, m_r = by_svd(forgotten, 20.0), by_svd(retained, 7.0)
        return (weight.flatten(1) @ (torch.eye(len(m_f)) - m_f + m_f @ m_r).T).view_as(weight)

    f, r = inputs["forget"], inputs["retain"]
    weights = {name: tensor for name, tensor in reference.state_dict().items() if name.endswith("weight")}
    expected = {"0.weight": new(weights["0.weight"], patches(f["0"], 2), patches(r["0"], 2)), "6.weight": new(weights["6.weight"], f["6"], r["6"])}
    halves = [new(weights["3.weight"][3 * g : 3 * g + 3], *(patches(x["3"][:, 2 * g : 2 * g + 2], 1) for x in (f, r))) for g in range(2)]
    expected["3.weight"] = torch.cat(halves)
    before, after = bits(problem.original.model), bits(result)
    for name, tensor in expected.items():
        torch.testing.assert_close(after[name].double(), tensor, rtol=1e-4, atol=1e-5)
        assert float((tensor - before[name].double()).abs().max()) > 1e-2
    assert all(torch.equal(after[name], before[name]) for name in before if name not in expected)


def test_batches_do_not_matter() -> None:
    problem = problem_of("plain")
    results = [bits(forget(problem, "svd", batch_size=size).model) for size in (3, 64)]
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], rtol=1e-4, atol=1e-5)


def test_samples_are_balanced_over_classes() -> None:
    problem = problem_of("plain", retain=100)
    labels = [int(label) for label in problem.retain.fact("label")]
    some = balanced(problem.retain, 35, 1)
    counts = torch.bincount(torch.tensor([int(label) for label in some.fact("label")])).tolist()
    assert counts == [3] * 10
    assert set(some.ids) <= set(problem.retain.ids)
    assert len(set(some.ids)) == 30
    assert balanced(problem.retain, 35, 1).ids == some.ids != balanced(problem.retain, 35, 2).ids
    assert balanced(problem.retain, 10_000, 1).ids == problem.retain.ids
    assert len(balanced(problem.retain, 3, 1)) == len(set(labels))


def test_the_forgotten_class_goes_and_the_others_stay() -> None:
    from tests.methods.test_trw import class_problem

    trained = forget(class_problem("label == 0"), "fine-tune", epochs=40, lr=0.05, batch_size=8).model
    problem = class_problem("label == 3", model=trained)
    engine, task = Engine(problem.task), problem.task
    done = forget(problem, "svd", alpha_retain=10.0, alpha_forget=3.0).model
    (knew, kept), (knows, keeps) = ([float(engine.evaluate(m, s, task.knowledge).mean()) for s in (problem.forget, problem.retain)] for m in (trained, done))
    assert knew > 0.95
    assert knows < 0.2
    assert keeps > kept - 0.05


def test_a_layer_is_needed() -> None:
    said = r"no linear layer or two-dimensional convolution has a trainable weight that matches '\^1\\\\.'"
    problem = problem_of("plain")
    refused(problem, "svd", said, parameters=r"^1\.")
    refused(problem, "svd", "no trainable parameter matches 'nowhere'", parameters="nowhere")
    assert all(parameter.requires_grad for parameter in problem.original.model.parameters())
    assert not svd.SVD().faults(problem, Engine(problem.task))


def test_hooks_are_taken_off_again_also_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of("plain")
    assert not any(layer._forward_hooks for layer in forget(problem, "svd").model.modules())
    model, method = problem.original.model, svd.SVD()

    def fails(layer: svd.Layer, inputs: Tensor) -> Tensor:
        raise ZeroDivisionError

    monkeypatch.setattr(svd, "input_rows", fails)
    with pytest.raises(ZeroDivisionError):
        method._grams(Engine(problem.task), model, {"0": layer_of(model, 0)}, problem.retain)
    assert not any(layer._forward_hooks for layer in model.modules())
