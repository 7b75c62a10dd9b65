from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.models import bundle_of, problem_of, task_of
from unlearned.errors import InputError
from unlearned.tasks._heads import head_of

TASK = task_of("image-classification")


@pytest.mark.parametrize("kind", ["plain", "linear", "resnet", "vit"])
def test_logits_are_a_linear_function_of_the_features(kind: str) -> None:
    problem = problem_of(kind)
    model = problem.original.model
    batch = TASK.collate([problem.test[i] for i in range(5)])
    name, layer, features = head_of(model, batch["pixel_values"])
    assert dict(model.named_modules())[name] is layer
    torch.testing.assert_close(features @ layer.weight.T + layer.bias, TASK.outputs(model, batch))
    assert torch.equal(TASK.features(model, batch), features)
    assert not layer._forward_hooks


def test_a_model_that_ends_otherwise_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(dim=1))
    with pytest.raises(InputError, match="not the output of a linear layer"):
        head_of(model, torch.rand(2, 1, 8, 8))


def test_what_must_be_kept_is_the_largest_logit() -> None:
    problem = problem_of("linear")
    batch = TASK.collate([problem.test[i] for i in range(4)])
    kept = TASK.constraints(problem.original.model, batch)
    logits = TASK.outputs(problem.original.model, batch)
    assert kept.shape == (4, 1)
    assert kept[:, 0].tolist() == [max(row) for row in logits.tolist()]


def test_what_must_be_kept_of_a_text_is_the_sum_of_its_answers_logits() -> None:
    problem = problem_of("gpt2")
    batch = problem.task.collate([problem.test[i] for i in range(5)])
    model = problem.original.model
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.detach()
    for i, kept in enumerate(problem.task.constraints(model, batch).detach()):
        answer = [(t, int(token)) for t, token in enumerate(batch["labels"][i]) if token != -100]
        assert kept.shape == (1,)
        assert float(kept) == pytest.approx(sum(float(logits[i, t - 1, token]) for t, token in answer), rel=1e-5)


def test_an_answer_known_by_heart_has_a_gradient_in_what_is_kept_but_none_in_its_likelihood() -> None:
    problem = problem_of("gpt2")
    batch = problem.task.collate([problem.test[0]])
    model: Any = problem.original.model
    with torch.no_grad():
        model.lm_head.weight.mul_(1e4)  # sure of whatever it says, and it is asked for that
        said = model(input_ids=batch["input_ids"]).logits.argmax(dim=2)
    batch["labels"] = torch.where(batch["labels"] == -100, -100, said.roll(1, dims=1))
    sizes = []
    for function in (problem.task.constraints, problem.task.losses):
        gradients = torch.autograd.grad(function(model, batch).sum(), list(model.parameters()))
        sizes.append(max(float(gradient.abs().max()) for gradient in gradients))
    assert sizes[0] > 1
    assert sizes[1] < 1e-3


def test_tasks_that_name_none_say_so() -> None:
    batch, model = {"x": torch.zeros(1)}, bundle_of("unet").model
    for ask in (task_of("image-generation").constraints, task_of("image-generation").features):
        with pytest.raises(NotImplementedError, match="image-generation"):
            ask(model, batch)
