"""Answers side by side: counted and computed by hand, and withheld."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conformance.test_measurements import subject_of
from tests.models import bundle_of, facts
from unlearned.audits.answers import Answers, differing
from unlearned.pipeline import run
from unlearned.recipe import parse_recipe
from unlearned.records import Answer, Trial
from unlearned.tasks.text_generation import TextGeneration


def test_answers_differ_if_any_token_does_or_one_is_longer() -> None:
    before = torch.tensor([[1, 2, 0], [1, 2, 0], [1, 2, 0], [0, 0, 0]])
    said = torch.tensor([[1, 2, 0, 0], [1, 2, 5, 7], [1, 3, 0, 0], [0, 0, 0, 0]])
    assert differing(said, before) == differing(before, said) == 2


def test_probabilities_are_those_of_each_token_after_the_true_ones_before_it() -> None:
    subject = subject_of("llama")
    shown = Answers(questions=2, show="all").exhibits(subject)
    assert [one.split for one in shown if isinstance(one, Answer)] == ["forget"] * 2 + ["retain"] * 2 + ["test"] * 2
    tokenizer = subject.problem.original.companions["tokenizer"]
    for one in shown:
        assert isinstance(one, Answer)
        assert one.question is not None
        assert one.tokens is not None
        assert one.answer is not None
        ids = tokenizer(one.question)["input_ids"]
        for who, model in subject.models()[:3]:  # of the two references the first
            known, probabilities = list(ids), []
            for token in [*tokenizer(one.answer)["input_ids"], tokenizer.eos_token_id]:
                with torch.no_grad():
                    probabilities.append(float(model(torch.tensor([known])).logits[0, -1].double().softmax(0)[token]))
                known.append(token)
            assert one.models[who].probabilities == pytest.approx(probabilities, rel=1e-5)
        assert one.tokens == (*one.answer.split(), "[eos]")


@pytest.mark.parametrize(("show", "hidden"), [("others", {"forget"}), ("nothing", {"forget", "retain", "test"}), ("all", set())])
def test_what_is_withheld_holds_no_text(show: Any, hidden: set[str]) -> None:
    for one in Answers(questions=2, show=show).exhibits(subject_of("llama")):
        assert isinstance(one, Answer)
        texts = [one.question, one.answer, one.tokens, *(said.text for said in one.models.values())]
        assert all((text is None) == (one.split in hidden) for text in texts)
        assert all(len(said.probabilities) > 1 for said in one.models.values())


SECRET = ("name of the red river", "old york")


def run_data() -> dict[str, Any]:
    data = facts(0, 24)
    data["prompt"][1], data["answer"][1] = SECRET
    return data


def run_test() -> dict[str, Any]:
    return facts(24, 6)


def test_a_run_writes_exhibits_of_method_and_audit_and_nothing_of_the_forget_set(tmp_path: Path) -> None:
    bundle = bundle_of("llama")
    (tmp_path / "model").mkdir()
    TextGeneration().save(bundle, tmp_path / "model")
    recipe = parse_recipe(
        {
            "task": {"name": "text-generation", "max_new_tokens": 4},
            "model": str(tmp_path / "model"),
            "data": {"train": "tests.audits.test_answers:run_data", "test": "tests.audits.test_answers:run_test"},
            "forget": {"ids": ["fact-1"]},
            "method": {"name": "lunar", "refused_only": False, "reference_count": 3, "candidates": [0]},
            "references": {"count": 0},
            "audits": [{"name": "answers", "questions": 1}],
            "attacks": [],
        }
    )
    first = run(recipe, tmp_path / "out")
    assert [one.kind for one in first.exhibits] == ["trial", "answer", "answer", "answer"]
    assert isinstance(first.exhibits[0], Trial)
    assert first.exhibits[0].chosen == (0.0,)
    again = run(recipe, tmp_path / "out")
    assert again.exhibits == first.exhibits
    shown = json.loads((tmp_path / "out" / "audit.json").read_text(encoding="utf-8"))["exhibits"]
    assert [entry.get("question") is None for entry in shown] == [True, True, False, False]
    written = [path.read_text(encoding="utf-8") for path in (tmp_path / "out").rglob("*") if path.suffix in {".json", ".html", ".md"}]
    assert len(written) > 5
    assert any(shown[2]["question"] in text for text in written)
    assert not any(secret in text for secret in SECRET for text in written)
