"""Writing so that a reader never sees half of it: into a temporary neighbour, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unlearned.errors import writing


@contextmanager
def atomic_directory(path: Path, field: str = "out") -> Iterator[Path]:
    """A fresh directory to fill; it takes the place of `path` when the block ends without an error, and vanishes otherwise.

    Raises:
        InputError: if it cannot be written.
    """
    with writing(field, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield fresh
            fresh.chmod(0o755)
            _sync(fresh)
            if path.exists():
                # Directories cannot be replaced in one step. The old one goes aside first; a crash in between leaves no half, only none.
                old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
                path.rename(old / path.name)
                fresh.rename(path)
                shutil.rmtree(old)
            else:
                fresh.rename(path)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise


def require_writable(path: Path, field: str) -> None:
    """Find out whether a file can be written there, before the work that it is to hold. Nothing is left behind.

    Raises:
        InputError: if it cannot be written.
    """
    with writing(field, path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        place = next(parent for parent in path.absolute().parents if parent.exists())
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=place)
        os.close(handle)
        Path(name).unlink()


def write_text(path: Path, text: str, field: str = "out") -> None:
    """Write a text file in one step.

    Raises:
        InputError: if it cannot be written.
    """
    write_bytes(path, text.encode("utf-8"), field)


def write_bytes(path: Path, content: bytes, field: str = "out") -> None:
    """Write a file in one step.

    Raises:
        InputError: if it cannot be written.
    """
    with writing(field, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def sweep(path: Path) -> None:
    """Remove what a killed process left behind of its unfinished writes of `path`."""
    for leftover in path.parent.glob(f".{path.name}.????????"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
