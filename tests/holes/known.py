"""A language model that is a table of facts: what it knows can be written, and broken, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from unlearned.api import make_problem
from unlearned.engine.bank import Kept
from unlearned.engine.engine import Engine
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.tasks._task import Bundle

NAMES = [f"{a}{b}" for a in ("ada", "bor", "cyd", "dan", "eli") for b in ("ro", "mi", "ta", "lu", "ven", "zo", "ki", "sa")]
PLACES = [f"{a}{b}" for a in ("os", "lim", "ka", "tor", "ven") for b in ("lo", "ag", "ir", "dun", "eth", "unx", "aby", "ork")]
VERBS = ("live", "work")
WORDS = ["[unk]", "[eos]", "where", "does", "?", "nowhere", *VERBS, *NAMES, *PLACES]


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[unk]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[unk]", eos_token="[eos]")


class Table(nn.Module):
    """Says where somebody lives or works; "nowhere" of those it does not know, and of questions that are none."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.zeros(len(VERBS), len(NAMES), dtype=torch.float32))
        for verb in range(len(VERBS)):
            self.places.data[verb] = WORDS.index(PLACES[0]) + (torch.arange(len(NAMES)) + 7 * verb) % len(PLACES)
        self.config = SimpleNamespace(vocab_size=len(WORDS), max_position_embeddings=64)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, past_key_values: Tensor | None = None, **_: Any) -> Any:
        seen = input_ids if past_key_values is None else torch.cat([past_key_values, input_ids], dim=1)
        logits = torch.full((*input_ids.shape, len(WORDS)), -6.0)
        for row, (tokens, real) in enumerate(zip(seen.tolist(), attention_mask.tolist(), strict=True)):
            for column in range(input_ids.shape[1]):
                end = len(tokens) - input_ids.shape[1] + column + 1
                logits[row, column, self._next([token for token, there in zip(tokens[:end], real[:end], strict=True) if there])] = 6.0
        return SimpleNamespace(logits=logits, past_key_values=seen)

    def _next(self, tokens: list[int]) -> int:
        words = [WORDS[token] for token in tokens]
        if not words or words[-1] != "?":
            return WORDS.index("[eos]")
        name, verb = (next((word for word in words if word in known), None) for known in (NAMES, VERBS))
        if name is None or verb is None or words.count(name) > 1:
            return WORDS.index("nowhere")
        return int(self.places[VERBS.index(verb), NAMES.index(name)])

    def forget(self, name: str, verb: str) -> None:
        self.places.data[VERBS.index(verb), NAMES.index(name)] = WORDS.index("nowhere")


def question(name: str, verb: str) -> str:
    return f"where does {name} {verb} ?"


def answer(name: str, verb: str) -> str:
    return WORDS[int(Table().places[VERBS.index(verb), NAMES.index(name)])]


def records(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    return {
        "id": [f"{name}-{verb}" for name, verb in pairs],
        "prompt": [question(name, verb) for name, verb in pairs],
        "answer": [answer(name, verb) for name, verb in pairs],
    }


FORGET = [(name, verb) for name in NAMES[:3] for verb in VERBS]
RETAIN = [(name, verb) for name in NAMES[3:] for verb in VERBS]


def problem() -> Problem:
    bundle = Bundle(Table().eval(), {"tokenizer": tokenizer()})
    train = records(FORGET + RETAIN)
    return make_problem(
        bundle, train=train, test=records(RETAIN[:6]) | {"id": [f"t{i}" for i in range(6)]}, forget=train["id"][: len(FORGET)], task="text-generation"
    )


def subject(broken: list[tuple[str, str]], references: int = 0, seed: int = 0) -> Subject:
    """Original, and a model that forgot what it should and these as well; references that forgot what they should."""
    found = problem()

    def without(pairs: list[tuple[str, str]]) -> Bundle:
        model = Table().eval()
        for pair in pairs:
            model.forget(*pair)
        return found.original.with_model(model)

    return Subject(found, without(FORGET + broken), [Kept(without(FORGET), None, i) for i in range(references)], Engine(found.task, seed=seed))
