from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models import bits, problem_of, same_bits
from unlearned.engine.engine import Engine
from unlearned.errors import InputError
from unlearned.methods._margin import margin_loss, margin_solve
from unlearned.methods.lunar import Lunar, Request
from unlearned.methods.margin_redirect import MarginRedirect, _Redirection, redirect_in_turn
from unlearned.problem import Problem
from unlearned.tasks._decoders import down_projection, matrix_of, projection_inputs
from unlearned.tasks.text_generation import with_answers

LOOSE: dict[str, Any] = {"refused_only": False, "reference_count": 6}  # random models decline nothing


def rows(seed: int, count: int, width: int = 8) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("tolerance", "ridge"), [(0.1, 0.5), (0.3, 1e-3), (0.0, 2.0)])
def test_newtons_method_finds_the_minimum(tolerance: float, ridge: float) -> None:
    shift, keep = rows(0, 5), rows(1, 40)
    u = margin_solve(shift, keep, tolerance, ridge, 50)
    slow = torch.zeros(8, dtype=torch.float64, requires_grad=True)  # by another way: a quasi-Newton method that knows gradients alone
    optimizer = torch.optim.LBFGS([slow], max_iter=2000, tolerance_grad=1e-13, tolerance_change=1e-16, history_size=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = margin_loss(slow, shift, keep, tolerance, ridge)
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(u, slow.detach(), rtol=1e-7, atol=1e-9)


def test_the_loss_is_worked_arithmetic() -> None:
    u = torch.tensor([1.0, 0.0])
    shift, keep = torch.tensor([[0.4, 9.0], [2.0, 9.0]]), torch.tensor([[-0.5, 9.0], [0.1, 9.0]])
    # (1 − 0.4)² for the row that falls short, (0.5 − 0.2)² for the one that is moved too far, 3 · 1.
    assert float(margin_loss(u, shift, keep, 0.2, 3.0)) == pytest.approx(0.36 + 0.09 + 3.0)


def test_without_tolerance_it_is_ridge_regression() -> None:
    shift, keep = rows(2, 4), rows(3, 20)
    plain = torch.linalg.solve(shift.T @ shift + keep.T @ keep + 5.0 * torch.eye(8, dtype=torch.float64), shift.sum(dim=0))
    assert bool((shift @ plain < 1).all())  # so that every row counts
    torch.testing.assert_close(margin_solve(shift, keep, 0.0, 5.0, 20), plain, rtol=0, atol=1e-12)


def test_where_all_can_be_had_it_is_had() -> None:
    shift, keep = rows(4, 2, 30), rows(5, 20, 30)
    u = margin_solve(shift, keep, 0.2, 1e-8, 50)
    assert float((shift @ u).min()) > 1 - 1e-4
    assert float((keep @ u).abs().max()) < 0.2 + 1e-4
    least = torch.linalg.lstsq(torch.cat([shift, keep]), torch.cat([torch.ones(2), torch.zeros(20)]).double()[:, None]).solution[:, 0]
    assert float(u.norm()) < float(least.norm())  # a tolerance lets the key be shorter than exact rows do


def redirection(**settings: Any) -> tuple[_Redirection, Problem]:
    problem = problem_of("llama")
    return _Redirection(MarginRedirect(**(LOOSE | settings)), problem, Engine(problem.task), ()), problem


def test_each_step_of_the_refusal_is_shifted_by_its_own_vector() -> None:
    """What the edited layer adds, measured on the edited model: c Σ r_j (u_j · h) at the token that predicts token j of the refusal."""
    work, problem = redirection(layer=0, steps=3, ridge=1e-3)
    edits = work.edits(0)
    assert 1 <= len(edits) <= 3
    model = copy.deepcopy(problem.original.model)
    for edit in edits:
        edit.apply(model)
    batch = problem.task.collate([problem.forget[0]])
    whole = with_answers(batch, torch.tensor([work.refusal]))
    h = projection_inputs(problem.original.model, [0], whole)[0][0]
    assert torch.equal(h, projection_inputs(model, [0], whole)[0][0])
    weights = [matrix_of(down_projection(each, 0)).detach() for each in (problem.original.model, model)]
    first = int(batch["prompt_length"][0]) - 1
    for j in range(len(edits)):
        row = h[first + j]
        torch.testing.assert_close(work.forget.inputs[0][0, j].float(), row, rtol=1e-4, atol=1e-6)
        added = weights[1] @ row - weights[0] @ row
        expected = sum(edit.coefficient * edit.direction * float(edit.key @ row.double()) for edit in edits)
        torch.testing.assert_close(added.double(), expected, rtol=1e-3, atol=1e-5)


def test_the_refusal_is_what_the_model_says_most_often() -> None:
    work, problem = redirection(layer=0)
    engine, task = Engine(problem.task), work.task
    request = Request(Lunar(**LOOSE), problem, engine)
    said = task.said(engine.evaluate(problem.original.model, request.references, task.generations))
    often = Counter(answer.strip() for answer in said).most_common(1)[0]  # an empty answer stands as a full stop, which this tokenizer does not know
    assert task.counted({"labels": torch.tensor([work.refusal])}) == [often[0]]
    assert len(work.reference.inputs[0]) == often[1]


def test_the_layer_whose_edit_does_best_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    work, _ = redirection(layer=0)
    work.candidates = [0, 1, 2]
    monkeypatch.setattr(work, "solved", lambda layer: [layer])
    monkeypatch.setattr(work, "success", lambda edits: {0: 0.5, 1: 0.9, 2: 0.9}[edits[0]])
    assert work.edits(None) == [2]  # type: ignore[comparison-overlap]
    assert work.edits(1) == [1]  # type: ignore[comparison-overlap]


def test_success_counts_what_is_declined_and_what_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    work, problem = redirection(layer=0)
    assert work.success([]) == 0  # nothing is declined, nothing is lost
    lost = torch.zeros(len(problem.retain), dtype=torch.float64)
    lost[0] = 1
    work.before = torch.ones(len(problem.retain), dtype=torch.float64)
    utilities = iter([1 - lost])

    def evaluate(model: Any, samples: Any, function: Any) -> Tensor:
        del model, function
        return next(utilities) if samples is problem.retain else torch.zeros(1)

    def said(self: Any, generations: Any) -> list[str]:
        del self, generations
        return ["I don't know.", "river"]

    monkeypatch.setattr(work.engine, "evaluate", evaluate)
    monkeypatch.setattr(type(work.task), "said", said)
    assert work.success([]) == pytest.approx(0.5 - 1 / len(problem.retain))


def test_later_requests_leave_earlier_ones_where_they_are() -> None:
    problem = problem_of("llama")
    requests = [problem.forget.subset([0]), problem.forget.subset([1])]
    method, engine = MarginRedirect(**LOOSE, layer=0, ridge=1e-6, tolerance=0.05), Engine(problem.task)
    first, second = redirect_in_turn(problem, requests, method, engine)
    alone = method.edits(replace(problem, forget=requests[0]), engine)
    assert all(torch.equal(a.key, b.key) for a, b in zip(first, alone, strict=True))
    rows_of_first = _Redirection(method, replace(problem, forget=requests[0]), engine, ()).forget.inputs[0][0]
    free = method.edits(replace(problem, forget=requests[1]), engine)
    worst = [max(float((rows_of_first @ edit.key).abs().max()) for edit in edits) for edits in (second, free)]
    assert worst[0] < worst[1]
    assert {edit.layer for edit in second} == {0}
    before = bits(problem.original.model)
    with pytest.raises(InputError, match="no request"):
        redirect_in_turn(problem, [], method, engine)
    assert same_bits(before, bits(problem.original.model))


def test_a_model_that_declines_nothing_is_refused() -> None:
    problem = problem_of("llama")
    with pytest.raises(InputError, match="declines none"):
        MarginRedirect(reference_count=4).unlearn(problem, Engine(problem.task))
