"""Records of text as token ids: questions with answers, conversations, plain text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jinja2 import TemplateError

from unlearned.data.samples import ColumnRows, Samples
from unlearned.errors import Fault, InputError, collecting, raise_faults
from unlearned.tasks._task import Bundle

IGNORED = -100
"""Label of tokens that do not count, as transformers has it."""
Template = Literal["auto", "chat", "plain"]
PARAPHRASED, PERTURBED = "paraphrased_answer", "perturbed_answer"
"""Columns beside `answer`: the same said otherwise, a text; and wrong answers of the same form, a list of texts. Either may be None in a record."""


class Form(NamedTuple):
    """How texts are put to a model: settings of the task."""

    template: Template = "auto"
    system: str | None = None
    options: Mapping[str, Any] = {}
    """What the chat template is given beside the conversation."""
    today: str | None = None
    """What the chat template is told for the date of today; None: the real one."""


class Written(NamedTuple):
    """One record as text: what the model is given, and the same with what it must say."""

    prompt: str
    whole: str


class Tokens(NamedTuple):
    """One record: what the model is given, and what it must say."""

    before: list[int]
    after: list[int]


def end_tokens(bundle: Bundle) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's end of sequence, and those that the model's generation stops at."""
    configured = getattr(getattr(bundle.model, "generation_config", None), "eos_token_id", None)
    found = [bundle.companions["tokenizer"].eos_token_id, *(configured if isinstance(configured, list) else [configured])]
    return frozenset(token for token in found if token is not None)


def tokenise(columns: Mapping[str, Any], bundle: Bundle, form: Form, field: str) -> Samples:
    """Rows of token ids.

    Columns `prompt` and `answer`: put into the chat template as a user's and an assistant's turn (`template` chat, or auto where the tokenizer has one), or
    joined by a space and ended by the end-of-sequence token. Column `messages`: lists of {role, content}, of which the last is the answer. Column `text`: all
    of it counts. Columns `paraphrased_answer` and `perturbed_answer` stay in the rows as text: no batch has them, `TextGeneration.answered` reads them.

    Raises:
        InputError: if there is none of these columns, a text is empty or a single token, or a chat template is needed and there is none.
    """
    tokenizer = bundle.companions["tokenizer"]
    chat = uses_chat(tokenizer, form, field)
    if "messages" in columns:
        if not chat:
            raise InputError(
                Fault(field, "conversations need a chat template, which this tokenizer does not have or `plain` forbids.", "Give `prompt` and `answer`.")
            )
        written = [_conversation(tokenizer, form, messages, i, field) for i, messages in enumerate(columns["messages"])]
    elif "answer" in columns and "prompt" in columns:
        faults: list[Fault] = []
        for name, what in (("answer", "answers"), ("prompt", "questions")):
            with collecting(faults):
                _refuse_empty(columns[name], what, field)
        raise_faults(faults)
        if len(columns["prompt"]) != len(columns["answer"]):
            what = f"there are {len(columns['prompt'])} questions and {len(columns['answer'])} answers."
            raise InputError(Fault(field, what, "Give one answer for each question."))
        pairs = zip(columns["prompt"], columns["answer"], strict=True)
        written = [_turns(tokenizer, form, _asked(form, prompt), answer, field) if chat else Written(prompt, f"{prompt} {answer}") for prompt, answer in pairs]
    elif "text" in columns:
        _refuse_empty(columns["text"], "texts", field)
        chat, written = False, [Written("", text) for text in columns["text"]]
    else:
        raise InputError(
            Fault(field, f"there are no texts among the columns {', '.join(map(repr, columns))}.", "Give `prompt` and `answer`, `messages`, or `text`.")
        )
    if "text" not in columns and not end_tokens(bundle):
        what = "neither the tokenizer nor the model names a token that ends an answer."
        raise InputError(Fault("model", what, "Set the tokenizer's eos_token, or eos_token_id in the model's generation config."))
    records = divided(tokenizer, written)
    records = [_up_to_the_end(tokens, end_tokens(bundle)) for tokens in records] if chat else [_between_ends(tokenizer, tokens) for tokens in records]
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


def tokenise_prompts(texts: Sequence[str], bundle: Bundle, form: Form, field: str) -> list[list[int]]:
    """Token ids of questions, up to where an answer begins."""
    tokenizer = bundle.companions["tokenizer"]
    if not uses_chat(tokenizer, form, field):
        return [_between_ends(tokenizer, Tokens(ids, [])).before for ids in _encode(tokenizer, texts)]
    return _encode(tokenizer, [_rendered(tokenizer, form, _asked(form, text), field, open_turn=True) for text in texts])


def uses_chat(tokenizer: Any, form: Form, field: str) -> bool:
    """Whether questions are put into the tokenizer's chat template.

    Raises:
        InputError: if they should be and there is none, or it has no place for an option.
    """
    template = getattr(tokenizer, "chat_template", None)
    if form.template == "chat" and not template:
        raise InputError(Fault(field, "the tokenizer has no chat template.", "Use template: plain, or a tokenizer of a chat model."))
    if form.template == "plain" or not template:
        if form.options:
            what = "options are given for a chat template, but texts are put plainly."
            raise InputError(Fault("task.template_options", what, "Leave them out, or use template: chat."))
        return False
    unknown = sorted(name for name in form.options if not re.search(rf"\b{re.escape(name)}\b", str(template)))
    if unknown:
        what = f"the chat template of this tokenizer reads no {unknown[0]!r}."
        raise InputError(Fault("task.template_options", what, "Check the name in its chat_template, or leave it out."))
    return True


def divided(tokenizer: Any, written: Sequence[Written]) -> list[Tokens]:
    """Token ids of each whole text, divided where the answer begins.

    Prompt and answer are encoded together, as a model reads them: pieces that are encoded apart can differ where they meet. A token that holds the end of the
    prompt and the beginning of the answer belongs to the answer. Tokenizers that do not tell where in the text a token stands are asked for the prompt alone,
    and the answer begins where the two differ.
    """
    if getattr(tokenizer, "is_fast", False):
        found = tokenizer([each.whole for each in written], add_special_tokens=False, return_offsets_mapping=True) if written else {}
        pairs = zip(written, found.get("input_ids", ()), found.get("offset_mapping", ()), strict=True)
        return [_at(ids, next((i for i, (_, end) in enumerate(places) if end > len(each.prompt)), len(ids))) for each, ids, places in pairs]
    prompts, wholes = (_encode(tokenizer, [each[i] for each in written]) for i in (0, 1))
    return [
        _at(whole, next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), min(len(prompt), len(whole))))
        for prompt, whole in zip(prompts, wholes, strict=True)
    ]


def _at(ids: Sequence[int], place: int) -> Tokens:
    return Tokens([int(i) for i in ids[:place]], [int(i) for i in ids[place:]])


def _encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return [[int(i) for i in ids] for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]] if texts else []


def _up_to_the_end(tokens: Tokens, end: frozenset[int]) -> Tokens:
    """Templates write a line break or the like behind the end of the turn, which no model is asked to say."""
    last = next((i for i, token in enumerate(tokens.after) if token in end), len(tokens.after) - 1)
    return Tokens(tokens.before, tokens.after[: last + 1])


def _between_ends(tokenizer: Any, tokens: Tokens) -> Tokens:
    """With the tokens that begin and end a text, where the tokenizer has them."""
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return Tokens(start + tokens.before, tokens.after + end)


def _asked(form: Form, prompt: str) -> list[Mapping[str, str]]:
    first = [] if form.system is None else [{"role": "system", "content": form.system}]
    return [*first, {"role": "user", "content": prompt}]


def _rendered(tokenizer: Any, form: Form, messages: Sequence[Mapping[str, str]], field: str, *, open_turn: bool) -> str:
    """A conversation as its template writes it; `open_turn`: with the header of the assistant's next turn."""
    template = tokenizer.chat_template
    if form.today is not None and isinstance(template, str):
        # A macro hides the function of the same name. With the real date, the same data would be other data tomorrow.
        template = f"{{%- macro strftime_now(format) -%}}{form.today}{{%- endmacro -%}}{template}" if "strftime_now" in template else template
    try:
        return str(tokenizer.apply_chat_template(list(messages), chat_template=template, add_generation_prompt=open_turn, tokenize=False, **form.options))
    except TemplateError as error:
        what = f"the chat template refuses such a conversation ({error})."
        raise InputError(Fault(field, what, "Use template: plain, or leave out the system message.")) from error


def _turns(tokenizer: Any, form: Form, messages: list[Mapping[str, str]], answer: str, field: str) -> Written:
    prompt = _rendered(tokenizer, form, messages, field, open_turn=True)
    whole = _rendered(tokenizer, form, [*messages, {"role": "assistant", "content": answer}], field, open_turn=False)
    if not whole.startswith(prompt):
        raise InputError(Fault(field, "the chat template writes a question otherwise when its answer follows.", "Use template: plain."))
    return Written(prompt, whole)


def _conversation(tokenizer: Any, form: Form, messages: Any, position: int, field: str) -> Written:
    whole = isinstance(messages, Sequence) and len(messages) > 1 and all(isinstance(m, Mapping) and {"role", "content"} <= set(m) for m in messages)
    if not whole or messages[-1]["role"] != "assistant":
        what = f"the conversation at position {position} does not end with a turn of the assistant after another turn."
        raise InputError(Fault(field, what, "Give a list of {role, content}."))
    turns = [{"role": str(m["role"]), "content": str(m["content"])} for m in messages]
    _refuse_empty([turns[-1]["content"]], "answers", field)
    return _turns(tokenizer, form, list(turns[:-1]), turns[-1]["content"], field)


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
