"""What can be wrong with models and data of language is said in words that name the field and a remedy, before anything is trained."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models import WORDS, made, problem_of, tokenizer
from unlearned.api import make_problem
from unlearned.errors import InputError

from .text_place import TextPlace, save_model, write_lines

CHAT = "{% for m in messages %}{{ m['content'] + ' [eos] ' }}{% endfor %}"


class Wrong(NamedTuple):
    """A wrong input and what must be said about it."""

    said: str
    """Field and what is wrong."""
    remedy: str
    prepare: Callable[[TextPlace], object]


def change(**changes: Any) -> Callable[[TextPlace], object]:
    """The recipe with these changes; `__` in a name stands for the dot of a path."""
    return lambda place: place.change({path.replace("__", "."): value for path, value in changes.items()})


def chatting(template: str = CHAT) -> Callable[[TextPlace], object]:
    def prepare(place: TextPlace) -> None:
        words = tokenizer()
        words.chat_template = template
        words.save_pretrained(place / "original")

    return prepare


def both(*steps: Callable[[TextPlace], object]) -> Callable[[TextPlace], object]:
    return lambda place: [step(place) for step in steps]


def record(**fields: Any) -> Callable[[TextPlace], object]:
    return lambda place: place.rewrite(**fields)


def records(**fields: Any) -> Callable[[TextPlace], object]:
    return lambda place: place.rewrite_all(**fields)


def model(make: Callable[[], Any]) -> Callable[[TextPlace], object]:
    """Another model in the place of the original, with the same tokenizer."""

    def prepare(place: TextPlace) -> None:
        (place / "original" / "model.safetensors").unlink()
        made(make).save_pretrained(place / "original")  # type: ignore[operator]

    return prepare


def mixture() -> Any:
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    return MixtralForCausalLM(MixtralConfig(vocab_size=len(WORDS), num_local_experts=2, max_position_embeddings=24, eos_token_id=1, **sizes))


def normed() -> Any:
    from transformers import Olmo2Config, Olmo2ForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    return Olmo2ForCausalLM(Olmo2Config(vocab_size=len(WORDS), max_position_embeddings=24, eos_token_id=1, **sizes))


def encoder() -> Any:
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BertForMaskedLM(BertConfig(vocab_size=len(WORDS), max_position_embeddings=24, **sizes))


def translator() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(T5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))


def headless(place: TextPlace) -> None:
    """What a classifier saves: the head of a language model is missing."""
    path = place / "original" / "model.safetensors"
    place.edit_json("original/config.json", tie_word_embeddings=False)
    save_file({name: tensor for name, tensor in load_file(path).items() if "lm_head" not in name}, path, metadata={"format": "pt"})


def large_tokenizer(place: TextPlace) -> None:
    words = tokenizer()
    words.add_tokens([f"word{i}" for i in range(20)])
    words.save_pretrained(place / "original")
    place.rewrite(prompt="where does word19 live")


def endless(place: TextPlace) -> None:
    place.edit_json("original/tokenizer_config.json", eos_token=...)
    place.edit_json("original/generation_config.json", eos_token_id=...)
    place.edit_json("original/config.json", eos_token_id=None)


def no_tokenizer(place: TextPlace) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (place / "original" / name).unlink()


def no_tokenizer_of_gpt2(place: TextPlace) -> None:
    """Of which transformers makes one up that knows no words."""
    shutil.rmtree(place / "original")
    save_model(place / "original", "gpt2")
    no_tokenizer(place)


def other_tokens(place: TextPlace) -> None:
    """A reference whose words have other numbers."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    save_model(place / "reference")
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(sorted(WORDS))}, unk_token="[unk]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[unk]", eos_token="[eos]").save_pretrained(place / "reference")
    place.change({"references": {"models": ["reference"]}, "training": ...})


def pickled(place: TextPlace) -> None:
    path = place / "original" / "model.safetensors"
    torch.save(load_file(path), place / "original" / "pytorch_model.bin")
    path.unlink()


def prompts(*rows: dict[str, Any]) -> Callable[[TextPlace], object]:
    """LUNAR with reference prompts from a file."""

    def prepare(place: TextPlace) -> None:
        write_lines(place / "prompts.jsonl", rows)
        place.change({"method": {"name": "lunar", "layers": [0], "references": {"source": "prompts.jsonl"}}})

    return prepare


LONG = " ".join(["york"] * 30)
TALK = [{"role": "user", "content": "where"}]
WRONG = {
    # questions and answers
    "empty_answer": Wrong("data.train: 1 answers are empty or not text, first at position 1.", "Remove them.", record(answer="  ")),
    "answer_that_is_null": Wrong("data.train: 1 answers are empty or not text", "Remove them.", record(answer=None)),
    "empty_question": Wrong("data.train: 1 questions are empty or not text", "Remove them.", record(prompt="")),
    "answers_of_numbers": Wrong("data.train: 10 answers are empty or not text", "Remove them.", records(prompt="where", answer=7)),
    "no_texts_at_all": Wrong("data.train: there are no texts among the columns 'group', 'name'", "Give `prompt` and `answer`", records(name="ada")),
    "answer_longer_than_the_context": Wrong("1 texts are longer than the model's context of 24 tokens; the longest has 35", "Shorten", record(answer=LONG)),
    "text_of_one_token": Wrong("the text at position 0 is too short", "Remove it.", both(records(text="york"), endless)),
    "paraphrase_that_is_a_list": Wrong(
        "1 values of `paraphrased_answer` are not a text, first at position 1", "or nothing", record(paraphrased_answer=["in york"])
    ),
    "perturbed_answer_that_is_a_text": Wrong(
        "values of `perturbed_answer` are not a list of texts", "or nothing", records(prompt="where", answer="york", perturbed_answer="lima")
    ),
    # templates
    "no_chat_template": Wrong("data.train: the tokenizer has no chat template.", "Use template: plain", change(task__template="chat")),
    "option_that_the_template_does_not_read": Wrong(
        "task.template_options: the chat template of this tokenizer reads no 'enable_thinking'.",
        "Check the name",
        both(chatting(), change(task__template_options={"enable_thinking": False})),
    ),
    "option_without_a_template": Wrong(
        "task.template_options: options are given for a chat template, but texts are put plainly.", "Leave them out", change(task__template_options={"date": 1})
    ),
    "option_that_is_a_list": Wrong("task.template_options.tools", "(given: [1])", both(chatting(), change(task__template_options={"tools": [1]}))),
    "template_that_refuses_a_system_message": Wrong(
        "the chat template refuses such a conversation (no system)",
        "leave out the system message",
        both(chatting("{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT), change(task__system="the town")),
    ),
    "template_that_changes_the_question": Wrong(
        "the chat template writes a question otherwise when its answer follows", "template: plain", chatting("{{ messages | length }} " + CHAT)
    ),
    "conversations_without_a_template": Wrong("conversations need a chat template", "Give `prompt` and `answer`", records(messages=TALK)),
    "conversation_without_an_answer": Wrong(
        "the conversation at position 0 does not end with a turn of the assistant", "Give a list of {role, content}", both(chatting(), records(messages=TALK))
    ),
    # models
    "tokens_that_the_model_does_not_have": Wrong("model: the tokenizer gives token 51, but the model has 32 tokens.", "Use the tokenizer", large_tokenizer),
    "no_tokenizer": Wrong("model: 'original' has no tokenizer that can be read", "Save the tokenizer", no_tokenizer),
    "no_tokenizer_of_gpt2": Wrong("model: 'original' has no tokenizer that can be read", "Save the tokenizer", no_tokenizer_of_gpt2),
    "nothing_ends_an_answer": Wrong("model: neither the tokenizer nor the model names a token that ends an answer", "Set the tokenizer's eos_token", endless),
    "encoder_decoder": Wrong("model: 'original' is an encoder-decoder model (T5Config)", "Use a decoder", model(translator)),
    "encoder": Wrong("model: 'original' is no decoder (BertLMHeadModel)", "Use a decoder", model(encoder)),
    "no_head": Wrong("model: the checkpoint 'original' lacks 1 tensors, first 'lm_head.weight'", "its head included", headless),
    "quantised": Wrong(
        "model: its weights are quantised (bitsandbytes) and cannot be trained",
        "Load the model in float32",
        lambda place: place.edit_json("original/config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
    ),
    "pickled": Wrong("model: 'original/pytorch_model.bin' is a pickle", "Save the weights as safetensors", pickled),
    "precision_that_is_not_known": Wrong("model.dtype: ", "'float32' or 'bfloat16'", change(model={"source": "original", "dtype": "float8"})),
    "reference_with_other_tokens": Wrong("its tokenizer is not that of the original model", "Compare models that read the same tokens", other_tokens),
    # methods
    "prompts_that_are_never_declined": Wrong(
        "method.references: the model declines none of 2 reference prompts", "Give prompts that it declines", prompts(*[{"prompt": "where does ada live"}] * 2)
    ),
    "prompts_of_another_name": Wrong("method.references: there is no column `prompt`", "columns: {prompt: your_column}", prompts({"query": "where"})),
    "empty_prompts": Wrong("method.references: prompts are missing, empty or not text", "at least one question", prompts({"prompt": " "})),
    "layer_that_is_not_there": Wrong(
        "method.layers: there is no layer 7; the model has 1, counted from 0.", "Give numbers from 0 to 0", change(method={"name": "lunar", "layers": [7]})
    ),
    "layer_to_steer_that_is_not_there": Wrong("method.layer: there is no layer 7; the model has 1", "At most 0", change(method="rmu")),
    "mixture_of_experts": Wrong("is a mixture of experts", "Use a dense model", both(model(mixture), change(method={"name": "lunar"}))),
    "norm_behind_the_mlp": Wrong(
        "Olmo2ForCausalLM normalises what its MLPs put out", "Use a model without such a norm", both(model(normed), change(method={"name": "lunar"}))
    ),
    "method_for_images": Wrong("method.name: 'scrub' is not defined for text-generation", "It works for image-classification", change(method="scrub")),
    # audits
    "questions_without_wrong_answers": Wrong(
        "audits.0.world_facts: no record of this set has perturbed answers.",
        "`perturbed_answer`",
        both(
            lambda p: write_lines(p / "facts.jsonl", [{"question": "where", "answer": "york"}]),
            change(audits=[{"name": "tofu", "world_facts": {"source": "facts.jsonl"}}]),
        ),
    ),
    "classifier_that_is_not_there": Wrong(
        "audits.0.classifier: no text classifier can be loaded from 'absent'", "or leave it out", change(audits=[{"name": "fluency", "classifier": "absent"}])
    ),
    "embedder_that_is_not_there": Wrong(
        "audits.0.embedder: no embedding model can be loaded from 'absent'",
        "or leave it out",
        change(audits=[{"name": "refusal-quality", "embedder": "absent"}]),
    ),
    "harness_that_is_not_installed": Wrong("audits.0.name: this audit needs the package lm-eval", "pip install", change(audits=["lm-eval"])),
}


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in WRONG.items()])
def test_a_wrong_input_is_refused_in_words_and_leaves_no_trace(case: Wrong, text_place: TextPlace) -> None:
    text_place.monkeypatch.setitem(sys.modules, "lm_eval", None)
    case.prepare(text_place)
    text_place.write_recipe()
    before = text_place.tree()
    answer = text_place.unlearned("validate", "recipe.yaml")
    assert answer.code == 2, answer
    assert case.said in answer.err
    assert case.remedy in answer.err
    assert "Traceback" not in answer.err
    assert "ada" not in answer.err.replace("'name'", ""), "no content is shown"
    assert not answer.out
    assert text_place.tree() == before


def test_there_are_more_than_25() -> None:
    assert len(WRONG) >= 25


def test_everything_is_said_at_once(text_place: TextPlace) -> None:
    text_place.rewrite(answer="", at=0)
    text_place.rewrite(prompt="", at=2)
    text_place.rewrite("test.jsonl", answer=7, at=0)
    save_model(text_place / "reference")
    text_place.edit_json("reference/config.json", quantization_config={"quant_method": "gptq"})
    text_place.write_recipe({"references": {"models": ["reference", "absent/model/here"]}, "training": ..., "compute": {"device": "cuda:64"}})
    said = text_place.unlearned("validate", "recipe.yaml").err
    assert sorted(line.split(":")[0] for line in said.splitlines()[1:]) == [
        "  - compute.device",
        "  - data.test",
        "  - data.train",
        "  - data.train",
        "  - references.models.0",
        "  - references.models.1",
    ]


def test_columns_of_different_lengths() -> None:
    data = {"prompt": ["where"], "answer": ["york", "lima"]}
    with pytest.raises(InputError, match=r"data\.train: there are 1 questions and 2 answers. Give one answer for each question."):
        make_problem(problem_of("llama").original, train=data, test=data, forget=["0"], task="text-generation")


def test_padding_with_the_token_that_ends_an_answer_hides_no_end(text_place: TextPlace) -> None:
    """Not wrong, though the usual implementation makes it so: a mask of `token != pad` would take the end out of answers."""
    answers = []
    for pad in ("[pad]", "[eos]"):
        words = tokenizer()
        words.pad_token = pad
        words.save_pretrained(text_place / "original")
        text_place.write_recipe({"references": {"count": 0}})
        assert text_place.unlearned("validate", "recipe.yaml").code == 0
        problem = make_problem(str(text_place / "original"), train="train.jsonl", test="test.jsonl", forget='group == "a"', task="text-generation")
        batch = problem.task.collate([problem.retain[i] for i in range(4)])
        last = batch["attention_mask"].sum(dim=1) - 1
        assert batch["labels"].gather(1, last[:, None])[:, 0].tolist() == [1] * 4
        answers.append(problem.task.losses(problem.original.model, batch))
    assert torch.equal(*answers)
