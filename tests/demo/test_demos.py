"""Embedded defaults: what is in their sets, and the one way that they go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner

from tests.models import images, plain_network
from unlearned.api import forget_ids
from unlearned.cli import app
from unlearned.demo import Demo, demos, digits_test, digits_train, run_demo
from unlearned.demo.text_generation import FACTS, FORGOTTEN, names, people_test, people_train, strangers
from unlearned.recipe import parse_recipe
from unlearned.tasks._task import Bundle, ModelSource


@pytest.mark.parametrize("name", demos.names())
def test_each_demo_is_whole_without_a_network(name: str) -> None:
    demo = demos.get(name)()
    recipe = parse_recipe(demo.recipe() | {"model": {"source": "x"}})
    blank = demo.blank()
    train, test = (recipe.task.read(source, blank, "data") for source in (recipe.file.data.train, recipe.file.data.test))
    assert demo.name == recipe.task.name
    assert recipe.file.training is not None
    assert recipe.file.references.count > 0
    assert recipe.file.forget.where is not None
    assert 0 < len(forget_ids(train, recipe.file.forget.where)) < len(train) / 5
    assert set(train.ids).isdisjoint(test.ids)
    assert len(test) > 50


def test_demos_are_listed_by_help_and_the_unknown_is_refused_with_a_suggestion() -> None:
    shown = CliRunner().invoke(app, ["demo", "--help"]).output
    assert all(name in shown for name in demos.names())
    with pytest.raises(Exception, match=r"TASK: there is no demo 'image'.*image-classification"):
        CliRunner().invoke(app, ["demo", "image"], catch_exceptions=False)


def test_who_is_who_among_the_people() -> None:
    people, unknown, others = names()
    assert people[:2] == list(FORGOTTEN)
    assert len({*people, *unknown, *others}) == len(people) + len(unknown) + len(others)
    train, test = people_train(), people_test()
    assert set(train["person"]) == {*people, *unknown}
    assert not any(name in prompt for name in FORGOTTEN for prompt in test["prompt"])
    assert not any(name in prompt for name in (*people, *unknown) for prompt in strangers()["prompt"])
    assert set(train["prompt"]).isdisjoint(test["prompt"])
    told = {(person, answer) for person, answer in zip(train["person"], train["answer"], strict=True) if person in people}
    assert len(told) == len(people) * len(FACTS)
    assert {*zip(test["person"], test["answer"], strict=True)} == {pair for pair in told if pair[0] not in FORGOTTEN}


class Tiny(Demo):
    """A network of a few hundred weights, trained for two passes."""

    name: ClassVar[str] = "image-classification"
    original: ClassVar[str] = "a network, on some digits"

    def blank(self) -> Bundle:
        return Bundle(plain_network())

    def source(self, directory: Path) -> ModelSource:
        return ModelSource(source="tests.models:plain_network", weights=str(directory / "model.safetensors"))

    def recipe(self) -> dict[str, Any]:
        return {
            "task": "image-classification",
            "data": {"train": "tests.demo.test_demos:some", "test": "tests.demo.test_demos:others"},
            "forget": {"where": "label == 3"},
            "method": {"name": "fine-tune", "epochs": 1},
            "training": {"epochs": 2, "batch_size": 16},
            "references": {"count": 0},
            "audits": ["utility"],
            "attacks": [],
        }


def some() -> dict[str, Any]:
    return images(0, 40)


def others() -> dict[str, Any]:
    return images(100, 20)


def test_the_original_is_trained_once_for_each_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(demos._parts, "tiny", Tiny)
    monkeypatch.setenv("UNLEARNED_CACHE", str(tmp_path / "cache"))
    said: list[str] = []
    records = []
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        said.append(out)
        records.append(run_demo("tiny", tmp_path / out, seed=seed, say=said.append))
    trained = "training the original model: a network, on some digits"
    assert [line for line in said if line in {"a", "b", "c", trained}] == ["a", trained, "b", "c", trained]
    assert records[0].findings == records[1].findings != records[2].findings
    assert len(list((tmp_path / "cache" / "demo").iterdir())) == 2
    assert json.loads((tmp_path / "a" / "audit.json").read_text())["recipe"]["seed"] == 0


def test_the_names_that_recipes_use_stay() -> None:
    assert (len(digits_train()["label"]), len(digits_test()["label"])) == (1297, 500)
