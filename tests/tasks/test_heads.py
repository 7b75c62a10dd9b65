from __future__ import annotations

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


def test_tasks_that_name_none_say_so() -> None:
    batch, model = {"x": torch.zeros(1)}, bundle_of("unet").model
    for ask in (task_of("image-generation").constraints, task_of("image-generation").features):
        with pytest.raises(NotImplementedError, match="image-generation"):
            ask(model, batch)
