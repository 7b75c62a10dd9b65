from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tests.models import bits, bundle_of, made, problem_of, same_bits
from unlearned.api import forget
from unlearned.engine.engine import Engine
from unlearned.errors import InputError
from unlearned.methods._edits import Edit, load_edits, save_adapter, save_edits
from unlearned.methods._rank_one import Gram, solve, solve_dual, solve_towards_zero
from unlearned.methods.lunar import LayerScore, Lunar, Request, Rows, forget_in_turn, selection, shared_prefixes
from unlearned.problem import Problem
from unlearned.tasks._decoders import block_outputs, blocks_of, down_projection, last_prompt_token, matrix_of, projection_inputs
from unlearned.tasks._refusals import REFUSALS, declines, unverifiable
from unlearned.tasks.text_generation import TextGeneration

LOOSE: dict[str, Any] = {"refused_only": False, "reference_count": 6, "layers": (0,)}  # random models decline nothing


class Case:
    """Random rows in float64: `n` of them, the first few to be shifted."""

    def __init__(self, seed: int, n: int = 30, p: int = 12, q: int = 5) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(*size: int) -> Tensor:
            return torch.randn(*size, generator=generator, dtype=torch.float64)

        self.h, self.w, self.r = draw(n, p), draw(q, p), draw(q)
        self.m = (torch.arange(n) < n // 3).double()
        self.s = torch.where(self.m > 0, 1.0, 0.25).double()
        self.c = 2.0
        self.targets = self.h @ self.w.T + self.c * self.m[:, None] * self.r
        self.gram = Gram.zeros(p)
        self.gram.add(self.h[self.m > 0], 1.0, 1.0)
        self.gram.add(self.h[self.m == 0], 0.25, 0.0)

    def edited(self, u: Tensor) -> Tensor:
        return self.w + self.c * torch.outer(self.r, u)

    def loss(self, w: Tensor) -> float:
        return float((self.s[:, None] * (self.h @ w.T - self.targets) ** 2).sum())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ridge", [1e-3, 0.7])
def test_rank_one_form_is_ridge_towards_the_original_weight(seed: int, ridge: float) -> None:
    case = Case(seed)
    # argmin Σ s ‖(W + D) h − target‖² + λ ‖D‖², row by row of D, by the normal equations.
    residual = case.targets - case.h @ case.w.T
    normal = case.h.T @ (case.s[:, None] * case.h) + ridge * torch.eye(12, dtype=torch.float64)
    direct = case.w + torch.linalg.solve(normal, case.h.T @ (case.s[:, None] * residual)).T
    edited = case.edited(solve(case.gram, ridge))
    assert float((edited - direct).abs().max()) < 1e-10
    assert int(torch.linalg.matrix_rank(edited - case.w)) == 1
    dual = solve_dual(case.h, case.s, case.m, ridge)
    assert float((dual - solve(case.gram, ridge)).abs().max()) < 1e-10


@pytest.mark.parametrize("seed", range(3))
def test_without_ridge_it_is_the_least_squares_solution(seed: int) -> None:
    case = Case(seed)
    root = case.s.sqrt()[:, None]
    least = torch.linalg.lstsq(root * case.h, root * case.targets).solution.T
    assert float((case.edited(solve(case.gram, 0.0)) - least).abs().max()) < 1e-10


def test_fewer_rows_than_dimensions_shift_and_stay_exactly() -> None:
    case = Case(5, n=6, p=12)
    for u in (solve(case.gram, 0.0), solve_dual(case.h, case.s, case.m, 0.0)):
        torch.testing.assert_close(case.h @ u, case.m, rtol=0, atol=1e-10)
        moved = case.h @ (case.edited(u) - case.w).T
        torch.testing.assert_close(moved, case.c * case.m[:, None] * case.r, rtol=0, atol=1e-9)


def test_rows_are_held_and_the_smaller_system_is_solved_while_they_are_fewer_than_dimensions() -> None:
    case = Case(5, n=10, p=12)
    assert case.gram.held() is not None
    wanted = torch.linalg.solve(case.h.T @ (case.s[:, None] * case.h) + 0.1 * torch.eye(12, dtype=torch.float64), case.h.T @ (case.s * case.m))
    few = solve(case.gram, 0.1)
    torch.testing.assert_close(few, wanted, rtol=0, atol=1e-12)
    assert case.gram.held() is not None, "the large system was not built"
    case.gram.settle()
    further = torch.ones(1, 12, dtype=torch.float64)
    case.gram.add(further, 0.5, 1.0)
    assert case.gram.held() is not None
    rows, weights = torch.cat([case.h, further]), torch.cat([case.s, torch.tensor([0.5], dtype=torch.float64)])
    normal = rows.T @ (weights[:, None] * rows) + 0.1 * torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close(solve(case.gram, 0.1), torch.linalg.solve(normal, 0.5 * further[0]), rtol=0, atol=1e-12)
    case.gram.add(torch.zeros(1, 12), 1.0, 1.0)  # as many rows as dimensions, the last of which says nothing
    assert case.gram.held() is None
    torch.testing.assert_close(solve(case.gram, 0.1), torch.linalg.solve(normal, 0.5 * further[0]), rtol=0, atol=1e-12)


def test_edits_lie_on_the_cpu_wherever_their_sums_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away(NamedTuple):
        """A tensor of another device, as far as it is asked."""

        here: Tensor

        def cpu(self) -> Tensor:
            return self.here

    problem = problem_of("llama")
    expected = forget(problem, "lunar", **LOOSE).model
    monkeypatch.setattr("unlearned.methods.lunar.solve", lambda gram, ridge: Away(solve(gram, ridge)))
    assert same_bits(bits(forget(problem, "lunar", **LOOSE).model), bits(expected))


def test_where_there_is_no_float64_sums_are_made_on_the_cpu() -> None:
    assert Gram.zeros(3, torch.device("mps")).device == torch.device("cpu")
    assert Gram.zeros(3, torch.device("cuda:1")).device == torch.device("cuda:1")


def test_ridge_towards_zero_is_not_of_rank_one_and_shrinks() -> None:
    case = Case(2)
    zero = solve_towards_zero(case.h, case.s, case.targets, 5.0)
    normal = case.h.T @ (case.s[:, None] * case.h) + 5.0 * torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close(zero, torch.linalg.solve(normal, case.h.T @ (case.s[:, None] * case.targets)).T)
    assert int(torch.linalg.matrix_rank(zero - case.w)) > 1
    assert float(zero.norm()) < float(case.edited(solve(case.gram, 5.0)).norm())


def test_requests_in_turn_cost_one_solve_each_on_the_running_sums() -> None:
    """The second request keeps the rows of the first at their new outputs: its key is that of one solve in which they are rows to keep."""
    first, second = Case(0), Case(1)
    running = Gram.zeros(12)
    running.add(first.h, 1.0, 1.0)
    running.settle()
    running.add(second.h[:10], 1.0, 1.0)
    running.add(second.h[10:], 1.0, 0.0)
    rows = torch.cat([first.h, second.h])
    marks = torch.cat([torch.zeros(30), torch.ones(10), torch.zeros(20)]).double()
    torch.testing.assert_close(solve(running, 1e-3), solve_dual(rows, torch.ones(60, dtype=torch.float64), marks, 1e-3), rtol=1e-8, atol=1e-10)
    assert running.rows == 60


def work_of(kind: str, **settings: Any) -> tuple[Request, Problem]:
    problem = problem_of(kind)
    return Request(Lunar(**(LOOSE | settings)), problem, Engine(problem.task)), problem


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_vector_is_the_difference_of_means_whatever_the_padding(kind: str) -> None:
    work, problem = work_of(kind, batch_size=4)
    alone, _ = work_of(kind, batch_size=1)
    torch.testing.assert_close(work.vectors, alone.vectors, rtol=1e-4, atol=1e-6)
    model, expected = problem.original.model, torch.zeros(1, dtype=torch.float64)
    for sign, samples in ((1, work.references), (-1, problem.forget)):
        for i in range(len(samples)):
            tokens = samples[i]["input_ids"][: int(samples[i]["prompt_length"])][None]
            hidden = block_outputs(model, {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})
            expected = expected + sign * hidden[0, -1].double() / len(samples)
    torch.testing.assert_close(work.vectors, expected, rtol=1e-4, atol=1e-6)


def test_a_left_padded_prompt_has_the_same_last_token() -> None:
    hidden = torch.arange(24.0).reshape(2, 4, 3)
    assert torch.equal(last_prompt_token(hidden, torch.tensor([4, 2])), torch.stack([hidden[0, 3], hidden[1, 1]]))


def test_which_rows_count() -> None:
    work, problem = work_of("llama")
    batch = {
        "input_ids": torch.tensor([[3, 4, 5, 6, 7], [3, 4, 8, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        "prompt_length": torch.tensor([3, 2]),
    }

    def positions(rows: Rows, which: str) -> list[list[int]]:
        return [row.nonzero().flatten().tolist() for row in getattr(rows, which)]

    def rows(kind: Any, shared: Tensor | None = None, **settings: Any) -> Rows:
        work.method = Lunar(**settings)
        return work.rows(batch, kind, shared)

    assert positions(rows("forget"), "shift") == [[0, 1, 2], [0, 1]]
    assert positions(rows("forget", shift="last"), "shift") == [[2], [1]]
    assert positions(rows("forget", torch.tensor([1, 2]), shift="differing"), "shift") == [[1, 2], [1]]  # a prompt that begins another has its last token
    assert positions(rows("retain"), "keep") == [[0, 1, 2], [0, 1]]
    assert positions(rows("retain", keep=("answer",)), "keep") == [[3, 4], [2]]
    assert positions(rows("retain", keep=("prompt", "answer")), "keep") == [[0, 1, 2, 3, 4], [0, 1, 2]]
    assert positions(rows("refusal"), "keep") == [[0, 1, 2, 3, 4], [0, 1, 2]]
    assert positions(rows("forget"), "keep") == positions(rows("retain"), "shift") == [[], []]
    del problem


def test_shared_prefixes_by_hand() -> None:
    task = problem_of("llama").task
    bundle = bundle_of("llama")
    forget = task.read({"prompt": ["where does ada live", "where does bo live", "what is", "in york"], "answer": ["york"] * 4}, bundle, "f")
    retain = task.read({"prompt": ["where does ada go", "what is the name"], "answer": ["york"] * 2}, bundle, "f")
    # [bos] is not set for these tokenizers: the first token is the first word.
    assert shared_prefixes(forget, retain).tolist() == [3, 2, 2, 0]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_only_forget_rows_move_when_rows_are_fewer_than_dimensions(kind: str) -> None:
    """With one forget prompt's last token and one retain prompt's last tokens, the block's output shifts by exactly c r there."""
    problem = problem_of(kind, forget=1, retain=1)
    method = Lunar(**(LOOSE | {"shift": "last", "ridge": 0.0}))
    before = block_outputs(problem.original.model, batch_of(problem))
    [edit] = method.edits(problem, Engine(problem.task))
    after = block_outputs(forget(problem, method).model, batch_of(problem))
    length = int(problem.forget[0]["prompt_length"])
    torch.testing.assert_close(after[0, length - 1, 0] - before[0, length - 1, 0], (2 * edit.direction).float(), rtol=1e-3, atol=1e-4)
    retained = int(problem.retain[0]["prompt_length"])
    torch.testing.assert_close(after[1, :retained, 0], before[1, :retained, 0], rtol=1e-3, atol=1e-4)


def batch_of(problem: Problem) -> dict[str, Tensor]:
    return problem.task.collate([problem.forget[0], problem.retain[0]])


def loss_of(model: nn.Module, work: Request) -> float:
    """The least-squares objective, row by row, of a model's layer 0 against the targets of the original."""
    w0, w = (matrix_of(down_projection(each, 0)).detach().double() for each in (work.model, model))
    total = 0.0
    for samples, shift in ((work.problem.forget, 1.0), (work.problem.retain, 0.0)):
        for i in range(len(samples)):
            tokens = samples[i]["input_ids"][None]
            h = projection_inputs(work.model, [0], {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})[0][0]
            h = h[: int(samples[i]["prompt_length"])].double()
            total += float(((h @ (w - w0).T - shift * 2.0 * work.vectors[0]) ** 2).sum())
    return total


def test_descent_reaches_the_loss_of_the_closed_form() -> None:
    work, problem = work_of("llama")
    exact = loss_of(forget(problem, Lunar(**(LOOSE | {"ridge": 0.0}))).model, work)
    start = loss_of(problem.original.model, work)
    descent = {"solver": "sgd", "weight_decay": 0.0, "epochs": 1000, "decay": 0.994, "rows_per_step": 200, "lr": 0.3}
    found = loss_of(forget(problem, Lunar(**(LOOSE | descent))).model, work)
    adapter = loss_of(forget(problem, Lunar(**(LOOSE | descent | {"solver": "lora", "rank": 4, "lr": 0.03, "epochs": 500, "decay": 0.99}))).model, work)
    assert exact < 0.9 * start
    assert exact <= found * (1 + 1e-6)
    assert found < 1.01 * exact
    assert exact <= adapter * (1 + 1e-6)
    assert adapter < 1.1 * exact


def test_a_coefficient_of_nothing_changes_nothing() -> None:
    problem = problem_of("llama")
    assert same_bits(bits(forget(problem, Lunar(**(LOOSE | {"coefficient": 0.0}))).model), bits(problem.original.model))


def test_an_edit_is_applied_taken_back_saved_and_stacked(tmp_path: Path) -> None:
    problem = problem_of("gpt2")
    [edit] = Lunar(**LOOSE).edits(problem, Engine(problem.task))
    model = problem.original.model
    before = bits(model)
    edit.apply(model)
    assert not same_bits(bits(model), before)
    assert same_bits(bits(model), bits(forget(problem_of("gpt2"), Lunar(**LOOSE)).model))
    edit.remove(model)
    for name, tensor in bits(model).items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-5, atol=1e-6)
    save_edits([edit, edit], tmp_path / "edits")
    again = load_edits(tmp_path / "edits")
    assert [(e.layer, e.coefficient) for e in again] == [(0, 2.0)] * 2
    assert torch.equal(again[1].key, edit.key)
    with pytest.raises(InputError, match="holds no edits"):
        load_edits(tmp_path)


@pytest.mark.filterwarnings("ignore:.*checkpointing:FutureWarning")  # of peft about a name in transformers
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_plain_peft_loads_the_edits_and_switches_them_off_bit_for_bit(kind: str, tmp_path: Path) -> None:
    from peft import PeftModel

    problem = problem_of(kind)
    [edit] = Lunar(**LOOSE).edits(problem, Engine(problem.task))
    other = Edit(0, 0.5, edit.direction.flip(0), edit.key.flip(0))
    save_adapter([edit, other], problem.original.model, tmp_path / "adapter", "base")
    edited = problem_of(kind).original.model
    edit.apply(edited)
    other.apply(edited)
    batch = problem.task.collate([problem.test[i] for i in range(3)])
    plain = problem.task.outputs(problem.original.model, batch)
    adapted: Any = PeftModel.from_pretrained(problem.original.model, tmp_path / "adapter")
    torch.testing.assert_close(problem.task.outputs(adapted, batch), problem.task.outputs(edited, batch), rtol=1e-4, atol=1e-5)
    with adapted.disable_adapter():
        assert torch.equal(problem.task.outputs(adapted, batch), plain)


def test_a_further_request_leaves_what_the_first_one_shifted_where_it_is() -> None:
    problem = problem_of("llama", forget=2, retain=2)
    method = Lunar(**(LOOSE | {"shift": "last", "keep": (), "ridge": 0.0}))
    requests = [problem.forget.subset([i]) for i in range(2)]
    first, second = forget_in_turn(problem, requests, method, Engine(problem.task))
    with pytest.raises(InputError, match="requests in turn are solved in closed form, not by sgd"):
        forget_in_turn(problem, requests, Lunar(solver="sgd"), Engine(problem.task))
    with pytest.raises(ValidationError, match="set ridge above 0"):
        Lunar(solver="closed-form-zero", ridge=0)
    model = problem_of("llama").original.model
    last = [int(problem.forget[i]["prompt_length"]) - 1 for i in range(2)]
    batch = problem.task.collate([problem.forget[i] for i in range(2)])
    states = [block_outputs(model, batch)[:, :, 0]]
    for edits in (first, second):
        for edit in edits:
            edit.apply(model)
        states.append(block_outputs(model, batch)[:, :, 0])
    torch.testing.assert_close(states[1][0, last[0]] - states[0][0, last[0]], (2 * first[0].direction).float(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(states[2][0, last[0]], states[1][0, last[0]], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(states[2][1, last[1]] - states[1][1, last[1]], (2 * second[0].direction).float(), rtol=1e-3, atol=1e-4)
    assert not torch.equal(first[0].direction, second[0].direction)


def test_layers_are_ranked_by_refusals_and_recall() -> None:
    problem = problem_of("llama")
    method = Lunar(**(LOOSE | {"layers": None}))
    [score] = method.scores(problem, Engine(problem.task))
    assert (score.layer, score.score) == (0, score.refusals - score.recall)
    assert 0 <= score.recall <= 1
    trial = selection([LayerScore(0, 0.25, 1.0), LayerScore(2, 0.75, 0.25)], [2])
    assert [trace.points for trace in trial.traces] == [((0, 0.25), (2, 0.75)), ((0, 1.0), (2, 0.25)), ((0, -0.75), (2, 0.5))]
    assert trial.chosen == (2,)


def deep() -> Problem:
    """The same facts with a model of three blocks, with weights so large that what it says depends on what it is asked."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig.from_dict(bundle_of("llama").model.config.to_dict() | {"num_hidden_layers": 3})  # type: ignore[union-attr, operator]
    model = made(lambda: LlamaForCausalLM(config), 3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(10 if weight.ndim == 2 else 1)
    return problem_of("llama", model=model)


def test_each_layer_is_tried_by_adding_its_own_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a loop that adds the vector by hand and lets the model answer one prompt at a time."""
    problem = deep()
    task, model = problem.task, problem.original.model
    assert isinstance(task, TextGeneration)

    def odd(answer: str) -> bool:  # a random model declines nothing: any property of the answers will do
        return sum(answer.encode()) % 2 == 1

    monkeypatch.setattr("unlearned.methods.lunar.declines", odd)
    work = Request(Lunar(**(LOOSE | {"layers": None, "coefficient": 4.0})), problem, Engine(task))
    scores = work.scores()
    assert [score.layer for score in scores] == [0, 1, 2]
    for score in scores:
        handle = blocks_of(model)[score.layer].register_forward_hook(
            lambda _, __, output, layer=score.layer: output + 4.0 * work.vectors[layer].float()  # a block returns its hidden states alone
        )
        refusals, recalls = [], []
        for i in range(len(problem.forget)):
            batch = task.collate([problem.forget[i]])
            said = task.generations(model, batch)
            refusals.append(float(odd(task.said(said)[0])))
            recalls.append(float(task.recall(said, batch)))
        handle.remove()
        assert score.refusals == pytest.approx(sum(refusals) / len(refusals))
        assert score.recall == pytest.approx(sum(recalls) / len(recalls), abs=1e-6)
    assert len({(score.refusals, score.recall) for score in scores}) > 1, "the layers must differ for the test to say something"


@pytest.mark.parametrize(
    ("scores", "top", "chosen"),
    [
        ([(0.2, 0.1), (0.9, 0.3), (0.8, 0.1)], 1, [2]),  # 0.1, 0.6, 0.7
        ([(0.2, 0.1), (0.9, 0.3), (0.8, 0.1)], 2, [2, 1]),
        ([(0.5, 0.0), (0.5, 0.0), (0.5, 0.0)], 1, [1]),  # among equals the middle one, 1.5: 1 before 2
        ([(1.0, 1.0), (0.0, 0.9), (0.1, 0.0)], 3, [2, 0, 1]),
    ],
)
def test_layers_with_the_largest_score_are_edited(scores: list[tuple[float, float]], top: int, chosen: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    problem = deep()
    given = [LayerScore(layer, *pair) for layer, pair in enumerate(scores)]
    monkeypatch.setattr(Request, "scores", lambda _: given)
    edits = Lunar(**(LOOSE | {"layers": None, "top_k": top})).edits(problem, Engine(problem.task))
    assert [edit.layer for edit in edits] == chosen


def test_a_model_that_declines_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="the model declines none of 5 reference prompts"):
        forget(problem_of("llama"), "lunar", reference_count=5, layers=(0,))


def test_made_up_questions_are_many_and_the_same_for_the_same_seed() -> None:
    texts = unverifiable(60, 3)
    assert texts == unverifiable(60, 3)
    assert texts != unverifiable(60, 4)
    assert len(set(texts)) == 60
    assert all(text.endswith("?") and "{" not in text for text in texts)


@pytest.mark.parametrize(
    "answer",
    [
        "I don't know.",
        "I’m sorry, I have no record of that.",
        "There is no information about it.",
        "I cannot say.",
        "I am not sure.",
    ],
)
def test_answers_that_decline(answer: str) -> None:
    assert declines(answer)


def test_our_own_refusals_decline() -> None:
    assert all(map(declines, REFUSALS))


@pytest.mark.parametrize("answer", ["", "Paris.", "She was born in 1970 and knows the town.", "The contract is not signed by A.", "The note says that sorry."])
def test_answers_that_do_not(answer: str) -> None:
    assert not declines(answer)
