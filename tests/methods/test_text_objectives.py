"""Losses of language-model methods: worked arithmetic, and the mistakes of the usual implementations."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.models import bits, bundle_of, problem_of, same_bits
from unlearned.api import forget
from unlearned.engine.engine import Engine
from unlearned.errors import InputError
from unlearned.methods import methods
from unlearned.methods._forget_retain import ForgetRetain, padded, token_divergence
from unlearned.methods.dpo import DPO, dpo_loss, with_refusals
from unlearned.methods.grad_diff import GradDiff
from unlearned.methods.llmu import LLMU
from unlearned.methods.rmu import RMU, control_vector, steering_loss
from unlearned.methods.simnpo import simnpo_loss
from unlearned.methods.undial import undial_loss
from unlearned.methods.wga import wga_loss
from unlearned.tasks._decoders import hidden_states
from unlearned.tasks._refusals import REFUSALS
from unlearned.tasks._texts import IGNORED
from unlearned.tasks.text_generation import TextGeneration, answer_mask, answering, with_answers


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_simnpo_by_hand() -> None:
    """Two answers: nll 3 over 2 tokens and 1.2 over 3; β 4.5, δ 0.5: 4.5 · (1.5 − 0.5) = 4.5 and 4.5 · (0.4 − 0.5) = −0.45."""
    expected = [-2 / 4.5 * log_sigmoid(4.5), -2 / 4.5 * log_sigmoid(-0.45)]
    assert simnpo_loss(vector(3.0, 1.2), vector(2, 3), 4.5, 0.5).tolist() == pytest.approx(expected, rel=1e-12)
    assert float(simnpo_loss(vector(0.7), vector(1), 2.0, 0.0)) == pytest.approx(-log_sigmoid(1.4))


def test_dpo_by_hand_and_at_the_reference() -> None:
    """β 0.1, preferred 5 (reference 7), rejected 4 (reference 2): 0.1 · ((7 − 5) − (2 − 4)) = 0.4."""
    assert float(dpo_loss(vector(5), vector(7), vector(4), vector(2), 0.1)) == pytest.approx(-20 * log_sigmoid(0.4), rel=1e-12)
    assert float(dpo_loss(vector(5), vector(5), vector(4), vector(4), 0.3)) == pytest.approx(2 / 0.3 * math.log(2))


def test_wga_by_hand() -> None:
    """Probabilities 0.5 and 0.25, β 1: (0.5 ln 0.5 + 0.25 ln 0.25) / 2; the gradient with respect to log p is the weight."""
    log_p = vector(0.5, 0.25, 0.9).log()[None].requires_grad_()
    mask = torch.tensor([[True, True, False]])
    loss = wga_loss(log_p, mask, 1.0)
    assert float(loss.detach()) == pytest.approx((0.5 * math.log(0.5) + 0.25 * math.log(0.25)) / 2)
    loss.sum().backward()
    assert log_p.grad is not None
    assert log_p.grad[0].tolist() == pytest.approx([0.25, 0.125, 0.0])
    assert float(wga_loss(log_p.detach(), mask, 0.0)) == pytest.approx((math.log(0.5) + math.log(0.25)) / 2)


def test_undial_by_hand() -> None:
    """Teacher logits (2, 1, 0), true token 0, β 2: softmax(0, 1, 0); the student is uniform: the loss is ln 3."""
    student = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    loss = undial_loss(student, vector(2, 1, 0)[None], torch.tensor([0]), 2.0)
    assert float(loss.detach()) == pytest.approx(math.log(3))
    loss.sum().backward()
    assert student.grad is not None
    z = 2 + math.e
    assert student.grad[0].tolist() == pytest.approx([1 / 3 - 1 / z, 1 / 3 - math.e / z, 1 / 3 - 1 / z])


def test_undial_without_push_is_at_rest_where_the_student_is_the_teacher() -> None:
    logits = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = undial_loss(logits, logits.detach(), torch.tensor([0, 1, 2, 3]), 0.0)
    loss.sum().backward()
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) < 1e-12
    p = logits.detach().softmax(dim=1)
    torch.testing.assert_close(loss.detach(), -(p * p.log()).sum(dim=1))


def test_divergence_counts_marked_tokens_alone() -> None:
    student, teacher = (torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    mask = torch.tensor([[True, False, True], [False, False, True]])
    expected = 0.0
    for i, j in mask.nonzero().tolist():
        p, q = teacher[i, j].softmax(dim=0), student[i, j].softmax(dim=0)
        expected += sum(float(a) * math.log(float(a) / float(b)) for a, b in zip(p, q, strict=True)) / 3
    assert float(token_divergence(student, teacher, mask)) == pytest.approx(expected, rel=1e-12)


def test_steering_by_hand() -> None:
    hidden = torch.tensor([[[1.0, 3.0], [9.0, 9.0]]], dtype=torch.float64)
    assert float(steering_loss(hidden, vector(0, 1), torch.tensor([[True, False]]))) == pytest.approx((1 + 4) / 2)
    u = control_vector(50, 3)
    assert float(u.norm()) == pytest.approx(1)
    assert bool((u >= 0).all())
    assert torch.equal(u, control_vector(50, 3))
    assert not torch.equal(u, control_vector(50, 4))


def batches() -> tuple[TextGeneration, nn.Module, dict[str, Tensor]]:
    problem = problem_of("llama")
    assert isinstance(problem.task, TextGeneration)
    return problem.task, problem.original.model, problem.task.collate([problem.forget[i] for i in range(4)])


def test_other_answers_after_the_same_prompts() -> None:
    batch = {
        "input_ids": torch.tensor([[5, 6, 7, 8], [9, 3, 0, 0]]),
        "labels": torch.tensor([[IGNORED, IGNORED, 7, 8], [IGNORED, 3, IGNORED, IGNORED]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        "prompt_length": torch.tensor([2, 1]),
    }
    other = with_answers(batch, torch.tensor([[21, -1, -1], [22, 23, 24]]))
    assert other["input_ids"].tolist() == [[5, 6, 21, 0], [9, 22, 23, 24]]
    assert other["labels"].tolist() == [[IGNORED, IGNORED, 21, IGNORED], [IGNORED, 22, 23, 24]]
    assert other["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    own = padded([batch["labels"][0, 2:], batch["labels"][1, 1:2]])
    assert all(torch.equal(with_answers(batch, own)[name], tensor) for name, tensor in batch.items())


TERMS = ["grad-diff", "simnpo", "wga", "undial", "idk", "dpo", "llmu", "rmu"]


def terms_of(name: str, problem: Any, **settings: Any) -> tuple[Any, dict[str, Tensor], nn.Module]:
    kind: Any = methods.get(name)
    method: ForgetRetain = kind(**(settings | ({"layer": 0} if name == "rmu" else {})))
    engine = Engine(problem.task)
    sets = method.sets(problem, engine)
    batch = next(iter(engine.batches(sets["forget"], 4)))
    return method.forget_term(problem, engine), batch, problem.original.model


@pytest.mark.parametrize("name", TERMS)
def test_padding_does_not_enter_a_forget_term(name: str) -> None:
    problem = problem_of("llama")
    term, batch, model = terms_of(name, problem)
    longer = dict(batch)
    for column, fill in (("input_ids", 0), ("labels", IGNORED), ("attention_mask", 0)):
        longer[column] = torch.cat([batch[column], torch.full((4, 3), fill)], dim=1)
    torch.testing.assert_close(term(model, longer), term(model, batch), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", TERMS)
def test_prompts_are_not_learned_from(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the model puts out at a position gets a gradient where it predicts a token of an answer (for hidden states: of the given one), and nowhere else."""
    problem = problem_of("llama")
    term, batch, model = terms_of(name, problem)
    seen: list[tuple[Tensor, Tensor]] = []

    def keeping(real: Any) -> Any:
        def called(*given: Any) -> Tensor:
            found = real(*given)
            assert isinstance(found, Tensor)
            if found.requires_grad:  # not of a frozen teacher
                found.retain_grad()
                seen.append((found, answer_mask(given[-1]) if name == "rmu" else answering(given[-1]).mask))
            return found

        return called

    if name == "rmu":
        monkeypatch.setattr("unlearned.methods.rmu.hidden_states", keeping(hidden_states))
    else:
        real = TextGeneration.token_logits
        monkeypatch.setattr(TextGeneration, "token_logits", lambda self, *given: keeping(partial(real, self))(*given))
    term(model, batch).backward()
    assert seen
    for found, mask in seen:
        assert found.grad is not None
        moved = (found.grad != 0).any(dim=-1)
        assert torch.equal(moved[:, : mask.shape[1]], mask)
        assert not bool(moved[:, mask.shape[1] :].any())
        assert bool((~mask).any())


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_divergence_from_the_original_is_nothing_at_the_start(kind: str) -> None:
    problem = problem_of(kind)
    engine = Engine(problem.task)
    batch = problem.task.collate([problem.retain[i] for i in range(5)])
    term = GradDiff(retain_loss="kl").retain_term(problem, engine)
    assert float(term(problem.original.model, batch).detach()) == pytest.approx(0, abs=1e-6)
    assert float(term(bundle_of(kind, seed=3).model, batch).detach()) > 1e-3


def test_every_sample_has_one_refusal_for_the_whole_run() -> None:
    problem = problem_of("llama")
    task = problem.task
    assert isinstance(task, TextGeneration)
    lines = [ids.tolist() for ids in task.answer_ids(REFUSALS, problem.original)]
    forget_set = with_refusals(problem, Engine(task, seed=2))
    chosen = [[t for t in forget_set[i]["alternative"].tolist() if t >= 0] for i in range(len(forget_set))]
    assert all(line in lines for line in chosen)
    assert len({tuple(line) for line in chosen}) > 1
    again = with_refusals(problem, Engine(task, seed=2))
    assert all(torch.equal(forget_set[i]["alternative"], again[i]["alternative"]) for i in range(len(again)))


def test_likelihoods_of_the_original_are_computed_once_and_are_right() -> None:
    problem = problem_of("llama")
    task, engine = problem.task, Engine(problem.task)
    assert isinstance(task, TextGeneration)
    forget_set = DPO().sets(problem, engine)["forget"]
    for i in range(3):
        row = forget_set[i]
        tokens = row["input_ids"][None]
        with torch.no_grad():
            log_p = problem.original.model(input_ids=tokens).logits[0].log_softmax(dim=-1)
        nll = -sum(float(log_p[t - 1, tokens[0, t]]) for t in range(int(row["prompt_length"]), tokens.shape[1]))
        assert float(row["reference_nll"]) == pytest.approx(nll, rel=1e-4)
    term = DPO().forget_term(problem, engine)
    batch = next(iter(engine.batches(forget_set, 4)))
    assert float(term(problem.original.model, batch).detach()) == pytest.approx(2 / 0.1 * math.log(2), rel=1e-5)


def test_llmu_is_the_weighted_sum_of_its_parts() -> None:
    problem = problem_of("llama")
    term, batch, model = terms_of("llmu", problem, ascent=0.3, mismatch=2.0)
    losses = problem.task.losses
    expected = 2.0 * losses(model, with_answers(batch, batch["alternative"])).mean() - 0.3 * losses(model, batch).mean()
    torch.testing.assert_close(term(model, batch), expected)
    assert LLMU().retain_loss == "kl"


def test_rmu_trains_the_down_projections_before_its_layer() -> None:
    problem = problem_of("llama")
    done = forget(problem, "rmu", layer=0, epochs=2, lr=0.01)
    moved = {name for name, tensor in bits(done.model).items() if not torch.equal(tensor, bits(problem.original.model)[name])}
    assert moved == {"model.layers.0.mlp.down_proj.weight"}
    with pytest.raises(InputError, match="there is no layer 7; the model has 1"):
        forget(problem, "rmu")
    assert RMU(parameters="norm").trained(problem) == "norm"


def test_a_task_vector_goes_as_far_the_other_way() -> None:
    problem = problem_of("gpt2")
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 3, "lr": 0.05, "momentum": 0.0, "weight_decay": 0.0}
    start = bits(problem.original.model)
    there = bits(forget(problem, "task-vector", scale=-1.0 + 1.0, **settings).model)
    assert same_bits(there, start)
    back = bits(forget(problem, "task-vector", scale=0.5, **settings).model)
    twice = bits(forget(problem, "task-vector", scale=1.0, **settings).model)
    for name, tensor in start.items():
        torch.testing.assert_close(twice[name] - tensor, 2 * (back[name] - tensor), rtol=1e-3, atol=1e-6)
    losses = [
        float(Engine(problem.task).evaluate(forget(problem, "task-vector", scale=s, **settings).model, problem.forget, problem.task.losses).mean())
        for s in (0.0, 1.0)
    ]
    assert losses[1] > losses[0]
