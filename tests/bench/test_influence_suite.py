from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from tests.bench.small_images import write_fashion
from tests.bench.small_texts import EDGES, write_texts
from unlearned.bench import _forget_sets, _influence_texts, _scene, _text_scene, influence
from unlearned.bench._fewer_steps import shortened, steps_of
from unlearned.bench._grids import CONTENDERS, Contender, product
from unlearned.bench._influence_texts import PrunedTexts, score_for, token_distance
from unlearned.bench._lessons import Contracts
from unlearned.bench._run import run_suite
from unlearned.bench._scene import Scale, scene_of
from unlearned.bench._small_llama import LlamaSize
from unlearned.bench._suite import Place
from unlearned.bench._text_cells import TextChoice
from unlearned.bench._text_contest import Made, unlearn
from unlearned.bench._text_scene import Pupil
from unlearned.bench.influence import Influence, Pruned, within
from unlearned.bench.pistol import SMALL_TRAINING
from unlearned.engine.loop import Plan, planned_steps
from unlearned.engine.settings import Compute
from unlearned.errors import InputError
from unlearned.methods._method import ObjectiveMethod
from unlearned.methods.neg_grad_plus import NegGradPlus
from unlearned.records import BenchRow
from unlearned.report.bench import sheets


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("influence")
    write_fashion(root)
    yield Place(root, root / "cache", Compute(device="cpu"))
    for kept in (_scene._scene, _scene.images_of, _forget_sets.memorisation, influence.ranking_of):
        kept.cache_clear()


def rows_of(values: dict[int, dict[str, list[float]]]) -> list[BenchRow]:
    splits = {"accuracy": "test", "membership_auc": "forget", "tv": "forget", "seconds": "all"}
    rows = [BenchRow(method="m", setting="s/m", seed=seed, split="all", metric="scoring_seconds", value=0.1) for seed in range(3)]
    for p, metrics in values.items():
        for metric, seeds in metrics.items():
            for seed, value in enumerate(seeds):
                rows.append(BenchRow(method="m", setting=f"s/m/{p}", seed=seed, split=splits.get(metric, "forget-skipped"), metric=metric, value=value))
    return rows


def test_how_far_it_goes_is_where_something_leaves_its_interval() -> None:
    """Three seeds of 0.4, 0.5, 0.6: the interval is 0.5 ± 4.30 · 0.1/√3 = 0.252 to 0.748."""
    spread = [0.4, 0.5, 0.6]

    def at(accuracy: float, skipped: float, seconds: float) -> dict[str, list[float]]:
        same = {"membership_auc": spread, "tv": spread, "skipped_membership_auc_unpruned": spread}
        return {"accuracy": [accuracy] * 3, "skipped_membership_auc": [skipped] * 3, "seconds": [seconds] * 3, **same}

    whole = {"accuracy": spread, "membership_auc": spread, "tv": spread, "seconds": [1.0] * 3}
    good = {0: whole, 10: at(0.26, 0.74, 0.9), 20: at(0.5, 0.5, 0.8)}
    assert within(rows_of(good), "s", "m") == pytest.approx((20, 0.2, 0.3))
    assert within(rows_of(good | {10: at(0.25, 0.5, 0.9)}), "s", "m") == pytest.approx((0, 0.0, 0.0))  # what comes after does not count
    assert within(rows_of(good | {20: at(0.5, 0.75, 0.8)}), "s", "m") == pytest.approx((10, 0.1, 0.2))
    with_one = {name: values[:2] for name, values in at(0.5, 0.5, 0.8).items()}
    assert within(rows_of(good | {20: with_one}), "s", "m") == pytest.approx((10, 0.1, 0.2))
    with_all = BenchRow(method="m", setting="s/m/20", seed=0, split="all", metric="seconds", reason="diverged")
    assert within([*rows_of({p: good[p] for p in (0, 10)}), with_all], "s", "m") == pytest.approx((10, 0.1, 0.2))


def test_fewer_steps_are_the_share_that_was_asked_for(place: Place) -> None:
    scale = Scale("fashion-mnist", 10, 10, 1, 1, 1)
    scene = scene_of(scale, tuple(range(10)), place)
    method = NegGradPlus(epochs=2, batch_size=16)
    plan = method.plan(scene.problems[0], scene.engine)
    sets = method.sets(scene.problems[0], scene.engine)
    total = planned_steps(plan, sets, method, 0)
    assert total == 2 * 6  # 90 retain samples in batches of 16
    less: Plan = shortened(method, 0.5).plan(scene.problems[0], scene.engine)
    assert less.max_steps == 6
    assert planned_steps(less, sets, method, 0) == 6
    made = scene.unlearn(shortened(method, 0.25), 0)
    assert made.cost is not None
    assert made.cost.steps == 3


def test_the_suite_end_to_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    one = replace(CONTENDERS["gradient-ascent"], grid=CONTENDERS["gradient-ascent"].grid[:1])
    monkeypatch.setitem(CONTENDERS, "gradient-ascent", one)
    settings = {"train_per_class": 10, "test_per_class": 10, "epochs": 1, "references": 1, "seeds": 2, "shares": (0, 50)}
    suite = Influence(scores=("gradient-norm", "fewer-steps"), methods=("gradient-ascent",), **settings)
    record = run_suite(suite, place)
    by = {(row.setting, row.split, row.metric, row.seed): row.value for row in record.rows}
    found = [("accuracy", "test"), ("membership_auc", "forget"), ("tv", "forget"), ("seconds", "all")]
    skipped = [(name, "forget-skipped") for name in ("skipped_membership_auc", "skipped_membership_auc_unpruned")]
    for p, metrics in ((0, found), (50, found + skipped)):
        for metric, split in metrics:
            assert by[f"gradient-norm/gradient-ascent/{p}", split, metric, 1] is not None
    pruned, scoring = by["gradient-norm/gradient-ascent/50", "all", "seconds", 0], by["gradient-norm/gradient-ascent", "all", "scoring_seconds", 0]
    assert pruned is not None
    assert scoring is not None
    assert 0 < scoring < pruned
    for of in ("forget", "retain"):  # retain alone skips nothing of the forget set
        assert by[f"gradient-norm, {of} only/gradient-ascent/50", "forget", "tv", 0] is not None
        assert ((f"gradient-norm, {of} only/gradient-ascent/50", *skipped[0][::-1], 0) in by) == (of == "forget")
    for score in ("gradient-norm", "fewer-steps"):
        assert by[f"{score}/gradient-ascent", "all", "time_saved_within_interval", None] is not None
    shown = record.model_copy(update={"rows": tuple(map(Influence.shown, record.rows))})
    sheet = next(sheet for sheet in sheets(shown, "mean", {}) if sheet.title == "tv, forget")
    assert sheet.settings == ["0 %", "50 %"]
    rows = ["original", *(f"gradient-norm{which}/gradient-ascent" for which in ("", ", forget only", ", retain only")), "fewer-steps/gradient-ascent"]
    assert [method for method, _ in sheet.rows] == rows


@pytest.mark.parametrize(
    "given",
    [
        {"scores": ("absent",)},
        {"methods": ("absent",)},
        {"methods": ()},
        {"shares": (10, 20)},
        {"shares": (0, 100)},
        {"alone": (100,)},
        {"text_shares": (10, 20)},
    ],
)
def test_what_does_not_take_part_is_refused(given: dict[str, tuple[object, ...]]) -> None:
    with pytest.raises(ValidationError):
        Influence(**given)


def test_a_small_llama_forgets_a_contract_without_what_matters_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_texts(tmp_path)
    place = Place(tmp_path, tmp_path / "cache", Compute(device="cpu"))
    training = SMALL_TRAINING.model_copy(update={"epochs": 1})
    pupil = Pupil("llama-small", training, LlamaSize(vocabulary=320, width=16, inner=24, layers=1, heads=2), max_new_tokens=4)
    contender = Contender("grad-diff", "grad-diff", {"epochs": 4, "batch_size": 2}, product(lr=(0.01,)))
    choice = TextChoice(pupil, Contracts(EDGES, 10), ("B_D",), contender)
    rows = PrunedTexts(choice, "A_B", 1, "gradient-norm", (0, 50), 0).run(place)
    by = {(row.setting, row.split, row.metric): row.value for row in rows}
    for p in (0, 50):
        for metric, split in (("accuracy", "test"), ("membership_auc", "forget"), ("tv", "forget"), ("seconds", "all")):
            assert by[f"gradient-norm/grad-diff (llama-small)/{p}", split, metric] is not None
    assert by["gradient-norm/grad-diff (llama-small)/50", "forget-skipped", "skipped_membership_auc"] is not None
    assert 0 < (by["gradient-norm/grad-diff (llama-small)/50", "forget", "tv"] or 0) < 1
    fewer = PrunedTexts(choice, "A_B", 1, "fewer-steps", (0, 50), 0).run(place)
    apart = {row.setting: row.value for row in fewer if row.metric == "tv"}
    assert apart["fewer-steps/grad-diff (llama-small)/0"] == by["gradient-norm/grad-diff (llama-small)/0", "forget", "tv"]
    assert apart["fewer-steps/grad-diff (llama-small)/50"] is not None
    asked: list[float] = []

    def seen(method: ObjectiveMethod, share: float) -> ObjectiveMethod:
        asked.append(share)
        return method

    monkeypatch.setattr(_influence_texts, "steps_of", lambda _, problem, __: len(problem.forget))
    monkeypatch.setattr(_influence_texts, "shortened", seen)
    PrunedTexts(choice, "A_B", 1, "fewer-steps", (0, 50), 0).run(place)
    assert asked == [0.5]  # one question of two
    school = _text_scene.class_of(pupil, choice.lesson, 0, place)
    method = contender.made(contender.grid[0])
    assert isinstance(method, ObjectiveMethod)
    half = shortened(method, 0.5)
    problem = school.problem("A_B")
    made = [unlearn(school, problem, each) for each in (method, half)]
    assert [each.cost.steps for each in made if isinstance(each, Made)] == [steps_of(each, problem, school.engine) for each in (method, half)] == [4, 2]
    suite = Influence(methods=(), text_methods=("grad-diff",), text_seeds=2, text_models=("llama-small", "smollm2-135m"))
    cells = [cell for cell in suite.cells() if isinstance(cell, PrunedTexts)]
    assert len(cells) == len(suite.cells()) == 2 * 2 * 6
    with pytest.raises(InputError, match="no edge 'A_m'"):  # of texts alone: images are not asked for
        suite.require(place)
    both = Influence(methods=("ssd", "salun"), text_methods=("lunar", "npo"), text_seeds=2, seeds=2, scores=("random", "fewer-steps"))
    pairs = {(cell.method, cell.score) for cell in both.cells() if isinstance(cell, Pruned)}
    pairs |= {(cell.choice.contender.name, cell.score) for cell in both.cells() if isinstance(cell, PrunedTexts)}
    assert pairs == {(name, "random") for name in ("ssd", "salun", "lunar", "npo")} | {("salun", "fewer-steps"), ("npo", "fewer-steps")}
    by_adapters = cells[-1].choice.contender
    method = by_adapters.made(by_adapters.grid[0])
    assert isinstance(method, ObjectiveMethod)
    assert method.lora is not None
    assert score_for("smollm2-135m", "less").model_dump()["lora"]["rank"] == method.lora.rank
    _text_scene._class.cache_clear()


def test_distances_of_tokens_are_those_of_a_naive_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    p, q, r = (torch.rand(2, 3, 4, generator=generator, dtype=torch.float64).softmax(-1) for _ in range(3))
    weights = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]], dtype=torch.float64)
    for b in range(2):
        total = 0.0
        for other in (q, r):
            for t in range(3):
                total += float(weights[b, t]) * 0.5 * sum(abs(float(p[b, t, v] - other[b, t, v])) for v in range(4)) / 2
        assert float(token_distance(p, [q, r], weights)[b]) == pytest.approx(total)
