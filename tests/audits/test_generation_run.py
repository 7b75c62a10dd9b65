"""The whole way of a diffusion model in a run directory, interrupted in the middle of its audits and continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.models import bundle_of, images
from unlearned.attacks.relearn import Relearn
from unlearned.pipeline import run
from unlearned.recipe import parse_recipe
from unlearned.records import AuditRecord
from unlearned.tasks.image_generation import ImageGeneration


def train_data() -> dict[str, Any]:
    return images(0, 24)


def test_data() -> dict[str, Any]:
    return images(100, 8)


test_data.__test__ = False  # type: ignore[attr-defined]  # data, not a test


class InterruptedHereError(Exception):
    pass


def test_interrupted_run_ends_with_the_same_record_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ImageGeneration().save(bundle_of("pixel"), tmp_path)
    recipe = parse_recipe(
        {
            "task": {"name": "image-generation", "judge": "digits", "sampling_steps": 2},
            "model": str(tmp_path),
            "data": {"train": "tests.audits.test_generation_run:train_data", "test": "tests.audits.test_generation_run:test_data"},
            "forget": {"where": "label == 3"},
            "method": {"name": "erasediff", "epochs": 1, "batch_size": 2, "lr": 0.001},
            "training": {"epochs": 1, "batch_size": 8},
            "references": {"count": 1, "cache": str(tmp_path / "cache")},
            "audits": [{"name": "generation", "samples": 4, "pictures": 2}],
            "attacks": [{"name": "relearn", "steps": 1, "batch_size": 2, "pictures": 1}],
        }
    )
    whole = run(recipe, tmp_path / "whole")
    measure = Relearn.measure

    def interrupted(self: Relearn, subject: Any) -> Any:
        measure(self, subject)
        raise InterruptedHereError

    with monkeypatch.context() as patch:
        patch.setattr(Relearn, "measure", interrupted)
        with pytest.raises(InterruptedHereError):
            run(recipe, tmp_path / "part")
    continued = run(recipe, tmp_path / "part")
    assert continued.findings == whole.findings
    assert continued.pictures == whole.pictures
    assert len(whole.pictures) == 2 * 3 + 2
    assert AuditRecord.from_file(tmp_path / "part" / "audit.json") == continued
    assert (tmp_path / "part" / "report.html").read_text().count('<img src="data:image/png;base64,') == 8
