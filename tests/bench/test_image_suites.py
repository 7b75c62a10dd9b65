from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tests.bench.small_images import write_fashion
from unlearned.audits.mia_nn import MiaNN
from unlearned.audits.u_lira import ULira
from unlearned.bench import _cells, _contest, _forget_sets, _scene
from unlearned.bench._cells import Choice, Contest
from unlearned.bench._forget_sets import Memorised, OneClass, RandomShare, memorisation
from unlearned.bench._grids import CONTENDERS, Contender, product, words
from unlearned.bench._networks import small_resnet
from unlearned.bench._run import run_suite
from unlearned.bench._scene import RememberingEngine, Scale, originals_of, scene_of
from unlearned.bench._suite import Place
from unlearned.bench.class_unlearning import ClassUnlearning, target_of
from unlearned.bench.sample_unlearning import SampleUnlearning
from unlearned.engine.engine import Engine
from unlearned.engine.randomness import derive_seed
from unlearned.engine.settings import Compute
from unlearned.engine.training import Trained
from unlearned.errors import DivergedError, InputError
from unlearned.methods.trw import TRW
from unlearned.records import BenchRow, pick

SCALE = Scale("fashion-mnist", 10, 10, 1, 3, 3)
SMALL: dict[str, Any] = {"data": ("fashion-mnist",), "train_per_class": 10, "test_per_class": 10, "epochs": 1}
SMALL |= {"seeds": 1, "shadows": 2, "references": 3, "choice_references": 1}
TWO = (Contender("fine-tune", "fine-tune", {"epochs": 1}, product(lr=(0.01, 0.1))),)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("suites")
    write_fashion(root)
    yield Place(root, root / "cache", Compute(device="cpu"))
    for kept in (_scene._scene, _scene.images_of, _forget_sets.memorisation):
        kept.cache_clear()


def test_the_network_halves_twice_and_ends_in_a_linear_layer() -> None:
    network = small_resnet(3, width=4)
    assert network(torch.zeros(2, 3, 16, 16)).shape == (2, 10)
    assert network[:5](torch.zeros(2, 3, 16, 16)).shape == (2, 8, 4, 4)  # type: ignore[index]
    assert isinstance(list(network.children())[-1], nn.Linear)


def test_every_method_may_try_equally_many_settings_and_all_are_valid() -> None:
    for contender in CONTENDERS.values():
        assert len(contender.grid) == 6
        assert len({words(setting) for setting in contender.grid}) == 6
        for setting in contender.grid:
            if not contender.told:
                assert contender.made(setting).name == contender.method


def test_a_product_goes_through_all_combinations() -> None:
    assert product(a=(1, 2), b=(3, 4)) == ({"a": 1, "b": 3}, {"a": 1, "b": 4}, {"a": 2, "b": 3}, {"a": 2, "b": 4})
    assert words({"a": 1, "b": 0.5}) == "a=1, b=0.5"


def test_what_is_measured_of_a_banks_model_is_remembered(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    images, _, _, engine, originals = originals_of(SCALE, place)
    measured: list[nn.Module] = []
    evaluate = Engine.evaluate

    def counting(self: Engine, model: nn.Module, samples: Any, function: Any) -> torch.Tensor:
        measured.append(model)
        return evaluate(self, model, samples, function)

    monkeypatch.setattr(Engine, "evaluate", counting)
    banked, other = originals[0].bundle.model, small_resnet(1)
    first = engine.evaluate(banked, images.test, engine.task.losses)
    assert torch.equal(engine.evaluate(banked, images.test.subset(range(len(images.test))), engine.task.losses), first)
    assert torch.equal(evaluate(RememberingEngine(place.compute), banked, images.test, engine.task.losses), first)
    assert measured == [banked]
    engine.evaluate(banked, images.test.subset([0, 1]), engine.task.losses)
    engine.evaluate(banked, images.test, engine.task.knowledge)
    engine.evaluate(originals[1].bundle.model, images.test, engine.task.losses)
    for _ in range(2):
        engine.evaluate(other, images.test, engine.task.losses)  # may be trained between two measurements
        engine.evaluate(banked, images.test, lambda model, batch: engine.task.losses(model, batch) * 0)
    assert len(measured) == 8


def test_a_scene_has_references_that_never_saw_the_forget_set(place: Place) -> None:
    scene = scene_of(SCALE, OneClass(3).positions(SCALE, place), place)
    problem = scene.problems[0]
    assert set(problem.forget.fact("label")) == {3}
    assert len(problem.retain) == 90
    assert 3 not in problem.retain.fact("label")
    assert all(making.samples is problem.retain for making in scene.reference_makings)
    assert len(scene.references) == 3
    assert len(scene.seen[0].retain) == 9 * 5
    assert set(scene.seen[0].retain.ids) < set(problem.retain.ids)
    assert scene.problems[2].original is scene.originals[2].bundle
    assert scene_of(SCALE, OneClass(3).positions(SCALE, place), place) is scene
    source = scene.weights_of_reference(1)
    read = scene.engine.task.load(source, "model").model.state_dict()
    assert all(torch.equal(read[name], tensor) for name, tensor in scene.references[1].bundle.model.state_dict().items())


def test_originals_are_shared_by_all_forget_sets(place: Place) -> None:
    first, second = (scene_of(SCALE, OneClass(label).positions(SCALE, place), place) for label in (3, 4))
    making = Trained(first.originals[0].bundle, 0, _scene.images_of("fashion-mnist", place.data, 10, 10).train, SCALE.training, "original")
    assert first.bank.entry(making) == second.bank.entry(making)
    assert first.bank.entry(making).exists()


def test_random_shares_do_not_meet() -> None:
    here = Place(None, Path(), Compute())
    first, second = (RandomShare(10, number).positions(SCALE, here) for number in (0, 1))
    assert len(first) == len(second) == 10
    assert not set(first) & set(second)
    assert first == RandomShare(10, 0).positions(SCALE, here)


def test_memorised_is_what_only_models_that_saw_it_know(place: Place) -> None:
    values = memorisation(SCALE, 2, 1, place)
    images, like, bank, engine, originals = originals_of(SCALE, place)
    inside = torch.stack([engine.evaluate(o.bundle.model, images.train, engine.task.knowledge) for o in originals]).mean(dim=0)
    # Two folds: each image's other estimate comes from the one model that was trained on the other half.
    folds = [set(_forget_sets._folds(100, 2)[i]) for i in (0, 1)]
    assert folds[0] | folds[1] == set(range(100))
    for fold in (0, 1):
        rest = images.train.subset(sorted(folds[1 - fold]))
        making = Trained(like, derive_seed(0, "fold", fold), rest, SCALE.training)
        assert bank.entry(making).exists()
        model = bank.get([making], "fold")[0].bundle.model
        positions = sorted(folds[fold])
        outside = engine.evaluate(model, images.train.subset(positions), engine.task.knowledge)
        assert torch.allclose(values[positions], inside[positions] - outside)
    halves = [Memorised(10, number, 2, 1).positions(SCALE, place) for number in (0, 1)]
    assert not set(halves[0]) & set(halves[1])
    assert set(halves[0]) | set(halves[1]) == set(values.topk(20).indices.tolist())
    assert abs(float(values[halves[0]].mean() - values[halves[1]].mean())) < 0.05


def test_distances_are_those_of_a_naive_loop(place: Place) -> None:
    scene = scene_of(SCALE, OneClass(3).positions(SCALE, place), place)
    subject = scene.subject(0, scene.originals[1], scene.references)
    task, forget = scene.engine.task, scene.problems[0].forget
    p = scene.engine.evaluate(scene.originals[1].bundle.model, forget, task.outputs).softmax(1)
    total = 0.0
    for reference in scene.references:
        q = scene.engine.evaluate(reference.bundle.model, forget, task.outputs).softmax(1)
        for i in range(len(forget)):
            total += 0.5 * sum(abs(float(p[i, y]) - float(q[i, y])) for y in range(10))
    tv = total / len(scene.references) / len(forget)
    assert _contest.distance(subject).value == pytest.approx(tv, abs=1e-12)

    def accuracy(model: nn.Module, split: str) -> float:
        return float(scene.engine.evaluate(model, scene.seen[0].sets[split], task.utility).mean())

    gaps = [
        abs(accuracy(scene.originals[1].bundle.model, split) - sum(accuracy(r.bundle.model, split) for r in scene.references) / 3)
        for split in ("forget", "retain", "test")
    ]
    assert _contest.selection_error(subject) == pytest.approx((sum(gaps) + tv) / 4, abs=1e-12)
    alone = scene.subject(0, scene.references[0], scene.references[:1])
    assert _contest.selection_error(alone) == 0


def test_a_target_is_compared_before_anything_is_trained(place: Place) -> None:
    scene = scene_of(SCALE, OneClass(3).positions(SCALE, place), place)
    target = target_of(scene, TRW(beta=0.0), 1)
    p = scene.engine.evaluate(scene.originals[1].bundle.model, scene.problems[0].forget, scene.engine.task.outputs).softmax(1)
    naive = p.clone()
    naive[:, 3] = 0
    assert torch.allclose(target, naive / naive.sum(1, keepdim=True))
    tilted = target_of(scene, TRW(similarity="confusion", beta=3.0), 1)
    mean = p.mean(0)
    mean[3] = 0
    weights = naive * torch.exp(3.0 * mean / mean.sum())
    assert torch.allclose(tilted, weights / weights.sum(1, keepdim=True))


def test_membership_compares_with_test_images_of_the_same_class(place: Place) -> None:
    scene = scene_of(SCALE, OneClass(3).positions(SCALE, place), place)
    task, problem = scene.engine.task, scene.seen[0]
    losses = {split: scene.engine.evaluate(scene.originals[0].bundle.model, problem.sets[split], task.losses) for split in ("forget", "test")}
    same = torch.tensor(problem.test.fact("label")) == 3
    wins = [float(a < b) + 0.5 * float(a == b) for a in losses["forget"] for b in losses["test"][same]]
    assert _contest.membership(scene.subject(0, scene.originals[0], scene.references)).value == pytest.approx(sum(wins) / len(wins))


def test_the_attack_by_shadow_models_is_the_audits_own(place: Place) -> None:
    scene = scene_of(SCALE, OneClass(3).positions(SCALE, place), place)
    subject = scene.subject(0, scene.originals[0], scene.references, scene.originals[1:])
    found = {number.metric: number.value for number in _contest.likelihood(subject)}
    assert found["u_lira_gap"] == pytest.approx(abs(found["u_lira"] - 0.5))  # references against references are a toss-up, by symmetry
    enough = scene.subject(0, scene.originals[0], scene.references, [*scene.originals[1:], scene.originals[1]])
    finding = pick(ULira().measure(enough), metric="target_balanced_accuracy", subject="unlearned")[0]
    value = {number.metric: number.value for number in _contest.likelihood(enough)}["u_lira"]
    assert value == pytest.approx(finding.value)


def test_the_attack_by_the_nearest_class_is_the_audits_own(place: Place) -> None:
    scene = scene_of(SCALE, OneClass(3).positions(SCALE, place), place)
    subject = scene.subject(0, scene.originals[0], scene.references)
    findings = {f.subject: f for f in pick(MiaNN(variants=()).measure(subject), metric="mia_nn")}
    found = {number.metric: number.value for number in _contest.nearest_class(subject)}
    assert found["mia_nn"] == findings["unlearned"].value
    assert found["mia_nn_gap"] == pytest.approx(abs(findings["unlearned"].gap or 0.0))
    alone = {number.metric: number.value for number in _contest.nearest_class(scene.subject(0, scene.references[0], scene.references[:1]))}
    assert alone["mia_nn_gap"] == 0


def test_settings_are_chosen_on_another_forget_set_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chosen setting depends on what is measured there, and the reported set has no part in it."""
    chosen_on, reported = OneClass(0), OneClass(3)
    choice = Choice(replace(SCALE, references=1), chosen_on, TWO[0])
    asked: list[set[int]] = []
    errors = {0.01: 0.5, 0.1: 0.25}

    def error(subject: Any) -> float:
        asked.append(set(subject.problem.forget.fact("label")))
        return errors[[0.01, 0.1][len(asked) - 1]]

    used: list[float] = []

    def spread(scene: Any, method: Any, count: int) -> list[Any]:
        used.append(method.lr)
        return [scene.originals[i] for i in range(count)]

    monkeypatch.setattr(_contest, "selection_error", error)
    monkeypatch.setattr(_cells, "spread", spread)
    rows = Contest(SCALE, reported, choice, 2).run(place)
    assert asked == [{0}, {0}]
    assert used == [0.1]
    assert {row.seed for row in rows} == {0, 1}
    shown = choice.run(place)
    assert [(row.method, row.value) for row in shown] == [("fine-tune (lr=0.01)", 0.5), ("fine-tune (lr=0.1)", 0.25)]
    assert len(asked) == 2  # kept


def test_what_diverges_is_a_row_that_says_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverges(*_: Any) -> Any:
        raise DivergedError("diverged")

    monkeypatch.setattr(_scene.Scene, "unlearn", diverges)
    other = Contender("fine-tune", "fine-tune", {"epochs": 2}, product(lr=(0.01, 0.1)))
    choice = Choice(replace(SCALE, references=1), OneClass(0), other)
    assert [row.reason for row in choice.run(place)] == ["diverged", "diverged"]
    rows = Contest(SCALE, OneClass(3), choice, 2).run(place)
    assert [(row.value, row.reason, row.seed) for row in rows] == [(None, "diverged", 0), (None, "diverged", 1)]
    assert _contest.best([None, 0.5, None, 0.25, 0.25]) == 3
    assert _contest.best([None, None]) == 0


def _by(rows: tuple[BenchRow, ...], method: str) -> dict[tuple[str, str], float | None]:
    return {(row.metric, row.split): row.value for row in rows if row.method == method}


def test_class_unlearning_end_to_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fine-tune", "trw-oracle"):
        monkeypatch.setitem(CONTENDERS, name, replace(CONTENDERS[name], grid=CONTENDERS[name].grid[:2]))
    suite = ClassUnlearning(classes=(3,), methods=("fine-tune", "trw-oracle"), **SMALL)
    rows = run_suite(suite, place).rows
    assert {row.setting for row in rows} == {"fashion-mnist/3", "fashion-mnist/0 for the choice"}
    expected = {("accuracy", split) for split in ("forget", "retain", "test")}
    expected |= {(metric, "forget") for metric in ("membership", "u_lira", "u_lira_gap", "tv")}
    expected |= {(metric, "forget-test") for metric in ("mia_nn", "mia_nn_gap")}
    assert expected <= _by(rows, "original").keys()
    assert ("cost_ratio", "all") not in _by(rows, "original")
    for method in ("fine-tune", "trw-oracle"):
        found = _by(rows, method)
        assert expected | {("cost_ratio", "all"), ("tv_oracle", "forget")} <= found.keys()
        assert all(value is not None for value in found.values())
    assert sum(row.metric == "selection_error" for row in rows) == 4
    targets = {row.method: row.value for row in rows if row.metric == "target_tv"}
    assert len(targets) == 1 + 2 * 4 * 3 + 2 * 3
    assert len(set(targets.values())) > 20
    assert run_suite(suite, place).rows == rows


def test_sample_unlearning_end_to_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONTENDERS, "fine-tune", replace(CONTENDERS["fine-tune"], grid=CONTENDERS["fine-tune"].grid[:2]))
    rows = run_suite(SampleUnlearning(methods=("fine-tune",), folds=2, fold_models=1, oracle=False, **SMALL), place).rows
    assert {row.setting for row in rows if row.metric == "tv"} == {"fashion-mnist/random10", "fashion-mnist/memorised"}
    assert all(row.value is not None for row in rows)
    assert not any(row.metric.startswith("mia_nn") for row in rows)


def test_settings_that_would_mislead_are_refused() -> None:
    with pytest.raises(ValidationError, match="cannot be reported"):
        ClassUnlearning(classes=(0, 1))
    with pytest.raises(ValidationError, match="'nothing' does not take part"):
        ClassUnlearning(methods=("nothing",))
    with pytest.raises(ValidationError, match="'trw' forgets whole classes"):
        SampleUnlearning(methods=("trw",))


def test_missing_data_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        ClassUnlearning().require(Place(tmp_path, tmp_path, Compute()))
    assert len(caught.value.faults) == 2
