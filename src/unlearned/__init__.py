"""Make a trained model forget, and show with evidence what is gone, what it cost elsewhere and how it could come back.

The names below are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlearned.api import Forgotten, attack, attack_all, audit, forget, load, make_problem, rank, trace
    from unlearned.comparing import compare
    from unlearned.data.samples import Samples
    from unlearned.engine.engine import Engine
    from unlearned.engine.settings import Compute
    from unlearned.errors import DivergedError, InputError, UnlearnedError
    from unlearned.exact._result import Exact
    from unlearned.exact.deep_linear import forget_deep_linear
    from unlearned.exact.linear import forget_linear
    from unlearned.exact.two_layer import forget_two_layer
    from unlearned.influence._rank import Ranking
    from unlearned.influence._trace import Traced
    from unlearned.methods._edits import Edit, load_edits, save_adapter, save_edits
    from unlearned.methods.lunar import forget_in_turn
    from unlearned.pipeline import run
    from unlearned.problem import Problem
    from unlearned.recipe import parse_recipe, read_recipe
    from unlearned.records import AuditRecord, CompareRecord, Finding
    from unlearned.repairing import RepairSpec, repair
    from unlearned.report import write_report
    from unlearned.selection import SelectionSpec
    from unlearned.tasks._task import Bundle

_HOMES = {
    "AuditRecord": "records",
    "Bundle": "tasks._task",
    "CompareRecord": "records",
    "Compute": "engine.settings",
    "Edit": "methods._edits",
    "DivergedError": "errors",
    "Engine": "engine.engine",
    "Exact": "exact._result",
    "Finding": "records",
    "Forgotten": "api",
    "InputError": "errors",
    "Problem": "problem",
    "Ranking": "influence._rank",
    "Samples": "data.samples",
    "RepairSpec": "repairing",
    "SelectionSpec": "selection",
    "Traced": "influence._trace",
    "UnlearnedError": "errors",
    "attack": "api",
    "attack_all": "api",
    "audit": "api",
    "compare": "comparing",
    "forget": "api",
    "forget_deep_linear": "exact.deep_linear",
    "forget_in_turn": "methods.lunar",
    "forget_linear": "exact.linear",
    "forget_two_layer": "exact.two_layer",
    "load": "api",
    "load_edits": "methods._edits",
    "make_problem": "api",
    "parse_recipe": "recipe",
    "rank": "api",
    "read_recipe": "recipe",
    "repair": "repairing",
    "run": "pipeline",
    "save_adapter": "methods._edits",
    "save_edits": "methods._edits",
    "trace": "api",
    "write_report": "report",
}

__all__ = [
    "AuditRecord",
    "Bundle",
    "CompareRecord",
    "Compute",
    "DivergedError",
    "Edit",
    "Engine",
    "Exact",
    "Finding",
    "Forgotten",
    "InputError",
    "Problem",
    "Ranking",
    "RepairSpec",
    "Samples",
    "SelectionSpec",
    "Traced",
    "UnlearnedError",
    "attack",
    "attack_all",
    "audit",
    "compare",
    "forget",
    "forget_deep_linear",
    "forget_in_turn",
    "forget_linear",
    "forget_two_layer",
    "load",
    "load_edits",
    "make_problem",
    "parse_recipe",
    "rank",
    "read_recipe",
    "repair",
    "run",
    "save_adapter",
    "save_edits",
    "trace",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unlearned' has no attribute {name!r}")
    return getattr(importlib.import_module(f"unlearned.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
