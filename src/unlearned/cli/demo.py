"""`unlearned demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from unlearned.cli._shell import Json, Out, Seed, Threads, as_options, finish, say

DEFAULT = "image-classification"


class Listing(TyperCommand):
    """A command whose help ends with the demos that there are."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The demos and what each is."""
        del ctx
        from unlearned.demo import demos

        with formatter.section("Demos"):
            formatter.write_dl([(name, demos.summary(name)) for name in demos])


def demo(
    task: Annotated[str, typer.Argument(help="Which demo; they are listed below.")] = DEFAULT,
    out: Out = None,
    seed: Seed = 0,
    threads: Threads = 2,
    as_json: Json = False,
) -> None:
    """The whole way on an embedded default, within minutes: train, unlearn, audit, attack, report. Without --out, into runs/demo or runs/demo-TASK."""
    from unlearned.demo import run_demo
    from unlearned.engine.settings import Compute

    directory = out or Path("runs") / ("demo" if task == DEFAULT else f"demo-{task}")
    with as_options({"demo": "TASK"}):
        record = run_demo(task, directory, seed=seed, compute=Compute(device="cpu", threads=threads), show_progress=not as_json, say=say)
    finish(record, as_json, directory)
