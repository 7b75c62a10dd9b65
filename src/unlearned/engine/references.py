"""The reference bank: models retrained without the forget set, made once and used by every audit and attack."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError

from unlearned.data.fingerprints import of_json, of_tensors
from unlearned.data.samples import Samples
from unlearned.engine.engine import Engine
from unlearned.engine.executor import fan_out
from unlearned.engine.files import atomic_directory, sweep
from unlearned.engine.progress import progress_bar
from unlearned.engine.settings import Compute
from unlearned.engine.training import Training, train
from unlearned.errors import InputError, writing
from unlearned.records import Cost
from unlearned.tasks._task import Bundle, Task

_VERSION = 1
"""Counts changes of the loop that give other weights; entries of another version are not used."""


@dataclass(frozen=True)
class Reference:
    """One retrained model; `cost` is None if it was made elsewhere."""

    bundle: Bundle
    cost: Cost | None
    seed: int | None


@dataclass(frozen=True)
class _Job:
    task: Task
    compute: Compute
    bundle: Bundle
    samples: Samples
    training: Training
    seed: int
    entry: Path
    show_progress: bool


class ReferenceBank:
    """Reference models in a cache directory, each under the hash of (data, architecture, training settings, seed).

    An entry that exists is not trained again; an interrupted training continues.

    Args:
        engine: computes; jobs run in `compute.workers` processes.
        original: gives the architecture.
        retain: what references are trained on.
        training: how.
        cache: the directory.
    """

    def __init__(self, engine: Engine, original: Bundle, retain: Samples, training: Training, cache: Path) -> None:
        self._engine, self._original, self._retain, self._training, self._cache = engine, original, retain, training, cache

    def entry(self, seed: int) -> Path:
        """Where the reference of this seed lies."""
        task = self._engine.task
        start = None if self._training.start is None else of_tensors(task.load(self._training.start, "training.start").model.state_dict())
        key = of_json(
            {
                "data": self._retain.fingerprint,
                "architecture": task.architecture(self._original),
                "bank": _VERSION,
                "training": self._training.model_dump(exclude={"start"}),
                "precision": self._engine.compute.precision,
                "start": start,
                "seed": seed,
            }
        )
        return self._cache / key[:32]

    def get(self, seeds: list[int]) -> list[Reference]:
        """The references of these seeds, trained if they are not there yet."""
        entries = {seed: self.entry(seed) for seed in seeds}
        missing = [seed for seed in seeds if not self._whole(entries[seed], seed)]
        # Bars of several processes would draw over each other: then one bar counts models, else each training has its own.
        together = self._engine.compute.workers > 1
        with writing("references.cache", self._cache):
            self._cache.mkdir(parents=True, exist_ok=True)
        jobs = [self._job(seed, entries[seed], self._engine.show_progress and not together) for seed in missing]
        with progress_bar("reference models", len(jobs), self._engine.show_progress and together) as bar:
            for _ in fan_out(_make, jobs, self._engine.compute.workers):
                bar.step()
        return [self._read(entries[seed], seed) for seed in seeds]

    def _whole(self, entry: Path, seed: int) -> bool:
        """Whether an entry can be read; a damaged one is removed, to be made again."""
        if not entry.exists():
            return False
        try:
            self._read(entry, seed)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, InputError):
            shutil.rmtree(entry)
            return False
        return True

    def _job(self, seed: int, entry: Path, show_progress: bool) -> _Job:
        compute = self._engine.compute
        if compute.workers > 1:
            compute = compute.model_copy(update={"threads": max(1, torch.get_num_threads() // compute.workers)})
        return _Job(self._engine.task, compute, self._original, self._retain, self._training, seed, entry, show_progress)

    def _read(self, entry: Path, seed: int) -> Reference:
        # A kill between the two last steps of `_make` leaves the checkpoints of a finished training.
        shutil.rmtree(entry.with_suffix(".part"), ignore_errors=True)
        described = json.loads((entry / "reference.json").read_text(encoding="utf-8"))
        return Reference(self._engine.task.restore(entry / "model", self._original), Cost.model_validate(described["cost"]), seed)


def _make(job: _Job) -> None:
    work = job.entry.with_suffix(".part")
    with FileLock(job.entry.with_suffix(".lock")):
        if (job.entry / "reference.json").exists():  # another run made it while this one waited
            return
        engine = Engine(job.task, job.compute, job.seed, work, job.show_progress)
        with engine.measuring() as meter:
            made = train(engine, job.bundle, job.samples, job.training, job.seed, title=f"reference (seed {job.seed})", checkpoint=engine.checkpoint("train"))
        with atomic_directory(job.entry, "references.cache") as fresh:
            (fresh / "model").mkdir()
            job.task.save(made, fresh / "model")
            (fresh / "reference.json").write_text(json.dumps({"seed": job.seed, "cost": meter.cost.model_dump()}) + "\n", encoding="utf-8")
        shutil.rmtree(work, ignore_errors=True)
        sweep(job.entry)
