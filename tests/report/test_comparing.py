"""Several runs as one record: what they are called, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import unlearned
from unlearned.errors import InputError
from unlearned.records import AuditRecord, ComparedRun, CompareRecord, SetSummary

from .conftest import PROBLEM, make


def run_of(method: Any = "scrub", **sets: SetSummary) -> AuditRecord:
    return make([], recipe={"method": method}, sets=PROBLEM | sets)


def write(path: Path, record: AuditRecord) -> Path:
    path.mkdir(parents=True)
    (path / "audit.json").write_text(record.to_json(), encoding="utf-8")
    return path


def names(*runs: Path) -> list[str]:
    return [run.name for run in unlearned.compare(runs).runs]


def test_a_run_is_called_by_its_method(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", run_of({"name": "scrub"})), write(tmp_path / "b", run_of("ssd"))
    record = unlearned.compare([first, str(second)])
    assert [(run.name, run.source) for run in record.runs] == [("scrub", str(first / "audit.json")), ("ssd", str(second / "audit.json"))]
    assert record.runs[0].record == run_of({"name": "scrub"})


def test_where_methods_repeat_the_end_of_the_path_tells_them_apart(tmp_path: Path) -> None:
    one, other = write(tmp_path / "x" / "one", run_of()), write(tmp_path / "y" / "one", run_of())
    named, third = write(tmp_path / "x" / "scrub-long", run_of()), write(tmp_path / "z" / "one", run_of("ssd"))
    assert names(one, other, third) == ["scrub (x/one)", "scrub (y/one)", "ssd"]
    assert names(named, one) == ["scrub-long", "scrub (one)"]


def test_a_run_without_a_method_is_called_by_its_directory_and_a_file_by_its_name(tmp_path: Path) -> None:
    plain, method = write(tmp_path / "from-elsewhere", make([], recipe={})), write(tmp_path / "b", run_of())
    assert names(plain, method) == ["from-elsewhere", "scrub"]
    file = (plain / "audit.json").rename(tmp_path / "theirs.json")
    assert names(file, method) == ["theirs", "scrub"]
    assert names(file, method / "audit.json") == ["theirs", "scrub"]


def test_names_are_unique_whatever_a_record_says(tmp_path: Path) -> None:
    clash = [write(tmp_path / "a", run_of("scrub (b)")), write(tmp_path / "b", run_of()), write(tmp_path / "c", run_of())]
    assert names(*clash) == ["scrub (b) (1)", "scrub (b) (2)", "scrub (c) (3)"]


def test_records_and_names_of_ones_own() -> None:
    assert [run.name for run in unlearned.compare([run_of(), run_of("ssd"), run_of()]).runs] == ["scrub (1)", "ssd", "scrub (3)"]
    record = unlearned.compare({"mine": run_of(), "theirs": run_of()})
    assert [(run.name, run.source) for run in record.runs] == [("mine", ""), ("theirs", "")]


def test_a_record_is_the_json_that_is_printed() -> None:
    record = unlearned.compare({"mine": run_of(), "theirs": run_of("ssd")})
    assert '"schema": "unlearned.compare/1"' in record.to_json()
    assert CompareRecord.model_validate_json(record.to_json()) == record


def test_two_runs_with_one_name_are_no_record() -> None:
    with pytest.raises(ValidationError, match="same name"):
        CompareRecord(runs=(ComparedRun(name="a", source="", record=run_of()),) * 2)


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    first = write(tmp_path / "first", run_of())
    other = write(tmp_path / "other", run_of("ssd", forget=SetSummary(n=149, fingerprint="cafe0123456789")))
    silent = write(tmp_path / "silent", make([], sets={"forget": PROBLEM["forget"]}))
    with pytest.raises(InputError) as raised:
        unlearned.compare([first, tmp_path / "absent", other, first / "audit.json", silent])
    said = {fault.field: fault.what for fault in raised.value.faults}
    assert sorted(said) == ["runs.1", "runs.2", "runs.3", "runs.4"]
    assert "cannot be read" in said["runs.1"]
    assert "given twice" in said["runs.3"]
    assert "does not say which retain and test set" in said["runs.4"]
    assert "another forget set than" in said["runs.2"]
    assert "forget: 149 samples with fingerprint cafe0123, there 150 samples with fingerprint 9f86d081" in said["runs.2"]


@pytest.mark.parametrize("count", [0, 1])
def test_one_run_is_nothing_to_compare(count: int) -> None:
    with pytest.raises(InputError, match="nothing to compare it with"):
        unlearned.compare([run_of()] * count)


def test_it_needs_no_torch() -> None:
    code = "import sys, unlearned; unlearned.compare; unlearned.CompareRecord; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
