"""Runs a recipe over and over, each time killed at another moment and then run again. A program of its own: it forks, which pytest should not.

A moment is a call that changes what is on disk, or a training step; they are counted, so that the same number means the same moment each time. A kill is
SIGKILL, from which no handler can clean up; one that falls on the writing of weights leaves half a file.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import accelerate  # noqa: F401  # imported before the forks, which then cost nothing
import numpy as np
import torch
import torch._dynamo
import transformers.modeling_utils

import unlearned.engine.checkpoints
import unlearned.report.html
import unlearned.report.plots
import unlearned.tasks._models
from unlearned.engine.meter import Meter
from unlearned.pipeline import run
from unlearned.recipe import read_recipe

PHASES = {"reference models": "references", "unlearning": "unlearning", "audit": "audits", "attack": "attack"}


class Moment(NamedTuple):
    """A call that was counted."""

    phase: str
    call: str


class Watch:
    """Counts moments and kills this process at one of them.

    Args:
        kill_at: number of the moment, from 0; None: none.
    """

    def __init__(self, kill_at: int | None) -> None:
        self.kill_at = kill_at
        self.moments: list[Moment] = []
        self.phase = "start"
        self.steps = 0
        self._hook(Meter, "count")
        for owner, name in (
            (Path, "replace"),
            (Path, "rename"),
            (Path, "mkdir"),
            (os, "fsync"),
            (tempfile, "mkstemp"),
            (tempfile, "mkdtemp"),
            (shutil, "rmtree"),
        ):
            self._hook(owner, name)
        for owner in (unlearned.engine.checkpoints, unlearned.tasks._models):
            self._hook(owner, "save_file")
        self._hook(transformers.modeling_utils, "safe_save_file")

    def _hook(self, owner: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def counted(*arguments: Any, **more: Any) -> Any:
            if len(self.moments) == self.kill_at:
                if name.endswith("save_file"):
                    real(*arguments, **more)
                    os.truncate(_file(arguments, more), _file(arguments, more).stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            self.moments.append(Moment(self.phase, name))
            if name == "count":
                self.steps += 1
                self.tell()
            # Against SIGKILL no sync is needed: what was written is in the system's memory, whatever becomes of the process.
            return None if name == "fsync" else real(*arguments, **more)

        setattr(owner, name, counted)

    def said(self, message: str) -> None:
        """What the run says shows where it is."""
        self.phase = next((phase for start, phase in PHASES.items() if start in message), self.phase)

    def tell(self) -> None:
        """Leave the number of steps to the parent process, which outlives this one."""
        Path("../steps").write_text(str(self.steps), encoding="utf-8")


def _file(arguments: tuple[Any, ...], more: dict[str, Any]) -> Path:
    """Where weights are written, however it is given."""
    return Path(more.get("filename") or arguments[1])


def attempt(place: Path, kill_at: int | None = None) -> dict[str, Any]:
    """Run the recipe in another process and say how it ended."""
    (place / "moments.json").write_text("[]", encoding="utf-8")
    (place / "steps").write_text("0", encoding="utf-8")
    child = os.fork()
    if child == 0:
        code = 3
        try:
            os.chdir(place / "work")
            os.environ["UNLEARNED_CACHE"] = str(place / "cache")
            torch.manual_seed(os.getpid())  # what the process drew before must not matter
            watch = Watch(kill_at)
            record = run(read_recipe(Path("recipe.yaml")), Path("out"), say=watch.said)
            (place / "moments.json").write_text(json.dumps(_with_report(watch.moments)), encoding="utf-8")
            code = 0 if record else 3
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return {
        "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
        "code": os.waitstatus_to_exitcode(status),
        "steps": int((place / "steps").read_text(encoding="utf-8")),
        "moments": json.loads((place / "moments.json").read_text(encoding="utf-8")),
    }


def _with_report(moments: list[Moment]) -> list[Moment]:
    """What comes after the last stage is the report."""
    last_step = max(i for i, moment in enumerate(moments) if moment.call == "count") if any(m.call == "count" for m in moments) else 0
    stage_done = next((i for i in range(last_step, len(moments)) if moments[i].call == "replace"), len(moments))
    return [moment._replace(phase="report") if i > stage_done else moment for i, moment in enumerate(moments)]


def choose(moments: list[list[str]], wanted: dict[str, int]) -> list[int]:
    """So many moments of each phase, at random but the same each time."""
    random = np.random.default_rng(2024)
    chosen: list[int] = []
    for phase, count in wanted.items():
        among = [i for i, (name, _) in enumerate(moments) if name == phase]
        chosen += sorted(random.choice(among, count, replace=False).tolist())
    return chosen


def main(base: Path, wanted: dict[str, int]) -> None:
    """Print as JSON how the undisturbed run and those that are killed so many times in each phase went; `base/place` is copied for each."""
    torch.set_num_threads(1)
    read_recipe(base / "place" / "recipe.yaml")  # imports its parts, once for all

    def fresh(name: str) -> Path:
        (base / name).mkdir()
        shutil.copytree(base / "place", base / name / "work")
        return base / name

    undisturbed = attempt(fresh("undisturbed"))
    trials = []
    for number, moment in enumerate(choose(undisturbed["moments"], wanted)):
        place = fresh(f"killed-{number}")
        trials.append({"moment": undisturbed["moments"][moment], "first": attempt(place, moment), "second": attempt(place)})
    print(json.dumps({"undisturbed": undisturbed, "trials": trials}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
