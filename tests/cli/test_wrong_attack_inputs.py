"""What is wrong with an attack, or with all of them together, is said in words that name the setting and a remedy, before anything is measured or written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from tests.models import bundle_of, facts
from unlearned.tasks.text_generation import TextGeneration

from .place import Place

TEXT = {"--task": "text-generation"}
"""Wrong settings of an attack on texts are refused before models are looked for, so that those of images may stand there."""
TINY = {**TEXT, "--before": "tiny-llama", "--after": "tiny-llama", "--train": "facts.jsonl", "--test": "facts.jsonl", "--forget": "id == 'fact-0'"}


class Case(NamedTuple):
    """A wrong command and what must be said about it."""

    name: str
    settings: tuple[str, ...]
    what: str
    remedy: str
    options: Mapping[str, str] = TEXT


NO_PLACE = "each needs one {} where the question stands"

CASES: dict[str, Case] = {
    # the suite
    "suite_setting_of_no_attack": Case("all", ("steps=3",), "--set: 'steps' does not say of which attack it is a setting", "Write relearn.steps."),
    "suite_unknown_attack": Case("all", ("relern.steps=3",), "--set: there is no attack 'relern'", "Did you mean 'relearn'"),
    "suite_unknown_setting": Case("all", ("relearn.stepz=3",), "relearn.stepz: there is no such field", "Did you mean 'steps'"),
    "suite_two_mistakes": Case("all", ("relearn.steps=0", "hidden-probe.points=1"), "--set.relearn.steps: ", "greater than or equal to 2 (given: 1)"),
    "suite_negative_limit": Case("all", (), "--seconds", "greater than or equal to 0", {**TEXT, "--seconds": "-1"}),
    "limit_of_one_attack": Case("relearn", (), "--seconds: a single attack has no limit of time", "unlearned attack all", {**TEXT, "--seconds": "5"}),
    # settings
    "skip_nothing": Case("layer-skip", ("widths=[0]",), "widths.0: ", "greater than or equal to 1 (given: 0)"),
    "skip_no_layers": Case("layer-skip", ("layers=[]",), "layers: ", "at least 1 item"),
    "share_above_one": Case("refusal-ablation", ("shares=[1.5]",), "shares.0: ", "less than or equal to 1 (given: 1.5)"),
    "declined_by_nobody": Case("refusal-ablation", ("declined=nobody",), "declined: ", "'forget' or 'unverifiable'"),
    "wording_without_the_question": Case("paraphrase", ("templates=[please]",), f"templates: {NO_PLACE}", "as in: Question: {}"),
    "wording_with_two_questions": Case("paraphrase", ("templates=['{} {}']",), f"templates: {NO_PLACE}", "as in: Question: {}"),
    "scene_without_the_question": Case("prefix", ("scenes=[hello]",), f"scenes: {NO_PLACE}", "as in: Question: {}"),
    "whole_answer_given": Case("prefix", ("gold=[1.0]",), "gold.0: ", "less than 1 (given: 1.0)"),
    "one_depth": Case("hidden-probe", ("points=1",), "points: ", "greater than or equal to 2 (given: 1)"),
    "no_ridge": Case("hidden-probe", ("ridge=0",), "ridge: ", "greater than 0 (given: 0)"),
    "no_tokens": Case("model-diff", ("tokens=[0]",), "tokens.0: ", "greater than or equal to 1 (given: 0)"),
    "groups_of_one": Case("quantize", ("group_size=1",), "group_size: ", "greater than or equal to 2 (given: 1)"),
    "data_twice": Case("relearn", ("data=[retain, retain]",), "a kind of `data` is named twice", "Name each once"),
    "data_unknown": Case("relearn", ("data=poems",), "data.0: ", "'forget-part', 'retain', 'other', "),
    "no_samples": Case("relearn", ("count=0",), "count: ", "greater than or equal to 1 (given: 0)"),
    "direction_unknown": Case("reverse-direction", ("direction=sideways",), "direction: ", "'auto', 'edit' or 'means'"),
    "strength_infinite": Case("reverse-direction", ("strengths=[.inf]",), "strengths.0: ", "finite number"),
    # what does not fit task or model
    "attack_of_another_task": Case("layer-skip", (), "NAME: 'layer-skip' is not defined for image-classification", "It works for text-generation", {}),
    "texts_for_images": Case("relearn", ("data=benign",), "data: benign are texts, and the task is image-classification", "Use forget-part", {}),
    "layer_that_is_not_there": Case("layer-skip", ("layers=[0, 7]",), "layers: there is no layer 7; the model has 1", "Give numbers from 0 to 0", TINY),
    "layer_below_zero": Case("reverse-direction", ("layers=[-1]",), "layers: there is no layer -1", "Give numbers from 0 to 0", TINY),
    "paraphraser_missing": Case("paraphrase", ("paraphraser=./absent",), "paraphraser: there is no model at './absent'", "Check the path", TINY),
}


def text_place(place: Place) -> None:
    """A language model and its data beside the images."""
    bundle = bundle_of("llama")
    (place / "tiny-llama").mkdir()
    TextGeneration().save(bundle, place / "tiny-llama")
    columns: dict[str, Any] = facts(0, 6)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    (place / "facts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
def test_a_wrong_attack_is_refused_in_words_and_leaves_no_trace(case: Case, place: Place) -> None:
    if case.options is TINY:
        text_place(place)
    before = place.tree()
    settings = [text for setting in case.settings for text in ("--set", setting)]
    answer = place.unlearned("attack", case.name, *place.options({**case.options, "--out": "out"}), *settings)
    assert answer.code == 2, answer
    assert case.what in answer.err
    assert case.remedy in answer.err
    assert "Traceback" not in answer.err
    assert not answer.out
    assert place.tree() == before


def test_a_recipe_names_the_attack_whose_layer_is_not_there(place: Place) -> None:
    text_place(place)
    changes = {
        "task": "text-generation",
        "model": "tiny-llama",
        "data": {"train": "facts.jsonl", "test": "facts.jsonl"},
        "forget": {"where": "id == 'fact-0'"},
        "method": {"name": "npo"},
        "attacks": ["quantize", {"name": "layer-skip", "layers": [9]}],
    }
    place.write_recipe(changes)
    answer = place.unlearned("validate", "recipe.yaml")
    assert answer.code == 2
    assert "attacks.1.layers: there is no layer 9; the model has 1, counted from 0." in answer.err


def test_all_attacks_within_a_limit(place: Place) -> None:
    """Without time everything is left out, and it is said why; with time the record has what was found and what was not."""
    nothing = place.unlearned("attack", "all", *place.options({"--seconds": "0"}), "--json")
    assert nothing.code == 0
    record = json.loads(nothing.out)
    assert record["findings"] == []
    assert record["skipped"]["layer-skip"] == "it is not defined for image-classification"
    assert record["skipped"]["relearn"].endswith("of 0 s 0 s are left")
    some = place.unlearned("attack", "all", *place.options({"--out": "out"}), "--set", "relearn.steps=1", "--set", "prune.shares=[0.5]")
    assert some.code == 0, some
    assert "skipped hidden-probe: it is not defined for image-classification" in some.out
    written = json.loads((place / "out" / "audit.json").read_text(encoding="utf-8"))
    assert {finding["audit"] for finding in written["findings"]} >= {"linear-probe", "prune", "quantize", "relearn"}
    assert written["recipe"]["skipped"]["layer-skip"] == "it is not defined for image-classification"
    assert (place / "out" / "report.html").exists()
