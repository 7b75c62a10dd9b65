"""Make a trained model forget, and show with evidence what is gone, what it cost elsewhere and how it could come back.

The names below are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlearned.api import Forgotten, attack, audit, forget, load, make_problem
    from unlearned.comparing import compare
    from unlearned.data.samples import Samples
    from unlearned.engine.engine import Engine
    from unlearned.engine.settings import Compute
    from unlearned.errors import DivergedError, InputError, UnlearnedError
    from unlearned.pipeline import run
    from unlearned.problem import Problem
    from unlearned.recipe import parse_recipe, read_recipe
    from unlearned.records import AuditRecord, CompareRecord, Finding
    from unlearned.report import write_report
    from unlearned.tasks._task import Bundle

_HOMES = {
    "AuditRecord": "records",
    "Bundle": "tasks._task",
    "CompareRecord": "records",
    "Compute": "engine.settings",
    "DivergedError": "errors",
    "Engine": "engine.engine",
    "Finding": "records",
    "Forgotten": "api",
    "InputError": "errors",
    "Problem": "problem",
    "Samples": "data.samples",
    "UnlearnedError": "errors",
    "attack": "api",
    "audit": "api",
    "compare": "comparing",
    "forget": "api",
    "load": "api",
    "make_problem": "api",
    "parse_recipe": "recipe",
    "read_recipe": "recipe",
    "run": "pipeline",
    "write_report": "report",
}

__all__ = [
    "AuditRecord",
    "Bundle",
    "CompareRecord",
    "Compute",
    "DivergedError",
    "Engine",
    "Finding",
    "Forgotten",
    "InputError",
    "Problem",
    "Samples",
    "UnlearnedError",
    "attack",
    "audit",
    "compare",
    "forget",
    "load",
    "make_problem",
    "parse_recipe",
    "read_recipe",
    "run",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unlearned' has no attribute {name!r}")
    return getattr(importlib.import_module(f"unlearned.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
