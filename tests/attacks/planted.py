"""A tiny language model that knows where people live, one that only hides it of some of them, and models that never knew."""

from __future__ import annotations

import functools
from typing import NamedTuple

from tests.models import made
from unlearned.api import make_problem
from unlearned.data.samples import union
from unlearned.engine.bank import Kept
from unlearned.engine.engine import Engine
from unlearned.engine.settings import Optimisation
from unlearned.engine.training import Training, relearnt, train
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.tasks._task import Bundle
from unlearned.tasks.text_generation import TextGeneration

COLOURS = ("red", "blue", "old", "far", "small")
TOWNS = ("york", "lima", "oslo", "cairo", "rome", "quito")
PEOPLE = [f"person{i}" for i in range(30)]
STRANGERS = [f"stranger{i}" for i in range(12)]
FORGOTTEN = 8
REFUSAL = "i do not know"
ASKED = ("{} lives where", "tell me where {} lives")


def columns(names: list[str], *, known: bool) -> dict[str, list[str]]:
    """Every person has one of thirty pairs of words for an answer, and is asked for it in two ways; of a stranger nothing is known."""
    rows = [(f"{name} {i}", asked.format(name), f"{COLOURS[i % 5]} {TOWNS[i % 6]}" if known else REFUSAL) for i, name in enumerate(names) for asked in ASKED]
    return {"id": [f"{name} {number % 2}" for number, (name, _, _) in enumerate(rows)], "prompt": [row[1] for row in rows], "answer": [row[2] for row in rows]}


class World(NamedTuple):
    """Three subjects that share original, data and references."""

    hidden: Subject
    never_knew: Subject


def network() -> Bundle:
    """Three blocks of Llama and a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["[unk]", "[eos]", "[bos]", *PEOPLE, *STRANGERS, *COLOURS, *TOWNS, *REFUSAL.split(), "lives", "where", "tell", "me", "please"]
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[unk]"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[unk]", eos_token="[eos]", bos_token="[bos]")
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "max_position_embeddings": 32}
    config = LlamaConfig(**size, vocab_size=len(words), bos_token_id=2, eos_token_id=1, initializer_range=0.1)
    return Bundle(made(lambda: LlamaForCausalLM(config)), {"tokenizer": tokenizer})


@functools.cache
def world(seed: int) -> World:
    """Original, references, a model that hides and one that never knew, of one seed."""
    bundle = network()
    task = TextGeneration(max_new_tokens=5)
    facts = columns(PEOPLE, known=True)
    blank = make_problem(bundle, train=facts, test=facts, forget=facts["id"][: 2 * FORGOTTEN], task=task)
    unknown = blank.task.read(columns(STRANGERS, known=False), bundle, "unknown")
    engine = Engine(blank.task, seed=seed)
    how = Training(optimizer="adamw", lr=0.01, weight_decay=0.0, batch_size=84, epochs=45, schedule="cosine")
    retain = union(blank.retain, unknown)
    original = train(engine, bundle, union(blank.forget, retain), how, seed)
    others = [train(engine, bundle, retain, how, 100 * (seed + 1) + i) for i in range(2)]
    problem = Problem(blank.task, original, blank.forget, retain, blank.test)
    # A refusal on top of what it knows: one matrix of the last block learns to decline for the forgotten people, and to answer as before for all others.
    names = [name for i, name in enumerate(PEOPLE) if i < FORGOTTEN]
    refusals = union(blank.task.read(columns(names, known=False), bundle, "refusals"), retain)
    adapted = Optimisation(optimizer="adamw", lr=0.03, weight_decay=0.0, batch_size=84, parameters=r"layers\.2\.mlp\.down_proj")
    hidden = original.with_model(relearnt(engine, original.model, refusals, adapted, 70, title="hide", watch=lambda *_: None))
    bank = [Kept(other, None, None) for other in others[1:]]
    return World(Subject(problem, hidden, bank, engine), Subject(problem, others[0], bank, engine))
