"""Carry out a suite: cell by cell, each kept, so that an interrupted suite continues."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearned.bench._suite import Cell, Place, Suite
from unlearned.data.fingerprints import of_json
from unlearned.engine.engine import Engine
from unlearned.engine.environment import environment
from unlearned.engine.executor import fan_out
from unlearned.engine.files import require_writable, sweep, write_text
from unlearned.engine.progress import progress_bar
from unlearned.records import BenchRecord, BenchRow
from unlearned.tasks import tasks


@dataclass(frozen=True)
class _Job:
    cell: Cell
    place: Place
    file: Path


def run_suite(suite: Suite, place: Place) -> BenchRecord:
    """All rows of a suite. Finished cells lie in the cache and are not computed again.

    Args:
        suite: what to do.
        place: data, cache, and how to compute; `compute.workers` cells run at the same time.

    Raises:
        InputError: if the data are not there, or the cache cannot be written.
    """
    suite.require(place)
    cells = list(suite.cells())
    folder = place.cache / "cells" / suite.name
    jobs = [_Job(cell, place, folder / f"{_key(suite, cell, place)}.json") for cell in cells]
    missing = [job for job in jobs if _read(job.file) is None]
    if missing:
        require_writable(missing[0].file, "cache")
    with progress_bar(f"suite {suite.name}", len(jobs), place.show_progress, len(jobs) - len(missing)) as bar:
        for position, _ in fan_out(_compute, missing, place.compute.workers):
            bar.step(missing[position].cell.title)
    rows = [row for job in jobs for row in _read(job.file) or ()]
    engine = Engine(tasks.get("image-classification")(), place.compute)
    return BenchRecord(suite=suite.name, environment=environment(engine), settings=suite.model_dump(mode="json"), rows=(*rows, *suite.derived(rows)))


def _compute(job: _Job) -> None:
    sweep(job.file)
    if _read(job.file) is not None:
        return
    rows = [row.model_dump(mode="json") for row in job.cell.run(job.place)]
    write_text(job.file, json.dumps(rows, allow_nan=False) + "\n", "cache")


def _read(file: Path) -> list[BenchRow] | None:
    if not file.exists():
        return None
    found: list[Any] = json.loads(file.read_text(encoding="utf-8"))
    return [BenchRow.model_validate(row) for row in found]


def _key(suite: Suite, cell: Cell, place: Place) -> str:
    return of_json([suite.name, suite.version, repr(cell), place.compute.precision, None if place.data is None else str(place.data.resolve())])[:32]
