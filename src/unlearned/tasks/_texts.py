"""Records of text as token ids: questions with answers, conversations, plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jinja2 import TemplateError

from unlearned.data.samples import ColumnRows, Samples
from unlearned.errors import Fault, InputError
from unlearned.tasks._task import Bundle

IGNORED = -100
"""Label of tokens that do not count, as transformers has it."""
Template = Literal["auto", "chat", "plain"]
PARAPHRASED, PERTURBED = "paraphrased_answer", "perturbed_answer"
"""Columns beside `answer`: the same said otherwise, a text; and wrong answers of the same form, a list of texts. Either may be None in a record."""


class Tokens(NamedTuple):
    """One record: what the model is given, and what it must say."""

    before: list[int]
    after: list[int]


def end_tokens(bundle: Bundle) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's end of sequence, and those that the model's generation stops at."""
    configured = getattr(getattr(bundle.model, "generation_config", None), "eos_token_id", None)
    found = [bundle.companions["tokenizer"].eos_token_id, *(configured if isinstance(configured, list) else [configured])]
    return frozenset(token for token in found if token is not None)


def tokenise(columns: Mapping[str, Any], bundle: Bundle, template: Template, system: str | None, field: str) -> Samples:
    """Rows of token ids.

    Columns `prompt` and `answer`: put into the chat template as a user's and an assistant's turn (`template` chat, or auto where the tokenizer has one), or
    joined by a space and ended by the end-of-sequence token. Column `messages`: lists of {role, content}, of which the last is the answer. Column `text`: all
    of it counts. Columns `paraphrased_answer` and `perturbed_answer` stay in the rows as text: no batch has them, `TextGeneration.answered` reads them.

    Raises:
        InputError: if there is none of these columns, a text is empty or a single token, or a chat template is needed and there is none.
    """
    tokenizer, end = bundle.companions["tokenizer"], end_tokens(bundle)
    chat = template == "chat" or (template == "auto" and bool(getattr(tokenizer, "chat_template", None)))
    if chat and not getattr(tokenizer, "chat_template", None):
        raise InputError(Fault(field, "the tokenizer has no chat template.", "Use template: plain, or a tokenizer of a chat model."))
    if "messages" in columns:
        if not chat:
            raise InputError(
                Fault(field, "conversations need a chat template, which this tokenizer does not have or `plain` forbids.", "Give `prompt` and `answer`.")
            )
        records = [_conversation(tokenizer, end, messages, i, field) for i, messages in enumerate(columns["messages"])]
    elif "answer" in columns and "prompt" in columns:
        pairs = list(zip(columns["prompt"], columns["answer"], strict=True))
        _refuse_empty(columns["answer"], "answers", field)
        _refuse_empty(columns["prompt"], "questions", field)
        first = [] if system is None else [{"role": "system", "content": system}]
        records = [
            _turns(tokenizer, end, [*first, {"role": "user", "content": prompt}], answer, field) if chat else _joined(tokenizer, prompt, answer)
            for prompt, answer in pairs
        ]
    elif "text" in columns:
        _refuse_empty(columns["text"], "texts", field)
        records = [_plain(tokenizer, text) for text in columns["text"]]
    else:
        raise InputError(
            Fault(field, f"there are no texts among the columns {', '.join(map(repr, columns))}.", "Give `prompt` and `answer`, `messages`, or `text`.")
        )
    short = [i for i, (before, after) in enumerate(records) if not after or len(before + after) < 2]
    if short:  # its loss would be a mean over nothing
        raise InputError(Fault(field, f"the text at position {short[0]} is too short: no token of it follows another.", "Remove it."))
    rows: dict[str, list[Any]] = {
        "input_ids": [torch.tensor(before + after) for before, after in records],
        "labels": [torch.tensor([IGNORED] * len(before) + after) for before, after in records],
        # A text without a question is continued from its middle when the model is asked for it.
        "prompt_length": [torch.tensor(len(before) if "text" not in columns else (len(before) + len(after)) // 2) for before, after in records],
    }
    rows |= {name: _alternatives(columns[name], name, field) for name in (PARAPHRASED, PERTURBED) if name in columns}
    ids = [str(i) for i in columns["id"]] if "id" in columns else None
    return Samples(ColumnRows(rows), ids, {k: list(v) for k, v in columns.items() if k != "id"})


def chat_prompt(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Token ids of a conversation up to and including the header of the assistant's next turn."""
    return _ids(tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=True, return_dict=False))


def plain_prompt(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids of a prompt without a template."""
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return start + _ids(tokenizer(prompt, add_special_tokens=False)["input_ids"])


def _ids(found: Any) -> list[int]:
    return [int(i) for i in found]


def _turns(tokenizer: Any, end: frozenset[int], messages: list[Mapping[str, str]], answer: str, field: str) -> Tokens:
    try:
        before = chat_prompt(tokenizer, messages)
        whole = _ids(tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": answer}], tokenize=True, return_dict=False))
    except TemplateError as error:
        what = f"the chat template refuses such a conversation ({error})."
        raise InputError(Fault(field, what, "Use template: plain, or leave out the system message.")) from error
    if whole[: len(before)] != before:
        raise InputError(Fault(field, "the chat template writes a question otherwise when its answer follows.", "Use template: plain."))
    after = whole[len(before) :]
    # Templates write a line break or the like behind the end of the turn, which no model is asked to say.
    last = next((i for i, token in enumerate(after) if token in end), len(after) - 1)
    return Tokens(before, after[: last + 1])


def _conversation(tokenizer: Any, end: frozenset[int], messages: Any, position: int, field: str) -> Tokens:
    whole = isinstance(messages, Sequence) and len(messages) > 1 and all(isinstance(m, Mapping) and {"role", "content"} <= set(m) for m in messages)
    if not whole or messages[-1]["role"] != "assistant":
        what = f"the conversation at position {position} does not end with a turn of the assistant after another turn."
        raise InputError(Fault(field, what, "Give a list of {role, content}."))
    turns = [{"role": str(m["role"]), "content": str(m["content"])} for m in messages]
    _refuse_empty([turns[-1]["content"]], "answers", field)
    return _turns(tokenizer, end, list(turns[:-1]), turns[-1]["content"], field)


def _joined(tokenizer: Any, prompt: str, answer: str) -> Tokens:
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return Tokens(plain_prompt(tokenizer, prompt), _ids(tokenizer(" " + answer, add_special_tokens=False)["input_ids"]) + end)


def _plain(tokenizer: Any, text: str) -> Tokens:
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return Tokens(plain_prompt(tokenizer, ""), _ids(tokenizer(text, add_special_tokens=False)["input_ids"]) + end)


def _alternatives(column: Sequence[Any], name: str, field: str) -> list[Any]:
    """Further answers: texts for paraphrases, tuples of texts for perturbed answers; None where a record has none."""

    def is_text(value: Any) -> bool:
        return isinstance(value, str) and bool(value.strip())

    if name == PARAPHRASED:
        found, what = list(column), "a text"
        wrong = [i for i, value in enumerate(found) if value is not None and not is_text(value)]
    else:
        found, what = [tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value for value in column], "a list of texts"
        found = [value or None for value in found]
        wrong = [i for i, value in enumerate(found) if value is not None and not (isinstance(value, tuple) and all(map(is_text, value)))]
    if wrong:
        raise InputError(Fault(field, f"{len(wrong)} values of `{name}` are not {what}, first at position {wrong[0]}.", f"Give {what}, or nothing."))
    return found


def _refuse_empty(texts: Sequence[Any], what: str, field: str) -> None:
    wrong = [i for i, text in enumerate(texts) if not isinstance(text, str) or not text.strip()]
    if wrong:
        raise InputError(Fault(field, f"{len(wrong)} {what} are empty or not text, first at position {wrong[0]}.", "Remove them."))
