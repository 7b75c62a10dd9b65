"""Greedy answers against a loop that feeds one prompt at a time, without padding and without a cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.models import bundle_of, facts, problem_of, tokenizer
from unlearned.api import make_problem
from unlearned.engine.adapters import Lora, with_adapter
from unlearned.engine.engine import Engine
from unlearned.errors import InputError
from unlearned.tasks._generation import greedy, left_padded, true_answers
from unlearned.tasks._task import Bundle, exactly, finest
from unlearned.tasks._texts import IGNORED
from unlearned.tasks.text_generation import TextGeneration, _Words, answering

END = 1
CHAT = "{% for m in messages %}{{ '[pad] ' + m['role'].replace('user', 'ada').replace('assistant', 'bo') + ' ' + m['content'] + ' [eos] ' }}{% endfor %}"
CHAT += "{% if add_generation_prompt %}{{ '[pad] bo ' }}{% endif %}"


def task_and_model(kind: str) -> tuple[TextGeneration, nn.Module, dict[str, torch.Tensor]]:
    problem = problem_of(kind)
    assert isinstance(problem.task, TextGeneration)
    return problem.task, problem.original.model, problem.task.collate([problem.retain[i] for i in range(6)])


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("most", [1, 3, 8])
def test_as_one_prompt_at_a_time(kind: str, most: int) -> None:
    task, model, batch = task_and_model(kind)
    del task
    assert len(set(batch["prompt_length"].tolist())) > 1, "the prompts must need padding"
    with torch.no_grad():
        # Whatever ends an answer in half of the cases, so that some answers end early.
        end = int(model(input_ids=batch["input_ids"][:1, : int(batch["prompt_length"][0])]).logits[0, -1].argmax())
        found = greedy(model, batch, frozenset({end, END}), most)
        for i in range(6):
            tokens = batch["input_ids"][i, : int(batch["prompt_length"][i])].tolist()
            gold = [t for t in batch["labels"][i].tolist() if t != IGNORED]
            said, ranks, alive = [], [], True
            for step in range(found.shape[1]):
                scores = model(input_ids=torch.tensor([tokens])).logits[0, -1]
                best = int(scores.argmax())
                ranks.append(1 + int((scores > scores[gold[step]]).sum()) if alive and step < len(gold) else 0)
                alive = alive and best not in {end, END}
                said.append(best + 1 if alive else 0)
                tokens.append(best)
            assert found[i, :, 0].tolist() == said
            assert found[i, :, 1].tolist() == ranks
    assert 0 in found[..., 0].tolist()[0]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_full_context_ends_the_answer_whatever_it_shares_a_batch_with(kind: str) -> None:
    _, model, batch = task_and_model(kind)  # a context of 24
    found = greedy(model, batch, frozenset(), 1000)
    lengths = batch["prompt_length"]
    assert (found[..., 0] > 0).sum(dim=1).tolist() == (24 - lengths).tolist()
    for i in range(6):
        alone = greedy(model, {name: column[i : i + 1] for name, column in batch.items()}, frozenset(), 1000)
        assert torch.equal(alone[0], found[i, : alone.shape[1]])
    assert greedy(model, batch, frozenset(), 3).shape[1] == 3


def test_prompts_and_answers_of_a_batch() -> None:
    batch = {
        "input_ids": torch.tensor([[5, 6, 7, 8], [9, 3, 0, 0]]),
        "labels": torch.tensor([[IGNORED, IGNORED, 7, 8], [IGNORED, 3, IGNORED, IGNORED]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        "prompt_length": torch.tensor([2, 1]),
    }
    prompts, mask = left_padded(batch)
    assert prompts.tolist() == [[5, 6], [0, 9]]
    assert mask.tolist() == [[1, 1], [0, 1]]
    assert true_answers(batch).tolist() == [[7, 8], [3, -1]]


def test_recall_counts_words_of_the_true_answer() -> None:
    task = TextGeneration().bound(bundle_of("gpt2"))
    samples = task.read({"prompt": ["where does ada live"] * 3, "answer": ["in the far river town"] * 3}, bundle_of("gpt2"), "f")
    batch = task.collate([samples[i] for i in range(3)])
    ids = {word: i for i, word in enumerate(tokenizer().convert_ids_to_tokens(range(37)))}
    said = [["in", "the", "far", "river", "town"], ["the", "town", "the", "town", "york"], ["york", "lima"]]
    generations = torch.zeros(3, 5, 2)
    for i, words in enumerate(said):
        generations[i, : len(words), 0] = torch.tensor([ids[word] + 1 for word in words])
    assert task.answers(batch) == ["in the far river town"] * 3
    assert task.said(generations) == [" ".join(words) for words in said]
    assert task.recall(generations, batch).tolist() == pytest.approx([1.0, 0.4, 0.0])


def test_knowledge_is_the_recall_of_what_is_generated_or_the_probability() -> None:
    task, model, batch = task_and_model("llama")
    with torch.no_grad():
        assert torch.equal(task.knowledge(model, batch), task.recall(task.generations(model, batch), batch))
        graded = TextGeneration(score="probability")
        torch.testing.assert_close(graded.knowledge(model, batch), torch.exp(-graded.losses(model, batch)))


def test_evaluation_pads_answers_of_different_batches() -> None:
    problem = problem_of("llama")
    task = problem.task
    assert isinstance(task, TextGeneration)
    engine = Engine(task)
    whole = engine.evaluate(problem.original.model, problem.retain, task.generations)
    assert whole.shape[0] == len(problem.retain)
    assert whole.shape[2] == 2
    recall = task.recall(whole, task.collate([problem.retain[i] for i in range(len(problem.retain))]))
    torch.testing.assert_close(recall.double(), engine.evaluate(problem.original.model, problem.retain, task.knowledge))


def chatting() -> Bundle:
    bundle = bundle_of("llama")
    words = tokenizer()
    words.chat_template = CHAT
    return Bundle(bundle.model, {"tokenizer": words})


def test_questions_go_into_the_chat_template_and_conversations_are_the_same_thing() -> None:
    bundle = chatting()
    task = TextGeneration()
    asked = task.read({"prompt": ["where does ada live"], "answer": ["in york"]}, bundle, "f")[0]
    words = bundle.companions["tokenizer"].convert_ids_to_tokens(asked["input_ids"].tolist())
    assert words == ["[pad]", "ada", "where", "does", "ada", "live", "[eos]", "[pad]", "bo", "in", "york", "[eos]"]
    assert int(asked["prompt_length"]) == 9
    assert asked["labels"].tolist() == [IGNORED] * 9 + asked["input_ids"].tolist()[9:]
    turns = [{"role": "user", "content": "where does ada live"}, {"role": "assistant", "content": "in york"}]
    talked = task.read({"messages": [turns]}, bundle, "f")[0]
    assert all(torch.equal(asked[name], talked[name]) for name in asked)
    plain = TextGeneration(template="plain").read({"prompt": ["where does ada live"], "answer": ["in york"]}, bundle, "f")[0]
    assert int(plain["prompt_length"]) == 4
    told = TextGeneration(system="the name").read({"prompt": ["where"], "answer": ["in york"]}, bundle, "f")[0]
    assert bundle.companions["tokenizer"].convert_ids_to_tokens(told["input_ids"].tolist())[:3] == ["[pad]", "[unk]", "the"]


def test_what_a_template_writes_behind_the_end_is_no_part_of_the_answer() -> None:
    bundle = chatting()
    bundle.companions["tokenizer"].chat_template = CHAT.replace("' [eos] ' }}{% endfor %}", "' [eos] york ' }}{% endfor %}")
    row = TextGeneration().read({"prompt": ["where does ada live"], "answer": ["in lima"]}, bundle, "f")[0]
    answer = row["labels"][row["labels"] != IGNORED]
    assert bundle.companions["tokenizer"].convert_ids_to_tokens(answer.tolist()) == ["in", "lima", "[eos]"]


def test_a_template_that_refuses_says_so_in_words() -> None:
    bundle = chatting()
    bundle.companions["tokenizer"].chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT
    with pytest.raises(InputError, match="the chat template refuses such a conversation"):
        TextGeneration(system="the name").read({"prompt": ["where"], "answer": ["york"]}, bundle, "f")


@pytest.mark.parametrize(
    ("true", "said", "recall"), [("Она живёт в Риме", "она живёт в Осло", 0.75), ("running towns", "the town runs", 1.0), ("a_b c-d", "a b c d", 1.0)]
)
def test_words_of_any_script_count(true: str, said: str, recall: float) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    assert RougeScorer(["rouge1"], tokenizer=_Words()).score(true, said)["rouge1"].recall == pytest.approx(recall)
    if true.isascii():
        assert RougeScorer(["rouge1"], use_stemmer=True).score(true, said)["rouge1"].recall == pytest.approx(recall)


def test_a_plain_text_is_continued_from_its_middle() -> None:
    row = TextGeneration().read({"text": ["where does ada live in the"]}, bundle_of("gpt2"), "f")[0]
    assert int(row["prompt_length"]) == 3
    assert IGNORED not in row["labels"].tolist()


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        ({"messages": [[{"role": "user", "content": "where"}]]}, {}, "conversations need a chat template"),
        ({"prompt": ["where"], "answer": ["york"]}, {"template": "chat"}, "the tokenizer has no chat template"),
    ],
)
def test_without_a_template(data: object, settings: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TextGeneration.model_validate(settings).read(data, bundle_of("llama"), "f")


@pytest.mark.parametrize(
    "messages", [[], "where", [{"role": "assistant", "content": "york"}], [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]]
)
def test_conversations_that_do_not_end_with_an_answer(messages: object) -> None:
    with pytest.raises(InputError, match="the conversation at position 0 does not end with a turn of the assistant"):
        TextGeneration().read({"messages": [messages]}, chatting(), "f")


def test_tokens_that_end_an_answer_come_from_tokenizer_and_model() -> None:
    bundle = bundle_of("llama")
    bundle.model.generation_config.eos_token_id = [1, 7]  # type: ignore[union-attr]
    assert TextGeneration().bound(bundle)._end == {1, 7}


def test_a_task_that_is_not_bound_says_so() -> None:
    batch = task_and_model("llama")[2]
    with pytest.raises(RuntimeError, match="bound to a model's tokenizer"):
        TextGeneration().answers(batch)


def test_a_task_with_settings_is_the_one_of_the_problem() -> None:
    problem = make_problem(bundle_of("llama"), train=facts(0, 8), test=facts(20, 4), forget=["fact-1"], task=TextGeneration(max_new_tokens=3))
    assert isinstance(problem.task, TextGeneration)
    assert problem.task.max_new_tokens == 3
    assert Engine(problem.task).evaluate(problem.original.model, problem.test, problem.task.generations).shape[1] <= 3


def test_the_chat_template_is_given_options_and_an_unknown_one_is_refused() -> None:
    bundle = chatting()
    bundle.companions["tokenizer"].chat_template = "{% if thinking %}the name {% endif %}" + CHAT
    data = {"prompt": ["where"], "answer": ["york"]}
    for thinking, length in ((True, 7), (False, 5)):
        assert int(TextGeneration(template_options={"thinking": thinking}).read(data, bundle, "f")[0]["prompt_length"]) == length + 1
    with pytest.raises(InputError, match=r"task\.template_options: the chat template of this tokenizer reads no 'think'"):
        TextGeneration(template_options={"think": True}).read(data, bundle, "f")
    with pytest.raises(InputError, match=r"task\.template_options: options are given for a chat template, but texts are put plainly"):
        TextGeneration(template_options={"thinking": True}, template="plain").read(data, bundle, "f")


def test_a_template_that_asks_for_the_date_is_told_the_same_one_every_day() -> None:
    bundle = chatting()
    words = bundle.companions["tokenizer"]
    words.add_tokens(["26", "Jul", "2024"])
    words.chat_template = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') + ' ' }}{% endif %}" + CHAT
    data = {"prompt": ["where"], "answer": ["york"]}
    first = words.convert_ids_to_tokens(TextGeneration().read(data, bundle, "f")[0]["input_ids"].tolist())
    assert first[:4] == ["26", "Jul", "2024", "[pad]"]
    told = words.convert_ids_to_tokens(TextGeneration(today="the far town").read(data, bundle, "f")[0]["input_ids"].tolist())
    assert told[:4] == ["the", "far", "town", "[pad]"]
    real = words.convert_ids_to_tokens(TextGeneration(today=None).read(data, bundle, "f")[0]["input_ids"].tolist())
    assert real[:4] != first[:4]


def merging(*, fast: bool = True) -> Bundle:
    """Pairs of letters are one token wherever they stand, also across the border of prompt and answer: "? " and "?i"."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    letters = sorted(set("abcdefghijklmnopqrstuvwxyz ?."))
    merges = [("?", " "), ("?", "i"), ("a", "n"), ("i", "n")]
    vocabulary = {token: i for i, token in enumerate(["[eos]", *letters, *("".join(pair) for pair in merges)])}
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocabulary, merges)), eos_token="[eos]")
    if not fast:

        class Slow:
            is_fast, bos_token_id, eos_token_id, chat_template = False, None, 0, None

            def __call__(self, texts: list[str], **options: Any) -> Any:
                assert "return_offsets_mapping" not in options
                return words(texts, **options)

        return Bundle(bundle_of("llama").model, {"tokenizer": Slow()})
    return Bundle(bundle_of("llama").model, {"tokenizer": words})


@pytest.mark.parametrize(
    ("prompt", "answer", "before", "after"), [("can he?", "in", ["c", "an", " ", "h", "e"], ["? ", "in"]), ("can", "in", ["c", "an"], [" ", "in"])]
)
def test_prompt_and_answer_are_encoded_together_and_divided_by_where_tokens_stand(prompt: str, answer: str, before: list[str], after: list[str]) -> None:
    bundle = merging()
    words = bundle.companions["tokenizer"]
    row = TextGeneration().read({"prompt": [prompt], "answer": [answer]}, bundle, "f")[0]
    whole = words(f"{prompt} {answer}", return_offsets_mapping=True)
    assert row["input_ids"].tolist() == [*whole["input_ids"], 0]
    counted = (row["labels"] != IGNORED).tolist()
    assert counted == [end > len(prompt) for _, end in whole["offset_mapping"]] + [True]
    length = int(row["prompt_length"])
    assert words.convert_ids_to_tokens(row["input_ids"][:length].tolist()) == before
    assert words.convert_ids_to_tokens(row["input_ids"][length:-1].tolist()) == after


def test_a_chat_template_may_merge_into_the_answer() -> None:
    """Its header ends with the question mark that the answer begins to merge with: it is no error, and the merged token is the answer's."""
    bundle = merging()
    bundle.companions[
        "tokenizer"
    ].chat_template = "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'user' %}?{% else %}[eos]{% endif %}{% endfor %}"
    row = TextGeneration().read({"prompt": ["can he"], "answer": ["in"]}, bundle, "f")[0]
    said = bundle.companions["tokenizer"].convert_ids_to_tokens(row["labels"][row["labels"] != IGNORED].tolist())
    assert said == ["?i", "n", "[eos]"]


def test_a_tokenizer_that_tells_no_places_is_divided_where_the_prompt_alone_differs() -> None:
    data = {"prompt": ["can he?", "can", "be"], "answer": ["in", "in", "an"]}
    slow, fast = (TextGeneration().read(data, merging(fast=kind), "f") for kind in (False, True))
    assert slow.fingerprint == fast.fingerprint


def test_only_answers_are_ever_held_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    task, model, batch = task_and_model("llama")
    with torch.no_grad():
        log_p = task.outputs(model, batch)
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    kept = batch["labels"][:, 1:] != IGNORED
    wanted = logits.double().log_softmax(dim=-1).gather(2, batch["labels"][:, 1:].clamp(min=0)[..., None])[..., 0]
    torch.testing.assert_close(log_p, torch.where(kept, wanted, 0.0), rtol=1e-12, atol=0)
    assert log_p.dtype == torch.float64
    torch.testing.assert_close(task.outputs(model, batch), log_p.float())  # with gradients, in float32
    seen = []

    def watched(chosen: torch.Tensor) -> torch.Tensor:
        seen.append(chosen.shape)
        return chosen.double()

    monkeypatch.setattr("unlearned.tasks.text_generation.measured", watched)
    with torch.no_grad():
        task.outputs(model, batch)
    assert seen == [(int(kept.sum()), logits.shape[-1])]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_prompts_get_no_vocabulary(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits begin where the first answer of a batch does, and are those of the whole text; a model that cannot leave any out, and adapters, say the same."""
    task, model, batch = task_and_model(kind)
    mask, tokens = answering(batch)
    whole = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    width = batch["labels"].shape[1] - 1 - (int(batch["prompt_length"].min()) - 1)
    assert mask.shape[1] == width < whole.shape[1]
    assert int(mask.sum()) == int((batch["labels"][:, 1:] != IGNORED).sum())
    assert torch.equal(tokens, batch["labels"][:, -width:])
    rows: list[int] = []
    head = model.get_output_embeddings()  # type: ignore[operator]
    head.register_forward_hook(lambda _, inputs, __: rows.append(inputs[0].shape[1]))
    torch.testing.assert_close(task.token_logits(model, batch), whole[:, -width:], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(task.token_logits(with_adapter(model, Lora(rank=1), ".*").eval(), batch), whole[:, -width:], rtol=1e-5, atol=1e-6)
    assert rows == [width + 1, width + 1]
    whole_only = model.forward
    monkeypatch.setattr(model, "forward", lambda input_ids, attention_mask: whole_only(input_ids, attention_mask=attention_mask))
    torch.testing.assert_close(task.token_logits(model, batch), whole[:, -width:], rtol=1e-5, atol=1e-6)
    assert rows[-1] == whole.shape[1] + 1


def test_a_batch_without_answers_keeps_its_width() -> None:
    bundle = bundle_of("llama")
    task = TextGeneration().bound(bundle)
    samples = task.prompts(["can he", "be"], bundle)
    batch = task.collate([samples[0], samples[1]])
    assert answering(batch).mask.shape == (2, batch["input_ids"].shape[1] - 1)


def test_apple_devices_have_no_float64() -> None:
    assert [finest(torch.device(name)) for name in ("cpu", "cuda", "mps")] == [torch.float64, torch.float64, torch.float32]


def test_sums_of_a_closed_form_are_exact_where_a_device_has_no_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.tensor([1.0, 2.0**-30])
    assert exactly(rows).dtype == torch.float64
    monkeypatch.setattr("unlearned.tasks._task.finest", lambda _: torch.float32)
    assert exactly(rows).device.type == "cpu"
    assert float(exactly(rows).sum()) == 1 + 2.0**-30
