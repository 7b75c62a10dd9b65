"""Each test of the command line works in a directory of its own, and leaves this process as it was."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from .place import Place
from .text_place import TextPlace


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Place]:
    yield from _in_a_directory(Place, tmp_path, monkeypatch, capfd)


@pytest.fixture
def text_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Place]:
    yield from _in_a_directory(TextPlace, tmp_path, monkeypatch, capfd)


def _in_a_directory(kind: type[Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Place]:
    root = tmp_path / "place"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(root)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # so that a look at the directory shows what the command wrote, and nothing else
    monkeypatch.setenv("UNLEARNED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("UNLEARNED_DEBUG", raising=False)
    threads, before = torch.get_num_threads(), set(sys.modules)
    importlib.invalidate_caches()
    yield kind(root, monkeypatch, capfd)
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(root)):
            del sys.modules[name]
