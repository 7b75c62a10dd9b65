"""Numbers of language-model audits against worked arithmetic and naive loops."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.harness import HFLM, put_in_place, simple_evaluate
from tests.models import WORDS, bundle_of, problem_of, tokenizer
from unlearned.api import forget
from unlearned.audits import audits
from unlearned.audits._answers import text_task
from unlearned.audits.answer_ranks import hits, reciprocal_ranks
from unlearned.audits.deviation_score import deviation_score
from unlearned.audits.fluency import Fluency, distinct_pairs
from unlearned.audits.lm_eval import LmEval
from unlearned.audits.memorization import extraction_strength
from unlearned.audits.refusal_quality import by_wording
from unlearned.audits.text_membership import lowest_mean, privleak, standardised
from unlearned.engine.bank import Kept
from unlearned.engine.engine import Engine
from unlearned.errors import InputError
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Finding, pick
from unlearned.tasks._refusals import REFUSALS
from unlearned.tasks._task import Bundle
from unlearned.tasks._texts import IGNORED
from unlearned.tasks.text_generation import TextGeneration


@pytest.mark.parametrize(
    ("forget", "retain", "score"),
    [(0.109, 0.898, 14.93), (0.106, 0.909, 13.97), (0.192, 0.549, 49.02), (0.099, 0.537, 47.35), (0, 1, 0), (1, 0, 141.42)],
)
def test_deviation_score(forget: float, retain: float, score: float) -> None:
    assert deviation_score(forget, retain) == pytest.approx(score, abs=0.006)


def booleans(*rows: str) -> Tensor:
    return torch.tensor([[letter == "1" for letter in row] for row in rows])


def test_extraction_strength_by_hand() -> None:
    """Answers of four tokens after one of the prompt, and of two; the last of each ends the text, and is no part of what is extracted."""
    right = booleans("01111", "00111", "01110", "01100", "11000")
    mask = booleans("01111", "01111", "01111", "01111", "00110")
    assert extraction_strength(right, mask).tolist() == pytest.approx([1, 2 / 3, 1, 0, 0])
    assert extraction_strength(right, mask, compat=True).tolist() == pytest.approx([1, 2 / 3, 1, 1 / 3, 1])


def test_ranks_by_hand() -> None:
    ranks = torch.tensor([[1, 2, 0, 0], [4, 200, 1, 0]])
    lengths = torch.tensor([4, 3])
    assert reciprocal_ranks(ranks, lengths).tolist() == pytest.approx([1.5 / 4, (0.25 + 0.005 + 1) / 3])
    assert hits(ranks, lengths, 100).tolist() == pytest.approx([2 / 4, 2 / 3])


def test_lowest_tokens_by_hand() -> None:
    values = torch.tensor([[-1.0, -5.0, -3.0, -9.0, 7.0], [-2.0, 0.0, 0.0, 0.0, 0.0]])
    mask = booleans("11110", "10000")
    assert lowest_mean(values, mask, 0.5).tolist() == pytest.approx([-7, -2])
    assert lowest_mean(values, mask, 0.3).tolist() == pytest.approx([-7, -2])  # two of four
    assert lowest_mean(values, mask, 1.0).tolist() == pytest.approx([-4.5, -2])
    # −1, −5, −3 without the last: one of three; and never fewer than one.
    assert lowest_mean(values, mask, 0.5, compat=True).tolist() == pytest.approx([-5, -2])
    assert lowest_mean(values, mask, 0.7, compat=True).tolist() == pytest.approx([-4, -2])


def test_standardised_log_probability_by_a_loop() -> None:
    logits = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    tokens = torch.tensor([0, 3, 4])
    for row, token, found in zip(logits.tolist(), tokens.tolist(), standardised(logits, tokens).tolist(), strict=True):
        total = sum(math.exp(v) for v in row)
        log_p = [v - math.log(total) for v in row]
        mean = sum(math.exp(v) * v for v in log_p)
        variance = sum(math.exp(v) * (v - mean) ** 2 for v in log_p)
        assert found == pytest.approx((log_p[token] - mean) / math.sqrt(variance))


def test_privleak() -> None:
    assert privleak(0.6, 0.6) == 0
    assert [privleak(value, 0.5) for value in (1.0, 0.0, 0.7)] == pytest.approx([-100, 100, -40])


def test_wording_and_fluency() -> None:
    found = by_wording(["I don't know.", "Paris is in France.", ""], REFUSALS)
    assert found[0].max() == pytest.approx(1)
    assert found[1].max() < 0.6
    assert found[2].max() == 0
    assert [distinct_pairs(text) for text in ("", "yes", "a b c", "a b a b")] == pytest.approx([1, 1, 1, 2 / 3])


def subject_of(kind: str = "llama") -> Subject:
    problem = problem_of(kind)
    return Subject(problem, bundle_of(kind, seed=200), [Kept(bundle_of(kind, seed=300 + i), None, i) for i in range(2)], Engine(problem.task))


def measured(name: str, subject: Subject, **settings: Any) -> list[Finding]:
    kind: Any = audits.get(name)
    found: list[Finding] = kind(**settings).measure(subject)
    return found


def test_answers_are_generated_once_for_all_audits(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of()
    calls = 0
    generations = TextGeneration.generations

    def counting(self: TextGeneration, *given: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return generations(self, *given)

    monkeypatch.setattr(TextGeneration, "generations", counting)
    measured("deviation-score", subject)
    once = calls
    assert once == 4 * 3  # four models, three sets of one batch
    for name in ("answer-ranks", "refusal-quality"):
        measured(name, subject)
    assert calls == once


def test_memorisation_of_each_sample_by_a_loop() -> None:
    subject = subject_of()
    model = subject.unlearned.model
    exact, strength, probability, usual = [], [], [], []
    for i in range(len(subject.problem.forget)):
        row = subject.problem.forget[i]
        with torch.no_grad():
            log_p = model(input_ids=row["input_ids"][None]).logits[0].double().log_softmax(dim=-1)
        places = [t for t in range(1, len(row["labels"])) if int(row["labels"][t]) != IGNORED]
        right = [int(log_p[t - 1].argmax()) == int(row["labels"][t]) for t in places]
        exact.append(np.mean(right))
        said = right[:-1]
        k = next((k for k in range(len(said)) if all(said[k:])), len(said))
        strength.append(1 - k / len(said))
        probability.append(math.exp(float(np.mean([float(log_p[t - 1, row["labels"][t]]) for t in places]))))
        usual.append(np.mean(right[:-1]))  # the common implementation leaves out the end of the text
    findings = measured("memorization", subject)
    compat = measured("memorization", subject, compat=True)
    wanted = (("exact_memorization", exact, findings), ("extraction_strength", strength, findings), ("probability", probability, findings))
    for metric, values, among in (*wanted, ("exact_memorization", usual, compat)):
        [finding] = pick(among, metric=metric, split="forget", subject="unlearned")
        assert finding.value == pytest.approx(np.mean(values), rel=1e-4)


def test_a_memorised_forget_set_is_seen_by_every_attack() -> None:
    """The test set is what the model never saw; the forget set is what it says by itself."""
    problem = problem_of("llama")
    swapped = Problem(problem.task, problem.original, problem.retain, problem.forget, problem.test)
    trained = forget(swapped, "fine-tune", epochs=60, lr=0.1, batch_size=6).model
    findings = measured("text-membership", Subject(problem, Bundle(trained), [], Engine(problem.task)), gradnorm=True)
    aucs = {f.metric: f.value for f in findings if f.subject == "unlearned" and f.metric.startswith("auc") and f.metric != "auc_reference"}
    assert set(aucs) == {"auc_loss", "auc_min_k", "auc_min_k_plus_plus", "auc_zlib", "auc_gradnorm"}
    assert all(value is not None and value > 0.7 for value in aucs.values()), aucs
    [leak] = pick(findings, metric="privleak", subject="unlearned")
    assert leak.value is not None
    assert leak.value < -40


def test_probability_of_sound_text_is_that_of_the_labels_that_count(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    torch.manual_seed(1)
    names = {0: "noise", 1: "clean", 2: "mild"}
    config = GPT2Config(vocab_size=len(WORDS), n_positions=24, n_embd=8, n_layer=1, n_head=1, num_labels=3, id2label=names, pad_token_id=2)
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    subject = subject_of()
    [finding] = pick(measured("fluency", subject, classifier=str(tmp_path), labels=("clean", "mild")), metric="clean", split="forget", subject="unlearned")
    task = text_task(subject)
    said = task.said(subject.engine.evaluate(subject.unlearned.model, subject.problem.forget, task.generations))
    model, shares = GPT2ForSequenceClassification.from_pretrained(tmp_path).eval(), []
    for answer in said:
        with torch.no_grad():
            noise, *sound = model(**tokenizer()([answer], return_tensors="pt")).logits[0].double().exp().tolist()
        shares.append(sum(sound) / (noise + sum(sound)))
    assert finding.value == pytest.approx(np.mean(shares))
    [fault] = Fluency(classifier=str(tmp_path), labels=("fine",)).faults(subject.problem)
    assert str(fault) == "labels: the classifier has no label 'fine'. It has noise, clean, mild."


@pytest.mark.parametrize(("name", "field"), [("fluency", "classifier"), ("refusal-quality", "embedder")])
def test_a_helper_that_cannot_be_loaded_is_said_before_anything_is_measured(name: str, field: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    part: Any = audits.get(name)
    [fault] = part(**{field: str(tmp_path)}).faults(problem_of("llama"))
    assert fault.field == field
    assert "can be loaded from" in fault.what


def test_the_harness_is_asked_and_its_numbers_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    put_in_place(monkeypatch)
    subject = subject_of()
    findings = measured("lm-eval", subject, benchmarks=("arc_easy", "gsm8k"), limit=5)
    wrapped = HFLM(subject.unlearned.model, None, 1, "cpu")
    told = simple_evaluate(wrapped, ["arc_easy", "gsm8k"], 0, 5)["results"]
    [easy] = pick(findings, metric="acc", split="arc_easy", subject="unlearned")
    assert easy.value == told["arc_easy"]["acc,none"]
    assert [easy.low, easy.high] == pytest.approx([told["arc_easy"]["acc,none"] - 0.0196, told["arc_easy"]["acc,none"] + 0.0196])
    assert (easy.n, easy.direction) == (5, "higher")
    assert {(f.metric, f.split) for f in findings} == {
        ("acc", "arc_easy"),
        ("acc_norm", "arc_easy"),
        ("exact_match.strict-match", "gsm8k"),
        ("perplexity", "gsm8k"),
    }
    assert {f.low for f in pick(findings, metric="acc_norm", subject="unlearned")} == {None}
    assert {f.direction for f in pick(findings, metric="perplexity")} == {"lower"}


def test_without_the_harness_or_with_a_task_that_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(InputError, match=r"lm-eval\.name: this audit needs the package lm-eval. Install it: pip install 'unlearned\[lm-eval\]'"):
        measured("lm-eval", subject_of())
    put_in_place(monkeypatch)
    [fault] = LmEval(benchmarks=("piqa", "pica")).faults(problem_of("llama"))
    assert (fault.field, fault.what) == ("benchmarks", "the harness knows no task 'pica'.")


def test_the_reference_attack_takes_the_mean_loss_of_the_bank_away() -> None:
    subject = subject_of()
    findings = pick(measured("text-membership", subject), metric="auc_reference")
    loss = {split: subject.values(subject.engine.task.losses, split) for split in ("forget", "test")}

    def area(test: Tensor, members: Tensor) -> float:
        pairs = [(t > f) + 0.5 * (t == f) for t in test.tolist() for f in members.tolist()]
        return float(np.mean(pairs))

    of = {split: (values["unlearned"][0] - torch.stack(values["reference"]).mean(dim=0)) for split, values in loss.items()}
    [unlearned] = pick(findings, subject="unlearned")
    assert unlearned.value == pytest.approx(area(of["test"], of["forget"]))
    first = {split: values["reference"][0] - values["reference"][1] for split, values in loss.items()}
    second = {split: values["reference"][1] - values["reference"][0] for split, values in loss.items()}
    [reference] = pick(findings, subject="reference")
    assert reference.value == pytest.approx(np.mean([area(each["test"], each["forget"]) for each in (first, second)]))
    one = Subject(subject.problem, subject.unlearned, subject.references[:1], subject.engine)
    [alone] = pick(measured("text-membership", one), metric="auc_reference", subject="unlearned")
    assert alone.gap is None
    assert alone.reason == "a reference is compared with other references, of which there are none"
