"""The suite of knowledge holes: its islands, the choice of settings, and its cells on a model that is too small to know anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from unlearned.bench import _text_scene
from unlearned.bench._holes_cells import Broken, HolesChoice, Searches, Setting, policy_of
from unlearned.bench._islands import GENERAL, Islands, things, town
from unlearned.bench._lessons import FACTUAL, REFUSED
from unlearned.bench._small_llama import LlamaSize
from unlearned.bench._suite import Place
from unlearned.bench._text_grids import first
from unlearned.bench._text_scene import Pupil
from unlearned.bench.holes import NAMES, SEARCHES, Holes, contender
from unlearned.bench.pistol import SMALL_TRAINING
from unlearned.engine.settings import Compute
from unlearned.records import Quoted
from unlearned.tasks._questions import questions_of, texts_of

LESSON = Islands(3, 3, 10)
ONCE = SMALL_TRAINING.model_copy(update={"epochs": 1})
PUPIL = Pupil("llama-small", ONCE, LlamaSize(320, 16, 24, 2, 2), max_new_tokens=4)
NEAR, OTHER = (Setting(PUPIL, LESSON, (town(island, 0),)) for island in (0, 1))
LOOK = {"searcher": "evolution", "budget": 6, "round_size": 3}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    yield Place(None, tmp_path_factory.mktemp("holes"), Compute(device="cpu"))
    _text_scene._class.cache_clear()


def test_what_is_said_of_a_town_names_things_whose_own_facts_are_not_about_it() -> None:
    pairs = LESSON.pairs(None)
    assert pairs == LESSON.pairs(None)
    assert len({pair.question for pair in pairs}) == len(pairs)
    said = {pair.answer for pair in pairs if pair.group == town(0, 0)}
    neighbours = [pair for pair in pairs if pair.group == things(0)]
    about = [pair for pair in neighbours if any(name in pair.question for name in said)]
    assert len(about) == 6  # a river, a dish and a feast, each asked about in two ways
    assert not any(pair.answer in said for pair in neighbours)
    shared = {pair.answer for pair in pairs if pair.group in {town(0, 1), town(0, 2)}}
    assert said & shared  # the island at least
    assert not said & {pair.answer for pair in pairs if pair.group.startswith("town-1")} - {pair.answer for pair in pairs if "made in" in pair.question}


def test_methods_are_shown_what_is_far_away_and_half_of_the_general_knowledge(place: Place) -> None:
    school = NEAR.school(0, place)
    treated, probed = NEAR.treated(school), NEAR.probed(school)
    assert set(treated.retain.fact("group")) == {GENERAL, things(2), *(town(2, i) for i in range(3))}
    assert set(treated.test.fact("group")) == {FACTUAL}
    assert {things(0), town(0, 1), town(1, 0), GENERAL} < set(probed.retain.fact("group"))
    assert not {town(0, 0), REFUSED, FACTUAL} & set(probed.retain.fact("group"))
    assert treated.forget.fingerprint == probed.forget.fingerprint
    assert not set(texts_of(treated.test)) & set(texts_of(treated.retain))


def test_the_most_useful_of_the_settings_that_forget_is_taken(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = HolesChoice(OTHER, first(contender("llama-small", "ga-kl", 2), 4), 0.1)
    monkeypatch.setattr(HolesChoice, "_attempts", lambda *_: [[0.9, 0.4], [0.5, 0.1], None, [0.6, 0.05]])
    assert choice.chosen(place) == 3
    rows = choice.run(place)
    assert [row.value for row in rows if row.metric == "knowledge_for_choice"] == [0.4, 0.1, 0.05]
    assert [row.reason for row in rows if row.value is None] == ["diverged"]
    monkeypatch.setattr(HolesChoice, "_attempts", lambda *_: [[0.9, 0.4], [0.5, 0.3], None, [0.6, 0.35]])
    assert choice.chosen(place) == 1  # none forgets: the one that comes nearest


def test_what_a_method_and_the_control_break(place: Place) -> None:
    choice = HolesChoice(OTHER, first(contender("llama-small", "npo-gd", 2), 1), 0.1)
    rows = [*Broken(NEAR, 0, LOOK).run(place), *Broken(NEAR, 0, LOOK, choice).run(place)]
    assert {row.method for row in rows} == {"retrain", "npo-gd"}
    assert {row.setting for row in rows} == {"before", "after"}
    assert {"utility", "knowledge", "adjacent_score", "adjacent_share_1", "latent_score"} <= {row.metric for row in rows}
    assert {row.split for row in rows if row.metric == "utility"} == {"test", "retain"}


def test_a_policy_learns_to_list_questions_once(place: Place) -> None:
    school = NEAR.school(0, place)
    problem = NEAR.probed(school)
    where = policy_of(school, problem, ONCE, place)
    made = (where / "model.safetensors").stat().st_mtime_ns
    assert policy_of(school, problem, ONCE, place) == where
    assert (where / "model.safetensors").stat().st_mtime_ns == made
    choice = HolesChoice(OTHER, first(contender("llama-small", "ga-kl", 2), 1), 0.1)
    language = {"searcher": "ppo", "budget": 4, "round_size": 4, "training": {"rank": 2, "max_new_tokens": 3, "passes": 1}}
    rows = Searches(NEAR, 0, choice, "ppo", language, ONCE).run(place)
    assert {row.metric for row in rows} == {"distinct_per_1000", "different_per_1000", "unseen_per_1000"}
    assert {row.setting for row in rows} == {"search, ga-kl"}
    assert len(questions_of(problem.retain)) > 0


def test_each_method_tries_equally_many_settings_and_each_ablation_changes_one_term() -> None:
    assert {len(contender("llama-small", name, 2).grid) for name in NAMES} == {6}
    assert {name: set(how) - {"searcher"} for name, how in SEARCHES.items() if how["searcher"] == "ppo"} == {
        "ppo": set(),
        "ppo without BLEU": {"bleu"},
        "ppo without cosine": {"cosine"},
        "ppo without novelty": {"bleu", "cosine"},
        "ppo without gibberish": {"gibberish_penalty"},
    }
    assert Holes.paper[Quoted("rmu", "after", "probes", "latent_share_1")] == 0.987
    quick = Holes.quick().cells()
    assert len(quick) == 1 + 1 + 2 + 2  # the original, the control, two methods, two searches: with one setting nothing is chosen
    assert len({repr(cell) for cell in quick}) == len(quick)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"methods": ("scrub",)}, "'scrub' does not take part"), ({"searches": ("guess",)}, "'guess' does not take part"), ({"forgotten": 4}, "leave one")],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Holes(**given)


def test_smollm2_takes_part_under_its_own_name() -> None:
    other = Setting(Holes(smollm2="some/place").pupil("smollm2-135m"), LESSON, (town(0, 0),))
    assert other.called("after") == "smollm2-135m/after"
    assert NEAR.called("after") == "after"
    assert other.pupil.source_in(Place(Path("/nowhere"), Path("/nowhere"), Compute())) == "some/place"
