"""Columns from files and data sets: .npz, .parquet, .jsonl, .csv, saved and hub data sets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unlearned.errors import Fault, InputError

_FORMATS = frozenset({".parquet", ".jsonl", ".json", ".csv"})


class _Source(Protocol):
    @property
    def source(self) -> str: ...

    @property
    def config(self) -> str | None: ...

    @property
    def split(self) -> str | None: ...


def require(source: _Source, field: str) -> None:
    """Raise an `InputError` if the source is a path and there is nothing at it."""
    path = Path(source.source)
    if not path.exists() and (path.suffix or path.is_absolute() or source.source.startswith(".") or source.source.count("/") > 1):
        raise InputError(Fault(field, f"there is no file or folder {source.source!r}.", "Check the path; relative paths start at the working directory."))


def read_table(source: _Source, field: str) -> dict[str, Any]:
    """Columns by name. Large columns of data sets stay on disk until they are read.

    Raises:
        InputError: if the file is missing, of an unknown kind, damaged, or has several splits and none is chosen.
    """
    require(source, field)
    path = Path(source.source)
    suffix = path.suffix.lower()
    local = path.exists()
    if local and path.is_file() and suffix not in _FORMATS | {".npz"}:
        raise InputError(
            Fault(
                field,
                f"{source.source!r} is of a kind that cannot be read ({suffix or 'no suffix'}).",
                "Use .npz, .parquet, .jsonl, .csv, a folder of images, or module:function.",
            )
        )
    try:
        if suffix == ".npz":
            # Opened here, because numpy leaves a file that it cannot read open.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        if suffix in _FORMATS:
            return _file(path, suffix)
        return _dataset(source, local, field)
    except InputError:
        raise
    except Exception as error:  # numpy, Arrow and the hub raise many kinds for a wrong file
        # What comes after the second colon quotes the data, which may be what shall be forgotten.
        detail = ": ".join((str(error).strip().splitlines() or [""])[0].split(": ")[:2])[:200]
        remedy = "Check that the file is whole and of the kind that its name says."
        if "Object arrays" in detail:
            remedy = "Save its columns as numbers or text, without objects: these are pickles, which can run any code that they hold."
        raise InputError(Fault(field, f"{source.source!r} cannot be read ({type(error).__name__}: {detail}).", remedy)) from error


def _file(path: Path, suffix: str) -> dict[str, Any]:
    # Read with Arrow itself: `datasets.load_dataset` would leave a second copy of the data, forget set included, in its cache.
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet

    if suffix == ".json":
        text = path.read_text(encoding="utf-8")
        if text.lstrip().startswith("["):
            return _records(json.loads(text))
    readers = {".parquet": pyarrow.parquet.read_table, ".csv": pyarrow.csv.read_csv}
    table = readers.get(suffix, pyarrow.json.read_json)(path)
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _records(rows: list[Any]) -> dict[str, Any]:
    """Columns of a JSON list of objects; what an object lacks is None."""
    names = dict.fromkeys(name for row in rows for name in dict(row))
    return {name: [row.get(name) for row in rows] for name in names}


def _dataset(source: _Source, local: bool, field: str) -> dict[str, Any]:
    import datasets

    datasets.disable_progress_bars()
    found = datasets.load_from_disk(source.source) if local else datasets.load_dataset(source.source, source.config, split=source.split)
    if isinstance(found, Mapping):
        splits = list(found)
        if source.split not in splits:
            what = f"{source.source!r} has the splits {', '.join(splits)}, not {source.split!r}."
            raise InputError(Fault(f"{field}.split", what, "Choose one of them: SOURCE@SPLIT."))
        found = found[source.split]
    return {name: found[name] for name in found.column_names}


def rename(columns: Mapping[str, Any], given: Mapping[str, str], usual: Mapping[str, Sequence[str]], field: str) -> dict[str, Any]:
    """Columns under the names that a task expects: as the user maps them, else under their usual other names.

    Raises:
        InputError: if a mapped column does not exist.
    """
    absent = sorted(name for name in given.values() if name not in columns)
    if absent:
        raise InputError(Fault(f"{field}.columns", f"there is no column {absent[0]!r}.", f"Columns of this data: {', '.join(columns)}."))
    named = {name: column for name, column in columns.items() if name not in given.values()}
    named |= {expected: columns[name] for expected, name in given.items()}
    for expected, others in usual.items():
        found = [name for name in others if name in named]
        if expected not in named and found:
            named[expected] = named.pop(found[0])
    return named


def columns_of(data: Any, order: Sequence[str], field: str) -> dict[str, Any]:
    """Columns by name from what a program holds in memory.

    Args:
        data: a dict of columns, a data set of the `datasets` library, or a tuple of columns.
        order: names for the columns of a tuple.
        field: where it was given, for messages.

    Raises:
        InputError: if it is something else.
    """
    if isinstance(data, tuple) and len(data) == len(order):
        return dict(zip(order, data, strict=True))
    if isinstance(data, Mapping):
        return dict(data)
    names = getattr(data, "column_names", None)
    if isinstance(names, list):
        return {name: data[name] for name in names}
    raise InputError(
        Fault(
            field, f"data of type {type(data).__name__} cannot be used.", f"Give ({', '.join(order)}), a dict of columns, a data set of `datasets`, or Samples."
        )
    )
