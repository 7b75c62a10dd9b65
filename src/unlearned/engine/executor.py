"""Fan-out of independent jobs over local processes."""

from __future__ import annotations

import itertools
import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import TypeVar

import torch

Job = TypeVar("Job")
Result = TypeVar("Result")


def fan_out(work: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[tuple[int, Result]]:
    """Results with the positions of their jobs, as they finish.

    Args:
        work: a function at the top level of a module, so that another process can import it.
        jobs: its arguments; must be picklable when `workers` > 1. Twice as many as there are processes are copied at once.
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
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        waiting = iter(enumerate(jobs))
        futures: dict[Future[Result], int] = {}

        def submit(count: int) -> None:
            for position, job in itertools.islice(waiting, count):
                # Pickled here: between processes torch would otherwise open a file for each tensor.
                futures[pool.submit(_call, work, pickle.dumps(job))] = position

        submit(2 * workers)  # no more at once, because each job is a copy of what it needs
        try:
            while futures:
                done, _ = wait(futures, return_when=FIRST_COMPLETED)
                for future in done:
                    yield futures.pop(future), future.result()
                submit(len(done))
        finally:
            for future in futures:
                future.cancel()


def _call(work: Callable[[Job], Result], job: bytes) -> Result:
    return work(pickle.loads(job))  # noqa: S301  # made by the parent process a moment ago
