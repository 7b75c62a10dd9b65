"""A progress bar on standard error for long work; silent where nobody watches."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Bar:
    """Counts steps. Shows nothing unless `show` was asked for and standard error is a terminal."""

    def __init__(self, advance: object = None) -> None:
        self._advance = advance
        self._pending = 0
        self._shown_at = 0.0

    def step(self, note: str = "") -> None:
        """One step done; redraws at most ten times a second."""
        self._pending += 1
        if callable(self._advance) and time.monotonic() - self._shown_at > 0.1:
            self._advance(self._pending, note)
            self._pending, self._shown_at = 0, time.monotonic()


@contextmanager
def progress_bar(title: str, total: int, show: bool, done: int = 0) -> Iterator[Bar]:
    """A bar of `total` steps of which `done` were done before."""
    if not (show and sys.stderr.isatty()):
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        job = shown.add_task(title, total=total, completed=done, note="")
        yield Bar(lambda steps, note: shown.update(job, advance=steps, note=note))
