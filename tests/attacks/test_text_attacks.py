"""Attacks on language models against hooks, projections and prompts that are written out here."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from tests.models import facts, llama, made, tokenizer
from unlearned.api import make_problem
from unlearned.attacks._directions import directions_of_the_edit, edited_layers
from unlearned.attacks.hidden_probe import HiddenProbe, translated, translator
from unlearned.attacks.layer_skip import LayerSkip
from unlearned.attacks.model_diff import ModelDiff, divergences, separation
from unlearned.attacks.paraphrase import Paraphrase
from unlearned.attacks.prefix import Prefix, begun, opened
from unlearned.attacks.quantize import rounded
from unlearned.attacks.refusal_ablation import RefusalAblation
from unlearned.attacks.relearn import Relearn
from unlearned.attacks.reverse_direction import ReverseDirection
from unlearned.data.samples import ColumnRows, Samples
from unlearned.engine.engine import Engine
from unlearned.errors import InputError
from unlearned.evidence.subject import Subject
from unlearned.records import Finding
from unlearned.tasks._decoders import blocks_of, down_projection, matrix_of
from unlearned.tasks._questions import questions_of, texts_of
from unlearned.tasks._stray_texts import benign, nearest, without_order
from unlearned.tasks._task import Bundle
from unlearned.tasks.text_generation import TextGeneration, alikeness

PROBABILITY = TextGeneration(score="probability")


def three_blocks(seed: int) -> Any:
    """A Llama of three blocks."""
    from transformers import LlamaForCausalLM

    one: Any = made(llama)
    config = one.config.from_dict({**one.config.to_dict(), "num_hidden_layers": 3, "layer_types": None})
    return made(lambda: LlamaForCausalLM(config), seed)


@functools.cache
def bundles() -> tuple[Bundle, Bundle]:
    """An original, and another model whose second and third block's projections were changed, by rank one."""
    original = Bundle(three_blocks(1), {"tokenizer": tokenizer()})
    edited = copy.deepcopy(original.model)
    with torch.no_grad():
        for layer in (1, 2):
            weight = matrix_of(down_projection(edited, layer))
            weight += torch.outer(torch.linspace(-1, 1, len(weight)) * layer, torch.linspace(0, 1, weight.shape[1]))
    return original, original.with_model(edited)


def subject_of(task: TextGeneration = PROBABILITY, *, other: bool = False) -> Subject:
    original, edited = bundles()
    train = facts(0, 14)
    problem = make_problem(original, train=train, test=facts(100, 4), forget=train["id"][:5], task=task)
    unlearned = original.with_model(three_blocks(2)) if other else edited
    return Subject(problem, unlearned, [], Engine(problem.task))


def values(findings: list[Finding], metric: str = "knowledge") -> dict[float | None, float | None]:
    return {f.budget: f.value for f in findings if f.subject == "unlearned" and f.metric == metric}


def known(subject: Subject, *hooks: Callable[[], Any]) -> float:
    """Knowledge of the forget set while hooks are on the unlearned model."""
    handles = [hook() for hook in hooks]
    found = subject.engine.evaluate(subject.unlearned.model, subject.problem.forget, subject.engine.task.knowledge)
    for handle in handles:
        handle.remove()
    return float(found.mean())


def prompt_means(subject: Subject, samples: Samples) -> Tensor:
    """Mean hidden states at the last prompt token, prompt by prompt, as transformers gives them: (L + 1, q), the first in front of block 0."""
    model: Any = subject.unlearned.model
    seen: list[Tensor] = []
    hooks = [block.register_forward_pre_hook(lambda _, args: seen.append(args[0][0, -1])) for block in blocks_of(model)]
    hooks.append(blocks_of(model)[-1].register_forward_hook(lambda _, __, out: seen.append(out[0, -1])))
    with torch.no_grad():
        for i in range(len(samples)):
            model(samples[i]["input_ids"][: int(samples[i]["prompt_length"])][None])
    for hook in hooks:
        hook.remove()
    return torch.stack(seen).double().reshape(len(samples), 4, 16).mean(dim=0)


# --- layer skip


def test_skipping_takes_the_run_of_blocks_that_brings_back_most() -> None:
    subject = subject_of(other=True)
    blocks = blocks_of(subject.unlearned.model)

    def skip(i: int) -> Callable[[], Any]:
        return lambda: blocks[i].register_forward_hook(lambda _, args, __: args[0])

    found = values(LayerSkip(widths=(1, 2, 9), tried_on=5).measure(subject))
    expected = {0: known(subject), 1: max(known(subject, skip(i)) for i in range(3)), 2: max(known(subject, skip(i), skip(i + 1)) for i in range(2))}
    assert found == pytest.approx(expected, rel=1e-5)
    named = values(LayerSkip(layers=(2, 0)).measure(subject))
    assert [named[1], named[2]] == [pytest.approx(known(subject, skip(2)), rel=1e-5), pytest.approx(known(subject, skip(2), skip(0)), rel=1e-5)]


# --- directions


def test_what_an_edit_adds_is_the_mean_of_its_product_with_what_the_projection_reads() -> None:
    subject = subject_of()
    original, edited = (b.model for b in bundles())
    assert set(edited_layers(original, edited)) == {1, 2}
    assert edited_layers(original, original) == {}
    assert edited_layers(original, three_blocks(2)) == {}
    found = directions_of_the_edit(subject)
    for layer in (1, 2):
        rows: list[Tensor] = []
        hook = down_projection(edited, layer).register_forward_pre_hook(lambda _, args, rows=rows: rows.append(args[0][0, -1].double()))
        for i in range(5):
            sample = subject.problem.forget[i]
            with torch.no_grad():
                edited(sample["input_ids"][: int(sample["prompt_length"])][None])
        hook.remove()
        mean = torch.stack(rows).mean(dim=0)
        expected = layer * torch.linspace(-1, 1, 16).double() * (torch.linspace(0, 1, 24).double() @ mean)
        torch.testing.assert_close(found[layer], expected, rtol=1e-3, atol=1e-5)


def test_reversing_takes_away_what_the_edit_adds() -> None:
    subject = subject_of()
    vectors = {layer: vector.float() for layer, vector in directions_of_the_edit(subject).items()}
    blocks = blocks_of(subject.unlearned.model)

    def add(layer: int, times: float) -> Callable[[], Any]:
        return lambda: blocks[layer].register_forward_hook(lambda _, __, out: out + times * vectors[layer])

    found = values(ReverseDirection(strengths=(-0.5, 1)).measure(subject))
    assert found[1] == pytest.approx(known(subject, add(1, -1), add(2, -1)), rel=1e-4)
    assert found[-0.5] == pytest.approx(known(subject, add(1, 0.5), add(2, 0.5)), rel=1e-4)


def test_without_an_edit_the_direction_is_the_difference_of_means_at_the_best_block() -> None:
    subject = subject_of(other=True)
    difference = (prompt_means(subject, subject.problem.forget) - prompt_means(subject, subject.problem.retain))[1:].float()
    blocks = blocks_of(subject.unlearned.model)

    def shown(layer: int, times: float) -> float:
        return known(subject, lambda: blocks[layer].register_forward_hook(lambda _, __, out: out + times * difference[layer]))

    best = max(range(3), key=lambda layer: max(shown(layer, 1), shown(layer, -1)))
    found = values(ReverseDirection(strengths=(2,), tried_on=5).measure(subject))
    assert found[2] == pytest.approx(shown(best, -2), rel=1e-4)
    [absent] = ReverseDirection(direction="edit").measure(subject)
    assert "differ in more than down-projections" in (absent.reason or "")


@pytest.mark.parametrize("level", ["zero", "answered"])
def test_ablation_projects_the_inputs_of_the_last_blocks(level: Any) -> None:
    subject = subject_of()
    answered = prompt_means(subject, subject.problem.retain)[:-1]
    directions = prompt_means(subject, subject.problem.forget)[:-1] - answered
    blocks = blocks_of(subject.unlearned.model)

    def project(layer: int) -> Callable[[], Any]:
        unit = directions[layer] / directions[layer].norm()
        p = torch.outer(unit, unit)
        kept = p @ answered[layer] if level == "answered" else torch.zeros(16)
        return lambda: blocks[layer].register_forward_pre_hook(lambda _, args: ((args[0].double() @ (torch.eye(16) - p) + kept).float(), *args[1:]))

    found = values(RefusalAblation(shares=(0.3, 0.7), level=level).measure(subject))
    assert found[33.333333] == pytest.approx(known(subject, project(2)), rel=1e-4)
    assert found[66.666667] == pytest.approx(known(subject, project(1), project(2)), rel=1e-4)


# --- prompts


def test_the_best_of_all_rewordings_counts_for_each_sample() -> None:
    subject = subject_of()
    engine, problem = subject.engine, subject.problem
    columns = {"prompt": problem.forget.fact("prompt"), "answer": problem.forget.fact("answer")}
    each = [engine.evaluate(subject.unlearned.model, problem.forget, engine.task.knowledge)]
    for words in ("what is {}", "{} in town"):
        changed = problem.task.read({**columns, "prompt": [words.format(p) for p in columns["prompt"]]}, problem.original, "x")
        each.append(engine.evaluate(subject.unlearned.model, changed, engine.task.knowledge))
    expected = [float(torch.stack(each[: k + 1]).max(dim=0).values.mean()) for k in range(3)]
    found = values(Paraphrase(templates=("what is {}", "{} in town")).measure(subject))
    assert [found[k] for k in range(3)] == pytest.approx(expected, rel=1e-6)


def test_a_language_model_may_write_the_rewordings(tmp_path: Path) -> None:
    """An untrained one: whatever it writes, or the question itself, is what is asked."""
    subject = subject_of()
    subject.problem.task.save(bundles()[0], tmp_path)
    attack = Paraphrase(paraphraser=str(tmp_path), requests=("what is {}",))
    assert attack.faults(subject.problem) == []
    assert [f.budget for f in attack.measure(subject) if f.subject == "unlearned" and f.metric == "knowledge"] == [0, 1]
    [fault] = Paraphrase(paraphraser=str(tmp_path / "none")).faults(subject.problem)
    assert fault.field == "paraphraser"


def test_questions_of_conversations_are_the_last_turn_of_the_user() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]
    told = [{"role": "system", "content": "s"}, *turns[:2]]
    found = questions_of(Samples(ColumnRows({"x": [0, 1]}), facts={"messages": [turns, told]}))
    assert found == [("c", "d", False), ("a", "b", True)]
    assert texts_of(Samples(ColumnRows({"x": [0]}), facts={"messages": [turns]})) == ["a b c d"]
    assert questions_of(Samples(ColumnRows({"x": [0]}), facts={"text": ["a"]})) == []


ROW = {"input_ids": torch.tensor([5, 6, 7, 11, 12, 13, 14, 1]), "labels": torch.tensor([-100, -100, -100, 11, 12, 13, 14, 1]), "prompt_length": torch.tensor(3)}


@pytest.mark.parametrize(("share", "prompt"), [(0.0, 3), (0.25, 4), (0.3, 4), (0.5, 5)])
def test_a_begun_answer_moves_tokens_into_the_prompt_and_counts_what_is_behind_the_largest_share(share: float, prompt: int) -> None:
    row = begun(ROW, share, 0.5, frozenset({1}))
    assert int(row["prompt_length"]) == prompt
    assert row["labels"].tolist() == [-100] * 5 + [13, 14, 1]
    assert torch.equal(row["input_ids"], ROW["input_ids"])


def test_an_opening_stands_between_question_and_answer() -> None:
    row = opened(ROW, torch.tensor([8, 9]))
    assert row["input_ids"].tolist() == [5, 6, 7, 8, 9, 11, 12, 13, 14, 1]
    assert row["labels"].tolist() == [-100] * 5 + [11, 12, 13, 14, 1]
    assert int(row["prompt_length"]) == 5


def test_prefixes_that_do_not_fit_are_left_out_or_said() -> None:
    subject = subject_of()
    long = "in " * 30 + "{}"
    [finding] = Prefix(gold=(), scenes=(long,), openings=()).measure(subject)
    assert "longer than the model's context" in (finding.reason or "")
    found = values(Prefix(gold=(), scenes=(long, "where {}"), openings=("the",)).measure(subject))
    assert set(found) == {0, 1, 2}


# --- probes


def test_the_translation_is_ridge_regression_of_what_is_missing() -> None:
    generator = torch.Generator().manual_seed(0)
    h, a, b = (torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((60, 5), (5, 5), (5,)))
    y = h @ a.T + b
    x = torch.cat([h, torch.ones(60, 1, dtype=torch.float64)], dim=1)
    gram, cross = x.T @ x, (y - h).T @ x
    # An affine map is found exactly where the ridge is small.
    torch.testing.assert_close(translated(h, translator(gram, cross, 1e-13)), y, rtol=1e-6, atol=1e-6)
    weight = (0.3 * gram.trace() / 6).sqrt()
    rows, targets = torch.cat([x, weight * torch.eye(6, dtype=torch.float64)]), torch.cat([y - h, torch.zeros(6, 5, dtype=torch.float64)])
    torch.testing.assert_close(translator(gram, cross, 0.3), torch.linalg.lstsq(rows, targets).solution.T, rtol=1e-8, atol=1e-10)


def test_the_lens_is_the_last_norm_and_the_output_matrix_on_each_depth() -> None:
    subject = subject_of()
    model: Any = subject.unlearned.model
    right: dict[int, list[float]] = {out: [] for out in range(4)}
    for i in range(5):
        row = subject.problem.forget[i]
        with torch.no_grad():
            hidden = list(model(row["input_ids"][None], output_hidden_states=True).hidden_states[:-1])
            before_norm: list[Tensor] = []
            hook = model.model.norm.register_forward_pre_hook(lambda _, args, seen=before_norm: seen.append(args[0]))
            model(row["input_ids"][None])
            hook.remove()
            for out, state in enumerate([before_norm[0], *hidden[::-1]]):
                guesses = model.lm_head(model.model.norm(state))[0, :-1].argmax(dim=-1)
                wanted = row["labels"][1:]
                right[out].append(float((guesses == wanted)[wanted != -100].float().mean()))
    findings = HiddenProbe(ridge=1e9).measure(subject)
    expected = {out: pytest.approx(float(np.mean(shares)), abs=1e-6) for out, shares in right.items()}
    for metric in ("read_by_lens", "read_by_probe"):  # a probe that is held at 0 is the lens
        assert values(findings, metric) == expected


# --- differences


def test_separation_is_the_area_under_the_curve() -> None:
    random = np.random.default_rng(0)
    a, b = random.integers(0, 5, 20).astype(float), random.integers(1, 6, 30).astype(float)
    assert separation(a, b) == pytest.approx(roc_auc_score([1] * 20 + [0] * 30, np.concatenate([a, b])))
    assert separation(a, b) == pytest.approx(np.mean([(x > y) + 0.5 * (x == y) for x in a for y in b]))


def test_divergences_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    before, after = (torch.randn(2, 6, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    found = divergences(before, after, torch.tensor([1, 3]), torch.tensor([4, 2]), (1, 3, 9))
    for i, (first, length) in enumerate(((1, 4), (3, 2))):
        kl = []
        for position in range(first, first + length):
            p, q = before[i, position].softmax(0), after[i, position].softmax(0)
            kl.append(float((p * (p.log() - q.log())).sum()))
        assert found[i].tolist() == pytest.approx([kl[0], np.mean(kl[:3]), np.mean(kl)])


def test_only_the_predictions_that_are_compared_are_held() -> None:
    """Of prompts of different lengths in one batch, against whole logits of each text by itself."""
    subject = subject_of(TextGeneration(max_new_tokens=3))
    original, unlearned = subject.problem.original.model, subject.unlearned.model
    found = ModelDiff(tokens=(1, 2))._scores(subject, unlearned, subject.problem.retain, (1, 2))
    for i, scores in enumerate(found.tolist()):
        prompt = subject.problem.retain[i]["input_ids"][: int(subject.problem.retain[i]["prompt_length"])][None]
        kl = []
        for _ in range(2):
            p, q = (model(input_ids=prompt).logits[0, -1].detach().double().softmax(0) for model in (original, unlearned))
            kl.append(float((p * (p.log() - q.log())).sum()))
            prompt = torch.cat([prompt, p.argmax()[None, None]], dim=1)
        assert scores == pytest.approx([kl[0], np.mean(kl)], rel=1e-4)


def test_two_equal_models_cannot_be_told_apart_and_an_edit_of_the_forget_prompts_can() -> None:
    subject = subject_of(TextGeneration(max_new_tokens=3))
    same = Subject(subject.problem, subject.problem.original, [], subject.engine)
    findings = ModelDiff(tokens=(1, 2)).measure(same)
    assert {f.value for f in findings if f.metric in {"auc", "answers_auc"}} == {0.5}
    assert {f.value for f in findings if f.metric == "newly_declined"} == {0.0}
    assert [f.budget for f in findings if f.metric == "auc"] == [1, 2]
    assert alikeness(["a b", "", "x"], ["b a c", "", "y"]).tolist() == pytest.approx([0.8, 1.0, 0.0])


# --- relearning and rounding


def test_stray_texts() -> None:
    subject = subject_of()
    problem = subject.problem
    sentences = benign(7, problem.task, problem.original, 3)  # type: ignore[arg-type]
    assert len({tuple(sentences.fact("text"))}) == 1
    assert len(set(sentences.fact("text"))) == 7
    shuffled = without_order(problem.retain, 4, 1)
    first = [problem.retain[i]["input_ids"] for i in range(4)]
    assert [len(shuffled[i]["input_ids"]) for i in range(4)] == [len(ids) for ids in first]
    mixed = torch.cat([shuffled[i]["input_ids"] for i in range(4)])
    assert not torch.equal(mixed, torch.cat(first))
    assert torch.equal(mixed.sort().values, torch.cat(first).sort().values)


def test_related_samples_share_rare_words_with_the_forget_set() -> None:
    def texts(*rows: list[int]) -> Samples:
        return Samples(ColumnRows({"input_ids": [torch.tensor(row) for row in rows]}), [str(row) for row in rows])

    found = nearest(texts([1, 2, 3], [1, 8, 9], [1, 2, 9]), texts([1, 9], [1, 9, 8]), 2)
    assert found.ids == ["[1, 8, 9]", "[1, 2, 9]"]


def test_texts_are_for_texts_alone() -> None:
    from tests.models import problem_of

    with pytest.raises(ValueError, match="named twice"):
        Relearn(data=("retain", "retain"))
    [fault] = Relearn(data=("retain", "benign")).faults(problem_of("plain"))
    assert (fault.field, fault.what) == ("data", "benign are texts, and the task is image-classification.")


def test_each_group_of_weights_is_rounded_on_its_own_grid() -> None:
    weight = torch.randn(3, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.cat([rounded(weight[:, i : i + 4], 4, 0) for i in range(0, 10, 4)], dim=1)
    torch.testing.assert_close(rounded(weight, 4, 0, 4), expected)
    torch.testing.assert_close(rounded(weight.T, 4, 1, 4), expected.T)
    assert torch.equal(rounded(weight, 4, 0, 99), rounded(weight, 4, 0))


def test_models_without_known_blocks_and_blocks_that_are_not_there_are_refused() -> None:
    problem = subject_of().problem
    [fault] = LayerSkip(layers=(0, 7)).faults(problem)
    assert (fault.field, fault.what) == ("layers", "there is no layer 7; the model has 3, counted from 0.")
    with pytest.raises(InputError):
        blocks_of(nn.Linear(2, 2))
