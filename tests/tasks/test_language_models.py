from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models import bits, bundle_of, problem_of, same_bits, tokenizer
from unlearned.api import load, make_problem
from unlearned.engine.adapters import Lora, merged, with_adapter
from unlearned.errors import InputError
from unlearned.recipe import data_source
from unlearned.tasks._task import Bundle, DataSource
from unlearned.tasks.text_generation import TextGeneration

pytestmark = pytest.mark.filterwarnings("ignore:.*checkpointing:FutureWarning")  # of peft about a name in transformers


def saved(directory: Path, kind: str = "llama") -> Path:
    directory.mkdir()
    TextGeneration().save(bundle_of(kind), directory)
    return directory


def adapter(tmp_path: Path) -> tuple[Path, Any]:
    base = bundle_of("llama").model
    adapted: Any = with_adapter(base, Lora(rank=2), ".*")
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    adapted.peft_config["default"].base_model_name_or_path = str(saved(tmp_path / "base"))
    adapted.save_pretrained(tmp_path / "adapter", safe_serialization=True)
    return tmp_path / "adapter", merged(adapted, base)


def test_an_adapter_is_loaded_with_its_base_model_and_merged(tmp_path: Path) -> None:
    directory, expected = adapter(tmp_path)
    bundle = load(str(directory), "text-generation")
    batch = problem_of("llama").task.collate([problem_of("llama").test[i] for i in range(3)])
    torch.testing.assert_close(TextGeneration().outputs(bundle.model, batch), TextGeneration().outputs(expected, batch))
    assert bits(bundle.model).keys() == bits(bundle_of("llama").model).keys()
    assert bundle.companions["tokenizer"].get_vocab() == tokenizer().get_vocab()
    assert all(parameter.requires_grad for parameter in bundle.model.parameters())


def test_an_adapter_that_does_not_fit(tmp_path: Path) -> None:
    directory, _ = adapter(tmp_path)
    described = json.loads((directory / "adapter_config.json").read_text())
    for change, message in (
        (None, "does not name its base model"),
        (str(tmp_path / "nothing"), "there is no model at"),
        (str(saved(tmp_path / "other", "gpt2")), "does not go with"),
    ):
        (directory / "adapter_config.json").write_text(json.dumps(described | {"base_model_name_or_path": change}))
        with pytest.raises(InputError, match=message):
            load(str(directory), "text-generation")
    (directory / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        load(str(directory), "text-generation")


def test_a_pickled_adapter_is_refused(tmp_path: Path) -> None:
    directory, _ = adapter(tmp_path)
    (directory / "adapter_model.safetensors").rename(directory / "adapter_model.bin")
    with pytest.raises(InputError, match="is a pickle"):
        load(str(directory), "text-generation")


def test_encoder_decoder_models_are_refused(tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is an encoder-decoder model"):
        load(str(tmp_path), "text-generation")


def test_a_gguf_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        load(str(tmp_path / "model.gguf"), "text-generation")


def test_texts_and_tokens_that_do_not_fit_the_model() -> None:
    text = {"prompt": ["where does ada live"] * 2, "answer": [" ".join(["york"] * 30), "york"]}
    with pytest.raises(InputError, match="1 texts are longer than the model's context of 24 tokens; the longest has 35"):
        make_problem(bundle_of("llama"), train=text, test=text, forget=["0"], task="text-generation")
    larger = tokenizer()
    larger.add_tokens([f"word{i}" for i in range(20)])
    data = {"prompt": ["where does word19 live"] * 2, "answer": ["york"] * 2}
    with pytest.raises(InputError, match="the tokenizer gives token"):
        make_problem(Bundle(bundle_of("llama").model, {"tokenizer": larger}), train=data, test=data, forget=["0"], task="text-generation")


def test_a_list_of_objects_is_a_table_and_its_fields_name_the_forget_set(tmp_path: Path) -> None:
    rows = [{"edge": "A_B" if i % 2 else "A_C", "question": f"where does {name} live", "answer": "in york"} for i, name in enumerate(["ada", "bo", "cy", "di"])]
    (tmp_path / "facts.json").write_text(json.dumps(rows))
    problem = make_problem(
        bundle_of("llama"), train=str(tmp_path / "facts.json"), test=str(tmp_path / "facts.json"), forget='edge == "A_B"', task="text-generation"
    )
    assert (len(problem.forget), len(problem.retain)) == (2, 2)
    task = problem.task
    assert isinstance(task, TextGeneration)
    assert task.prompts_of(DataSource(source=str(tmp_path / "facts.json")), "f")[0] == "where does ada live"


def test_configurations_of_hub_data_sets_can_be_named() -> None:
    assert data_source("owner/name@full:train") == {"source": "owner/name", "config": "full", "split": "train"}
    assert data_source("owner/name@train") == {"source": "owner/name", "split": "train"}
    assert data_source("owner/name") == {"source": "owner/name"}


def test_saved_models_load_in_plain_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    bundle = bundle_of("llama")
    again = AutoModelForCausalLM.from_pretrained(saved(tmp_path / "model"))
    assert same_bits(bits(again), bits(bundle.model))
