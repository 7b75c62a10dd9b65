"""`unlearned demo`."""

from __future__ import annotations

from pathlib import Path

from unlearned.cli._shell import Json, Out, Seed, Threads, finish, say


def demo(out: Out = None, seed: Seed = 0, threads: Threads = 2, as_json: Json = False) -> None:
    """The whole way on handwritten digits: a small network forgets the digit 3, within three minutes."""
    from unlearned.demo import run_demo
    from unlearned.engine.settings import Compute

    directory = out or Path("runs/demo")
    record = run_demo(directory, seed=seed, compute=Compute(device="cpu", threads=threads), show_progress=not as_json, say=say)
    finish(record, as_json, directory)
