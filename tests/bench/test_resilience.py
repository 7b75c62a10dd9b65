from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.bench.small_images import write_fashion
from unlearned.bench import _pictures
from unlearned.bench._pictures import PicturesName, pictures
from unlearned.bench._run import run_suite
from unlearned.bench._suite import Place
from unlearned.bench.resilience import CONTENDERS, POOL, TUNINGS, Bench, ResilienceSuite, material, pool_of
from unlearned.data.samples import Samples
from unlearned.engine.settings import Compute
from unlearned.errors import InputError
from unlearned.methods import methods
from unlearned.tasks.image_generation import denoiser_of

SETTINGS = ("benign/momentum", "contaminated/lora")


def small(data: PicturesName = "digits", methods: tuple[str, ...] = ("original", "resalign")) -> ResilienceSuite:
    sizes: dict[str, Any] = {"train": 60, "held_out": 100, "judged": 6, "epochs": 1, "steps": 1, "images": 9, "sampling_steps": 1, "short": True}
    return ResilienceSuite(seeds=1, data=data, methods=methods, settings=SETTINGS, **sizes)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("drawn")
    write_fashion(root)
    return Place(root, root / "cache", Compute(threads=1))


def test_every_method_has_all_numbers_before_and_after_each_fine_tuning(place: Place) -> None:
    rows = run_suite(small(), place).rows
    for method in ("original", "resalign"):
        found = {(row.setting, row.metric) for row in rows if row.method == method and row.value is not None}
        wanted = {
            (setting, metric) for setting in ("before", "benign/momentum", "contaminated/lora") for metric in ("concept_rate", "retain_accuracy", "frechet")
        }
        assert found == wanted | ({("before", "seconds")} if method == "resalign" else set())


def test_garments_are_drawn_and_judged_as_digits_are(place: Place) -> None:
    rows = run_suite(small("fashion-mnist", ("original", "esd-x")), place).rows
    for method in ("original", "esd-x"):
        assert {row.setting for row in rows if row.method == method and row.metric == "frechet" and row.value is not None} == {"before", *SETTINGS}
    with pytest.raises(InputError, match="fashion-mnist"):
        small("fashion-mnist").require(Place(place.cache, place.cache, place.compute))


def test_the_judge_of_garments_knows_garments_that_it_never_saw(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[str] = []
    judge = _pictures._weights_of_judge

    def taught_with(samples: Samples, place: Place) -> Path:
        taught.extend(samples.ids)
        return judge(samples, place)

    monkeypatch.setattr(_pictures, "_weights_of_judge", taught_with)
    task, drawer, train, held_out, turned = pictures("fashion-mnist", place, 60, 100, 6, 1)
    assert len(taught) == 60
    assert not set(taught) & {*train.ids, *held_out.ids}
    assert (len(train), len(held_out), len(turned)) == (60, 100, 100)
    assert tuple(train[0]["pixel_values"].shape) == (1, *(denoiser_of(drawer.model).image_size or ())) == (1, 16, 16)
    border = torch.ones(16, 16, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert all(bool((samples[i]["pixel_values"][0, border] == -1).all()) for samples in (train, held_out, turned) for i in range(len(samples)))
    images = torch.stack([(held_out[i]["pixel_values"] + 1) / 2 for i in range(len(held_out))])
    seen = task.judged(images).argmax(dim=1)
    assert float((seen == torch.tensor(held_out.fact("label"))).float().mean()) > 0.5  # ten classes, eight steps of training
    assert torch.equal(turned[0]["pixel_values"], held_out[0]["pixel_values"].rot90(dims=(1, 2)))


@pytest.mark.parametrize("data", ["digits", "fashion-mnist"])
def test_what_models_are_fine_tuned_on_is_held_out(place: Place, data: PicturesName) -> None:
    cell = small(data).cells()[0]
    assert isinstance(cell, Bench)
    bed = cell.bed(place)
    seen = set(bed.problem.forget.ids) | set(bed.problem.retain.ids)
    assert set(bed.problem.forget.fact("label")) == {3}
    for tuned_on, share in (("benign", 0.0), ("new", 0.0), ("contaminated", 0.2)):
        samples = material(bed, tuned_on, 3)
        assert not seen & set(samples.ids)
        labels = samples.fact("label")
        assert labels.count(3) / len(labels) == pytest.approx(share)


def test_how_they_are_fine_tuned_is_held_out() -> None:
    rehearsed = {(tuning.kind, tuning.optimizer, tuning.lr, tuning.momentum, tuning.rank) for tuning in POOL}
    assert not rehearsed & {(tuning.kind, tuning.optimizer, tuning.lr, tuning.momentum, tuning.rank) for tuning in TUNINGS.values()}
    assert {tuning.start for tuning in pool_of("resalign-one-data")} == {0.0}
    assert len({(t.kind, t.optimizer, t.lr, t.steps) for t in pool_of("resalign-one-setting")}) == 1
    assert len({t.start for t in pool_of("resalign-one-setting")}) == 3


def test_settings_are_those_of_the_methods() -> None:
    for name, settings in CONTENDERS.values():
        methods.get(name)(**settings)
    with pytest.raises(ValidationError, match="does not take part"):
        ResilienceSuite(methods=("nothing",))
    with pytest.raises(ValidationError, match="no fine-tuning"):
        ResilienceSuite(settings=("benign/magic",))
