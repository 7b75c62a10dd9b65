from __future__ import annotations

import pytest
from pydantic import ValidationError

from unlearned.bench._run import run_suite
from unlearned.bench._suite import Place
from unlearned.bench.resilience import CONTENDERS, POOL, TUNINGS, Bench, ResilienceSuite, material, pool_of
from unlearned.engine.settings import Compute
from unlearned.methods import methods


def small() -> ResilienceSuite:
    settings = ("benign/momentum", "contaminated/lora")
    methods = ("original", "resalign")
    return ResilienceSuite(seeds=1, methods=methods, settings=settings, train=60, epochs=1, steps=1, images=9, sampling_steps=1, short=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(None, tmp_path_factory.mktemp("cache"), Compute(threads=1))


def test_every_method_has_all_numbers_before_and_after_each_fine_tuning(place: Place) -> None:
    rows = run_suite(small(), place).rows
    for method in ("original", "resalign"):
        found = {(row.setting, row.metric) for row in rows if row.method == method and row.value is not None}
        wanted = {
            (setting, metric) for setting in ("before", "benign/momentum", "contaminated/lora") for metric in ("concept_rate", "retain_accuracy", "frechet")
        }
        assert found == wanted | ({("before", "seconds")} if method == "resalign" else set())


def test_what_models_are_fine_tuned_on_is_held_out(place: Place) -> None:
    cell = small().cells()[0]
    assert isinstance(cell, Bench)
    bed = cell.bed(place)
    seen = set(bed.problem.forget.ids) | set(bed.problem.retain.ids)
    assert set(bed.problem.forget.fact("label")) == {3}
    for data, share in (("benign", 0.0), ("new", 0.0), ("contaminated", 0.2)):
        samples = material(bed, data, 3)
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
