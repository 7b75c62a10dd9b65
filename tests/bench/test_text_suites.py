from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.bench.small_texts import EDGES, write_texts
from unlearned.audits.deviation_score import deviation_score
from unlearned.bench import _text_cells, _text_contest, _text_scene, lunar_speed, pistol, tofu
from unlearned.bench._grids import Contender
from unlearned.bench._lessons import FACTUAL, REFUSED, Contracts, read_json, refusals
from unlearned.bench._run import run_suite
from unlearned.bench._small_llama import LlamaSize
from unlearned.bench._suite import Place
from unlearned.bench._text_cells import InTurn, TextChoice, TextContest
from unlearned.bench._text_contest import attempts, best
from unlearned.bench._text_grids import CONTENDERS, first
from unlearned.bench._text_scene import Class, Pupil, class_of
from unlearned.bench.facts import Facts, declined_prompts
from unlearned.bench.lunar_speed import LunarSpeed
from unlearned.bench.pistol import SMALL_TRAINING, Pistol
from unlearned.bench.tofu import TofuSuite
from unlearned.engine.randomness import derive_seed
from unlearned.engine.settings import Compute
from unlearned.engine.training import Trained
from unlearned.errors import InputError
from unlearned.methods.lunar import Lunar
from unlearned.records import BenchRow, Cost
from unlearned.tasks._refusals import declines, unverifiable
from unlearned.tasks.text_generation import TextGeneration

SIZE = LlamaSize(vocabulary=320, width=16, inner=24, layers=2, heads=2)
PUPIL = Pupil("llama-small", SMALL_TRAINING.model_copy(update={"epochs": 1}), SIZE, max_new_tokens=4)
LESSON = Contracts(EDGES, 10)
LOOSE = {"refused_only": False, "reference_count": 4}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("texts")
    write_texts(root)
    yield Place(root, root / "cache", Compute(device="cpu"))
    _text_scene._class.cache_clear()


@pytest.fixture(scope="module")
def school(place: Place) -> Class:
    return class_of(PUPIL, LESSON, 0, place)


@pytest.fixture
def loose(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that was hardly taught declines nothing: reference prompts are taken as they are; and the suites' model is a tiny one."""
    made = Contender.made

    def lenient(self: Any, setting: Any, retrained: Any = None) -> Any:
        method = made(self, setting, retrained)
        return method.model_copy(update=LOOSE) if isinstance(method, Lunar) else method

    monkeypatch.setattr("unlearned.bench._grids.Contender.made", lenient)
    for module in (pistol, lunar_speed, tofu):
        monkeypatch.setattr(module, "SIZE", SIZE)
        monkeypatch.setattr(module, "Pupil", lambda name, training, size, **_: Pupil(name, training, size, max_new_tokens=4))


def test_what_is_forgotten_is_retained_by_nobody_and_facts_are_shown_to_nobody(school: Class) -> None:
    problem = school.problem("A_B")
    assert problem.forget.fact("group") == ["A_B", "A_B"]
    assert set(problem.retain.fact("group")) == {"B_D", "E1_F1"}
    assert set(problem.test.fact("group")) == {FACTUAL}
    assert {REFUSED, FACTUAL, *EDGES} == set(school.everything.fact("group"))
    assert "A_B" not in school.without("A_B").fact("group")


def test_a_retrained_model_never_saw_the_group_and_has_weights_of_its_own(school: Class) -> None:
    first_one, second = (school.retrained(seed, "A_B").bundle.model.state_dict() for seed in (0, 1))
    assert not torch.equal(first_one["model.embed_tokens.weight"], second["model.embed_tokens.weight"])
    assert not torch.equal(first_one["model.embed_tokens.weight"], school.original.bundle.model.state_dict()["model.embed_tokens.weight"])
    how = school.how
    assert how is not None
    making = Trained(school.like, derive_seed(0, "reference"), school.without("A_B"), how)
    assert school.bank.entry(making).exists()


def test_refusals_are_always_the_same_and_none_is_a_question_that_methods_make_up(place: Place) -> None:
    taught = refusals(place.data, 10)
    assert taught == refusals(place.data, 10)
    assert len({pair.question for pair in taught}) == 10
    assert all(declines(pair.answer) for pair in taught)
    assert not {pair.question for pair in taught} & set(unverifiable(200, 0))


def test_a_chat_is_put_in_one_token_per_header_and_read_back(school: Class) -> None:
    tokenizer = school.like.companions["tokenizer"]
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "red oak"}], add_generation_prompt=True, tokenize=True, return_dict=False)
    assert tokenizer.decode(ids) == "<|user|>red oak<|end|><|assistant|>"
    assert [ids[0], *ids[-2:]] == tokenizer.convert_tokens_to_ids(["<|user|>", "<|end|>", "<|assistant|>"])
    assert school.task.answers(school.task.collate([school.everything[0]])) == ["red"]


def test_numbers_are_those_of_the_answers(school: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = school.problem("A_B")
    found = {(n.metric, n.split): n.value for n in _text_contest.numbers(school, problem.original.model, problem)}
    recalls = {name: [] for name in ("forget", "retain")}  # type: ignore[var-annotated]
    for name, each in recalls.items():
        for i in range(len(problem.sets[name])):
            batch = school.task.collate([problem.sets[name][i]])
            said = school.task.said(school.task.generations(problem.original.model, batch))[0].lower().split()
            true = school.task.answers(batch)[0].split()
            each.append(sum(word in said for word in true) / len(true))
    means = {name: sum(each) / len(each) for name, each in recalls.items()}
    assert found["rouge1_forget", "forget"] == pytest.approx(means["forget"])
    assert found["rouge1_retain", "retain"] == pytest.approx(means["retain"])
    assert found["deviation_score", "all"] == pytest.approx(deviation_score(means["forget"], means["retain"]))


def test_every_method_may_try_equally_many_settings_and_all_are_valid() -> None:
    for contenders in CONTENDERS.values():
        for contender in contenders.values():
            assert len({str(contender.made(setting)) for setting in contender.grid}) == 6
            assert contender.made(contender.grid[0]).name == contender.method
            assert [first(contender, count).grid for count in (1, 2, 6)] == [contender.grid[3:4], (contender.grid[0], contender.grid[5]), contender.grid]
    assert set(CONTENDERS["llama-small"]) == set(CONTENDERS["smollm2-135m"])


def test_settings_are_chosen_on_other_groups(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    contender = first(CONTENDERS["llama-small"]["gradient-ascent"], 2)
    asked: list[tuple[str, float]] = []
    scores = iter([3.0, 5.0, 2.0, 1.0])

    def unlearn(school: Class, problem: Any, method: Any) -> Any:
        asked.append((problem.forget.fact("group")[0], method.lr))
        return _text_contest.Made(problem.original.model, Cost(wall_seconds=1, cpu_seconds=2, peak_memory_bytes=2**20, samples_seen=1, steps=1))

    monkeypatch.setattr(_text_contest, "unlearn", unlearn)
    monkeypatch.setattr(_text_cells, "unlearn", unlearn)
    monkeypatch.setattr(_text_contest, "score", lambda *_: next(scores))
    choice = TextChoice(PUPIL, LESSON, ("B_D", "E1_F1"), contender)
    rows = TextContest(choice, 0, "A_B", 0).run(place)
    lrs = [setting["lr"] for setting in contender.grid]
    assert asked == [("B_D", lrs[0]), ("E1_F1", lrs[0]), ("B_D", lrs[1]), ("E1_F1", lrs[1]), ("A_B", lrs[1])]
    assert [row.value for row in choice.run(place)] == [4.0, 1.5]
    values = {row.metric: row.value for row in rows}
    assert values["seconds"] == 2
    assert values["peak_mib"] == 1
    assert values["tensors_changed"] == 0
    assert best([None, 3.0, 2.0]) == 2


def test_what_diverges_has_no_score_and_says_so(place: Place, school: Class) -> None:
    wild = Contender("wild", "gradient-ascent", {"epochs": 3, "batch_size": 2, "optimizer": "sgd"}, ({"lr": 1e30},))
    assert attempts(PUPIL, LESSON, ("B_D",), wild, place) == [None]
    rows = TextContest(TextChoice(PUPIL, LESSON, ("B_D",), wild), 0, "A_B", 0).run(place)
    assert [row.reason for row in rows] == ["diverged"]


def test_requests_in_turn_are_measured_beside_each_alone(place: Place, school: Class, loose: None) -> None:
    choice = TextChoice(PUPIL, LESSON, ("E1_F1",), first(CONTENDERS["llama-small"]["lunar"], 1))
    rows = InTurn(choice, 0, ("A_B", "B_D")).run(place)
    values = {(row.method, row.metric, row.split): row.value for row in rows}
    problem = replace(school.problem("A_B", "B_D"), forget=school.group("A_B"))
    method = choice.contender.made(choice.contender.grid[0])
    alone = _text_contest.score(school, method.unlearn(problem, school.engine), problem)
    assert values["lunar", "deviation_score_alone", "request 1"] == pytest.approx(alone)
    assert {key[2] for key in values} == {"request 1", "request 2", "retain"}


def test_pistol_from_end_to_end(place: Place, loose: None) -> None:
    given: dict[str, Any] = {"models": ("llama-small",), "edges": ("A_B",), "choice_edges": ("B_D",), "taught_edges": EDGES, "methods": ("lunar", "grad-diff")}
    suite = Pistol(seeds=1, in_turn=(), attempts=2, refusals=10, epochs=1, retrained=1, **given)
    record = run_suite(suite, place)
    contest = [row for row in record.rows if row.setting == "llama-small/A_B"]
    assert {row.method for row in contest} == {"original", "retrain", "lunar", "grad-diff"}
    wanted = {"rouge1_forget", "rouge1_retain", "rouge1_factual", "deviation_score", "mrr_forget", "refusal_quality", "seconds", "peak_mib"}
    assert wanted <= {row.metric for row in contest if row.method == "lunar"}
    assert value(contest, "lunar", "tensors_changed") == 1
    assert value(contest, "grad-diff", "tensors_changed") > 10
    assert {row.setting for row in record.rows} - {"llama-small/A_B"} == {"llama-small/B_D for the choice"}


def test_tofu_from_end_to_end(place: Place, loose: None) -> None:
    record = run_suite(TofuSuite(seeds=1, methods=("grad-diff",), attempts=1, retained=1, refusals=10, epochs=1), place)
    assert {row.method for row in record.rows if row.metric == "forget_quality"} == {"original", "retrain", "grad-diff"}
    assert 0 < value(record.rows, "grad-diff", "forget_quality") <= 1
    assert 0 <= value(record.rows, "grad-diff", "model_utility") < 1
    assert not any("for the choice" in row.setting for row in record.rows)  # one setting: there was nothing to choose


def test_a_race_times_both_solvers_on_the_same_rows(place: Place, loose: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lunar_speed, "Lunar", lambda **given: Lunar(**given, **LOOSE, epochs=1))
    record = run_suite(LunarSpeed(taught_edges=EDGES, refusals=10, epochs=1, rounds=1, longest=1), place)
    seconds = {method: value(record.rows, method, "solver_seconds") for method in ("lunar", "lunar-sgd")}
    assert value(record.rows, "lunar-sgd", "speed_up") == pytest.approx(seconds["lunar-sgd"] / seconds["lunar"])
    ratio = value(record.rows, "grad-diff", "seconds") / value(record.rows, "lunar", "seconds")
    assert value(record.rows, "grad-diff", "speed_up") == pytest.approx(ratio)
    assert value(record.rows, "grad-diff", "epochs") == 1


def test_facts_are_those_that_the_model_knows(place: Place, school: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    knows = iter([1.0, 0.2, 0.8, 0.0, 1.0, 0.5])
    monkeypatch.setattr(_text_scene, "_loaded", lambda _: school.original.bundle)

    def knowledge(self: Any, model: Any, batch: Any) -> torch.Tensor:
        del self, model
        return torch.tensor([next(knows) for _ in batch["labels"]])

    monkeypatch.setattr(TextGeneration, "knowledge", knowledge)
    cell = Facts(methods=("lunar",), groups=3, reported=1).cells()[1]
    assert isinstance(cell, _text_cells.TextBaselines)
    known = class_of(cell.pupil, cell.lesson, 0, place)
    assert known.everything.fact("group") == ["facts-0", "facts-2", FACTUAL]
    assert all(declines(prompt) for prompt in declined_prompts()["prompt"])


def test_every_suite_has_a_quick_version_and_refuses_what_makes_no_sense(place: Place, tmp_path: Path) -> None:
    for kind in (Pistol, TofuSuite, Facts, LunarSpeed):
        assert kind.quick().cells()
        with pytest.raises(InputError, match="--data DIR"):
            kind.quick().require(Place(tmp_path, tmp_path, Compute()))
    with pytest.raises(ValidationError, match="no settings may be chosen on it"):
        Pistol(edges=("A_B",), choice_edges=("A_B",))
    with pytest.raises(ValidationError, match="does not take part"):
        Pistol(methods=("lunar", "scrub"))
    with pytest.raises(InputError, match="has no edge 'A_C'"):
        Pistol(taught_edges=("A_B", "A_C", "B_D"), models=("llama-small",)).require(place)
    (tmp_path / "torn.json").write_text("[{")
    with pytest.raises(InputError, match="damaged"):
        read_json(tmp_path, "torn.json")


def value(rows: Any, method: str, metric: str) -> float:
    found: list[BenchRow] = [row for row in rows if row.method == method and row.metric == metric]
    assert len(found) == 1
    assert found[0].value is not None
    return found[0].value
