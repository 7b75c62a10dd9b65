"""File: scores that another tool computed.

Paper: none.
Formula: s(z) is what the file says of the id of z: columns `id` and `score` of a .csv, .json(l) or .parquet file.
Defaults: none.
Deviations: none. Numbers near 0 are read as points that matter little; rank differently by changing the numbers.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field

from unlearned.data.tables import read_table
from unlearned.engine.engine import Engine
from unlearned.errors import Fault, InputError, collecting
from unlearned.influence import scores
from unlearned.influence._score import Grounds, Score, Values
from unlearned.tasks._task import DataSource


@scores.register("file")
class File(Score):
    """Scores of another tool."""

    name: ClassVar[str] = "file"
    signed: ClassVar[bool] = True
    by_gradients: ClassVar[bool] = False
    path: str = Field(description="A .csv, .json, .jsonl or .parquet file with the columns `id` and `score`, one line for each training point.")

    @property
    def content(self) -> str:
        path = Path(self.path)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""

    def rate(self, grounds: Grounds, engine: Engine) -> Values:
        del engine
        return self._read(grounds)

    def faults(self, grounds: Grounds) -> list[Fault]:
        faults: list[Fault] = []
        with collecting(faults):
            self._read(grounds)
        return faults

    def _read(self, grounds: Grounds) -> Values:
        columns = read_table(DataSource(source=self.path), "path")
        absent = [name for name in ("id", "score") if name not in columns]
        if absent:
            raise InputError(Fault("path", f"{self.path!r} has no column {absent[0]!r}.", "Give the columns `id` and `score`."))
        try:
            given = dict(zip(map(str, columns["id"]), map(float, columns["score"]), strict=True))
        except (TypeError, ValueError) as error:
            raise InputError(Fault("path", f"{self.path!r} has scores that are no numbers.", "Give one number for each id.")) from error
        missing = sum(name not in given for name in grounds.points.ids)
        if missing:
            raise InputError(Fault("path", f"{self.path!r} has no score for {missing} of {len(grounds.points)} training points.", "Score all of them."))
        values = [given[name] for name in grounds.points.ids]
        unfit = sum(not math.isfinite(value) for value in values)
        if unfit:
            raise InputError(Fault("path", f"{self.path!r} has {unfit} scores that are NaN or infinite.", "Give finite numbers."))
        return Values(torch.tensor(values, dtype=torch.float64))
