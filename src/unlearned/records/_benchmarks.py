"""The outcome of a benchmark."""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from unlearned.records._costs import Environment
from unlearned.records._record import Document, Record

BENCH_SCHEMA: Literal["unlearned.bench/1"] = "unlearned.bench/1"


class BenchRow(Record):
    """One number of a benchmark."""

    method: str
    """In kebab-case; `original`, `retrain` and controls go by their names."""
    setting: str
    seed: int | None = None
    """None: a number over several seeds."""
    split: str
    metric: str
    value: float | None = None
    reason: str | None = None
    """Why there is no value."""

    @model_validator(mode="after")
    def _explains_what_is_absent(self) -> BenchRow:
        if self.value is None and not self.reason:
            raise ValueError("a row without a value needs a reason")
        return self


class Quoted(NamedTuple):
    """The place of a number that a paper printed."""

    method: str
    setting: str
    split: str
    metric: str


class BenchRecord(Document):
    """The whole outcome of a benchmark: the file `benchmarks/results/SUITE.json`."""

    schema_: Literal["unlearned.bench/1"] = Field(BENCH_SCHEMA, alias="schema")
    suite: str
    environment: Environment
    settings: dict[str, Any]
    rows: tuple[BenchRow, ...]

    def to_json(self) -> str:
        """As written to the results: one row per line, so that versions can be compared, and six digits of each number."""
        short = [row.model_copy(update={"value": None if row.value is None else float(f"{row.value:.6g}")}) for row in self.rows]
        head = self.model_dump(mode="json", by_alias=True, exclude={"rows"})
        lines = ",\n".join("    " + json.dumps(row.model_dump(mode="json", exclude_none=True), ensure_ascii=False, allow_nan=False) for row in short)
        return json.dumps(head, indent=2, ensure_ascii=False, allow_nan=False)[:-2] + f',\n  "rows": [\n{lines}\n  ]\n}}\n'
