"""What is run here works in a directory of its own, with one thread, and leaves the interpreter as it was."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory from which modules can be imported."""
    monkeypatch.setenv("UNLEARNED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")
    here = tmp_path / "work"
    here.mkdir()
    monkeypatch.chdir(here)
    # Replaced, so that what is inserted meanwhile goes away with it. Two tests may have modules of the same name.
    monkeypatch.setattr(sys, "path", [str(here), *sys.path])
    before = set(sys.modules)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield here
    torch.set_num_threads(threads)
    own = (str(tmp_path), str(ROOT / "examples"))
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(own):
            del sys.modules[name]
