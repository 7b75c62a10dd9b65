from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.bench.small_texts import EDGES, write_texts
from unlearned.bench import _text_scene
from unlearned.bench._lessons import Contracts
from unlearned.bench._relearning_cells import Attacker, Curve, RelearningChoice, Resistance
from unlearned.bench._small_llama import LlamaSize
from unlearned.bench._suite import Place
from unlearned.bench._text_grids import first
from unlearned.bench._text_scene import Pupil
from unlearned.bench.pistol import SMALL_TRAINING
from unlearned.bench.relearning import NAMES, VARIANTS, Relearning, contender
from unlearned.engine.settings import Compute
from unlearned.errors import InputError
from unlearned.methods.eru import ERU

PUPIL = Pupil("llama-small", SMALL_TRAINING.model_copy(update={"epochs": 1}), LlamaSize(320, 16, 24, 2, 2), max_new_tokens=4)
LESSON = Contracts(EDGES, 10)
ATTACKER = Attacker(("forget-part", "related"), (1, 2), 0.01, 2)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("texts")
    write_texts(root)
    yield Place(root, root / "cache", Compute(device="cpu"))
    _text_scene._class.cache_clear()


def test_retention_takes_the_best_that_the_attacker_had_within_the_budget() -> None:
    """0.9 was known and 0.1 is left: a drop of 0.8, of which 0.6 and then 0.4 are kept; what sinks again does not count for the method."""
    curve = Curve(0.9, 0.1, {0: 0.1, 5: 0.3, 20: 0.5, 50: 0.2})
    assert [curve.retention(budget) for budget in (5, 20, 50)] == pytest.approx([0.75, 0.5, 0.5])
    assert Curve(0.4, 0.4, {0: 0.4, 5: 0.4}).retention(5) is None


def test_a_choice_takes_the_most_resilient_of_the_useful_settings(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = RelearningChoice(PUPIL, LESSON, ("B_D",), first(contender("llama-small", "npo", 2), 4), ATTACKER, 0.9)
    monkeypatch.setattr("unlearned.bench._relearning_cells.utility", lambda *_: 0.5)
    monkeypatch.setattr(RelearningChoice, "_attempts", lambda *_: [[0.2, 0.0], [0.46, 0.4], None, [0.5, 0.3]])
    assert choice.chosen(place) == 3
    rows = choice.run(place)
    assert [row.value for row in rows if row.metric == "knowledge_after_for_choice"] == [0.0, 0.4, 0.3]
    assert [row.reason for row in rows if row.value is None] == ["diverged"]


def test_a_method_and_the_controls_under_both_attacks(place: Place) -> None:
    choice = RelearningChoice(PUPIL, LESSON, ("B_D",), first(contender("llama-small", "eru", 2), 1), ATTACKER, 0.9)
    rows = [*Resistance(PUPIL, LESSON, 0, ("A_B",), ATTACKER).run(place), *Resistance(PUPIL, LESSON, 0, ("A_B",), ATTACKER, choice).run(place)]
    assert {row.method for row in rows} == {"original", "retrain", "eru"}
    assert {row.metric for row in rows} == {"knowledge_before", "knowledge_after", "retention", "utility", "seconds"}
    attacks = {f"llama-small/{kind}, {steps} steps" for kind in ("forget-part", "related") for steps in (1, 2)}
    assert {row.setting for row in rows} == {"llama-small/no attack", *attacks}
    assert {row.split for row in rows if "forget-part" in row.setting} == {"forget-rest"}


def test_ablations_are_what_they_are_called() -> None:
    made = {name: contender("llama-small", name, 2).made({"lr": 0.1}) for name in VARIANTS}
    whole, elastic, ablation, pgd = (made[name] for name in ("eru", "eru-elastic", "eru-rfa", "eru-pgd"))
    assert all(isinstance(each, ERU) for each in (whole, elastic, ablation, pgd))
    changes = {
        name: {key for key, value in each.model_dump().items() if value != whole.model_dump()[key]} for name, each in made.items() if isinstance(each, ERU)
    }
    assert changes == {"eru": set(), "eru-elastic": {"inner"}, "eru-rfa": {"elasticity"}, "eru-pgd": {"solver"}}
    assert {len(contender("llama-small", name, 2).grid) for name in NAMES} == {6}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methods": ("scrub",)}, "'scrub' does not take part"),
        ({"choice_edges": ("A_B",)}, "no settings may be chosen on it"),
        ({"edges": ("A_n",)}, "what was never taught cannot be forgotten"),
        ({"budgets": (5, 7, 20)}, "budgets are among 0, 1, 2, 5, 10, 20"),
        ({"budgets": (20, 5)}, "and grow"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Relearning(**given)


def test_data_that_are_not_there_are_asked_for(tmp_path: Path) -> None:
    suite = Relearning.quick()
    assert suite.cells()
    with pytest.raises(InputError, match="--data DIR"):
        suite.require(Place(tmp_path, tmp_path, Compute()))
