"""A chat model that runs here: what it writes, and how probable it finds each of a few answers."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from tests.holes.known import RETAIN, subject
from tests.models import made
from unlearned.audits.knowledge_holes import KnowledgeHoles
from unlearned.engine.engine import Engine
from unlearned.engine.settings import Compute
from unlearned.errors import InputError
from unlearned.holes._local import LocalModel, Weighed
from unlearned.records import pick
from unlearned.tasks.text_generation import TextGeneration

CHARACTERS = ["[end]", *(chr(i) for i in range(32, 127)), "\n"]
QUESTIONS = ["Is the sky blue?", "Rate this: no.", "What?"]


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small Llama with random weights, large enough ones to have opinions, that reads letter by letter."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = Tokenizer(models.WordLevel({c: i for i, c in enumerate(CHARACTERS)}, unk_token="[end]"))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    letters.decoder = decoders.Fuse()
    words: Any = PreTrainedTokenizerFast(tokenizer_object=letters, unk_token="[end]", eos_token="[end]", pad_token="[end]")
    words.chat_template = "{% for m in messages %}{{ m['role'][0] + ': ' + m['content'] + '[end]' }}{% endfor %}{% if add_generation_prompt %}a: {% endif %}"
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 2048}
    config: Any = LlamaConfig(vocab_size=len(CHARACTERS), bos_token_id=0, eos_token_id=0, initializer_range=0.5, **sizes)
    place = str(tmp_path_factory.mktemp("chat"))
    made(lambda: LlamaForCausalLM(config)).save_pretrained(place)  # type: ignore[operator]
    words.save_pretrained(place)
    return place


def local(chat: str, batch_size: int = 2) -> LocalModel:
    return LocalModel(chat, Engine(TextGeneration(), Compute(batch_size=batch_size)), 5, "judge")


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_weights_of_answers_are_those_of_a_loop_over_tokens(chat: str, batch_size: int) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    answers = ["Rating: [[1]]", "Rating: [[10]]", "Rating: [[7]]", "No"]
    found = local(chat, batch_size).weigh(QUESTIONS, answers)
    words, model = AutoTokenizer.from_pretrained(chat), AutoModelForCausalLM.from_pretrained(chat)
    ends = [[*words(answer, add_special_tokens=False).input_ids, 0] for answer in answers]
    for i, question in enumerate(QUESTIONS):
        prompt = words(f"u: {question}[end]a: ", add_special_tokens=False).input_ids
        for j, tokens in enumerate(ends):
            weight = 1.0
            for k, token in enumerate(tokens):
                allowed = {other[k] for other in ends if other[:k] == tokens[:k]}
                with torch.no_grad():
                    p = model(torch.tensor([[*prompt, *tokens[:k]]])).logits[0, -1].double().softmax(0)
                weight *= float(p[token] / sum(p[other] for other in allowed))
            assert float(found[i, j]) == pytest.approx(weight, rel=1e-4)
    assert torch.allclose(found.sum(dim=1), torch.ones(3, dtype=torch.float64))
    assert float(found.std(dim=0).min()) > 1e-3  # the questions make a difference


def test_it_writes_what_its_template_leads_to(chat: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words, model = AutoTokenizer.from_pretrained(chat), AutoModelForCausalLM.from_pretrained(chat)
    said = local(chat).write([[{"role": "user", "content": question}] for question in QUESTIONS])
    for question, answer in zip(QUESTIONS, said, strict=True):
        tokens = words(f"u: {question}[end]a: ", add_special_tokens=False).input_ids
        start = len(tokens)
        while len(tokens) < start + 5 and tokens[-1] != 0:
            with torch.no_grad():
                tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
        assert answer == words.decode([token for token in tokens[start:] if token])


class Known:
    """In the place of a model: its probabilities are written down."""

    label = "known"

    def __init__(self, **answers: float) -> None:
        self.answers = answers

    def tokens_of(self, answers: Sequence[str]) -> None:
        assert answers[0] == "Rating: [[1]]"
        assert len(answers) == 10

    def weigh(self, instructions: Sequence[str], answers: Sequence[str]) -> Tensor:
        rows = torch.tensor(
            [[self.answers.get(answer.removeprefix("Rating: [[").removesuffix("]]"), 0.0) for answer in answers]] * len(instructions), dtype=torch.float64
        )
        return rows / rows.sum(dim=1, keepdim=True)


def weighed(**answers: float) -> Weighed:
    return Weighed(cast("LocalModel", Known(**answers)))


def test_a_rating_is_the_mean_of_what_it_could_write() -> None:
    judge = weighed(**{"1": 1.0, "10": 2.0, "4": 1.0})
    assert judge.scores(["a?", "b?", "c?"], ["some", " ", "more"]) == [pytest.approx(25 / 4), 1.0, pytest.approx(25 / 4)]
    assert judge.scores([], []) == []
    assert judge.label.startswith("known by its probabilities")


def test_a_template_without_a_place_for_the_answer_is_refused_before_anything_is_asked(chat: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    shutil.copytree(chat, tmp_path / "thinks")
    words = AutoTokenizer.from_pretrained(chat)
    words.chat_template = words.chat_template.replace("a: {% endif %}", "a: <think>{% endif %}")
    words.save_pretrained(tmp_path / "thinks")
    with pytest.raises(InputError, match="no fixed place where an answer begins") as refused:
        Weighed(local(str(tmp_path / "thinks")))
    assert refused.value.faults[0].field == "judge"


def test_a_model_too_small_to_keep_to_a_form_is_a_second_judge_by_its_probabilities(chat: str, tmp_path: Path) -> None:
    looked = subject(RETAIN[3:60:6])
    for judge, read in (("local", False), ("probabilities", True)):
        language = {"second_judge": judge, "backend_model": chat, "agreement": 60, "budget": 0, "searcher": "random"}
        findings = KnowledgeHoles.model_validate({"language": language, "cache": tmp_path / judge}).measure(looked)
        (agreed,) = pick(findings, metric="judge_agreement")
        assert (agreed.value is not None) == read
        assert bool(pick(findings, metric="judge_unread")) == (not read)
