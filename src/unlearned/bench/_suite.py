"""The seam of suites: settings that divide an experiment into cells, each computed once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field

from unlearned.engine.settings import Compute, Settings
from unlearned.records import BenchRow, Quoted


@dataclass(frozen=True)
class Place:
    """Where a cell finds what it needs."""

    data: Path | None
    """Directory of the data sets that the suite reads; None: those that come with installed packages."""
    cache: Path
    """Directory for models that several cells share (a bank), and other work that is slow to repeat."""
    compute: Compute
    show_progress: bool = False


class Cell(ABC):
    """One independent part of a suite. A frozen dataclass: picklable, its representation says everything that decides its rows."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What it is called at the progress bar."""

    @abstractmethod
    def run(self, place: Place) -> Sequence[BenchRow]:
        """Compute the rows."""


class Suite(Settings, ABC):
    """An experiment with its settings."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Counts changes of the suite that give other numbers; cells of another version are not used."""
    statistic: ClassVar[Literal["mean", "median"]] = "mean"
    """How rows of several seeds are put together."""
    paper: ClassVar[Mapping[Quoted, float]] = {}
    """The numbers of the paper. They stand beside ours; what differs is said in the module's docstring."""
    seeds: int = Field(3, ge=1, le=1000, description="Repetitions with different seeds.")

    @classmethod
    @abstractmethod
    def quick(cls) -> Self:
        """Settings with which it ends within two minutes on two cores."""

    @abstractmethod
    def cells(self) -> Sequence[Cell]:
        """Its parts, in the order in which they are computed."""

    def derived(self, rows: Sequence[BenchRow]) -> Sequence[BenchRow]:
        """What follows from the rows of all cells together, such as who is on a front; put after them."""
        del rows
        return ()

    @classmethod
    def shown(cls, row: BenchRow) -> BenchRow:
        """The row as it stands in tables and plots, where settings are columns."""
        return row

    def require(self, place: Place) -> None:
        """Check that everything is there that the cells need, before any work.

        Raises:
            InputError: if it is not.
        """
        del place
