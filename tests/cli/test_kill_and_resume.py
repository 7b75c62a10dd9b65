"""A run that is killed at any moment and given again ends as if nothing had happened: the same bits, the same findings, nothing left over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.models import bundle_of, images, task_of

from .place import RECIPE, fill, read_json
from .text_place import TEXT_RECIPE, fill_texts

KILLS = {"references": 3, "unlearning": 3, "audits": 1, "attack": 1, "report": 2}
TRIALS = sum(KILLS.values())
TEXT_KILLS = {"unlearning": 2}
IMAGE_KILLS = {"unlearning": 1}  # one: each costs two more processes


def killed_and_resumed(base: Path, kills: dict[str, int]) -> dict[str, Any]:
    """What `killing.py` says of the recipe in `base/place`."""
    program = Path(__file__).with_name("killing.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, str(program), str(base), json.dumps(kills)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["undisturbed"]["code"] == 0, done.stderr
    assert len(report["trials"]) == sum(kills.values())
    return report


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    base = tmp_path_factory.mktemp("killing")
    (base / "place").mkdir()
    fill(base / "place")
    recipe = RECIPE | {
        "model": {"source": "tiny:forgetful", "weights": "original.safetensors"},  # dropout: the random generators must be resumed too
        "method": {"name": "scrub", "optimizer": "adam", "epochs": 3, "batch_size": 12, "forget_batch_size": 6, "lr": 0.01},
        "audits": ["utility", "output-distance", "cost"],
        "compute": {"device": "cpu", "threads": 1, "checkpoint_seconds": 0},
        "training": {"optimizer": "adam", "lr": 0.02, "batch_size": 8, "epochs": 2, "schedule": "cosine"},
    }
    (base / "place" / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return base, killed_and_resumed(base, KILLS)


def weights(place: Path) -> dict[str, bytes]:
    """The unlearned model and the references."""
    return {str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*.safetensors")) if path.parent != place / "work"}


def outcome(place: Path) -> dict[str, Any]:
    """The record without what differs between two runs of anything: time and memory."""
    record: dict[str, Any] = read_json(place / "work" / "out" / "audit.json")
    del record["costs"]
    record["findings"] = [finding for finding in record["findings"] if finding["audit"] != "cost"]
    return record


def names(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


@pytest.mark.parametrize("number", range(TRIALS))
def test_killed_and_given_again_is_undisturbed(ran: tuple[Path, dict[str, Any]], number: int) -> None:
    base, report = ran
    trial, undisturbed = report["trials"][number], base / "undisturbed"
    place, moment = base / f"killed-{number}", trial["moment"]
    assert trial["first"]["killed"], moment
    assert trial["second"]["code"] == 0, moment
    assert len(weights(undisturbed)) == 3
    assert weights(place) == weights(undisturbed), moment
    assert outcome(place) == outcome(undisturbed), moment
    assert names(place) == names(undisturbed), moment


@pytest.mark.parametrize("number", range(TRIALS))
def test_steps_are_not_taken_again(ran: tuple[Path, dict[str, Any]], number: int) -> None:
    _, report = ran
    trial = report["trials"][number]
    again = trial["first"]["steps"] + trial["second"]["steps"] - report["undisturbed"]["steps"]
    phase, call = trial["moment"]
    assert trial["first"]["steps"] > 0 or phase == "references"
    # The state is saved after each step, so one step at most is lost. An attack is one stage: its few steps are taken again. And directories cannot be
    # exchanged in one step: between the two renamings there is no saved state, and the training begins anew.
    whole = phase == "attack" or call == "rename"
    assert 0 <= again <= (report["undisturbed"]["steps"] if whole else 1)
    if phase == "report":
        assert trial["second"]["steps"] == 0


def test_a_language_model_that_was_killed_while_it_unlearned_has_the_same_bits(tmp_path: Path) -> None:
    """With adapters on a model with dropout, and values of the original that travel with the samples."""
    (tmp_path / "place").mkdir()
    fill_texts(tmp_path / "place", "gpt2")
    recipe = TEXT_RECIPE | {
        "method": TEXT_RECIPE["method"] | {"lora": {"rank": 2}, "parameters": "c_proj.weight", "alpha": 1.0, "retain_loss": "kl"},
        "audits": ["utility"],
        "references": {"count": 0},
        "compute": {"device": "cpu", "threads": 1, "checkpoint_seconds": 0},
    }
    (tmp_path / "place" / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    same_bits_after_kills(tmp_path, TEXT_KILLS, files=2)  # the original's, the unlearned model's


def test_a_diffusion_model_that_was_killed_while_it_unlearned_has_the_same_bits(tmp_path: Path) -> None:
    """With adapters, noise that is drawn, and fine-tunings that are rehearsed at each step."""
    place = tmp_path / "place"
    place.mkdir()
    task_of("image-generation").save(bundle_of("pixel"), place / "original")
    for name, start, count in (("train", 0, 12), ("test", 100, 4)):
        found = images(start, count)
        np.savez(place / f"{name}.npz", image=found["image"].numpy(), label=found["label"].numpy())
    tuning = {"id": "one", "kind": "lora", "lr": 0.01, "steps": 1, "batch_size": 2}
    recipe = {
        "task": "image-generation",
        "model": "original",
        "data": {"train": "train.npz", "test": "test.npz"},
        "forget": {"where": "label == 3"},
        "method": {"name": "resalign", "pool": [tuning], "rehearsals": 1, "steps": 3, "iterations": 2, "gamma": 0.01, "norm_limit": None, "batch_size": 2},
        "references": {"count": 0},
        "audits": ["utility"],
        "attacks": [],
        "compute": {"device": "cpu", "threads": 1, "checkpoint_seconds": 0},
        "seed": 1,
    }
    (place / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    same_bits_after_kills(tmp_path, IMAGE_KILLS, files=4)  # of each a UNet and a text encoder


def same_bits_after_kills(base: Path, kills: dict[str, int], files: int) -> None:
    """Kill while it unlearns and give again; so many files of weights there are at the end."""
    report = killed_and_resumed(base, kills)
    undisturbed = base / "undisturbed"
    for number, trial in enumerate(report["trials"]):
        place = base / f"killed-{number}"
        assert trial["first"]["killed"], trial["moment"]
        assert trial["second"]["code"] == 0, trial["moment"]
        assert len(weights(undisturbed)) == files
        assert weights(place) == weights(undisturbed), trial["moment"]
        assert outcome(place) == outcome(undisturbed), trial["moment"]
        assert names(place) == names(undisturbed), trial["moment"]
    assert any(trial["moment"][0] == "unlearning" and trial["first"]["steps"] for trial in report["trials"])
