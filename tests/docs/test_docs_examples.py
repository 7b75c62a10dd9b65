"""Examples run as they stand, and print what their docstrings say."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from pathlib import Path

import pytest

from tests.docs.conftest import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("[!_]*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.usefixtures("workplace")
def test_an_example_keeps_its_promise(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if path.stem == "diffusion_model":
        pytest.importorskip("diffusers")
    monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
    runpy.run_path(str(path), run_name="__main__")
    promised = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition(":\n\n")[2].partition("\n\n")[0]
    printed = capsys.readouterr().out
    assert promised
    assert printed.strip()
    for line in filter(lambda line: line.strip() != "...", promised.splitlines()):
        assert without_numbers(line) in [without_numbers(other) for other in printed.splitlines()]


def without_numbers(text: str) -> str:
    """Numbers differ a little between machines; what stands around them does not."""
    return re.sub(r"\s+", " ", re.sub(r"\d+(\.\d+)?", "N", text)).strip()
