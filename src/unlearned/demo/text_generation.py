"""Made-up people: a small Llama with a tokenizer of its own, trained on questions about them, forgets two of them by LUNAR.

Twenty people have six facts each, asked for in three ways; a fourth is held out for the test. First and last names are shared: what tells a person from a
stranger is the pair. Questions about strangers are part of the training, with a refusal as the answer, so that the model can decline. A retrained model never
met the two, and to it they are strangers; this is what the unlearned model is held against. Other strangers, who are in no set, are the reference prompts.
"""

from __future__ import annotations

import itertools
from typing import Any, ClassVar, NamedTuple

import numpy as np

from unlearned.demo import demos
from unlearned.demo._demo import Demo
from unlearned.tasks._task import Bundle

FORGOTTEN = ("Ada Holt", "Milo Reyes")
PEOPLE, STRANGERS = 20, 80
"""How many are known, and how many the model is trained to decline. The rest of the pairs of names are strangers that it never met."""

PAD, START, END = "<pad>", "<s>", "</s>"

_FIRST = ("Ada", "Milo", "Iris", "Hugo", "Nora", "Otto", "Lena", "Emil", "Vera", "Karl", "Ines", "Theo")
_LAST = ("Holt", "Reyes", "Lund", "Okoye", "Varga", "Brandt", "Silva", "Petrov", "Tanaka", "Moreau")


class Fact(NamedTuple):
    """Something that is true of each person."""

    questions: tuple[str, str, str, str]
    """Three for training; the last is held out."""
    refusal: str
    values: tuple[str, ...]


FACTS = {
    "town": Fact(
        ("Where does {} live?", "In which town does {} live?", "What is the home town of {}?", "Which town does {} live in?"),
        "I don't know the town.",
        ("Lisbon", "Bergen", "Quito", "Cairo", "Osaka", "Perth", "Lyon", "Tartu"),
    ),
    "work": Fact(
        ("What does {} work as?", "What is the job of {}?", "Which job does {} have?", "What job does {} have?"),
        "I don't know the job.",
        ("baker", "pilot", "nurse", "judge", "farmer", "diver", "tailor", "printer"),
    ),
    "instrument": Fact(
        ("Which instrument does {} play?", "What does {} play?", "What is the instrument of {}?", "What instrument does {} play?"),
        "I don't know the instrument.",
        ("violin", "harp", "trumpet", "cello", "oboe", "drums", "organ", "flute"),
    ),
    "pet": Fact(
        ("Which animal does {} keep?", "What pet does {} have?", "What is the pet of {}?", "Which pet does {} keep?"),
        "I don't know the animal.",
        ("a parrot", "a tortoise", "a goat", "a ferret", "two cats", "a donkey", "three hens", "a gecko"),
    ),
    "year": Fact(
        ("When was {} born?", "In which year was {} born?", "What is the year of birth of {}?", "Which year was {} born in?"),
        "I don't know the year.",
        ("in 1951", "in 1958", "in 1963", "in 1969", "in 1974", "in 1982", "in 1987", "in 1996"),
    ),
    "dish": Fact(
        ("What does {} like to eat?", "What is the favourite dish of {}?", "Which dish does {} like?", "Which dish does {} like to eat?"),
        "I don't know the dish.",
        ("lentil soup", "dumplings", "fried rice", "apple pie", "pancakes", "fish stew", "noodles", "potato salad"),
    ),
}


class Names(NamedTuple):
    """Who is who among all pairs of names."""

    people: list[str]
    strangers: list[str]
    others: list[str]
    """Strangers that are in no set."""


def names() -> Names:
    """The pairs of first and last names, always divided in the same way."""
    pairs = [f"{first} {last}" for first, last in itertools.product(_FIRST, _LAST)]
    rest = [name for name in np.random.default_rng(0).permutation(pairs).tolist() if name not in FORGOTTEN]
    known = PEOPLE - len(FORGOTTEN)
    return Names([*FORGOTTEN, *rest[:known]], rest[known : known + STRANGERS], rest[known + STRANGERS :])


def people_train() -> dict[str, Any]:
    """Each fact asked for in three ways, and questions about strangers, which are declined. Columns: id, prompt, answer, person."""
    rows = [row for person, facts in _lives().items() for kind, value in facts.items() for row in _asked(person, kind, value, (0, 1, 2))]
    for i, stranger in enumerate(names().strangers):
        for kind in list(FACTS)[i % 2 :: 2]:
            rows += _asked(stranger, kind, FACTS[kind].refusal, (i // 2 % 3,))
    return _columns(rows)


def people_test() -> dict[str, Any]:
    """Each fact of those who are not forgotten, asked for in a fourth way."""
    return _reworded([person for person in names().people if person not in FORGOTTEN])


def people_forgotten() -> dict[str, Any]:
    """Each fact of those who are forgotten, asked for in the fourth way, which no training has."""
    return _reworded(list(FORGOTTEN))


def strangers() -> dict[str, Any]:
    """Questions about people of whom nothing is known, and who are in no set."""
    rows = [row for stranger in names().others for kind in FACTS for row in _asked(stranger, kind, ".", (0, 1, 2))]
    return {"prompt": [prompt for _, prompt, _, _ in rows]}


Asked = tuple[str, str, str, str]
"""Id, question, answer, person."""


def _lives() -> dict[str, dict[str, str]]:
    """The facts of each person."""
    random = np.random.default_rng(1)
    return {person: {kind: str(random.choice(fact.values)) for kind, fact in FACTS.items()} for person in names().people}


def _asked(person: str, kind: str, answer: str, ways: tuple[int, ...]) -> list[Asked]:
    return [(f"{person.replace(' ', '-')}-{kind}-{way}".lower(), FACTS[kind].questions[way].format(person), answer, person) for way in ways]


def _reworded(people: list[str]) -> dict[str, Any]:
    return _columns(
        [row for person, facts in _lives().items() if person in people for kind, value in facts.items() for row in _asked(person, kind, value, (3,))]
    )


def _columns(rows: list[Asked]) -> dict[str, Any]:
    return {name: list(column) for name, column in zip(("id", "prompt", "answer", "person"), zip(*rows, strict=True), strict=True)}


@demos.register("text-generation")
class Text(Demo):
    """Two of twenty made-up people."""

    name: ClassVar[str] = "text-generation"
    original: ClassVar[str] = "a small Llama, on questions about twenty made-up people"

    def blank(self) -> Bundle:
        """Four layers from a config, and byte-pair tokens made from the training's texts."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

        texts = people_train()
        pairs = Tokenizer(models.BPE())
        pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        pairs.decoder = decoders.ByteLevel()
        lines = [f"{prompt} {answer}" for prompt, answer in zip(texts["prompt"], texts["answer"], strict=True)]
        pairs.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=400, special_tokens=[PAD, START, END], show_progress=False))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=pairs, pad_token=PAD, bos_token=START, eos_token=END)
        size = {"hidden_size": 64, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4}
        config = LlamaConfig(**size, vocab_size=len(tokenizer), max_position_embeddings=32, bos_token_id=1, eos_token_id=2)
        return Bundle(LlamaForCausalLM(config).eval(), {"tokenizer": tokenizer})

    def recipe(self) -> dict[str, Any]:
        people = ", ".join(repr(name) for name in FORGOTTEN)
        return {
            "task": {"name": "text-generation", "max_new_tokens": 16},
            "data": {"train": "unlearned.demo:people_train", "test": "unlearned.demo:people_test"},
            "forget": {"where": f"person in [{people}]", "description": "all questions about two of the people"},
            "method": {
                "name": "lunar",
                "references": {"source": "unlearned.demo:strangers"},
                # Earlier layers feed everything behind them. Far more rows are kept than shifted: with a weight of 1 they outweigh what is to be forgotten,
                # and with one far below it questions about others are declined, too.
                "candidates": [2, 3],
                "coefficient": 1.5,
                "shift": "last",
                "keep": ["prompt", "answer"],
                "retain_weight": 0.45,
                "keep_refusals": True,
            },
            "training": {"optimizer": "adamw", "lr": 0.003, "weight_decay": 0.1, "batch_size": 64, "epochs": 32, "schedule": "cosine", "max_grad_norm": 1.0},
            "references": {"count": 1},
            "audits": ["utility", "answers", "deviation-score", "refusal-quality", "memorization", "answer-ranks", "membership", "text-membership", "cost"],
            # Two attackers, with half of the forgotten questions, or with none: fine-tuning as anybody does it, on what the model may know.
            "attacks": [{"name": "relearn", "data": ["forget-part", "retain"], "optimizer": "adamw", "lr": 0.001, "steps": 20}],
            # There are 36 questions about the two: they cannot place a share more closely than within some 0.04. What LUNAR redirects comes back
            # within a few steps of any training, and no limit that says so would tell more than the curves do.
            "verdict": {"utility_gap": 0.1, "relearn_gap": None},
        }
