"""An ordered set of samples with unique ids, whatever they show."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from unlearned.data.fingerprints import as_bytes

Row = Mapping[str, Any]
"""One sample: column name to value."""


class Rows(Protocol):
    """Anything that gives a sample by its position, and costs nothing until it is asked."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Row: ...


Indices = np.ndarray[Any, np.dtype[np.int64]]


def _taken(rows: Rows, indices: Indices) -> Rows:
    """These rows alone, without the memory of the others; rows that are read elsewhere stay where they are."""
    taken = getattr(rows, "taken", None)
    return _ChosenRows(rows, indices) if taken is None else taken(indices)


class _ChosenRows:
    def __init__(self, rows: Rows, indices: Indices) -> None:
        self._rows, self._indices = rows, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Row:
        return self._rows[int(self._indices[index])]


def _column(values: Any, indices: Indices) -> Any:
    if isinstance(values, torch.Tensor):
        return values[torch.from_numpy(indices)]
    return values[indices] if isinstance(values, np.ndarray) else [values[int(i)] for i in indices]


class ColumnRows:
    """Rows over columns that are already in memory."""

    def __init__(self, columns: Mapping[str, Sequence[Any] | np.ndarray[Any, Any] | torch.Tensor]) -> None:
        self.columns = dict(columns)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, index: int) -> Row:
        return {name: column[index] for name, column in self.columns.items()}

    def taken(self, indices: Indices) -> ColumnRows:
        """These rows alone."""
        return ColumnRows({name: _column(column, indices) for name, column in self.columns.items()})


class JoinedRows:
    """Rows with further columns beside their own."""

    def __init__(self, rows: Rows, columns: Mapping[str, torch.Tensor]) -> None:
        self._rows, self._columns = rows, dict(columns)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        return {**self._rows[index], **{name: column[index] for name, column in self._columns.items()}}

    def taken(self, indices: Indices) -> JoinedRows:
        """These rows alone."""
        return JoinedRows(_taken(self._rows, indices), {name: _column(column, indices) for name, column in self._columns.items()})


class MappedRows:
    """Rows that are made from other rows on first use and remembered while they fit in memory.

    Decoding an image in each epoch is the slowest part of small trainings; decoding all of a large set up front needs more memory than
    there is. So rows are kept until `budget_bytes` are used and made anew after that.
    """

    def __init__(self, rows: Rows, make: Callable[[Row], Row], budget_bytes: int = 2**31) -> None:
        self._rows = rows
        self._make = make
        self._budget = budget_bytes
        self._used = 0
        self._kept: dict[int, Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __getstate__(self) -> dict[str, Any]:
        """Without what is kept: another process makes it again, which is cheaper than sending it."""
        return self.__dict__ | {"_kept": {}, "_budget": self._budget + self._used, "_used": 0}

    def __getitem__(self, index: int) -> Row:
        if index in self._kept:
            return self._kept[index]
        row = self._make(self._rows[index])
        size = sum(value.nbytes for value in row.values() if isinstance(value, torch.Tensor | np.ndarray))
        if size <= self._budget:
            self._budget -= size
            self._used += size
            self._kept[index] = row
        return row

    def taken(self, indices: Indices) -> MappedRows:
        """These rows alone; what is kept of them is made again."""
        return MappedRows(_taken(self._rows, indices), self._make, self._budget + self._used)


class Samples:
    """An ordered set of samples with unique ids.

    Args:
        rows: the samples.
        ids: one name per sample; positions by default.
        facts: columns that filters may use and that are cheap to read (labels, metadata), without the content.
        indices: which rows, in which order; all by default.
        attached: columns of the rows that batches carry beside what the task makes of them.
    """

    def __init__(
        self,
        rows: Rows,
        ids: Sequence[str] | None = None,
        facts: Mapping[str, Sequence[Any]] | None = None,
        indices: Sequence[int] | np.ndarray[Any, Any] | None = None,
        attached: tuple[str, ...] = (),
    ) -> None:
        self._rows = rows
        self.attached = attached
        self._indices = np.arange(len(rows)) if indices is None else np.asarray(indices, dtype=np.int64)
        self._ids = [str(i) for i in range(len(rows))] if ids is None else list(ids)
        self.facts = dict(facts or {})
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> Row:
        return self._rows[int(self._indices[position])]

    @property
    def rows(self) -> Rows:
        """All rows that this set was chosen from."""
        return self._rows

    @property
    def indices(self) -> np.ndarray[Any, Any]:
        """Which of the rows, in which order."""
        return self._indices

    @property
    def all_ids(self) -> list[str]:
        """The ids of `rows`."""
        return self._ids

    @property
    def ids(self) -> list[str]:
        """Ids in order."""
        return [self._ids[i] for i in self._indices]

    def fact(self, name: str) -> list[Any]:
        """One column of facts, in order."""
        column = self.facts[name]
        return [column[i] for i in self._indices]

    def subset(self, positions: Iterable[int]) -> Samples:
        """The samples at these positions, in that order."""
        chosen = self._indices[np.fromiter(positions, dtype=np.int64)]
        return Samples(self._rows, self._ids, self.facts, chosen, self.attached)

    def packed(self) -> Samples:
        """The same samples without the rows that this set does not choose: what another process is sent."""
        facts = {name: self.fact(name) for name in self.facts}
        return Samples(_taken(self._rows, self._indices), self.ids, facts, attached=self.attached)

    def attach(self, name: str, values: torch.Tensor) -> Samples:
        """The same samples, each with a value of its own that is in every batch under this name.

        Args:
            name: a column that neither the rows nor the task's batches have.
            values: (N, ...), in the order of this set.
        """
        column = torch.zeros(len(self._rows), *values.shape[1:], dtype=values.dtype)
        column[torch.from_numpy(self._indices)] = values
        return Samples(JoinedRows(self._rows, {name: column}), self._ids, self.facts, self._indices, (*self.attached, name))

    def without(self, ids: Iterable[str]) -> Samples:
        """The samples whose ids are not among `ids`, in order."""
        out = set(ids)
        return self.subset(i for i, name in enumerate(self.ids) if name not in out)

    def only(self, ids: Iterable[str]) -> Samples:
        """The samples whose ids are among `ids`, in the order of this set."""
        wanted = set(ids)
        return self.subset(i for i, name in enumerate(self.ids) if name in wanted)

    def shuffled(self, seed: int) -> Samples:
        """The same samples in a random order."""
        return self.subset(np.random.default_rng(seed).permutation(len(self)))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over ids and content, in order: the same samples have the same fingerprint on every machine."""
        if self._fingerprint is None:
            digest = hashlib.sha256()
            for name, position in zip(self.ids, range(len(self)), strict=True):
                digest.update(name.encode() + b"\0")
                for column, value in sorted(self[position].items()):
                    if column in self.attached:  # computed from the samples, with rounding that differs between machines
                        continue
                    digest.update(column.encode() + b"\0" + as_bytes(value))
            self._fingerprint = digest.hexdigest()
        return self._fingerprint


class _ChainedRows:
    def __init__(self, first: Samples, second: Samples) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def __getitem__(self, index: int) -> Row:
        return self._first[index] if index < len(self._first) else self._second[index - len(self._first)]

    def taken(self, indices: Indices) -> Rows:
        """These rows alone."""
        of_first = indices < len(self._first)
        chained = _ChainedRows(self._first.subset(indices[of_first]).packed(), self._second.subset(indices[~of_first] - len(self._first)).packed())
        places = np.where(of_first, np.cumsum(of_first) - 1, of_first.sum() + np.cumsum(~of_first) - 1)
        return _ChosenRows(chained, places)


def union(first: Samples, second: Samples) -> Samples:
    """The samples of both sets, one after the other, with the facts that both have."""
    facts = {name: first.fact(name) + second.fact(name) for name in first.facts if name in second.facts}
    attached = tuple(name for name in first.attached if name in second.attached)
    return Samples(_ChainedRows(first, second), first.ids + second.ids, facts, attached=attached)
