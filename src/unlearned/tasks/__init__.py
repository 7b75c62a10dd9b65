"""The only place that knows what a sample shows: one task per modality."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from unlearned.registry import Registry

if TYPE_CHECKING:
    from unlearned.tasks._task import Task

tasks: Registry[Task] = Registry("task", "unlearned.tasks", "unlearned.tasks._task:Task")


class TasksWith(Collection[str]):
    """Names of the tasks that define an optional function of the seam; a task of another package is one of them if it does.

    A task that is not registered counts as one: whoever is given it finds out.

    Args:
        function: `constraints`, `features`, ...
    """

    def __init__(self, function: str) -> None:
        self._function = function

    def __contains__(self, name: object) -> bool:
        return name not in tasks or self._defines(str(name))

    def __iter__(self) -> Iterator[str]:
        return filter(self._defines, tasks.names())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _defines(self, name: str) -> bool:
        task = tasks.get(name)
        return getattr(task, self._function) is not getattr(tasks.base(), self._function)
