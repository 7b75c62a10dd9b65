"""Several runs on the same problem, as one record. Works on records alone, without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from unlearned.errors import Fault, collecting, raise_faults
from unlearned.records import AuditRecord, ComparedRun, CompareRecord

RunLike = str | Path | AuditRecord
"""The directory of a run, its `audit.json`, or its record."""
SAME = ("forget", "retain", "test")
"""The sets that make a problem. Validation data are not among them: nothing is compared on them."""


def compare(runs: Sequence[RunLike] | Mapping[str, RunLike]) -> CompareRecord:
    """Put several runs on the same problem side by side.

    Args:
        runs: at least two directories of runs, `audit.json` files or records. They are called by their methods, and by their directories where
            methods repeat; a mapping gives other names.

    Raises:
        InputError: with everything that is wrong: a single run, one that cannot be read or is given twice, or problems that differ.
    """
    given = list(runs.values()) if isinstance(runs, Mapping) else list(runs)
    files = [None if isinstance(run, AuditRecord) else _file(Path(run)) for run in given]
    faults = []
    if len(given) < 2:
        faults.append(Fault("runs", f"{len(given)} run is given; there is nothing to compare it with.", "Give at least two runs."))
    resolved = [file and file.resolve() for file in files]
    records: dict[int, AuditRecord] = {}
    for i, (run, file) in enumerate(zip(given, files, strict=True)):
        if file is not None and resolved[i] in resolved[:i]:
            faults.append(Fault(f"runs.{i}", f"{str(file)!r} is given twice.", "Give each run once."))
        with collecting(faults):
            records[i] = run if isinstance(run, AuditRecord) else AuditRecord.from_file(_file(Path(run)), f"runs.{i}")
    faults += _problem_faults({i: (str(files[i] or f"run {i + 1}"), record) for i, record in records.items()})
    raise_faults(faults)
    names = list(runs) if isinstance(runs, Mapping) else _names(files, list(records.values()))
    sources = ["" if file is None else str(file) for file in files]
    return CompareRecord(runs=tuple(ComparedRun(name=name, source=sources[i], record=records[i]) for i, name in enumerate(names)))


def _file(path: Path) -> Path:
    return path if path.suffix == ".json" else path / "audit.json"


def _problem_faults(records: Mapping[int, tuple[str, AuditRecord]]) -> list[Fault]:
    """Runs that do not say their problem, and those whose problem is not that of the first."""
    faults = []
    known = {}
    for i, (name, record) in records.items():
        missing = [split for split in SAME if split not in record.sets]
        if missing:
            what = f"{name!r} does not say which {_list(missing)} set it was measured on."
            faults.append(Fault(f"runs.{i}", what, "Run its recipe again with this version."))
        else:
            known[i] = (name, record)
    for i, (name, record) in list(known.items())[1:]:
        first_name, first = next(iter(known.values()))
        differing = [split for split in SAME if record.sets[split] != first.sets[split]]
        if differing:
            sizes = "; ".join(f"{split}: {_described(record, split)}, there {_described(first, split)}" for split in differing)
            what = f"{name!r} was measured on another {_list(differing)} set than {first_name!r} ({sizes})."
            faults.append(Fault(f"runs.{i}", what, "Compare runs that forget the same samples of the same data."))
    return faults


def _described(record: AuditRecord, split: str) -> str:
    return f"{record.sets[split].n} samples with fingerprint {record.sets[split].fingerprint[:8]}"


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _names(files: Sequence[Path | None], records: Sequence[AuditRecord]) -> list[str]:
    """The method of each run; where it repeats or is not known, the end of the path that tells it from the others."""
    places = _places(files)
    methods = [_method(record) for record in records]
    count = Counter(methods)
    names = []
    for method, place in zip(methods, places, strict=True):
        if method and count[method] == 1:
            names.append(method)
        else:  # a directory that is called by the method need not be told twice
            names.append(place if method in place else f"{method} ({place})")
    return names if len(set(names)) == len(names) else [f"{name} ({i})" for i, name in enumerate(names, start=1)]


def _places(files: Sequence[Path | None]) -> list[str]:
    paths = [() if file is None else _path(file) for file in files]
    for depth in range(1, max(map(len, paths), default=0) + 1):
        ends = ["/".join(parts[-depth:]) or str(i) for i, parts in enumerate(paths, start=1)]
        if len(set(ends)) == len(ends):
            return ends
    return ["/".join(parts) or str(i) for i, parts in enumerate(paths, start=1)]


def _path(file: Path) -> tuple[str, ...]:
    file = file.resolve()
    return (file.parent if file.name == "audit.json" else file.with_suffix("")).parts[1:]


def _method(record: AuditRecord) -> str:
    method = record.recipe.get("method")
    name = method.get("name") if isinstance(method, dict) else method
    return name if isinstance(name, str) else ""
