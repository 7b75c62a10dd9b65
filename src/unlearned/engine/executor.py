"""Fan-out of independent jobs over local processes."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

import torch

Job = TypeVar("Job")
Result = TypeVar("Result")


def fan_out(work: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[tuple[int, Result]]:
    """Results with the positions of their jobs, as they finish.

    Args:
        work: must be picklable when `workers` > 1, as a function at the top level of a module is. Each process reads it once, from a file: what all jobs
            have in common belongs here.
        jobs: its arguments; must be picklable when `workers` > 1. They are pickled one at a time, as processes become free.
        workers: processes. 1: the jobs run here, in order.

    The first job that fails stops those that have not begun, and its error is raised.
    """
    if workers == 1 or len(jobs) <= 1:
        for position, job in enumerate(jobs):
            yield position, work(job)
        return
    # Started afresh rather than forked: a fork copies the locks of torch's thread pool in whatever state they are.
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // workers)
    with tempfile.TemporaryDirectory(prefix="unlearned-") as directory:
        shared = Path(directory) / "work.pickle"
        with shared.open("wb") as file:
            pickle.dump(work, file)
        with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
            waiting = iter(enumerate(jobs))
            running: dict[Future[Any], int] = {}
            try:
                while True:
                    # One more than there are processes: none waits while the next job is pickled.
                    for position, job in itertools.islice(waiting, workers + 1 - len(running)):
                        # Pickled here: between processes torch would otherwise open a file for each tensor.
                        running[pool.submit(_call, shared, pickle.dumps(job))] = position
                    if not running:
                        return
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield running.pop(future), future.result()
            finally:
                for future in running:
                    future.cancel()


def _call(shared: Path, job: bytes) -> Any:
    return _read(shared)(pickle.loads(job))  # noqa: S301  # made by the parent process a moment ago


@functools.cache
def _read(shared: Path) -> Callable[[Any], Any]:
    with shared.open("rb") as file:
        work: Callable[[Any], Any] = pickle.load(file)  # noqa: S301  # as above
    return work
