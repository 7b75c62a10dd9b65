from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.models import bundle_of, images, problem_of, task_of
from unlearned.api import make_problem
from unlearned.errors import InputError
from unlearned.tasks._images import plain_pixels
from unlearned.tasks._task import Bundle, DataSource

CLASSIFIER, WRITER = task_of("image-classification"), task_of("text-generation")
PLAIN = bundle_of("plain")


@pytest.mark.parametrize(
    ("given", "shape"),
    [((8, 9), (1, 8, 9)), ((1, 8, 9), (1, 8, 9)), ((3, 8, 9), (3, 8, 9)), ((8, 9, 3), (3, 8, 9)), ((8, 9, 1), (1, 8, 9)), ((3, 8, 3), (3, 8, 3))],
)
def test_channels_come_first(given: tuple[int, ...], shape: tuple[int, ...]) -> None:
    pixels = plain_pixels(np.zeros(given, dtype=np.float32))
    assert (tuple(pixels.shape), pixels.dtype) == (shape, torch.float32)


def test_whole_numbers_are_divided_by_255_and_floats_are_not() -> None:
    assert plain_pixels(np.array([[0, 51, 255]], dtype=np.uint8)).flatten().tolist() == pytest.approx([0, 0.2, 1])
    assert plain_pixels(np.array([[0.5, 51.0]])).flatten().tolist() == [0.5, 51.0]


def test_a_folder_of_images(tmp_path: Path) -> None:
    for name, value in (("cat/a.png", 10), ("cat/b.png", 20), ("ant/c.png", 30)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), value, dtype=np.uint8)).save(tmp_path / name)
    samples = CLASSIFIER.read(DataSource(source=str(tmp_path)), PLAIN, "f")
    assert samples.ids == ["ant/c.png", "cat/a.png", "cat/b.png"]
    assert samples.fact("label") == [0, 1, 1]
    assert samples.fact("label_name") == ["ant", "cat", "cat"]
    assert [round(float(samples[i]["pixel_values"].max()) * 255) for i in range(3)] == [30, 10, 20]
    assert samples[0]["pixel_values"].shape == (1, 4, 4)


def test_the_same_data_in_every_form_is_the_same(tmp_path: Path) -> None:
    columns = images(0, 5)
    pixels, labels = columns["image"].numpy(), columns["label"].numpy()
    np.savez(tmp_path / "d.npz", images=pixels, labels=labels)
    forms = [
        (pixels, labels),
        {"x": pixels, "y": labels},
        {"image": list(pixels), "label": labels.tolist()},
        DataSource(source=str(tmp_path / "d.npz")),
        CLASSIFIER.read((pixels, labels), PLAIN, "f"),
    ]
    assert len({CLASSIFIER.read(form, PLAIN, "f").fingerprint for form in forms}) == 1


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_texts_from_files(suffix: str, tmp_path: Path) -> None:
    import pyarrow.csv
    import pyarrow.parquet

    columns = {"question": ["where does ada live", "where does bo live"], "answer": ["in york", "in far lima"], "city": ["york", "lima"]}
    path = tmp_path / f"d.{suffix}"
    if suffix == "jsonl":
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif suffix == "csv":
        pyarrow.csv.write_csv(pyarrow.table(columns), path)
    else:
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    samples = WRITER.read(DataSource(source=str(path)), bundle_of("gpt2"), "f")
    assert len(samples) == 2
    assert samples.fact("city") == ["york", "lima"]
    assert len(samples[0]["input_ids"]) == 7


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"label": [1]}, "there is no image column"),
        ({"image": np.zeros((2, 8, 8))}, "the data has no labels"),
        ({"image": np.zeros((2, 8, 8)), "label": [1]}, "the columns differ in length"),
        ({"image": np.zeros((2, 8, 8)), "label": [1, 1.5]}, "1 labels are not whole numbers"),
        (3, "data of type int cannot be used"),
    ],
)
def test_images_that_cannot_be_used(data: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        CLASSIFIER.read(data, PLAIN, "f")


@pytest.mark.parametrize(("data", "message"), [({"words": ["a"]}, "there are no texts"), ({"prompt": ["a", "b"], "answer": ["c", " "]}, "1 answers are empty")])
def test_texts_that_cannot_be_used(data: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        WRITER.read(data, bundle_of("gpt2"), "f")


def test_a_text_of_which_no_token_can_be_predicted_is_refused() -> None:
    """Its loss would be a mean over nothing."""
    bundle = bundle_of("gpt2")
    assert len(WRITER.read({"text": ["york"]}, bundle, "f")) == 1  # the end of the sequence follows
    bundle.companions["tokenizer"].eos_token = None
    with pytest.raises(InputError, match="the text at position 1 is too short"):
        WRITER.read({"text": ["lima rome", "york"]}, bundle, "f")


@pytest.mark.parametrize("kind", ["plain", "resnet"])
def test_data_that_do_not_fit_the_model_are_refused_up_front(kind: str) -> None:
    bundle = bundle_of(kind)
    good = images(0, 6)

    def refused(test: dict[str, object], message: str) -> None:
        with pytest.raises(InputError, match=message):
            make_problem(bundle, train=good, test=test, forget=["digit-0"])

    refused({"image": np.zeros((2, 3, 8, 8), dtype=np.float32), "label": [0, 1]}, "model cannot take these images of 3x8x8")
    refused({"image": np.zeros((2, 8, 8), dtype=np.float32), "label": [0, 10]}, "1 labels lie outside 0..9")
    refused({"image": [np.zeros((8, 8)), np.zeros((9, 9))], "label": [0, 1]}, "2 different sizes")


def test_a_model_that_returns_no_logits_is_refused() -> None:
    with pytest.raises(InputError, match="returns a tensor of shape"):
        make_problem(Bundle(torch.nn.Conv2d(1, 2, 3)), train=images(0, 6), test=images(6, 2), forget=["digit-0"])


def test_forget_set_by_filter_and_by_ids() -> None:
    data = images(0, 30)
    by_filter = make_problem(PLAIN, train=data, test=images(30, 5), forget="label == 3")
    ids = [name for name, label in zip(data["id"], data["label"].tolist(), strict=True) if label == 3]
    by_ids = make_problem(PLAIN, train=data, test=images(30, 5), forget=ids)
    assert by_filter.forget.ids == ids
    assert by_filter.fingerprint == by_ids.fingerprint
    assert len(by_filter.retain) == 30 - len(ids)
    for wrong, message in (
        (["digit-0", "nobody"], "1 of 2 ids are not in the training data"),
        (["digit-0", "digit-0"], "more than once"),
        ("label == 77", "forget set is empty"),
        ("label >= 0", "nothing is left to retain"),
    ):
        with pytest.raises(InputError, match=message):
            make_problem(PLAIN, train=data, test=images(30, 5), forget=wrong)


def test_problem_takes_no_copy_of_the_original() -> None:
    problem = problem_of("plain", model=PLAIN.model)
    assert problem.original.model is PLAIN.model
