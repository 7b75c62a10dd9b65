"""A bank of models: each made once, kept under the hash of everything that decides it, and shared by all that need it."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError

from unlearned.data.fingerprints import of_json
from unlearned.engine.engine import Engine
from unlearned.engine.executor import fan_out
from unlearned.engine.files import atomic_directory, sweep
from unlearned.engine.progress import progress_bar
from unlearned.engine.settings import Compute
from unlearned.errors import InputError, writing
from unlearned.records import Cost
from unlearned.tasks._task import Bundle, Task

_VERSION = 2
"""Counts changes of the loop that give other weights; entries of another version are not used."""


@dataclass(frozen=True)
class Kept:
    """One model of a bank; `cost` is None if it was made elsewhere."""

    bundle: Bundle
    cost: Cost | None
    seed: int | None


@dataclass(frozen=True)
class Making(ABC):
    """How a model of a bank is made. Picklable, so that another process can do it."""

    like: Bundle
    """Gives the architecture and the companions."""
    seed: int

    @property
    @abstractmethod
    def title(self) -> str:
        """What it is called in messages and at the progress bar."""

    @abstractmethod
    def decided_by(self, task: Task) -> dict[str, Any]:
        """Everything that decides the weights besides architecture, seed and precision: JSON values."""

    @abstractmethod
    def make(self, engine: Engine) -> Bundle:
        """The model. The engine has the making's seed and keeps checkpoints."""


@dataclass(frozen=True)
class _Job:
    task: Task
    compute: Compute
    making: Making
    entry: Path
    field: str
    show_progress: bool


class Bank:
    """Models in a cache directory. One that is there is not made again; an interrupted making continues.

    Args:
        engine: computes; models are made in `compute.workers` processes.
        cache: the directory.
        field: where it was given, for messages.
    """

    def __init__(self, engine: Engine, cache: Path, field: str = "references.cache") -> None:
        self._engine, self._cache, self._field = engine, cache, field

    def entry(self, making: Making) -> Path:
        """Where the model lies."""
        task = self._engine.task
        key = {
            "bank": _VERSION,
            "kind": type(making).__qualname__,
            "architecture": task.architecture(making.like),
            "precision": self._engine.compute.precision,
            "seed": making.seed,
            **making.decided_by(task),
        }
        return self._cache / of_json(key)[:32]

    def get(self, makings: Sequence[Making], title: str) -> list[Kept]:
        """The models, made if they are not there yet.

        Args:
            makings: how each is made.
            title: what they are called together, at the progress bar.

        Raises:
            InputError: if the cache cannot be written, or a model cannot be made from what is given.
            DivergedError: if a training diverges.
        """
        entries = [self.entry(making) for making in makings]
        missing = [i for i, making in enumerate(makings) if not self._whole(entries[i], making)]
        # Bars of several processes would draw over each other: then one bar counts models, else each training has its own.
        together = self._engine.compute.workers > 1
        with writing(self._field, self._cache):
            self._cache.mkdir(parents=True, exist_ok=True)
        jobs = [self._job(makings[i], entries[i], self._engine.show_progress and not together) for i in missing]
        with progress_bar(title, len(jobs), self._engine.show_progress and together) as bar:
            for _ in fan_out(_make, jobs, self._engine.compute.workers):
                bar.step()
        return [self._read(entry, making) for entry, making in zip(entries, makings, strict=True)]

    def _whole(self, entry: Path, making: Making) -> bool:
        """Whether an entry can be read; a damaged one is removed, to be made again."""
        if not entry.exists():
            return False
        try:
            self._read(entry, making)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, InputError):
            shutil.rmtree(entry)
            return False
        return True

    def _job(self, making: Making, entry: Path, show_progress: bool) -> _Job:
        compute = self._engine.compute
        if compute.workers > 1:
            compute = compute.model_copy(update={"threads": max(1, torch.get_num_threads() // compute.workers)})
        return _Job(self._engine.task, compute, making, entry, self._field, show_progress)

    def _read(self, entry: Path, making: Making) -> Kept:
        # A kill between the two last steps of `_make` leaves the checkpoints of a finished training.
        shutil.rmtree(entry.with_suffix(".part"), ignore_errors=True)
        described = json.loads((entry / "entry.json").read_text(encoding="utf-8"))
        return Kept(self._engine.task.restore(entry / "model", making.like), Cost.model_validate(described["cost"]), making.seed)


def _make(job: _Job) -> None:
    work = job.entry.with_suffix(".part")
    with FileLock(job.entry.with_suffix(".lock")):
        if (job.entry / "entry.json").exists():  # another run made it while this one waited
            return
        engine = Engine(job.task, job.compute, job.making.seed, work, job.show_progress)
        with engine.measuring() as meter:
            made = job.making.make(engine)
        with atomic_directory(job.entry, job.field) as fresh:
            (fresh / "model").mkdir()
            job.task.save(made, fresh / "model")
            described = {"title": job.making.title, "seed": job.making.seed, "cost": meter.cost.model_dump()}
            (fresh / "entry.json").write_text(json.dumps(described) + "\n", encoding="utf-8")
        shutil.rmtree(work, ignore_errors=True)
        sweep(job.entry)
