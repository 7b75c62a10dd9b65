"""Whatever is wrong with the input is said in words that name the field and a remedy, before anything is written or run.

Each case prepares a directory and names the arguments; the test runs them and looks at exit code, output and directory.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError

from unlearned.tasks._models import save_module

from .place import Place, columns, pictures, resave, retensor, tiny_resnet
from .text_place import save_model

SECRET = "patient-4711-mqzell"
RUN = ("run", "recipe.yaml", "--out", "out")
VALIDATE = ("validate", "recipe.yaml")

Arguments = tuple[str | Path, ...] | list[str]


class Case(NamedTuple):
    """A wrong input and what must be said about it."""

    field: str
    remedy: str
    prepare: Callable[[Place], Arguments | None]
    """Makes the input; returns the arguments, or None for a recipe, which `run` and `validate` must both refuse."""


CASES: dict[str, Case] = {}


def wrong(field: str, remedy: str) -> Callable[[Callable[[Place], Arguments | None]], Callable[[Place], Arguments | None]]:
    """Adds a case under the name of the decorated function."""

    def add(prepare: Callable[[Place], Arguments | None]) -> Callable[[Place], Arguments | None]:
        assert prepare.__name__ not in CASES
        CASES[prepare.__name__] = Case(field, remedy, prepare)
        return prepare

    return add


def changed(**changes: Any) -> Callable[[Place], None]:
    """A recipe with these changes; `__` in a name stands for the dot of a path."""

    def prepare(place: Place) -> None:
        place.write_recipe({path.replace("__", "."): value for path, value in changes.items()})

    return prepare


CASES |= {
    # fields
    "unknown_field": Case("modle: there is no such field", "Did you mean 'model'?", changed(modle="x")),
    "unknown_field_inside": Case("compute.devise: there is no such field", "Did you mean 'device'?", changed(compute={"devise": "cpu"})),
    "unknown_setting_of_a_method": Case(
        "method.epoch: there is no such field", "Did you mean 'epochs'?", changed(method={"name": "neg-grad-plus", "epoch": 1})
    ),
    "model_missing": Case("model: this field is missing", "Add it.", changed(model=...)),
    "data_missing": Case("data: this field is missing", "Add it.", changed(data=...)),
    "test_data_not_named": Case("data.test: this field is missing", "Add it.", changed(data__test=...)),
    "forget_missing": Case("forget: this field is missing", "Add it.", changed(forget=...)),
    "training_missing": Case("training: it is not said how the original model was trained", "Add `training:`", changed(training=...)),
    "training_missing_for_shadows": Case(
        "training: it is not said how the original model was trained, so no shadow model can begin alike",
        "or set shadows.count: 0",
        changed(training=..., references={"count": 0}, shadows={"count": 2}),
    ),
    "shadows_negative": Case("shadows.count: ", "greater than or equal to 0 (given: -1)", changed(shadows={"count": -1})),
    "shadows_misspelt": Case("shadows.counts: there is no such field", "Did you mean 'count'?", changed(shadows={"counts": 2})),
    "seed_as_word": Case("seed: ", "Give a whole number.", changed(seed="one")),
    "seed_negative": Case("seed: ", "greater than or equal to 0", changed(seed=-1)),
    "task_as_number": Case("task", "Available: ", changed(task=3)),
    "task_setting_unknown": Case("task.max_tokens: there is no such field", "Did you mean", changed(task={"name": "text-generation", "max_tokens": 3})),
    "data_as_list": Case("data: ", "(given: [1, 2])", changed(data=[1, 2])),
    "source_as_number": Case("data.train", "Give", changed(data__train=7)),
    "model_as_list": Case("model: ", "Give", changed(model=["a"])),
    "method_as_number": Case("method", "Available: ", changed(method=7)),
    "audits_as_word": Case("audits: ", "Give a list.", changed(audits="utility")),
    "count_as_fraction": Case("references.count: ", "Give a whole number.", changed(references={"count": 1.5})),
    "epochs_as_word": Case("method.epochs: ", "Give a whole number.", changed(method__epochs="many")),
    "epochs_0": Case("method.epochs: ", "greater than or equal to 1 (given: 0)", changed(method__epochs=0)),
    "lr_negative": Case("method.lr: ", "greater than 0 (given: -0.1)", changed(method__lr=-0.1)),
    "lr_nan": Case("method.lr: ", "Give a finite number.", changed(method__lr=float("nan"))),
    "lr_infinite": Case("training.lr: ", "Give a finite number.", changed(training__lr=float("inf"))),
    "alpha_above_1": Case("method.alpha: ", "less than or equal to 1 (given: 1.2)", changed(method__alpha=1.2)),
    "alpha_below_0": Case("method.alpha: ", "greater than or equal to 0 (given: -1)", changed(method__alpha=-1)),
    "optimizer_unknown": Case("training.optimizer: ", "'sgd', 'adam' or 'adamw'", changed(training__optimizer="adamm")),
    "threads_0": Case("compute.threads: ", "greater than or equal to 1", changed(compute={"threads": 0})),
    "device_unknown": Case("compute.device: ", "or cpu, cuda, cuda:1, mps", changed(compute={"device": "gpu"})),
    "device_that_is_not_there": Case("compute.device: this machine has no 'cuda:64'", "Use ", changed(compute={"device": "cuda:64"})),
    # names
    "method_near_miss": Case("method.name: there is no method 'scurb'", "Did you mean 'scrub'", changed(method={"name": "scurb"})),
    "method_without_a_name": Case("method.name: the method has no name", "Available: ", changed(method={"lr": 0.1})),
    "audit_unknown": Case("audits.1.name: there is no audit 'utilty'", "Did you mean 'utility'", changed(audits=["membership", "utilty"])),
    "attack_unknown": Case("attacks.0.name: there is no attack 'relarn'", "Did you mean 'relearn'", changed(attacks=["relarn"])),
    "attack_data_missing": Case(
        "attacks.0.source: there is no file or folder 'none.npz'",
        "Check the path",
        changed(attacks=[{"name": "relearn", "data": "other", "source": "none.npz"}]),
    ),
    "attack_data_not_used": Case(
        "attacks.0: `source` is where `data: other` comes from", "goes with it alone", changed(attacks=[{"name": "relearn", "source": "x.npz"}])
    ),
    "task_unknown": Case("task.name: there is no task 'image-clasification'", "Did you mean 'image-classification'", changed(task="image-clasification")),
    "method_of_another_task": Case(
        "method.name: 'scrub' is not defined for text-generation",
        "It works for image-classification",
        changed(task="text-generation", method={"name": "scrub"}),
    ),
    "parameters_no_expression": Case(
        "method.parameters: '(' is not a regular expression", "Give one that matches parameter names", changed(method__parameters="(")
    ),
    "parameters_match_nothing": Case(
        "method.parameters: no trainable parameter matches", "Parameters are called 1.weight", changed(method__parameters="decoder")
    ),
    # what to forget
    "forget_in_two_ways": Case(
        "forget: of where, ids and file not exactly one is given.", "Give one.", changed(forget={"where": "label == 2", "ids": [SECRET]})
    ),
    "forget_in_no_way": Case("forget: of where, ids and file not exactly one is given.", "Give one.", changed(forget={"description": SECRET})),
    "forget_as_text": Case("forget: ", "Give", changed(forget=SECRET)),
    "forget_nothing": Case("forget: the forget set is empty", "Check the filter or the ids", changed(forget={"where": f"site == '{SECRET}'"})),
    "forget_no_ids": Case("forget: the forget set is empty", "Check the filter or the ids", changed(forget={"ids": []})),
    "forget_everything": Case("forget: the forget set is the whole training data", "discard the model", changed(forget={"where": "label >= 0"})),
    "forget_unknown_ids": Case("forget: 2 of 3 ids are not in the training data", "position from 0", changed(forget={"ids": [SECRET, "0", "-1"]})),
    "forget_ids_twice": Case("forget: 1 of 3 ids are given more than once", "Give each id once", changed(forget={"ids": ["0", 1, "1"]})),
    "filter_unknown_column": Case("forget: ", "Columns of this data: id, label, site", changed(forget={"where": "lable == 2"})),
    "filter_value_without_quotes": Case("forget: ", "Columns of this data: id, label, site", changed(forget={"where": f"site == {SECRET.replace('-', '_')}"})),
    "filter_not_an_expression": Case("forget: the filter is not a valid expression", "Write comparisons", changed(forget={"where": f"site = = '{SECRET}'"})),
    "filter_calls_a_function": Case(
        "forget: the filter uses something other", "Write comparisons", changed(forget={"where": "__import__('os').mkdir('made')"})
    ),
    "filter_calls_on_a_value": Case("forget: the filter uses something other", "Write comparisons", changed(forget={"where": f"site == open('{SECRET}')"})),
    "filter_text_with_number": Case("forget: the filter compares values of different kinds", "Write comparisons", changed(forget={"where": "site < 3"})),
    "filter_of_thousands_of_nots": Case("forget: the filter is ", "label == 3", changed(forget={"where": "not " * 5000 + "label == 1"})),
    "filter_nested_too_deep": Case("forget: the filter is not a valid expression", "Write comparisons", changed(forget={"where": "(" * 5000 + "label == 1"})),
    "forget_file_missing": Case("forget.file: there is no file 'absent.txt'", "Check the path", changed(forget={"file": "absent.txt"})),
    # models and data that are not there
    "model_path_missing": Case("model: there is no model at './absent'", "Check the path", changed(model="./absent")),
    "weights_missing": Case("model.weights: there is no file 'absent.safetensors'", "Check the path", changed(model__weights="absent.safetensors")),
    "module_missing": Case("model: module 'absent' cannot be imported", "Run from the directory that holds it", changed(model="absent:network")),
    "function_missing": Case("model: module 'tiny' has no function 'netwrok'", "Name a function", changed(model="tiny:netwrok")),
    "function_is_a_number": Case("model: module 'tiny' has no function 'constant'", "Name a function", changed(model="tiny:constant")),
    "function_raises": Case(
        "model: 'tiny:broken' fails when it is called (RuntimeError: no network today)", "work without arguments", changed(model="tiny:broken")
    ),
    "function_returns_a_number": Case("model: 'tiny:number' returned int", "Return the model itself", changed(model="tiny:number")),
    "function_of_data_returns_a_number": Case("data.train: data of type int", "Give (image, label)", changed(data__train="tiny:number")),
    "test_data_missing": Case("data.test: there is no file or folder 'absent.npz'", "Check the path", changed(data__test="absent.npz")),
    "reference_missing": Case(
        "references.models.0: there is no model at './absent'", "Check the path", changed(references={"models": ["./absent"]}, training=...)
    ),
    "wide_weights": Case(
        "model.weights: the weights do not fit the model: 0 tensors missing, 0 unknown, 3 of another shape", "'tiny:wide'", changed(model__source="tiny:wide")
    ),
    "weights_lack_tensors": Case("model.weights: the weights do not fit the model: 2 tensors missing", "'tiny:deep'", changed(model__source="tiny:deep")),
    "channels_wrong": Case("data.train: the model cannot take these images of 1x4x4", "Give images of the size", changed(model="tiny:colour")),
    "not_a_classifier": Case("model: the model returns a tensor of shape (16,)", "(batch, classes)", changed(model="tiny:flat")),
    "column_mapped_wrongly": Case(
        "data.train.columns: there is no column 'picture'",
        "Columns of this data: image, label",
        changed(data__train={"source": "train.npz", "columns": {"image": "picture"}}),
    ),
    "five_mistakes": Case("5 things are wrong", "seed: ", changed(seed=-1, modle="x", method={"name": "scurb"}, audits=["utilty"], compute={"threads": 0})),
}


# recipes that cannot be read


@wrong("recipe: there is no file 'recipe.yaml'", "unlearned init > recipe.yaml")
def recipe_missing(place: Place) -> None:
    del place


@wrong("recipe: 'recipe.yaml' is a directory", "Give the YAML file.")
def recipe_is_a_directory(place: Place) -> None:
    (place / "recipe.yaml").mkdir()


@wrong("recipe: 'recipe.yaml' is not valid YAML at line 2", "indentation and quotes")
def recipe_is_no_yaml(place: Place) -> None:
    (place / "recipe.yaml").write_text(f"forget: {{ids: [{SECRET}\nmodel: [", encoding="utf-8")


@wrong("recipe: 'recipe.yaml' holds no fields", "unlearned init > recipe.yaml")
def recipe_is_empty(place: Place) -> None:
    (place / "recipe.yaml").write_text("", encoding="utf-8")


@wrong("recipe: 'recipe.yaml' holds no fields", "unlearned init > recipe.yaml")
def recipe_is_a_list(place: Place) -> None:
    (place / "recipe.yaml").write_text("- model: a\n- data: b\n", encoding="utf-8")


@wrong("recipe: 'recipe.yaml' cannot be read as text", "YAML file in UTF-8")
def recipe_is_binary(place: Place) -> None:
    (place / "recipe.yaml").write_bytes(bytes(range(256)))


@wrong("recipe: 'recipe.yaml' is not valid YAML", "indentation and quotes")
def recipe_with_control_codes(place: Place) -> None:
    (place / "recipe.yaml").write_bytes(b"seed: 1\nmodel: \x00\x01")


@wrong("recipe: 'recipe.yaml' is not valid YAML", "indentation and quotes")
def recipe_with_a_date_that_is_none(place: Place) -> None:
    (place / "recipe.yaml").write_text("seed: 2024-13-45\n", encoding="utf-8")


@wrong("recipe: 'recipe.yaml' is not valid YAML", "indentation and quotes")
def recipe_nested_too_deep(place: Place) -> None:
    (place / "recipe.yaml").write_text("model: " + "[" * 5000, encoding="utf-8")


@wrong("7: names of fields must be text", "Fields here: task, model")
def recipe_with_a_number_for_a_field(place: Place) -> None:
    place.write_recipe()
    with (place / "recipe.yaml").open("a", encoding="utf-8") as file:
        file.write("7: 1\n")


@wrong("recipe: 'recipe.yaml' is not valid YAML", "indentation and quotes")
def recipe_that_makes_objects(place: Place) -> None:
    (place / "recipe.yaml").write_text("model: !!python/object/apply:os.mkdir [made]\n", encoding="utf-8")


# files that name the forget set


@wrong("forget.file: 'ids.txt' holds no ids", "one id per line")
def forget_file_empty(place: Place) -> None:
    (place / "ids.txt").write_text("\n \n", encoding="utf-8")
    place.write_recipe({"forget": {"file": "ids.txt"}})


@wrong("forget.file: 'ids.txt' cannot be read as text", "UTF-8 text file")
def forget_file_binary(place: Place) -> None:
    (place / "ids.txt").write_bytes(b"\xff\xfe\x00" + SECRET.encode())
    place.write_recipe({"forget": {"file": "ids.txt"}})


@wrong("forget.file: 2 of 3 ids are not in the training data", "position from 0")
def forget_file_with_unknown_ids(place: Place) -> None:
    (place / "ids.txt").write_text(f"3\n{SECRET}\n{SECRET}2\n", encoding="utf-8")
    place.write_recipe({"forget": {"file": "ids.txt"}})


# models


@wrong("model: module 'quitter' fails on import (SystemExit: 0)", "Make it importable first")
def module_that_exits(place: Place) -> None:
    (place / "quitter.py").write_text("import sys\n\nsys.exit(0)\n", encoding="utf-8")
    place.write_recipe({"model": "quitter:network"})


@wrong("model: directory 'model' has no config.json", "save_pretrained")
def directory_without_config(place: Place) -> None:
    tiny_resnet(place / "model", processor=False)
    (place / "model" / "config.json").unlink()
    place.write_recipe({"model": "model"})


@wrong("model: directory 'model' holds no weights", "save_pretrained")
def directory_without_weights(place: Place) -> None:
    tiny_resnet(place / "model", processor=False)
    (place / "model" / "model.safetensors").unlink()
    place.write_recipe({"model": "model"})


@wrong("model: no model can be loaded from 'model'", "save_pretrained")
def directory_with_broken_config(place: Place) -> None:
    tiny_resnet(place / "model", processor=False)
    (place / "model" / "config.json").write_text("{", encoding="utf-8")
    place.write_recipe({"model": "model"})


@wrong("model: no model can be loaded from 'model'", "save_pretrained")
def directory_with_truncated_weights(place: Place) -> None:
    tiny_resnet(place / "model", processor=False)
    cut(place / "model" / "model.safetensors")
    place.write_recipe({"model": "model"})


@wrong("model: ", "image processor")
def directory_with_broken_processor(place: Place) -> None:
    tiny_resnet(place / "model", processor=True)
    (place / "model" / "preprocessor_config.json").write_text("{", encoding="utf-8")
    pictures(place / "images")
    place.write_recipe({"model": "model", "data": {"train": "images", "test": "images"}, "forget": {"where": "label == 1"}})


@wrong("model: the checkpoint 'model' lacks 2 tensors", "its head included")
def directory_without_head(place: Place) -> None:
    model = tiny_resnet(place / "model", processor=False)
    config = (place / "model" / "config.json").read_text(encoding="utf-8")
    model.resnet.save_pretrained(place / "model")
    (place / "model" / "config.json").write_text(config, encoding="utf-8")
    place.write_recipe({"model": "model"})


@wrong("model: 'original.safetensors' is a file", "module:function with `weights`")
def weights_without_function(place: Place) -> None:
    place.write_recipe({"model": "original.safetensors"})


@wrong("is a pickle, and reading a pickle can run any code", "Save the weights as safetensors")
def hostile_pickle_in_a_directory(place: Place) -> None:
    tiny_resnet(place / "model", processor=False)
    (place / "model" / "model.safetensors").unlink()
    hostile(place / "model" / "pytorch_model.bin")
    place.write_recipe({"model": "model"})


@wrong("model: no model can be loaded from 'model'", "If it is a model for another task, name that")
def model_for_another_task(place: Place) -> None:
    save_model(place / "model")
    place.write_recipe({"model": "model"})


@wrong("model: no model can be loaded from 'model'", "as safetensors")
def hostile_pickle_in_a_directory_allowed(place: Place) -> None:
    hostile_pickle_in_a_directory(place)
    place.write_recipe({"model": {"source": "model", "allow_pickle": True}})


@wrong("model.weights: 'weights.pt' is a pickle", "If you made this file yourself, allow it: allow_pickle: true, --allow-pickle")
def hostile_pickle_as_weights(place: Place) -> None:
    hostile(place / "weights.pt")
    place.write_recipe({"model": {"source": "tiny:network", "weights": "weights.pt"}})


@wrong("model.weights: 'weights.pt' cannot be read as tensors only", "Save the weights as safetensors")
def hostile_pickle_as_weights_allowed(place: Place) -> None:
    hostile(place / "weights.pt")
    place.write_recipe({"model": {"source": "tiny:network", "weights": "weights.pt", "allow_pickle": True}})


@wrong("model.weights: 'weights.safetensors' is not a whole safetensors file", "Copy or save it again")
def hostile_pickle_named_safetensors(place: Place) -> None:
    hostile(place / "weights.safetensors")
    place.write_recipe({"model": {"source": "tiny:network", "weights": "weights.safetensors", "allow_pickle": True}})


@wrong("model.weights: 'weights.pt' cannot be read as tensors only", "Save the weights as safetensors")
def pickled_list_as_weights(place: Place) -> None:
    torch.save([torch.zeros(3)], place / "weights.pt")
    place.write_recipe({"model": {"source": "tiny:network", "weights": "weights.pt", "allow_pickle": True}})


@wrong("model.weights: 'weights.pt' cannot be read as tensors only", "Save the weights as safetensors")
def pickled_numbers_as_weights(place: Place) -> None:
    torch.save(dict.fromkeys(("1.weight", "1.bias", "3.weight", "3.bias"), 1.0), place / "weights.pt")
    place.write_recipe({"model": {"source": "tiny:network", "weights": "weights.pt", "allow_pickle": True}})


@wrong("model.weights: 'original.safetensors' is not a whole safetensors file", "it may be cut off")
def weights_truncated(place: Place) -> None:
    cut(place / "original.safetensors")
    place.write_recipe()


@wrong("model.weights: 'original.safetensors' is not a whole safetensors file", "it may be cut off")
def weights_garbage(place: Place) -> None:
    (place / "original.safetensors").write_bytes(np.random.default_rng(0).bytes(5000))
    place.write_recipe()


@wrong("model.weights: 'original.safetensors' is not a whole safetensors file", "it may be cut off")
def weights_empty(place: Place) -> None:
    (place / "original.safetensors").write_bytes(b"")
    place.write_recipe()


@wrong("model.weights: the weights do not fit the model: 1 tensors missing, 0 unknown", "(first '1.bias')")
def weights_without_a_tensor(place: Place) -> None:
    retensor(place / "original.safetensors", _1_bias=None)
    place.write_recipe()


@wrong("model: 1 weight tensors hold NaN or infinity, first '3.weight'", "before its training diverged")
def weights_nan(place: Place) -> None:
    retensor(place / "original.safetensors", _3_weight=torch.full((3, 12), float("nan")))
    place.write_recipe()


@wrong("model: 1 weight tensors hold NaN or infinity, first '3.bias'", "before its training diverged")
def weights_infinite(place: Place) -> None:
    retensor(place / "original.safetensors", _3_bias=torch.tensor([0.0, float("inf"), 0.0]))
    place.write_recipe()


# data


@wrong("data.train: folder 'images' holds no images", "images/CLASS/IMAGE")
def folder_empty(place: Place) -> None:
    (place / "images").mkdir()
    place.write_recipe({"data.train": "images"})


@wrong("data.train: 1 images lie directly in 'images'", "images/CLASS/IMAGE")
def folder_with_loose_image(place: Place) -> None:
    pictures(place / "images")
    shutil.copy(place / "images" / "bee" / "0.png", place / "images" / "loose.png")
    place.write_recipe({"data.train": "images"})


@wrong("data.train: 'images/bee/0.png' cannot be read as an image", "Remove or replace it")
def image_garbage(place: Place) -> None:
    pictures(place / "images")
    (place / "images" / "bee" / "0.png").write_bytes(b"no picture")
    place.write_recipe({"data.train": "images"})


@wrong("data.train: 'images/bee/0.png' cannot be read as an image", "Remove or replace it")
def image_truncated(place: Place) -> None:
    pictures(place / "images", side=64)
    cut(place / "images" / "bee" / "0.png")
    place.write_recipe({"data.train": "images"})


@wrong("data.test: 'images/bee/0.png' cannot be read as an image", "Remove or replace it")
def image_truncated_with_processor(place: Place) -> None:
    tiny_resnet(place / "model", processor=True)
    pictures(place / "whole")
    pictures(place / "images", side=64)
    cut(place / "images" / "bee" / "0.png")
    place.write_recipe({"model": "model", "data": {"train": "whole", "test": "images"}, "forget": {"where": "label == 1"}})


@wrong("data.train: the images have 2 different sizes", "Resize them to one size, or use a model with an image processor")
def images_of_mixed_sizes(place: Place) -> None:
    tiny_resnet(place / "model", processor=False)
    pictures(place / "images")
    Image.new("RGB", (9, 7)).save(place / "images" / "cat" / "0.png")
    place.write_recipe({"model": "model", "data": {"train": "images", "test": "images"}, "forget": {"where": "label == 1"}})


@wrong("labels lie outside 0..2, for example 7; the model has 3 classes", "Number the classes from 0")
def labels_out_of_range(place: Place) -> None:
    resave(place / "train.npz", label=np.where(np.arange(36) == 5, 7, np.arange(36) % 3))
    place.write_recipe()


@wrong("labels lie outside 0..2, for example -1", "Number the classes from 0")
def labels_negative(place: Place) -> None:
    resave(place / "test.npz", label=np.arange(18) % 3 - 1)
    place.write_recipe()


@wrong("data.train: 12 labels are not whole numbers, first at position 1", "Give class numbers from 0")
def labels_fractions(place: Place) -> None:
    resave(place / "train.npz", label=(np.arange(36) % 3) / 2)
    place.write_recipe()


@wrong("data.train: 1 labels are not whole numbers, first at position 4", "Give class numbers from 0")
def labels_nan_or_infinite(place: Place) -> None:
    resave(place / "train.npz", label=np.where(np.arange(36) == 4, np.inf, np.arange(36) % 3))
    place.write_recipe()


@wrong("data.train: the data has no labels", "Give a column `label`")
def labels_missing(place: Place) -> None:
    resave(place / "train.npz", label=None)
    place.write_recipe()


@wrong("data.train: ", "Give a column `label`")
def labels_of_two_dimensions(place: Place) -> None:
    resave(place / "train.npz", label=np.eye(3)[np.arange(36) % 3])
    place.write_recipe()


@wrong("data.train: there is no image column among 'label', 'site'", "columns: {image: your_column}")
def images_missing(place: Place) -> None:
    resave(place / "train.npz", image=None)
    place.write_recipe()


@wrong("data.train: the columns differ in length (image 36, label 35, site 36)", "one value per image")
def columns_of_different_length(place: Place) -> None:
    resave(place / "train.npz", label=np.arange(35) % 3)
    place.write_recipe()


@wrong("data.train: ", "NaN or infinity")
def pixels_nan(place: Place) -> None:
    image = columns(36, 0)["image"]
    image[3, 0, 1, 1] = np.nan
    resave(place / "train.npz", image=image)
    place.write_recipe()


@wrong("data.train: 2 ids of the data appear more than once", "make them unique")
def ids_twice_in_the_data(place: Place) -> None:
    resave(place / "train.npz", id=np.array([SECRET, SECRET, "b", "b", *map(str, range(32))]))
    place.write_recipe()


@wrong("data.test: the test set is empty", "Give held-out samples")
def test_set_empty(place: Place) -> None:
    resave(place / "test.npz", **{name: column[:0] for name, column in columns(18, 1).items()})
    place.write_recipe()


@wrong("data.train: 'train.npz' cannot be read", "Check that the file is whole")
def npz_truncated(place: Place) -> None:
    cut(place / "train.npz")
    place.write_recipe()


@wrong("data.train: 'train.npz' cannot be read", "Check that the file is whole")
def npz_garbage(place: Place) -> None:
    (place / "train.npz").write_bytes(b"PK\x03\x04" + bytes(200))
    place.write_recipe()


@wrong("data.train: 'train.npz' cannot be read", "Check that the file is whole")
def npz_empty(place: Place) -> None:
    (place / "train.npz").write_bytes(b"")
    place.write_recipe()


@wrong("data.train: 'train.npz' cannot be read", "without objects")
def npz_of_hostile_objects(place: Place) -> None:
    resave(place / "train.npz", label=np.array([Hostile()] * 36, dtype=object))
    place.write_recipe()


@wrong("data.train: 'train.npz' cannot be read", "Check that the file is whole")
def npz_that_is_a_hostile_pickle(place: Place) -> None:
    hostile(place / "train.npz")
    place.write_recipe()


@wrong("data.train: 'train.parquet' cannot be read", "Check that the file is whole")
def parquet_truncated(place: Place) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"image": [[0.0] * 16] * 9, "label": [0, 1, 2] * 3}), place / "train.parquet")
    cut(place / "train.parquet")
    place.write_recipe({"data.train": "train.parquet"})


@wrong("data.train: 'train.jsonl' cannot be read", "Check that the file is whole")
def jsonl_truncated(place: Place) -> None:
    (place / "train.jsonl").write_text(f'{{"image": [[0, 1]], "label": 0}}\n{{"image": [[0, 1]], "name": "{SECRET}', encoding="utf-8")
    place.write_recipe({"data.train": "train.jsonl"})


@wrong("data.train: 'train.csv' cannot be read", "Check that the file is whole")
def csv_ragged(place: Place) -> None:
    (place / "train.csv").write_text(f"image,label\na.png,0\nb.png,{SECRET},3\n", encoding="utf-8")
    place.write_recipe({"data.train": "train.csv"})


@wrong("data.train: 'absent.png' cannot be read as an image", "Remove or replace it")
def csv_with_absent_images(place: Place) -> None:
    (place / "train.csv").write_text("image,label\n" + "".join(f"absent.png,{i % 3}\n" for i in range(6)), encoding="utf-8")
    place.write_recipe({"data.train": "train.csv"})


@wrong("data.train: 'train.xls' is of a kind that cannot be read (.xls)", "Use .npz, .parquet")
def suffix_unknown(place: Place) -> None:
    (place / "train.xls").write_bytes(b"\xd0\xcf")
    place.write_recipe({"data.train": "train.xls"})


@wrong("data.train: 'train.pkl' is of a kind that cannot be read (.pkl)", "Use .npz, .parquet")
def hostile_pickle_as_data(place: Place) -> None:
    hostile(place / "train.pkl")
    place.write_recipe({"data.train": "train.pkl"})


# where it goes


@wrong("out: ", "A part of that path is a file")
def out_below_a_file(place: Place) -> Arguments:
    place.write_recipe()
    return "run", "recipe.yaml", "--out", "original.safetensors/out"


@wrong("out: ", "Choose ")
def out_is_a_file(place: Place) -> Arguments:
    place.write_recipe()
    return "run", "recipe.yaml", "--out", "original.safetensors"


@wrong("out: 'papers' is not empty and not the directory of a run", "Choose a new or empty directory")
def out_holds_something_else(place: Place) -> Arguments:
    (place / "papers").mkdir()
    (place / "papers" / "thesis.tex").write_text("years of work", encoding="utf-8")
    place.write_recipe()
    return "run", "recipe.yaml", "--out", "papers"


@wrong("out: ", "Choose another directory, or delete this one")
def out_holds_another_run(place: Place) -> Arguments:
    (place / "old").mkdir()
    (place / "old" / "run.json").write_text('{"schema": "unlearned.run/1", "identity": "another"}', encoding="utf-8")
    place.write_recipe()
    return "run", "recipe.yaml", "--out", "old"


@wrong("out: ", "Choose another directory, or delete this one")
def out_holds_a_damaged_run(place: Place) -> Arguments:
    (place / "old").mkdir()
    (place / "old" / "run.json").write_text("{", encoding="utf-8")
    place.write_recipe()
    return "run", "recipe.yaml", "--out", "old"


@wrong("out: ", "That file system is read-only. Choose another directory")
def out_read_only(place: Place) -> Arguments:
    real = Path.mkdir

    def refuse(self: Path, *arguments: Any, **more: Any) -> None:
        if self.name == "out":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        real(self, *arguments, **more)

    place.monkeypatch.setattr(Path, "mkdir", refuse)
    place.write_recipe()
    return RUN


@wrong("out: the disk of 'out' has 3 MiB free", "Free some space")
def disk_full(place: Place) -> Arguments:
    place.monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 3 * 2**20, 3 * 2**20))  # noqa: ARG005
    place.write_recipe()
    return RUN


@wrong("references.cache: ", "A part of that path is a file")
def cache_below_a_file(place: Place) -> Arguments:
    place.write_recipe({"references": {"count": 1, "cache": "original.safetensors/cache"}})
    return RUN


@wrong("shadows.cache: ", "A part of that path is a file")
def cache_of_shadows_below_a_file(place: Place) -> Arguments:
    place.write_recipe({"shadows": {"count": 1, "cache": "original.safetensors/cache"}})
    return RUN


@wrong("method: the recipe names no method", "Add `method:`")
def run_without_method(place: Place) -> Arguments:
    place.write_recipe({"method": ...})
    return RUN


# audit and attack


def options(**changes: str | None) -> Callable[[Place], Arguments]:
    """`audit` with these options changed."""

    def prepare(place: Place) -> Arguments:
        return ["audit", *place.options({f"--{name.replace('_', '-')}": value for name, value in changes.items()}), "--out", "out"]

    return prepare


def setting(given: str) -> Callable[[Place], Arguments]:
    """`attack` with this setting."""
    return lambda place: ["attack", "relearn", *place.options(), "--set", given]


CASES |= {
    "audit_without_before": Case("--before", "Missing option", options(before=None)),
    "audit_before_missing": Case("--before: there is no model at './absent'", "Check the path", options(before="./absent")),
    "audit_before_and_test_missing": Case(
        "--test: there is no file or folder 'absent.npz'", "--before: there is no model", options(before="./absent", test="absent.npz")
    ),
    "audit_before_and_forget_file_missing": Case(
        "--forget-file: ", "--before: there is no model", options(before="./absent", forget=None, forget_file="absent.txt")
    ),
    "audit_after_of_another_shape": Case(
        "--after.weights: the weights do not fit", "Give the weights of the model", options(after="tiny:wide@original.safetensors")
    ),
    "audit_after_takes_other_images": Case("--after: the model cannot take these images of 1x4x4", "Give images of the size", options(after="tiny:colour")),
    "audit_reference_missing": Case("--reference.0: there is no model", "Check the path", options(reference="./absent")),
    "audit_reference_takes_other_images": Case(
        "--reference.0: the model cannot take these images", "Give images of the size", options(reference="tiny:colour")
    ),
    "audit_shadow_missing": Case("--shadow.0: there is no model", "Check the path", options(shadow="./absent")),
    "audit_shadow_takes_other_images": Case("--shadow.0: the model cannot take these images", "Give images of the size", options(shadow="tiny:colour")),
    "audit_train_missing": Case("--train: there is no file or folder", "Check the path", options(train="absent.npz")),
    "audit_names_and_data_wrong": Case(
        "--audit: there is no audit 'utilty'", "--train: there is no file", options(train="absent.npz", audit="utilty", attack="relern")
    ),
    "audit_attack_and_forget_wrong": Case(
        "--attack: there is no attack 'relern'", "--forget: the filter uses a name that is no column", options(attack="relern", forget="lable == 2")
    ),
    "audit_filter_and_test_wrong": Case(
        "--forget: the filter uses a name that is no column", "--test: there is no file", options(test="absent.npz", forget="lable == 2")
    ),
    "audit_model_wrong_and_forget_not_said": Case(
        "--forget: it is not said", "--after: module 'tiny' has no function", options(after="tiny:absent", forget=None)
    ),
    "audit_number_in_quotes": Case("--forget: the filter compares 'label', which holds no text, with text", "label == 3", options(forget="label == '2'")),
    "audit_forget_not_said": Case("--forget: it is not said what was to be forgotten", "--forget-file FILE", options(forget=None)),
    "audit_forget_said_twice": Case("--forget: it is not said what was to be forgotten, or said twice", "--forget-file FILE", options(forget_file="ids.txt")),
    "audit_forget_nothing": Case("--forget: the forget set is empty", "Check the filter", options(forget=f"site == '{SECRET}'")),
    "audit_unknown": Case("--audit: there is no audit 'utilty'", "Did you mean 'utility'", options(audit="utilty")),
    "audit_attack_unknown": Case("--attack: there is no attack 'relarn'", "Did you mean 'relearn'", options(attack="relarn")),
    "audit_task_unknown": Case("--task: there is no task 'images'", "Available: ", options(task="images")),
    "audit_task_and_attack_unknown": Case(
        "--task: there is no task 'images'", "--attack: there is no attack 'relarn'", options(task="images", attack="relarn")
    ),
    "audit_task_unknown_and_forget_not_said": Case("--task: there is no task 'images'", "--forget: it is not said", options(task="images", forget=None)),
    "audit_device_unknown": Case("--device: ", "or cpu, cuda, cuda:1, mps", options(device="gpu")),
    "audit_device_not_there": Case("--device: this machine has no 'cuda:64'", "Use ", options(device="cuda:64")),
    "audit_threads_as_word": Case("--threads", "valid integer", options(threads="two")),
    "attack_near_miss": Case("NAME: there is no attack 'relern'", "Did you mean 'relearn'", lambda place: ["attack", "relern", *place.options()]),
    "attack_setting_unknown": Case("--set.step: there is no such field", "Did you mean 'steps'?", setting("step=5")),
    "attack_setting_out_of_range": Case("--set.steps: ", "greater than or equal to 1 (given: 0)", setting("steps=0")),
    "attack_setting_without_value": Case("--set: 'steps' is not name=value", "--set lr=0.01", setting("steps")),
    "attack_setting_unreadable": Case("--set: the value of 'steps' cannot be read", "Write a number", setting("steps=[1")),
    "method_to_show_near_miss": Case("there is no method 'scurb'", "Did you mean 'scrub'", lambda _: ["methods", "show", "scurb"]),
    "audit_to_show_near_miss": Case("there is no audit 'utilty'", "Did you mean 'utility'", lambda _: ["audits", "show", "utilty"]),
    "verb_unknown": Case("No such command 'unlearn'", "--help", lambda _: ["unlearn"]),
    "option_unknown": Case("No such option", "--out", lambda _: ["run", "recipe.yaml", "--ouch", "x"]),
}


@wrong("--after.weights: 'weights.pt' is a pickle", "--allow-pickle")
def audit_hostile_pickle(place: Place) -> Arguments:
    hostile(place / "weights.pt")
    return ["audit", *place.options({"--after": "tiny:network@weights.pt"}), "--out", "out"]


# reports


@wrong("report: 'absent/audit.json' cannot be read", "Give the directory of a finished run")
def report_directory_missing(place: Place) -> Arguments:
    del place
    return "report", "absent"


def damaged(text: str | bytes) -> Callable[[Place], Arguments]:
    """A directory with this audit.json."""

    def prepare(place: Place) -> Arguments:
        (place / "old").mkdir()
        (place / "old" / "audit.json").write_bytes(text if isinstance(text, bytes) else text.encode())
        return "report", "old"

    return prepare


CASES |= {
    "report_broken_json": Case("report: 'old/audit.json' is not JSON", "Run the recipe again", damaged('{"schema": ')),
    "report_binary": Case("report: 'old/audit.json' is not a text file", "Give the directory of a finished run", damaged(b"\xff\xfe\x00")),
    "report_other_schema": Case("report: 'old/audit.json' has schema 'unlearned.audit/2'", "Use a version", damaged('{"schema": "unlearned.audit/2"}')),
    "report_list": Case("report: 'old/audit.json' has schema None", "Use a version", damaged("[]")),
    "report_damaged": Case("report: 'old/audit.json' is damaged at verdict", "Run the recipe again", damaged('{"schema": "unlearned.audit/1"}')),
}


# comparisons


def sets(**changes: Any) -> dict[str, Any]:
    return {name: {"n": 12, "fingerprint": "a" * 64} for name in ("forget", "retain", "test")} | changes


def audited(path: Path, **changes: Any) -> None:
    """A directory with the record of a run, with changes."""
    environment = {"unlearned": "0", "python": "3", "platform": "x", "packages": {}, "device": "cpu", "threads": 1}
    record: dict[str, Any] = {"schema": "unlearned.audit/1", "verdict": {"status": "passed", "headline": "So."}, "environment": environment, "recipe": {}}
    path.mkdir()
    (path / "audit.json").write_text(json.dumps(record | {"sets": sets(), "findings": []} | changes), encoding="utf-8")


def beside(second: str | None, *more: str, **changes: Any) -> Callable[[Place], Arguments]:
    """`compare` of a good run and a second one; there is one in `other`, with changes."""

    def prepare(place: Place) -> Arguments:
        audited(place / "good")
        audited(place / "other", **changes)
        return ["compare", "good", *([] if second is None else [second]), *more]

    return prepare


OTHER = {"n": 13, "fingerprint": "b" * 64}
CASES |= {
    "attack_named_twice": Case("attacks.1.name: 'relearn' is named twice", "Give it a label of its own", changed(attacks=["relearn", "relearn"])),
    "label_given_twice": Case(
        "attacks.1.name: 'relearn (long)' is named twice",
        "Give it a label of its own",
        changed(attacks=[{"name": "relearn", "label": "long", "steps": steps} for steps in (1, 2)]),
    ),
    "label_too_long": Case("audits.0.label: ", "40 characters", changed(audits=[{"name": "utility", "label": "x" * 41}])),
    "bench_rows_into_a_directory": Case("--output: '.' cannot be written", "Choose another file name", lambda _: ["bench", "sine", "--quick", "--output", "."]),
    "bench_page_below_a_file": Case(
        "--html: 'tiny.py/a/page.html' cannot be written",
        "A part of that path is a file",
        lambda _: ["bench", "sine", "--quick", "--html", "tiny.py/a/page.html"],
    ),
    "bench_cells_below_a_file": Case("--cache: ", "A part of that path is a file", lambda _: ["bench", "sine", "--quick", "--cache", "tiny.py"]),
    "bench_two_things_at_once": Case(
        "2 things are wrong with the input", "there is no such field", lambda _: ["bench", "sine", "--output", ".", "--set", "tempo=3"]
    ),
    "compare_nothing": Case("Missing argument", "RUN", lambda _: ["compare"]),
    "compare_a_single_run": Case("RUN: 1 run is given", "Give at least two", beside(None)),
    "compare_no_run": Case("RUN.1: 'absent/audit.json' cannot be read", "Give the directory of a finished run", beside("absent")),
    "compare_a_file_of_another_kind": Case("RUN.1: 'train.npz/audit.json' cannot be read", "Give the directory of a finished run", beside("train.npz")),
    "compare_other_schema": Case("RUN.1: 'other/audit.json' has schema 'unlearned.bench/1'", "Use a version", beside("other", schema="unlearned.bench/1")),
    "compare_twice": Case("RUN.1: 'good/audit.json' is given twice", "Give each run once", beside("good/audit.json")),
    "compare_other_forget_set": Case(
        "RUN.1: 'other/audit.json' was measured on another forget set than 'good/audit.json'", "that forget the same", beside("other", sets=sets(forget=OTHER))
    ),
    "compare_other_test_set": Case("(test: 13 samples with fingerprint bbbbbbbb, there 12", "Compare runs that", beside("other", sets=sets(test=OTHER))),
    "compare_other_data": Case("measured on another retain and test set", "Compare runs that", beside("other", sets=sets(retain=OTHER, test=OTHER))),
    "compare_into_a_file": Case("--out: 'tiny.py/compare.html' cannot be written", "A file of that name is in the way", beside("other", "--out", "tiny.py")),
    "compare_unknown_sets": Case("RUN.1: 'other/audit.json' does not say which forget, retain and test", "Run its recipe again", beside("other", sets={})),
}


# helpers


class Hostile:
    """Leaves a directory `made` behind when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made",)


def hostile(path: Path) -> None:
    path.write_bytes(pickle.dumps({"1.weight": Hostile()}))


def cut(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])


# the tests


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
def test_a_wrong_input_is_refused_in_words_and_leaves_no_trace(case: Case, place: Place) -> None:
    arguments = case.prepare(place)
    before = place.tree()
    for verb in [VALIDATE, RUN] if arguments is None else [arguments]:
        answer = place.unlearned(*verb)
        assert answer.code == 2, answer
        assert case.field in answer.err
        assert case.remedy in answer.err
        assert "Traceback" not in answer.err
        assert "mqzell" not in answer.err  # part of SECRET
        assert not answer.out
        after = place.tree()
        for made in {"out", "out/.lock", "old/.lock"} - set(before):  # a lock is no result
            after.pop(made, None)
        assert after == before
        assert not [path for path in (place.root.parent / "cache").rglob("*") if path.is_file()]


def test_a_recipe_with_five_mistakes_names_all_five(place: Place) -> None:
    place.write_recipe({"seed": -1, "modle": "x", "method": {"name": "scurb"}, "audits": ["utilty"], "compute": {"threads": 0}})
    said = place.unlearned(*RUN).err
    assert "5 things are wrong with the input:" in said
    assert sorted(line.split(":")[0] for line in said.splitlines()[1:]) == [
        "  - audits.0.name",
        "  - compute.threads",
        "  - method.name",
        "  - modle",
        "  - seed",
    ]


def test_what_is_wrong_with_model_data_device_references_and_forget_file_is_said_at_once(place: Place) -> None:
    place.write_recipe(
        {
            "model": "./absent",
            "data": {"train": "absent.npz", "test": "test.npz"},
            "forget": {"file": "absent.txt"},
            "compute": {"device": "cuda:64"},
            "references": {"models": ["./absent"]},
        }
    )
    said = place.unlearned(*RUN).err
    assert sorted(line.split(":")[0] for line in said.splitlines()[1:]) == [
        "  - compute.device",
        "  - data.train",
        "  - forget.file",
        "  - model",
        "  - references.models.0",
    ]


def test_the_hostile_pickle_of_these_tests_does_harm_when_it_is_unpickled(place: Place) -> None:
    hostile(place / "weights.pt")
    pickle.loads((place / "weights.pt").read_bytes())
    assert (place / "made").is_dir()


def test_a_directory_in_which_another_process_works_is_refused(place: Place) -> None:
    place.write_recipe()
    (place / "out").mkdir()
    code = "import sys, filelock; lock = filelock.FileLock('out/.lock'); lock.acquire(); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        answer = place.unlearned(*RUN)
        other.communicate("")
    assert answer.code == 2
    assert "out: another run is working in 'out'. Wait for it, or choose another directory." in answer.err
    assert not [path for path in (place / "out").iterdir() if path.name != ".lock"]


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_a_place_where_nothing_can_be_made(place: Place) -> None:
    place.write_recipe({})
    answer = place.unlearned("run", "recipe.yaml", "--out", "/proc/unlearned")
    assert answer.code == 2
    assert answer.err.startswith("error: out: '/proc/unlearned' cannot be written (No such file or directory). Nothing can be made there.")


NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
NO_SPACE_IN_RUST = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("error", [NO_SPACE, NO_SPACE_IN_RUST], ids=["OSError", "SafetensorError"])
def test_a_disk_that_fills_up_while_the_model_is_written_leaves_no_half_and_the_next_run_ends(place: Place, error: Exception) -> None:
    place.write_recipe({"audits": ["utility"], "attacks": []})

    def fill_up(bundle: Any, directory: Path, task: str) -> None:
        if "unlearned" in directory.name:
            (directory / "model.safetensors").write_bytes(b"half")
            raise error
        save_module(bundle, directory, task)

    before = place.tree()
    with place.monkeypatch.context() as patch:
        patch.setattr("unlearned.tasks.image_classification.save_module", fill_up)
        answer = place.unlearned(*RUN)
    assert answer.code == 2
    assert "out: 'out/unlearned' cannot be written (No space left on device). The disk is full. Free some space" in answer.err
    assert not answer.out
    left = {name for name in set(place.tree()) - set(before) if not name.startswith("out/work")}
    assert left == {"out", "out/.lock", "out/run.json"}
    again = place.unlearned(*RUN)
    assert again.code in {0, 1}, again.err
    assert (place / "out" / "report.html").exists()


@pytest.mark.parametrize("name", ["run.json", "unlearn.json", "audit-utility-", "audit.json", "report.html", "README.md"])
def test_a_disk_that_fills_up_while_any_other_file_is_written_leaves_no_half_and_the_next_run_ends(place: Place, name: str) -> None:
    place.write_recipe({"audits": ["utility"], "attacks": [], "references": {"count": 0}})
    real = Path.replace

    def fill_up(self: Path, target: Path) -> Path:  # what is written comes into being by a renaming, everywhere
        if target.name.startswith(name):
            raise NO_SPACE
        return real(self, target)

    with place.monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fill_up)
        answer = place.unlearned(*RUN)
    assert answer.code == 2, answer
    assert "(No space left on device). The disk is full. Free some space" in answer.err
    made = [path.name for path in (place / "out").rglob("*")]
    assert not [found for found in made if found.startswith((name, f".{name}"))]
    again = place.unlearned(*RUN)
    assert again.code == 0, again.err
    assert (place / "out" / "unlearned" / "README.md").exists()


def _named_by_ids(place: Place) -> dict[str, Any]:
    return {"ids": [f"{SECRET}-{i}" for i in range(2, 36, 3)]}


def _named_by_file(place: Place) -> dict[str, Any]:
    (place / "ids.txt").write_text("".join(f"{SECRET}-{i}\n" for i in range(2, 36, 3)), encoding="utf-8")
    return {"file": "ids.txt"}


def _named_by_filter(place: Place) -> dict[str, Any]:
    return {"where": f"name == '{SECRET}'"}


@pytest.mark.parametrize("way", [_named_by_ids, _named_by_file, _named_by_filter])
def test_what_names_the_forget_set_appears_nowhere(place: Place, way: Callable[[Place], dict[str, Any]]) -> None:
    names = np.where(np.arange(36) % 3 == 2, SECRET, "other")
    resave(place / "train.npz", id=np.array([f"{SECRET}-{i}" for i in range(36)]), name=names)
    place.write_recipe({"forget": way(place) | {"description": "images of one person"}})
    said = [place.unlearned(*arguments) for arguments in (RUN, (*RUN, "--json"), VALIDATE, (*VALIDATE, "--json"), ("report", "out"))]
    assert said[0].code in {0, 1}, said[0].err
    assert all("mqzell" not in answer.out + answer.err for answer in said)
    files = [path for root in (place / "out", place.root.parent / "cache") for path in root.rglob("*") if path.is_file()]
    assert {"audit.json", "report.html", "README.md", "run.json", "unlearn.json"} <= {path.name for path in files}
    assert not [path for path in files if b"mqzell" in path.read_bytes() or "mqzell" in path.name]
    assert "images of one person" in (place / "out" / "report.html").read_text(encoding="utf-8")


def test_an_audit_keeps_the_forget_set_to_itself(place: Place) -> None:
    resave(place / "train.npz", name=np.where(np.arange(36) % 3 == 2, SECRET, "other"))
    answer = place.unlearned("audit", *place.options({"--forget": f"name == '{SECRET}'"}), "--out", "out")
    assert answer.code == 0, answer.err
    assert "mqzell" not in answer.out + answer.err
    assert not [path for path in (place / "out").rglob("*") if path.is_file() and b"mqzell" in path.read_bytes()]
