"""The bank of unlearned models on the whole way: made once, continued after an interruption, and taken from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unlearned.engine.engine import Engine
from unlearned.engine.meter import Meter
from unlearned.methods._bank import Unlearned
from unlearned.pipeline import run
from unlearned.recipe import parse_recipe
from unlearned.records import AuditRecord
from unlearned.tasks._task import Bundle

from .place import Place, read_json

COUNT = 16
QUICK = {"audits": ["utility"], "attacks": [], "references": {"count": 1}, "training.epochs": 1, "method.epochs": 1}


class InterruptedHereError(Exception):
    pass


class Makings:
    """Writes down which shadow models are unlearned, and how many steps are taken; dies in the `fail_at`-th model after its first step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail_at: int | None = None) -> None:
        self.seeds: list[int] = []
        self.steps = 0
        make, count = Unlearned.make, Meter.count

        def making(making: Unlearned, engine: Engine) -> Bundle:
            self.seeds.append(making.seed)
            return make(making, engine)

        def counting(meter: Meter, samples: int, steps: int = 1) -> None:
            self.steps += 1
            count(meter, samples, steps)
            if len(self.seeds) == fail_at:
                raise InterruptedHereError

        monkeypatch.setattr(Unlearned, "make", making)
        monkeypatch.setattr(Meter, "count", counting)


def made(place: Place, monkeypatch: pytest.MonkeyPatch, out: str, fail_at: int | None = None) -> tuple[Makings, AuditRecord | None]:
    with monkeypatch.context() as patch:
        makings = Makings(patch, fail_at)
        try:
            return makings, run(parse_recipe(place.recipe), Path(out))
        except InterruptedHereError:
            return makings, None


def weights(place: Place, cache: str) -> dict[str, bytes]:
    return {str(path.relative_to(place / cache)): path.read_bytes() for path in (place / cache).rglob("model.safetensors")}


def test_interrupted_at_model_7_of_16_it_continues_at_7(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = {"device": "cpu", "threads": 1, "checkpoint_seconds": 0}
    place.change({**QUICK, "method.epochs": 2, "compute": compute, "shadows": {"count": COUNT, "cache": str(place / "whole")}})
    undisturbed, whole = made(place, monkeypatch, "undisturbed")
    assert len(set(undisturbed.seeds)) == COUNT
    place.change({"shadows": {"count": COUNT, "cache": str(place / "cut")}})
    first, _ = made(place, monkeypatch, "out", fail_at=7)
    assert first.seeds == undisturbed.seeds[:7]
    second, continued = made(place, monkeypatch, "out")
    assert second.seeds == undisturbed.seeds[6:]
    # The originals, too, are there already: 6 models less, and of the seventh at most the step in which it died is taken again.
    assert second.steps < first.steps
    assert weights(place, "cut") == weights(place, "whole")
    assert len(weights(place, "whole")) == 2 * COUNT
    assert not [path for path in (place / "cut").iterdir() if path.suffix == ".part"]
    assert whole is not None
    assert continued is not None
    assert continued.models == whole.models == {"reference": 1, "shadow": COUNT}
    assert continued.findings == whole.findings


def test_shadows_are_kept_for_the_next_run_and_their_originals_for_the_next_method(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.change({**QUICK, "shadows": {"count": 2}})
    first, _ = made(place, monkeypatch, "one")
    again, _ = made(place, monkeypatch, "two")
    place.change({"method": {"name": "fine-tune", "epochs": 1, "batch_size": 12}})
    other, record = made(place, monkeypatch, "three")
    assert (len(first.seeds), again.seeds, other.seeds) == (2, [], first.seeds)
    entries = [read_json(path) for path in place.root.parent.joinpath("cache", "shadows").rglob("entry.json")]
    assert sorted(entry["title"].partition(" (")[0] for entry in entries) == ["fine-tune"] * 2 + ["neg-grad-plus"] * 2 + ["original"] * 2
    references = [read_json(path)["seed"] for path in place.root.parent.joinpath("cache", "references").rglob("entry.json")]
    assert not {entry["seed"] for entry in entries} & {*references, place.recipe["seed"]}
    assert record is not None
    assert record.recipe["shadows"]["count"] == 2


@pytest.mark.parametrize("shadows", [{"count": 2}, {"count": 2, "cache": "elsewhere"}])
def test_where_shadows_are_kept_does_not_make_another_run(place: Place, shadows: dict[str, Any]) -> None:
    place.change({**QUICK, "shadows": {"count": 2}})
    identity = parse_recipe(place.recipe).identity()
    place.change({"shadows": shadows})
    assert parse_recipe(place.recipe).identity() == identity
    place.change({"shadows": {"count": 3}})
    assert parse_recipe(place.recipe).identity() != identity


def test_audit_takes_shadows_from_elsewhere(place: Place) -> None:
    shadows = ["--shadow", "tiny:network@original.safetensors", "--shadow", "tiny:network"]
    answer = place.unlearned("audit", *place.options(), *shadows, "--audit", "utility", "--json")
    assert answer.code == 0, answer.err
    record = json.loads(answer.out)
    assert record["models"] == {"reference": 0, "shadow": 2}
    assert record["recipe"]["shadows"] == shadows[1::2]
    attacked = place.unlearned("attack", "relearn", *place.options(), *shadows, "--set", "steps=1", "--json")
    assert attacked.code == 0, attacked.err
