"""The measures of TOFU against worked arithmetic, and a whole audit against a loop over single answers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from tests.models import bundle_of, facts, problem_of
from unlearned.api import audit, make_problem
from unlearned.audits.tofu import Tofu, forget_quality, harmonic_mean, indifference, log_truth_ratios, normalised, preference
from unlearned.engine.bank import Kept
from unlearned.engine.engine import Engine
from unlearned.errors import InputError
from unlearned.evidence.subject import Subject
from unlearned.problem import Problem
from unlearned.records import Finding, pick
from unlearned.tasks._task import DataSource
from unlearned.tasks._texts import IGNORED
from unlearned.tasks.text_generation import TextGeneration

LN2 = math.log(2)


def test_truth_ratio_in_both_definitions_by_hand() -> None:
    """Perturbed answers of probability 1/2 and 1/8, a paraphrase of 1/4: (5/16) / (1/4) = 5/4; with the geometric mean (1/4) / (1/4) = 1."""
    losses, paraphrased = [np.array([LN2, 3 * LN2]), np.array([2 * LN2])], np.array([2 * LN2, LN2])
    assert np.exp(log_truth_ratios(losses, paraphrased)) == pytest.approx([5 / 4, 1 / 2])
    assert np.exp(log_truth_ratios(losses, paraphrased, compat=True)) == pytest.approx([1, 1 / 2])


def test_truth_ratio_of_losses_beyond_the_range_of_exp() -> None:
    found = log_truth_ratios([np.array([2000.0, 2000.0])], np.array([0.0]))
    assert found == pytest.approx([-2000])
    assert indifference(found) == pytest.approx([0])
    assert preference(found) == pytest.approx([1])


def test_a_ratio_of_one_is_the_best_on_the_forget_set_and_the_worst_elsewhere() -> None:
    ratios = np.log(np.array([1, 0.25, 4]))
    assert indifference(ratios) == pytest.approx([1, 0.25, 0.25])
    assert preference(ratios) == pytest.approx([0, 0.75, 0])


def test_probability_among_options_by_hand() -> None:
    """1/2 of 1/2 + 1/4 + 1/4."""
    assert normalised(np.array([LN2, 3000.0]), [np.array([2 * LN2, 2 * LN2]), np.array([3000.0])]) == pytest.approx([0.5, 0.5])


def test_harmonic_mean_is_zero_where_a_member_is() -> None:
    assert harmonic_mean([1, 0.5, 0.25]) == pytest.approx(3 / 7)
    assert harmonic_mean([1, 0, 1]) == 0


def test_forget_quality_of_samples_that_are_equal_and_of_samples_that_do_not_overlap() -> None:
    """Of the C(8, 4) = 70 orders of two samples of four, two keep them apart."""
    a, b = np.array([1.0, 2, 3, 4]), np.array([5.0, 6, 7, 8])
    assert forget_quality(a, a) == 1
    assert forget_quality(a, b) == pytest.approx(2 / 70)


def test_recall_by_the_longest_common_subsequence_counts_the_order() -> None:
    task = TextGeneration().bound(bundle_of("gpt2"))
    samples = task.read({"prompt": ["where"], "answer": ["in the far town"]}, bundle_of("gpt2"), "f")
    batch = task.collate([samples[0]])
    said = task.read({"prompt": ["where"], "answer": ["town far the in"]}, bundle_of("gpt2"), "f")[0]
    generations = torch.stack([said["input_ids"][1:-1] + 1, torch.zeros(4)], dim=1)[None]
    assert float(task.recall(generations, batch)) == 1
    assert float(task.recall(generations, batch, "rougeL")) == pytest.approx(0.25)


def subject_of(problem: Problem, references: int = 2) -> Subject:
    bank = [Kept(bundle_of("llama", seed=300 + i), None, i) for i in range(references)]
    return Subject(problem, bundle_of("llama", seed=200), bank, Engine(problem.task))


def value(findings: list[Finding], **wanted: Any) -> float:
    [found] = pick(findings, **{"subject": "unlearned", **wanted})
    assert found.value is not None
    return found.value


def loss_of(model: Any, prompt: str, answer: str) -> float:
    """Mean −log p per token of one answer, by itself, in float64."""
    row = TextGeneration().read({"prompt": [prompt], "answer": [answer]}, bundle_of("llama"), "f")[0]
    with torch.no_grad():
        log_p = model(input_ids=row["input_ids"][None]).logits[0].double().log_softmax(dim=-1)
    places = [t for t in range(1, len(row["labels"])) if int(row["labels"][t]) != IGNORED]
    return -float(np.mean([float(log_p[t - 1, row["labels"][t]]) for t in places]))


def ratios_of(model: Any, data: dict[str, Any], positions: range) -> list[float]:
    found = []
    for i in positions:
        prompt = data["prompt"][i]
        false = [math.exp(-loss_of(model, prompt, text)) for text in data["perturbed_answer"][i]]
        found.append(float(np.mean(false)) / math.exp(-loss_of(model, prompt, data["paraphrased_answer"][i] or data["answer"][i])))
    return found


@pytest.fixture(scope="module")
def extra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions about the world as TOFU has them: without paraphrases, and one record without wrong answers."""
    data = facts(50, 5)
    rows = [{"question": data["prompt"][i], "answer": data["answer"][i], "perturbed_answer": data["perturbed_answer"][i]} for i in range(5)]
    del rows[4]["perturbed_answer"]
    path = tmp_path_factory.mktemp("tofu") / "world_facts_perturbed.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(extra: Path) -> tuple[Subject, list[Finding]]:
    subject = subject_of(problem_of("llama", retain=6, test=2))
    source = DataSource(source=str(extra))
    return subject, Tofu(real_authors=source, world_facts=source).measure(subject)


def test_numbers_of_single_answers(whole: tuple[Subject, list[Finding]]) -> None:
    subject, findings = whole
    model, data = subject.unlearned.model, facts(0, 12)
    probabilities = [math.exp(-loss_of(model, data["prompt"][i], data["answer"][i])) for i in range(12)]
    ratios = ratios_of(model, data, range(12))
    assert value(findings, metric="probability", split="forget") == pytest.approx(np.mean(probabilities[:6]), rel=1e-5)
    assert value(findings, metric="probability", split="retain") == pytest.approx(np.mean(probabilities[6:]), rel=1e-5)
    assert value(findings, metric="truth_ratio", split="forget") == pytest.approx(np.mean([min(r, 1 / r) for r in ratios[:6]]), rel=1e-5)
    assert value(findings, metric="truth_ratio", split="retain") == pytest.approx(np.mean([max(0, 1 - r) for r in ratios[6:]]), rel=1e-5)


def test_options_count_where_there_are_any(whole: tuple[Subject, list[Finding]]) -> None:
    subject, findings = whole
    data, shares = facts(50, 4), []
    for i in range(4):
        true, *false = [math.exp(-loss_of(subject.unlearned.model, data["prompt"][i], a)) for a in (data["answer"][i], *data["perturbed_answer"][i])]
        shares.append(true / (true + sum(false)))
    [found] = pick(findings, metric="probability", split="world_facts", subject="unlearned")
    assert found.n == 4, "a record without perturbed answers is left out"
    assert found.value == pytest.approx(np.mean(shares), rel=1e-5)


def test_forget_quality_is_the_mean_over_references_and_theirs_over_each_other(whole: tuple[Subject, list[Finding]]) -> None:
    subject, findings = whole
    of = {who: [ratios_of(each, facts(0, 6), range(6)) for w, each in subject.models() if w == who] for who in ("unlearned", "reference")}

    def p(a: list[float], b: list[float]) -> float:  # of 1/R, as the implementation takes it
        return float(stats.ks_2samp(1 / np.array(a), 1 / np.array(b)).pvalue)

    assert value(findings, metric="forget_quality") == pytest.approx(np.mean([p(of["unlearned"][0], r) for r in of["reference"]]))
    assert value(findings, metric="forget_quality", subject="reference") == pytest.approx(p(*of["reference"]))


def test_model_utility_is_the_harmonic_mean_of_nine(whole: tuple[Subject, list[Finding]]) -> None:
    _, findings = whole
    nine = [value(findings, metric=m, split=s) for s in ("retain", "real_authors", "world_facts") for m in ("probability", "rouge_l", "truth_ratio")]
    assert value(findings, metric="model_utility", split="all") == pytest.approx(stats.hmean(nine) if min(nine) else 0)
    raised = [v or 0.5 for v in nine]
    assert harmonic_mean(raised) == pytest.approx(stats.hmean(raised))


def test_without_further_questions_the_utility_is_that_of_the_retain_set(extra: Path) -> None:
    findings = Tofu().measure(subject_of(problem_of("llama", retain=2, test=2), 0))
    assert {f.split for f in pick(findings, metric="model_utility")} == {"retain"}
    [quality] = pick(findings, metric="forget_quality")
    assert quality.value is None
    assert quality.reason == "it compares with references, of which none is given"
    both = Tofu(world_facts=DataSource(source=str(extra))).measure(subject_of(problem_of("llama", retain=2, test=2), 0))
    assert {f.split for f in pick(both, metric="model_utility")} == {"retain+world_facts"}


def test_without_perturbed_answers_it_says_so() -> None:
    data = {name: facts(0, 8)[name] for name in ("prompt", "answer")}
    problem = make_problem(bundle_of("llama"), train=data, test=data, forget=["0"], task="text-generation")
    findings = Tofu().measure(subject_of(problem))
    assert {f.reason for f in findings if f.value is None} == {"no record of this set has perturbed answers"}
    assert {f.metric for f in findings if f.value is None} == {"truth_ratio", "forget_quality", "model_utility"}
    assert {f.metric for f in findings if f.value is not None} == {"probability", "rouge_l"}


def test_records_may_come_from_a_file_of_their_own(extra: Path) -> None:
    data = {name: facts(0, 8)[name] for name in ("prompt", "answer")}
    problem = make_problem(bundle_of("llama"), train=data, test=data, forget=["0"], task="text-generation")
    source = DataSource(source=str(extra))
    findings = Tofu(forget=source, retain=source).measure(subject_of(problem))
    assert {f.n for f in findings if f.subject == "unlearned" and f.metric == "truth_ratio"} == {4}


def test_conversations_have_other_answers_too() -> None:
    bundle = bundle_of("llama")
    bundle.companions["tokenizer"].chat_template = "{% for m in messages %}{{ m['content'] + ' [eos] ' }}{% endfor %}"
    talk = [{"role": "user", "content": "where does ada live"}, {"role": "assistant", "content": "in york"}]
    samples = TextGeneration().read({"messages": [talk], "perturbed_answer": [["in rome"]]}, bundle, "f")
    row = TextGeneration().answered(samples, [0, 0], ["in rome", "in lima town"], bundle)[1]
    words = bundle.companions["tokenizer"].convert_ids_to_tokens(row["input_ids"].tolist())
    assert words == ["where", "does", "ada", "live", "[eos]", "in", "lima", "town", "[eos]"]
    assert (row["labels"] == IGNORED).sum() == 5


def test_everything_wrong_with_the_sources_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "plain.json").write_text(json.dumps([{"prompt": "where", "answer": "york"}]), encoding="utf-8")
    (tmp_path / "number.json").write_text(json.dumps([{"prompt": "where", "answer": "york", "perturbed_answer": 3}]), encoding="utf-8")
    (tmp_path / "long.json").write_text(json.dumps([{"prompt": "where", "answer": "york", "perturbed_answer": ["york " * 30]}]), encoding="utf-8")
    sources = {"forget": "plain", "retain": "number", "real_authors": "long", "world_facts": "absent"}
    tofu = Tofu.model_validate({name: {"source": str(tmp_path / f"{file}.json")} for name, file in sources.items()})
    found = {fault.field: fault.what for fault in tofu.faults(problem_of("llama"))}
    assert found["forget"] == "no record of this set has perturbed answers."
    assert found["retain"] == "1 values of `perturbed_answer` are not a list of texts, first at position 0."
    assert "longer than the model's context of 24 tokens" in found["real_authors"]
    assert "there is no file" in found["world_facts"]
    with pytest.raises(InputError, match=r"tofu\.forget: no record"):
        tofu.measure(subject_of(problem_of("llama")))


def test_other_answers_are_part_of_what_a_set_is() -> None:
    data = facts(0, 4)
    one = TextGeneration().read(data, bundle_of("llama"), "f").fingerprint
    other = TextGeneration().read(data | {"perturbed_answer": [["york"]] * 4}, bundle_of("llama"), "f").fingerprint
    assert one != other


def test_by_name_through_the_api() -> None:
    record = audit(problem_of("llama", retain=2, test=2), bundle_of("llama", seed=200), audits=["tofu"])
    assert pick(record.findings, metric="truth_ratio", split="forget", subject="unlearned")
