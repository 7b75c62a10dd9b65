"""One directory per run: made stage by stage, each stage in one step, continued after any interruption."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from unlearned.engine.files import sweep, write_text
from unlearned.errors import Fault, InputError, writing

_SCHEMA = "unlearned.run/2"


class RunDirectory:
    """A locked directory of finished stages.

    The lock belongs to the process: it is gone when the process is, however that ends.

    Args:
        path: the directory; made if it does not exist.

    Raises:
        InputError: on entry, if another process works in it, it cannot be written, or it holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / ".lock", timeout=0)

    def __enter__(self) -> RunDirectory:
        with writing("out", self.path):
            foreign = self.path.is_dir() and any(not entry.name.startswith(".") for entry in self.path.iterdir())
            if foreign and not (self.path / "run.json").exists():
                raise InputError(Fault("out", f"{str(self.path)!r} is not empty and not the directory of a run.", "Choose a new or empty directory."))
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
            except Timeout as error:
                raise InputError(Fault("out", f"another run is working in {str(self.path)!r}.", "Wait for it, or choose another directory.")) from error
            self._sweep()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.release()

    def _sweep(self) -> None:
        """Remove what a killed run left behind of unfinished writes. Other hidden files may be the user's and stay."""
        for name in ("run.json", "audit.json", "unlearned", "unlearned/README.md"):
            sweep(self.path / name)
        for leftover in self.path.glob(".report.html.*.tmp"):
            leftover.unlink(missing_ok=True)

    def claim(self, identity: str) -> None:
        """Bind the directory to a run.

        Args:
            identity: hash of everything that decides the run's result.

        Raises:
            InputError: if the directory belongs to a run of another identity.
        """
        mark = self.path / "run.json"
        if mark.exists():
            known = _read(mark)
            if not isinstance(known, dict) or (known.get("schema"), known.get("identity")) != (_SCHEMA, identity):
                what = f"{str(self.path)!r} holds a run of another recipe, of other data, or of another version."
                raise InputError(Fault("out", what, "Choose another directory, or delete this one."))
            return
        write_text(mark, json.dumps({"schema": _SCHEMA, "identity": identity}) + "\n")

    def disown(self) -> None:
        """Undo `claim` where no stage was finished: what refused the run may be mended in its recipe."""
        if not any((self.path / "stages").glob("*.json")):
            self.clear_work()
            (self.path / "run.json").unlink(missing_ok=True)

    def stage(self, name: str, make: Callable[[], Any]) -> Any:
        """The JSON value of a stage: read if it is finished, else made and written in one step."""
        path = self.path / "stages" / f"{name}.json"
        sweep(path)
        if path.exists():
            return _read(path)
        value = make()
        write_text(path, json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
        return _read(path)

    def clear_work(self) -> None:
        """Remove the checkpoints of finished work."""
        shutil.rmtree(self.path / "work", ignore_errors=True)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        what = f"{str(path)!r} is damaged ({type(error).__name__})."
        raise InputError(Fault("out", what, "Choose another directory, or delete this one and run the same command again.")) from error
