from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError
from rich.console import Console

from unlearned.bench._run import run_suite
from unlearned.bench._suite import Cell, Place, Suite
from unlearned.engine.settings import Compute
from unlearned.records import BenchRecord, BenchRow, Quoted
from unlearned.report.bench import bench_tables

computed: list[str] = []


@dataclass(frozen=True)
class Product(Cell):
    left: int
    right: int

    @property
    def title(self) -> str:
        return f"{self.left} x {self.right}"

    def run(self, place: Place) -> Sequence[BenchRow]:
        assert place.cache.is_dir()
        if self.right == 13:
            raise KeyboardInterrupt
        computed.append(self.title)
        return [BenchRow(method=f"times-{self.left}", setting="small", seed=self.right, split="all", metric="product", value=float(self.left * self.right))]


class Table(Suite):
    name: ClassVar[str] = "table"
    paper: ClassVar[Any] = {Quoted("times-2", "small", "all", "product"): 1.5}
    last: int = 3

    @classmethod
    def quick(cls) -> Table:
        return cls(last=1)

    def cells(self) -> list[Product]:
        return [Product(left, right) for left in (2, 3) for right in (1, 2, self.last)]


def place(tmp_path: Path, **compute: Any) -> Place:
    return Place(None, tmp_path, Compute(**compute))


def test_an_interrupted_suite_continues(tmp_path: Path) -> None:
    computed.clear()
    with pytest.raises(KeyboardInterrupt):
        run_suite(Table(last=13), place(tmp_path))
    assert computed == ["2 x 1", "2 x 2"]
    record = run_suite(Table(last=3), place(tmp_path))
    assert computed == ["2 x 1", "2 x 2", "2 x 3", "3 x 1", "3 x 2", "3 x 3"]
    assert [row.value for row in record.rows] == [2, 4, 6, 3, 6, 9]
    assert run_suite(Table(last=3), place(tmp_path)).rows == record.rows
    assert len(computed) == 6


def test_cells_run_in_other_processes_and_come_in_order(tmp_path: Path) -> None:
    record = run_suite(Table(), place(tmp_path, workers=2))
    assert [row.value for row in record.rows] == [2, 4, 6, 3, 6, 9]


def test_a_record_is_the_json_that_it_was_read_from(tmp_path: Path) -> None:
    record = run_suite(Table(), place(tmp_path))
    read = json.loads(record.to_json())
    assert read["schema"] == "unlearned.bench/1"
    assert read["suite"] == "table"
    assert read["rows"][0] == {"method": "times-2", "setting": "small", "seed": 1, "split": "all", "metric": "product", "value": 2.0}
    assert BenchRecord.model_validate(read) == record


def test_tables_put_seeds_together_and_the_paper_beside(tmp_path: Path) -> None:
    console = Console(width=100, record=True, file=(tmp_path / "shown").open("w"))
    console.print(bench_tables(run_suite(Table(), place(tmp_path)), "median", Table.paper))
    console.file.close()
    text = console.export_text()
    assert "table: product" in text
    assert "4 [2, 6] / 1.5" in text
    assert "6 [3, 9]" in text


class Summed(Table):
    def derived(self, rows: Sequence[BenchRow]) -> list[BenchRow]:
        return [BenchRow(method="all", setting="small", split="all", metric="sum", value=sum(row.value or 0 for row in rows))]


def test_what_follows_from_all_rows_comes_after_them(tmp_path: Path) -> None:
    record = run_suite(Summed(), place(tmp_path))
    assert [row.value for row in record.rows] == [2, 4, 6, 3, 6, 9, 30]


def test_a_row_without_a_value_says_why() -> None:
    with pytest.raises(ValidationError, match="needs a reason"):
        BenchRow(method="a", setting="b", split="c", metric="d")
