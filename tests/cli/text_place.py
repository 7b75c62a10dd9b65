"""A tiny language problem on disk: a directory of transformers, and questions with answers in JSON lines."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.models import bundle_of, facts
from unlearned.tasks.text_generation import TextGeneration

from .place import Place

TEXT_RECIPE: dict[str, Any] = {
    "task": {"name": "text-generation", "max_new_tokens": 4},
    "model": "original",
    "data": {"train": "train.jsonl", "test": "test.jsonl"},
    "forget": {"where": 'group == "a"'},
    "method": {"name": "npo", "epochs": 2, "lr": 0.01, "batch_size": 4, "optimizer": "adamw"},
    "training": {"optimizer": "adamw", "lr": 0.01, "batch_size": 4, "epochs": 1},
    "references": {"count": 1},
    "audits": ["utility", "deviation-score"],
    "attacks": [],
    "compute": {"device": "cpu", "threads": 1},
    "seed": 1,
}


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def save_model(directory: Path, kind: str = "llama", seed: int = 20) -> Path:
    directory.mkdir()
    TextGeneration().save(bundle_of(kind, seed), directory)
    return directory


def fill_texts(root: Path, kind: str = "llama") -> None:
    """Write model and data."""
    save_model(root / "original", kind)
    for name, start, count in (("train", 0, 10), ("test", 50, 4)):
        data = facts(start, count)
        columns = ("prompt", "answer", "perturbed_answer")
        write_lines(root / f"{name}.jsonl", [{key: data[key][i] for key in columns} | {"group": "ab"[i % 3 > 0]} for i in range(count)])


class TextPlace(Place):
    """A place with a language model."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self.root, self.monkeypatch, self.capture = root, monkeypatch, capture
        self.recipe = copy.deepcopy(TEXT_RECIPE)
        fill_texts(root)

    def rewrite(self, name: str = "train.jsonl", at: int = 1, **fields: Any) -> None:
        """Change fields of one record; `...` removes one."""
        rows = read_lines(self / name)
        rows[at] = {key: value for key, value in (rows[at] | fields).items() if value is not ...}
        write_lines(self / name, rows)

    def rewrite_all(self, *names: str, **fields: Any) -> None:
        """Replace all fields of all records but `group`."""
        for name in names or ("train.jsonl", "test.jsonl"):
            write_lines(self / name, [{"group": row["group"], **fields} for row in read_lines(self / name)])

    def edit_json(self, name: str, **fields: Any) -> None:
        """Change fields of a JSON file; `...` removes one."""
        found = json.loads((self / name).read_text(encoding="utf-8")) | fields
        (self / name).write_text(json.dumps({key: value for key, value in found.items() if value is not ...}), encoding="utf-8")
