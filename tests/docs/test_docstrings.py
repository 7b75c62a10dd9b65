"""What is public has a docstring."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.conftest import ROOT

MODULES = sorted((ROOT / "src" / "unlearned").rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT / "src").as_posix())
def test_public_names_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module has none"
    without = [f"{path.name}:{node.lineno} {node.name}" for node in public(tree.body, {}) if not ast.get_docstring(node)]
    assert not without


Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def public(body: list[ast.stmt], inherited: dict[str, Definition]) -> Iterator[Definition]:
    """Classes, functions and methods of public names; not what is defined inside functions, nor what overrides a documented method."""
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_") and node.name not in inherited:
            yield node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public(node.body, {} if not node.bases else OVERRIDDEN)


SEAMS = (
    "tasks/_task.py",
    "methods/_method.py",
    "methods/_forget_retain.py",
    "methods/_adversary.py",
    "demo/_demo.py",
    "evidence/measurement.py",
    "audits/_audit.py",
    "holes/_seams.py",
    "attacks/_attack.py",
    "influence/_score.py",
    "engine/bank.py",
    "bench/_suite.py",
)


def _documented_methods() -> dict[str, Definition]:
    """Methods of the seams and abstract methods, by name: whoever implements one need not explain it again."""
    found: dict[str, Definition] = {}
    for path in MODULES:
        seam = path.relative_to(ROOT / "src" / "unlearned").as_posix() in SEAMS
        classes = [part for part in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(part, ast.ClassDef)]
        methods = [node for part in classes for node in part.body if isinstance(node, ast.FunctionDef) and ast.get_docstring(node)]
        found |= {node.name: node for node in methods if seam or any(ast.unparse(name) == "abstractmethod" for name in node.decorator_list)}
    return found


OVERRIDDEN = _documented_methods()
