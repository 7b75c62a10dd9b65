"""Columns from files and data sets: .npz, .parquet, .jsonl, .csv, folders of them, saved and hub data sets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unlearned.errors import Fault, InputError

_NUMBERED = re.compile(r"-\d{5}-of-\d{5}$")
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
    """A saved or hub data set or a folder of tables; several of its parts, named as A+B, one after the other, with a column `part` that names each."""
    configs, splits = (text.split("+") if text else [None] for text in (source.config, source.split))
    named = [(config, split) for config in configs for split in splits]
    saved = not local or any((Path(source.source) / name).exists() for name in ("dataset_info.json", "dataset_dict.json", "state.json"))
    read = partial(_saved, local=local) if saved else _in_folder
    if len(named) == 1:
        return read(source.source, *named[0], field)
    tables = [read(source.source, config, split, field) for config, split in named]
    columns = dict.fromkeys(name for table in tables for name in table)
    lengths = [len(next(iter(table.values()), ())) for table in tables]
    joined: dict[str, Any] = {name: [value for table, n in zip(tables, lengths, strict=True) for value in table.get(name, [None] * n)] for name in columns}
    names = ["/".join(filter(None, (config if len(configs) > 1 else None, split if len(splits) > 1 else None))) for config, split in named]
    return joined | {"part": [name for name, n in zip(names, lengths, strict=True) for _ in range(n)]}


def _saved(source: str, config: str | None, split: str | None, field: str, *, local: bool) -> dict[str, Any]:
    import datasets

    datasets.disable_progress_bars()
    found = datasets.load_from_disk(source) if local else datasets.load_dataset(source, config, split=split)
    if isinstance(found, Mapping):
        splits = list(found)
        if split not in splits:
            what = f"{source!r} has the splits {', '.join(splits)}, not {split!r}."
            raise InputError(Fault(f"{field}.split", what, "Choose one of them: SOURCE@SPLIT."))
        found = found[split]
    return {name: found[name] for name in found.column_names}


def _in_folder(source: str, config: str | None, split: str | None, field: str) -> dict[str, Any]:
    """One table of a folder of files, as a copy of a data set of the hub is: CONFIG/SPLIT.parquet, CONFIG.json, SPLIT.csv; perhaps in several numbered files.

    Raises:
        InputError: if there is none of that name, or it is not said which.
    """
    folder = Path(source)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _FORMATS and len(path.relative_to(folder).parts) <= 2)
    stems: dict[str, list[Path]] = {}
    for path in files:
        stems.setdefault(_NUMBERED.sub("", path.relative_to(folder).with_suffix("").as_posix()), []).append(path)
    wanted = [f"{config}/{split}", config, f"{config}/train"] if config else [split, f"data/{split}"] if split else list(stems)[:2]
    found = next((stems[name] for name in wanted if name in stems), None)
    if not config and not split and len(stems) != 1:
        found = None
    if found is None:
        there = ", ".join(sorted(stems)) or "none"
        what = f"{source!r} holds no one table of that name; it holds {there}." if config or split else f"{source!r} holds several tables or none: {there}."
        raise InputError(Fault(f"{field}.split", what, "Choose: SOURCE@SPLIT, SOURCE@CONFIG:SPLIT."))
    tables = [_file(path, path.suffix.lower()) for path in found]
    return {name: [value for table in tables for value in table[name]] for name in tables[0]}


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
