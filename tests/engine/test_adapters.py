from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.models import bits, bundle_of, flags, layer_of, linear_network, made, problem_of, same_bits
from unlearned.api import forget
from unlearned.engine.adapters import Lora, is_adapted, merged, with_adapter, without_adapter
from unlearned.engine.engine import Engine
from unlearned.engine.settings import Compute
from unlearned.errors import InputError
from unlearned.methods.scrub import Scrub

KINDS = ["plain", "resnet", "vit", "gpt2", "llama", "unet"]


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("kind", KINDS)
def test_the_original_keeps_weights_and_flags_and_shares_its_storage(kind: str) -> None:
    original = bundle_of(kind).model
    next(original.parameters()).requires_grad_(False)
    before = bits(original), flags(original)
    adapted = with_adapter(original, Lora(rank=2), ".*")
    assert all("lora_" in name for name in trained(adapted))
    storage = {p.data_ptr() for p in original.parameters()}
    assert storage <= {p.data_ptr() for p in adapted.parameters()}
    for name, parameter in adapted.named_parameters():
        if name in trained(adapted):
            parameter.data.normal_()
    result = merged(adapted, original)
    assert (bits(original).keys(), flags(original)) == (before[0].keys(), before[1])
    assert same_bits(bits(original), before[0])
    assert type(result) is type(original)
    assert bits(result).keys() == before[0].keys()
    assert flags(result) == before[1]
    assert not same_bits(bits(result), before[0])


def test_the_update_is_the_scaled_product_of_both_factors() -> None:
    original = made(linear_network)
    adapted = with_adapter(original, Lora(rank=3, alpha=6), ".*")
    factors = dict(adapted.named_parameters())
    a, b = (next(p for name, p in factors.items() if which in name) for which in ("lora_A", "lora_B"))
    assert (a.shape, b.shape) == ((3, 64), (10, 3))
    assert not b.any()
    b.data.normal_()
    expected = layer_of(original, 1).weight + 2 * b @ a
    x = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(adapted(x), x.flatten(1) @ expected.T + layer_of(original, 1).bias)
    with without_adapter(adapted):
        torch.testing.assert_close(adapted(x), original(x))
    assert is_adapted(adapted)
    assert not is_adapted(original)
    torch.testing.assert_close(layer_of(merged(adapted, original), 1).weight, expected)


def test_tied_embeddings_stay_tied() -> None:
    original = bundle_of("llama").model
    result: Any = merged(with_adapter(original, Lora(), ".*"), original)
    assert result.lm_head.weight is result.model.embed_tokens.weight


@pytest.mark.parametrize("pattern", ["nothing", r"bias$", "^1"])
def test_without_a_layer_to_adapt(pattern: str) -> None:
    with pytest.raises(InputError, match="there is none to put an adapter beside"):
        with_adapter(bundle_of("plain").model, Lora(), pattern)


def test_the_teacher_is_the_model_with_its_adapter_switched_off() -> None:
    problem = problem_of("vit")
    engine = Engine(problem.task)
    batch = problem.task.collate([problem.test[i] for i in range(4)])
    adapted = with_adapter(problem.original.model, Lora(), ".*").train()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    expected = problem.task.outputs(problem.original.model, batch)
    assert not torch.allclose(problem.task.outputs(adapted.eval(), batch), expected)
    adapted.train()
    for method in (Scrub(lora=Lora()), Scrub()):
        said = method.original_outputs(problem, engine)(adapted, batch)
        torch.testing.assert_close(said, expected)
        assert not said.requires_grad
    assert adapted.training


@pytest.mark.parametrize("kind", ["llama", "gpt2", "vit"])
@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_recomputed_activations_give_the_same_training(kind: str, lora: dict[str, int] | None) -> None:
    problem = problem_of(kind)
    results = []
    for wanted in (False, True):
        engine = Engine(problem.task, Compute(gradient_checkpointing=wanted))
        results.append(bits(forget(problem, "fine-tune", engine, epochs=2, batch_size=8, lr=0.05, lora=lora).model))
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], rtol=1e-4, atol=1e-6)
    assert not same_bits(results[1], bits(problem.original.model))


def test_a_model_that_cannot_recompute_says_so() -> None:
    problem = problem_of("plain")
    with pytest.raises(InputError, match="Sequential does not support gradient checkpointing"):
        forget(problem, "fine-tune", Engine(problem.task, Compute(gradient_checkpointing=True)), epochs=1)


def test_attached_values_stay_with_their_samples() -> None:
    problem = problem_of("plain")
    values = torch.arange(len(problem.forget), dtype=torch.float64)
    samples = problem.forget.subset([3, 1, 5]).attach("mark", values[[3, 1, 5]])
    batches = list(Engine(problem.task).batches(samples.subset([2, 0]), 1))
    assert [float(batch["mark"]) for batch in batches] == [5, 3]
    assert torch.equal(batches[1]["pixel_values"][0], problem.forget[3]["pixel_values"])
    assert "mark" not in next(iter(Engine(problem.task).batches(problem.forget)))
