"""Rows of numbers on the disk, written in chunks by one or several processes; each chunk is there whole or not at all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unlearned.errors import writing


@dataclass(frozen=True)
class Store:
    """(N, K) float32 under a directory whose name is decided by everything that decides the rows. Memory holds one chunk at a time.

    Rows are read through a memory map that is opened for each chunk and closed after it: pages that stayed mapped would count as memory of the process.
    """

    directory: Path
    rows: int
    width: int
    chunk: int

    def open(self) -> Store:
        """Make room for all rows, unless it is there.

        Raises:
            InputError: if the directory cannot be written.
        """
        with writing("out", self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            for name, size in (("rows.bin", 4 * self.rows * self.width), ("done.bin", -(-self.rows // self.chunk))):
                with (self.directory / name).open("ab") as file:
                    file.truncate(size)
        return self

    def done(self, number: int) -> bool:
        """Whether a chunk is there."""
        with (self.directory / "done.bin").open("rb") as file:
            file.seek(number)
            return file.read(1) == b"\1"

    def write(self, number: int, rows: Tensor) -> None:
        """Put a chunk, (chunk, K) or fewer rows at the end.

        Raises:
            InputError: if the disk is full.
        """
        with writing("out", self.directory):
            for name, place, content in (
                ("rows.bin", 4 * number * self.chunk * self.width, rows.detach().cpu().float().contiguous().numpy().tobytes()),
                ("done.bin", number, b"\1"),  # last: a chunk without its mark is computed again
            ):
                with (self.directory / name).open("r+b") as file:
                    file.seek(place)
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())

    def read(self, number: int) -> Tensor:
        """A chunk, (b, K)."""
        first = number * self.chunk
        count = min(self.chunk, self.rows - first)
        mapped = np.memmap(self.directory / "rows.bin", dtype=np.float32, mode="r", offset=4 * first * self.width, shape=(count, self.width))
        return torch.from_numpy(np.array(mapped))
