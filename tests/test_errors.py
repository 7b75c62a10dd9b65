"""Failures of the file system where something is written: all are words, and nothing else becomes one."""

from __future__ import annotations

import errno
import os

import pytest

from unlearned.errors import InputError, writing


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ENOSPC, errno.EIO, errno.ESTALE, errno.ELOOP, errno.ENODEV])
def test_what_the_file_system_refuses_is_said_with_a_remedy(code: int) -> None:
    with pytest.raises(InputError) as error, writing("out", "there"):
        raise OSError(code, os.strerror(code))
    [fault] = error.value.faults
    assert (fault.field, fault.what) == ("out", f"'there' cannot be written ({os.strerror(code)}).")
    assert fault.remedy.endswith(".")


@pytest.mark.parametrize(
    "error", [ValueError("a defect"), OSError("without a number"), ConnectionResetError(errno.ECONNRESET, "gone"), TimeoutError(110, "late")]
)
def test_what_is_no_failure_of_the_file_system_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)), writing("out", "there"):
        raise error
