"""The only place that knows what a sample shows: one task per modality."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unlearned.registry import Registry

if TYPE_CHECKING:
    from unlearned.tasks._task import Task

tasks: Registry[Task] = Registry("task", "unlearned.tasks", "unlearned.tasks._task:Task")
