"""Tiny random models of each family: where their blocks and down-projections are, and whether an edit arrives in the residual stream."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.models import made
from unlearned.engine.adapters import Lora, with_adapter
from unlearned.errors import InputError
from unlearned.tasks._decoders import (
    block_outputs,
    blocks_of,
    changed_states,
    down_projection,
    matrix_of,
    projection_inputs,
    recomputed_alike,
    shifted,
    skipped,
    without_component,
    writes_to_the_residual,
)

SIZE = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "max_position_embeddings": 32}
GROUPED = SIZE | {"num_key_value_heads": 1}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": GROUPED,
    "Mistral": GROUPED,
    "Qwen2": GROUPED,
    "Qwen3": GROUPED | {"head_dim": 8},
    "Phi": SIZE,
    "Phi3": GROUPED | {"pad_token_id": 0},
    "GPT2": {"vocab_size": 40, "n_embd": 16, "n_inner": 24, "n_layer": 3, "n_head": 2, "n_positions": 32},
    "GPTNeoX": SIZE,
    "Olmo": GROUPED | {"pad_token_id": 0},
    "Gemma": GROUPED | {"head_dim": 8},
    "SmolLM3": GROUPED | {"pad_token_id": 0},
}
NORMALISED: dict[str, dict[str, Any]] = {"Gemma2": GROUPED | {"head_dim": 8}, "Gemma3Text": GROUPED | {"head_dim": 8}, "Olmo2": GROUPED | {"pad_token_id": 0}}
EXPERTS: dict[str, dict[str, Any]] = {
    "Mixtral": GROUPED | {"num_local_experts": 2},
    "Qwen2Moe": GROUPED | {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8},
}
HEADS = {"GPT2": "GPT2LMHeadModel", "Gemma3Text": "Gemma3ForCausalLM"}
IDS = {"input_ids": torch.tensor([[3, 7, 9, 11, 2], [5, 6, 0, 0, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])}


def model_of(family: str, settings: dict[str, Any]) -> nn.Module:
    config = getattr(transformers, f"{family}Config")(**settings)
    return made(getattr(transformers, HEADS.get(family, f"{family}ForCausalLM")), config=config)


@pytest.mark.parametrize("family", FAMILIES)
def test_families_that_can_be_edited(family: str) -> None:
    model = model_of(family, FAMILIES[family])
    assert len(blocks_of(model)) == 3
    for layer in range(3):
        assert matrix_of(down_projection(model, layer)).shape == (16, 24)
        assert writes_to_the_residual(model, layer, IDS)
    with torch.no_grad():
        before = block_outputs(model, IDS)
        h = projection_inputs(model, [1], IDS)[1]
        assert before.shape == (2, 5, 3, 16)
        assert h.shape == (2, 5, 24)
        # W + r uᵀ moves the block's output by r (u · h), at every token; blocks before it do not move.
        r, u = torch.linspace(-1, 1, 16), torch.linspace(0, 1, 24)
        matrix_of(down_projection(model, 1)).add_(torch.outer(r, u))
        after = block_outputs(model, IDS)
    torch.testing.assert_close(after[:, :, 1] - before[:, :, 1], (h @ u)[..., None] * r, rtol=1e-4, atol=1e-5)
    assert torch.equal(after[:, :, 0], before[:, :, 0])
    assert not torch.allclose(after[:, :, 2], before[:, :, 2])


@pytest.mark.parametrize("family", ["Llama", "GPT2"])
def test_a_projection_keeps_its_orientation_with_an_adapter_around_it(family: str) -> None:
    model = model_of(family, FAMILIES[family])
    adapted = with_adapter(model, Lora(rank=2), r"down_proj|mlp\.c_proj")
    assert type(down_projection(adapted, 1)) is not type(down_projection(model, 1))
    assert torch.equal(matrix_of(down_projection(adapted, 1)), matrix_of(down_projection(model, 1)))


@pytest.mark.parametrize("family", ["Llama", "GPT2", "Phi"])
def test_adding_a_vector_and_its_opposite_leaves_the_model_as_it_is(family: str) -> None:
    model = model_of(family, FAMILIES[family])
    vector = torch.linspace(-1, 1, 16)
    before = model(**IDS).logits
    with shifted(model, {1: vector}):
        there = block_outputs(model, IDS)
        with shifted(model, {1: -vector}):
            torch.testing.assert_close(model(**IDS).logits, before, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(there, block_outputs(model, IDS))
    assert torch.equal(model(**IDS).logits, before)
    last = len(blocks_of(model)) - 1
    unshifted = block_outputs(model, IDS)[:, :, last]
    with shifted(model, {last: vector}):
        seen = block_outputs(model, IDS)[:, :, last]
    torch.testing.assert_close(seen, unshifted + vector)


@pytest.mark.parametrize("family", NORMALISED)
def test_families_whose_mlp_is_normalised_are_recognised(family: str) -> None:
    assert not writes_to_the_residual(model_of(family, NORMALISED[family]), 1, IDS)


@pytest.mark.parametrize("family", ["Llama", "Phi", "Gemma2", "Gemma3Text"])
@pytest.mark.parametrize("scale", [1.0, 3000.0])
def test_neither_large_activations_nor_half_precision_mislead_the_measurement(family: str, scale: float) -> None:
    model = model_of(family, (FAMILIES | NORMALISED)[family])
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(scale)  # type: ignore[operator]
    for precise in (model, model.bfloat16()):
        assert [writes_to_the_residual(precise, layer, IDS) for layer in range(3)] == [family in FAMILIES] * 3


@pytest.mark.parametrize("family", EXPERTS)
def test_mixtures_of_experts_are_refused(family: str) -> None:
    with pytest.raises(InputError, match="is a mixture of experts"):
        down_projection(model_of(family, EXPERTS[family]), 0)


def test_layers_and_models_that_do_not_fit_are_refused() -> None:
    model = model_of("Llama", FAMILIES["Llama"])
    for layer in (-1, 3):
        with pytest.raises(InputError, match=f"there is no layer {layer}; the model has 3"):
            down_projection(model, layer)
    with pytest.raises(InputError, match="no decoder blocks that are known here"):
        blocks_of(nn.Linear(2, 2))
    down_projection(model, 1).weight = nn.Parameter(torch.zeros(16, 24, dtype=torch.int8), requires_grad=False)
    with pytest.raises(InputError, match="are quantised"):
        down_projection(model, 1)


@pytest.mark.parametrize("family", ["Llama", "GPT2", "Phi", "GPTNeoX", "Gemma2"])
def test_the_input_of_a_block_is_the_output_of_the_one_before(family: str) -> None:
    model = model_of(family, (FAMILIES | NORMALISED)[family])
    vector = torch.linspace(-1, 1, 16)
    with changed_states(model, {1: lambda hidden: hidden + vector}):
        behind = model(**IDS).logits
    with changed_states(model, {2: lambda hidden: hidden + vector}, at="input"):
        torch.testing.assert_close(model(**IDS).logits, behind)


@pytest.mark.parametrize("family", ["Llama", "GPT2", "Phi", "GPTNeoX"])
def test_a_skipped_block_might_as_well_not_be_there(family: str) -> None:
    """Against the same model with the block taken out of its list; also while it generates from its cache."""
    model: Any = model_of(family, FAMILIES[family])
    without: Any = model_of(family, FAMILIES[family])
    modules = [m for m in without.modules() if isinstance(m, nn.ModuleList) and len(m) == 3]
    del modules[0][1]
    for number, block in enumerate(modules[0]):  # a cache counts the blocks
        parts: Any = block.modules()
        for layer in parts:
            if hasattr(layer, "layer_idx"):
                layer.layer_idx = number
    without.config.num_hidden_layers -= 1
    before = model(**IDS).logits
    answers = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with skipped(model, [1]):
        torch.testing.assert_close(model(**IDS).logits, without(**IDS).logits)
        one = {name: tensor[:1] for name, tensor in IDS.items()}
        assert torch.equal(model.generate(**one, **answers), without.generate(**one, **answers))
    assert torch.equal(model(**IDS).logits, before)


def test_a_component_is_removed_once_and_for_all() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, r = (torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((2, 5, 8), (8,)))
    removed = without_component(hidden, 3 * r)
    unit = r / r.norm()
    torch.testing.assert_close(removed, hidden @ (torch.eye(8, dtype=torch.float64) - torch.outer(unit, unit)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(removed @ unit, torch.zeros(2, 5, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(without_component(removed, r), removed, rtol=0, atol=1e-12)
    torch.testing.assert_close(without_component(hidden, r, 2.5) @ unit, torch.full((2, 5), 2.5, dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.equal(without_component(hidden, torch.zeros(8, dtype=torch.float64), 2.5), hidden)


@pytest.mark.parametrize("inside", [True, False])
def test_what_is_computed_anew_is_changed_as_it_was(inside: bool) -> None:
    """With the hooks within what is computed anew, as in some versions of transformers; nested changes that do not commute; backward within them or after."""
    model = model_of("Llama", FAMILIES["Llama"]).double()
    embedded = model.get_input_embeddings()(IDS["input_ids"]).detach()  # type: ignore[operator]
    found = []
    for context_fn in (None, recomputed_alike):
        asked = embedded.clone().requires_grad_()
        with ExitStack() as stack:
            stack.enter_context(changed_states(model, {1: lambda hidden: hidden.tanh()}, at="input"))
            stack.enter_context(changed_states(model, {1: lambda hidden: 3 * hidden, 2: torch.sin}, at="input"))
            stack.enter_context(changed_states(model, {2: lambda hidden: hidden**2}))

            def run(states: Tensor) -> Tensor:
                logits: Tensor = model(inputs_embeds=states, use_cache=False).logits
                return logits

            value = (checkpoint(run, asked, use_reentrant=False, context_fn=context_fn) if context_fn else run(asked)).square().sum()
            if inside or not context_fn:
                value.backward()
        if not inside and context_fn:
            value.backward()
        assert asked.grad is not None
        found.append((value.detach(), asked.grad))
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in blocks_of(model))


def test_hooks_are_gone_after_an_error_and_gradients_flow_through_a_change() -> None:
    model = model_of("Llama", FAMILIES["Llama"])
    before = model(**IDS).logits
    delta = torch.zeros(16, requires_grad=True)
    with changed_states(model, {1: lambda hidden: hidden + delta}, at="input"):
        model(**IDS).logits.square().sum().backward()
    assert delta.grad is not None
    assert float(delta.grad.abs().sum()) > 0
    with pytest.raises(ZeroDivisionError), changed_states(model, {0: lambda hidden: hidden / (1 // 0)}), skipped(model, [1]):
        model(**IDS)
    assert torch.equal(model(**IDS).logits, before)
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in blocks_of(model))
