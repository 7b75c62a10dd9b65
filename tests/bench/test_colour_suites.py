from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.bench.small_images import write_cifar, write_fashion
from unlearned.bench import _colour_cells, _tinted
from unlearned.bench._choice import area
from unlearned.bench._colour_cells import EACH, Measured, Seen, Sweep, leads, rows_of, scene_of
from unlearned.bench._colour_suite import ColourSuite
from unlearned.bench._grids import words
from unlearned.bench._networks import resnet18
from unlearned.bench._rivals import NAMES, Rival
from unlearned.bench._run import run_suite
from unlearned.bench._statistics import recomputed
from unlearned.bench._suite import Place
from unlearned.bench._tinted import greys_of
from unlearned.bench.collapse import Collapse, CollapseExperiment
from unlearned.bench.erasure import Erasure, ErasureExperiment, fronts
from unlearned.engine.settings import Compute
from unlearned.methods.fine_tune import FineTune
from unlearned.records import BenchRow, Quoted

TINY: dict[str, Any] = {"data": ("fashion-mnist",), "train_per_class": 10, "validation_per_class": 2, "test_per_class": 2, "forget_percent": 20}
TINY |= {"seeds": 2, "width": 2, "epochs": 2, "decay_every": 2, "batch_size": 16, "methods": ("minnorm-og", "fine-tune")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("suites")
    write_fashion(root)
    write_cifar(root)
    yield Place(root, root / "cache", Compute(device="cpu"))
    for kept in (_colour_cells.scene_of, _tinted.greys_of):
        kept.cache_clear()


def test_validation_and_test_images_are_not_the_same(place: Place) -> None:
    parts = greys_of("cifar10", place.data, True, 4, 3, 5)
    assert parts.train.images.shape == (40, 1, 16, 16)
    assert [part.labels.bincount().tolist() for part in parts] == [[4] * 10, [3] * 10, [5] * 10]
    seen = {tuple(image.flatten().tolist()) for image in parts.validation.images}
    assert len(seen) == 30
    assert not seen & {tuple(image.flatten().tolist()) for image in parts.test.images}
    assert greys_of("cifar10", place.data, False, 2, 1, 1).train.images.shape == (20, 1, 32, 32)


def test_every_setting_is_valid_and_no_two_are_the_same() -> None:
    for suite in (Collapse, Erasure):
        for epochs in {epochs for _, epochs in suite().budgets}:
            for rival in suite.rivals(epochs):
                assert len({words(setting) for setting in rival.grid}) == len(rival.grid)
                for setting in rival.grid:
                    assert rival.made(setting, epochs, 64).epochs == epochs  # type: ignore[attr-defined]


def test_the_papers_table_has_the_names_of_ours() -> None:
    suite = Collapse()
    columns = {f"cifar10/{ratio:g} D_f/T={epochs}" for ratio, epochs in suite.budgets}
    assert {quoted.setting for quoted in Collapse.paper} == columns
    assert {quoted.method for quoted in Collapse.paper} == set(suite.methods) == set(NAMES)
    assert Collapse.paper[Quoted("minnorm-og", "cifar10/0.1 D_f/T=15", "test", "collapse_accuracy")] == 0.932
    assert Collapse.paper[Quoted("ridge", "cifar10/0.1 D_f/T=10", "test", "collapse_accuracy")] == 0.600


def test_a_method_that_does_not_take_part_is_refused() -> None:
    with pytest.raises(ValidationError, match="'ssd' does not take part"):
        Collapse(methods=("ssd",))


def test_the_problem_of_the_collapse(place: Place) -> None:
    scale = Collapse(**TINY).scale("fashion-mnist")
    scene = scene_of(CollapseExperiment, scale, 0, place)
    assert len(scene.problem.forget) == 20
    assert len(scene.problem.retain) == 100
    part = scene.accessible(0.5)
    assert len(part.retain) == 10
    assert set(part.retain.ids) < set(scene.problem.retain.ids)
    assert scene.accessible(0.5).retain.ids == part.retain.ids
    other = scene_of(CollapseExperiment, scale, 1, place)
    assert other.problem.forget.ids != scene.problem.forget.ids
    assert other.accessible(0.5).retain.ids != part.retain.ids


def test_the_problem_of_the_erasure(place: Place) -> None:
    scene = scene_of(ErasureExperiment, Erasure(**TINY).scale("fashion-mnist"), 0, place)
    forget = [scene.problem.forget[i] for i in range(len(scene.problem.forget))]
    assert [int(row["colours"]) for row in forget] == [1] * 20 + [2] * 20
    assert all(bool((row["pixel_values"][2] == -1).all()) for row in forget)
    assert {int(scene.problem.retain[i]["colours"]) for i in range(100)} == {0}
    assert scene.problem.task.outputs(scene.retrained, scene.problem.task.collate(forget[:2])).shape == (2, 13)


def test_settings_are_chosen_by_both_rules(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    scale = Collapse(**TINY).scale("fashion-mnist")
    experiment = CollapseExperiment(scale, 1, 1)
    rival = Rival("fine-tune", FineTune, {}, ({"lr": 0.1}, {"lr": 0.2}, {"lr": 0.3}))
    # By setting: collapse accuracy with two seeds, utility, knowledge. The third is not useful enough.
    reached = {0.1: ((0.2, 0.4), 0.9, 0.3), 0.2: ((0.9, 0.1), 0.9, 0.5), 0.3: ((0.0, 0.0), 0.1, 0.0)}

    def of_seed(sweep: Sweep, seed: int, place: Place) -> list[Seen | None]:
        del place
        values = [reached[setting["lr"]] for setting in sweep.rival.grid]
        nothing = Measured({"collapse_accuracy": 0.0}, 0, 0)
        return [Seen(Measured({"collapse_accuracy": value[0][seed]}, value[1], value[2]), nothing) for value in values]

    def original(sweep: Sweep, seed: int, place: Place) -> Seen:
        del sweep, seed, place
        return Seen(Measured({}, 0.9, 1.0), Measured({}, 0.9, 1.0))

    monkeypatch.setattr(Sweep, "_of_seed", of_seed)
    monkeypatch.setattr(Sweep, "_original", original)
    both = Sweep(experiment, rival, 2).run(place)
    assert {row.setting for row in both} == {"fashion-mnist/1 D_f/T=1", "fashion-mnist/1 D_f/T=1, recomputed"}
    rows = [row for row in both if row.setting == experiment.setting]
    assert values_of(rows, "collapse_accuracy", "fine-tune") == [0.9, 0.1]
    assert values_of(rows, "collapse_accuracy_validated", "fine-tune") == [0.2, 0.4]
    assert [row.method for row in rows if row.metric == "chosen"] == ["fine-tune (lr=0.2)"]
    assert [row.method for row in rows if row.metric == "chosen_validated"] == ["fine-tune (lr=0.1)"]
    assert values_of(rows, "collapse_accuracy", "fine-tune (lr=0.3)") == [0.0, 0.0]


def test_a_lead_is_a_difference_within_seeds() -> None:
    rows = []
    for method, values in (("minnorm-og", (0.5, 0.7)), ("ridge", (0.4, 0.5)), ("original", (0.0, 0.0))):
        for seed, value in enumerate(values):
            rows += rows_of(method, "s", seed, "test", {"m": value})
    found = list(leads(rows, "m"))
    assert values_of(found, "m_lead", "ridge") == pytest.approx([0.1, 0.2])
    # t with one degree of freedom: 0.15 ± 12.706 · 0.0707/√2
    assert values_of(found, "m_lead_low", "ridge") == pytest.approx([0.15 - 12.7062 * 0.05], abs=1e-4)
    assert {row.method for row in found} == {"ridge"}


def test_fronts_by_hand() -> None:
    points = {"a (lr=1)": ((0.9, 0.5), (0.7, 0.5)), "a (lr=2)": ((0.2, 0.9), (0.2, 0.9)), "b (lr=1)": ((0.5, 0.1), (0.5, 0.1))}
    rows = [
        row
        for name, by_seed in points.items()
        for seed, (quality, error) in enumerate(by_seed)
        for row in rows_of(name, "s", seed, EACH, {"retain_quality": quality, "forget_error": error})
    ]
    rows.append(BenchRow(method="b (lr=9)", setting="s", seed=0, split=EACH, metric="retain_quality", reason="diverged"))
    found = list(fronts(rows))
    assert {row.method: row.value for row in found if row.metric == "on_front"} == {"a (lr=1)": 1, "a (lr=2)": 0, "b (lr=1)": 1}
    assert values_of(found, "front_share", "a") == [1.0]
    assert values_of(found, "area", "a") == pytest.approx([area(np.array([[0.9, 0.5], [0.2, 0.9]])), area(np.array([[0.7, 0.5], [0.2, 0.9]]))])


@pytest.mark.parametrize("suite", [Collapse(**TINY, budgets=((1, 2),), warm_epochs=1), Erasure(**TINY, budgets=((0.5, 1),))])
def test_a_whole_suite(suite: Collapse | Erasure, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def first_settings(kind: type[ColourSuite], epochs: int) -> list[Rival]:
        del kind, epochs
        return [replace(rival, grid=({**rival.grid[0]} | ({"descent_epochs": 0} if rival.name == "minnorm-og" else {}),)) for rival in everybody]

    everybody = suite.rivals(1)
    monkeypatch.setattr(type(suite), "rivals", classmethod(first_settings))
    rows = run_suite(suite, place).rows
    for method in ("original", "retrain-full", "minnorm-og", "fine-tune"):
        assert len(values_of(rows, suite.experiment.headline[0], method)) == 4, method  # two seeds in two views
    assert len(values_of(rows, "collapse_accuracy_lead" if isinstance(suite, Collapse) else "area_lead", "fine-tune")) == 4
    assert all(row.value is None or 0 <= row.value <= 1 for row in rows if row.split == EACH)


def test_recomputed_statistics_are_those_of_the_images(place: Place) -> None:
    scene = scene_of(CollapseExperiment, Collapse(**TINY).scale("fashion-mnist"), 0, place)
    model: Any = scene.problem.original.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    retain = scene.accessible(0.5).retain
    found: Any = recomputed(scene.engine, model, retain)
    with torch.no_grad():
        first = model[0](scene.problem.task.collate([retain[i] for i in range(len(retain))])["pixel_values"])
    torch.testing.assert_close(found[1].running_mean, first.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(found[1].running_var, first.transpose(0, 1).flatten(1).var(dim=1))
    assert torch.equal(found[0].weight, model[0].weight)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(layer.training for layer in found.modules())


def test_resnet18_keeps_small_images_large() -> None:
    network: Any = resnet18(3, 13)
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 13)
    assert network[:5](torch.zeros(2, 3, 8, 8)).shape == (2, 64, 8, 8)
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_173_962 + 3 * 513


def values_of(rows: Any, metric: str, method: str) -> list[float | None]:
    return [row.value for row in rows if (row.metric, row.method) == (metric, method)]
