from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from unlearned.bench._regeneration_cells import CLASSIFIERS, CONTROLS, TEXTS, Classified, Drawn
from unlearned.bench._run import run_suite
from unlearned.bench._suite import Place
from unlearned.bench._text_grids import CONTENDERS as TEXT_CONTENDERS
from unlearned.bench.regeneration import RegenerationSuite
from unlearned.engine.settings import Compute
from unlearned.errors import InputError
from unlearned.methods import methods
from unlearned.records import LABEL, BenchRow
from unlearned.tasks.image_generation import denoiser_of


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(None, tmp_path_factory.mktemp("cache"), Compute(threads=1))


def small() -> RegenerationSuite:
    return RegenerationSuite.quick().model_copy(update={"steps": 1, "train": 60, "epochs": 1, "images": 4, "sampling_steps": 1, "drawing": ("esd-x",)})


def test_rows_of_each_method_on_each_bed(place: Place) -> None:
    rows = run_suite(small(), place).rows
    whole = {"recovery", "half_recovery_steps", "recovery_area", LABEL}
    for split, method in (("image-generation", "esd-x"), ("image-classification", "hidden"), ("image-classification", "salun")):
        found = {(row.metric, row.setting) for row in rows if (row.split, row.method) == (split, method)}
        points = {(metric, f"memora, {n} steps") for metric in ("knowledge", "reference_knowledge") for n in (0, 1)}
        assert found >= points | {(metric, "memora, 1 steps") for metric in whole} | {("relearn_retention", "relearn, 1 steps")}
    settings = {row.setting for row in rows if row.method == "esd-x" and row.metric == "knowledge"}
    assert {"cycle 1, 0 steps", "cycle 1, 1 steps", "textual-inversion, 1 steps"} <= settings
    assert {row.split for row in rows if row.metric == "rank_correlation_with_relearn"} == {"image-generation", "image-classification"}


def test_what_hides_is_the_original_but_for_one_vector(place: Place) -> None:
    drawn, classified = (next(cell for cell in small().cells() if isinstance(cell, kind)) for kind in (Drawn, Classified))
    bed = drawn.bed(place)
    hidden, original = (denoiser_of(model).state_dict() for model in (drawn.hidden(bed), bed.problem.original.model))
    [name] = [name for name, tensor in hidden.items() if not torch.equal(tensor, original[name])]
    assert "token_embedding" in name
    assert int((hidden[name] != original[name]).any(dim=1).sum()) == 1
    classes = classified.bed(place)
    changed = classified.hidden(classes).state_dict()
    assert [name for name, tensor in changed.items() if not torch.equal(tensor, classes.problem.original.model.state_dict()[name])] == ["7.bias"]
    assert len({id(kept) for kept in (*bed.references, bed.further)}) == len(bed.references) + 1


def test_the_label_is_held_against_relearning_over_methods() -> None:
    suite = small()

    def row(method: str, metric: str, value: float) -> BenchRow:
        setting = f"memora, {suite.steps} steps" if metric == LABEL else "relearn, 1 steps"
        return BenchRow(method=method, setting=setting, seed=0, split="image-classification", metric=metric, value=value)

    rows = [row(f"m{i}", LABEL, label) for i, label in enumerate((0.1, 0.5, 0.9))]
    rows += [row(f"m{i}", "relearn_retention", kept) for i, kept in enumerate((0.2, 0.8, 0.6))]
    [_, found] = suite.derived(rows)
    assert found.value == pytest.approx(0.5)
    assert suite.derived([])[1].reason


def test_names_and_settings_are_those_of_methods_that_there_are() -> None:
    for name, settings in CLASSIFIERS.values():
        methods.get(name)(**settings)
    assert set(TEXTS) <= set(TEXT_CONTENDERS["llama-small"])
    assert len(CLASSIFIERS) >= 5
    assert len(TEXTS) >= 5
    with pytest.raises(ValidationError, match="is not among `drawing`"):
        RegenerationSuite(drawing=("nothing",))
    full = RegenerationSuite()
    assert full.seeds >= 3
    assert {*CONTROLS} <= set(full.drawing) & set(full.classifying) & set(full.writing)


def test_language_models_need_their_data() -> None:
    with pytest.raises(InputError, match="no directory of data was given"):
        RegenerationSuite().require(Place(None, Path(), Compute()))
