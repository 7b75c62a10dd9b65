"""What can go wrong, said so that the reader can act on it.

Every message names *what* is wrong, *which value* it has and *what to do*. The command line turns each class into its exit code and
prints the message alone, never a traceback.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple


class Fault(NamedTuple):
    """One thing that is wrong with an input."""

    field: str
    """Where: the path of a recipe field (`method.lr`), an option (`--before`) or an argument."""
    what: str
    """What is wrong, with the value."""
    remedy: str
    """What to do about it."""

    def __str__(self) -> str:
        return f"{self.field}: {self.what} {self.remedy}"


class UnlearnedError(Exception):
    """Root of all errors that this package raises on purpose."""

    exit_code = 3


class InputError(UnlearnedError):
    """The input is wrong. Holds every fault that was found, not only the first.

    Args:
        faults: what is wrong; at least one.
    """

    exit_code = 2

    def __init__(self, *faults: Fault) -> None:
        self.faults = faults
        lines = [str(fault) for fault in faults]
        message = lines[0] if len(lines) == 1 else "\n".join([f"{len(lines)} things are wrong with the input:", *(f"  - {line}" for line in lines)])
        super().__init__(message)

    def __reduce__(self) -> tuple[type[InputError], tuple[Fault, ...]]:
        # The default rebuilds from `args`, which is the rendered message; worker processes need the faults.
        return type(self), self.faults


class DivergedError(UnlearnedError):
    """Training left the range in which numbers mean anything."""


def raise_faults(faults: Iterable[Fault]) -> None:
    """Raise one `InputError` for all faults; do nothing when there are none.

    Raises:
        InputError: if there is at least one fault.
    """
    found = list(dict.fromkeys(faults))
    if found:
        raise InputError(*found)


class collecting:  # noqa: N801  # reads as a word where it is used
    """Keep the faults of an `InputError` instead of raising it, so that what comes next is checked too."""

    def __init__(self, faults: list[Fault]) -> None:
        self._faults = faults

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        if isinstance(error, InputError):
            self._faults += error.faults
            return True
        return False


_REMEDIES = {
    errno.ENOENT: "Nothing can be made there. Choose a directory that exists, or one that you may make.",
    errno.ENOSPC: "The disk is full. Free some space or choose another directory, then run the same command again: finished stages are kept.",
    errno.EDQUOT: "Your disk quota is used up. Free some space or choose another directory, then run the same command again.",
    errno.EFBIG: "The file would exceed the size limit that is set for this process. Raise it (`ulimit -f`) or choose another directory.",
    errno.EACCES: "You may not write there. Choose a directory that you own.",
    errno.EPERM: "You may not write there. Choose a directory that you own.",
    errno.EROFS: "That file system is read-only. Choose another directory.",
    errno.ENOTDIR: "A part of that path is a file. Choose a path whose parents are directories.",
    errno.EEXIST: "A file of that name is in the way. Choose another directory.",
    errno.EISDIR: "A directory of that name is in the way. Choose another file name.",
    errno.ENAMETOOLONG: "That name is too long for the file system. Choose a shorter one.",
}


@contextmanager
def writing(field: str, path: object) -> Iterator[None]:
    """Turn the failures of a write that the user can mend into an `InputError` that names `field` and `path`.

    Raises:
        InputError: if the file system refuses: the disk is full, the path may not be written, something is in its way.
    """
    try:
        yield
    except UnlearnedError:
        raise
    except Exception as error:  # safetensors has its own kind for failures of the file system
        code = _errno(error)
        if not code or isinstance(error, (ConnectionError, TimeoutError)):
            raise
        remedy = _REMEDIES.get(code, "Mend that, or choose another directory.")
        raise InputError(Fault(field, f"{str(path)!r} cannot be written ({os.strerror(code)}).", remedy)) from error


def _errno(error: Exception) -> int:
    """Number of a failure of the file system; 0: it is something else. Libraries written in Rust put the number into the text."""
    if isinstance(error, OSError):
        return error.errno or 0
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else 0
