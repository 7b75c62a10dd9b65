"""What it took to make a model, and where."""

from __future__ import annotations

from pydantic import Field

from unlearned.records._record import Record


class Cost(Record):
    """What it took to make a model."""

    wall_seconds: float = Field(ge=0)
    cpu_seconds: float = Field(ge=0)
    """Processor time of the process, all threads."""
    peak_memory_bytes: int = Field(ge=0)
    """Largest memory in use meanwhile: of the accelerator if there is one, else resident memory of the process."""
    samples_seen: int = Field(ge=0)
    """Samples for which gradients were computed, repeats counted."""
    steps: int = Field(ge=0)
    """Optimiser steps, or gradient batches of a method that has no optimiser."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            wall_seconds=self.wall_seconds + other.wall_seconds,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            peak_memory_bytes=max(self.peak_memory_bytes, other.peak_memory_bytes),
            samples_seen=self.samples_seen + other.samples_seen,
            steps=self.steps + other.steps,
        )


class Environment(Record):
    """Where the numbers were made."""

    unlearned: str
    python: str
    platform: str
    packages: dict[str, str]
    device: str
    threads: int
