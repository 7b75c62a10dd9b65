"""The peak of a process's resident memory, which the scripts beside this one measure in processes of their own. Linux alone.

`resource.getrusage` will not do: a new process begins with the peak of the one that started it.
"""

from __future__ import annotations

import re
from pathlib import Path


def peak_bytes() -> int:
    """The most memory that this process has held, in bytes, since it began or since `forget_peak`."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) * 1024


def forget_peak() -> None:
    """Count from here on: the peak is what is held now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
