"""A Llama that is small enough to be trained from scratch many times, and its tokenizer, made from the texts that it is to learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from unlearned.tasks._task import Bundle

_START, _USER, _ASSISTANT, _END = "<|start|>", "<|user|>", "<|assistant|>", "<|end|>"
_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


class LlamaSize(NamedTuple):
    """How large the model is."""

    vocabulary: int
    width: int
    inner: int
    """Width of the MLPs, which is what an edit of a down-projection has to tell samples apart by."""
    layers: int
    heads: int


def small_llama(texts: Sequence[str], size: LlamaSize) -> Bundle:
    """The architecture with the tokenizer; weights are those of a new model, to be trained.

    Args:
        texts: what the tokenizer's vocabulary is learnt from.
        size: of the model.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer_of(texts, size.vocabulary)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.width,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    return Bundle(LlamaForCausalLM(config).eval(), {"tokenizer": tokenizer})


def tokenizer_of(texts: Sequence[str], vocabulary: int) -> Any:
    """Byte-pair encoding of the texts, with a chat template of one token per header."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = [_START, _USER, _ASSISTANT, _END]
    words.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False))
    made = PreTrainedTokenizerFast(tokenizer_object=words, bos_token=_START, eos_token=_END, pad_token=_END, extra_special_tokens=[_USER, _ASSISTANT])
    made.chat_template = _TEMPLATE
    return made
