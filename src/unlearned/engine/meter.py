"""What a piece of work costs: time, memory, samples."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import psutil
import torch

from unlearned.records import Cost


class Meter:
    """Measures from entry to exit; counts what it is told.

    Work that continues after an interruption carries over what it had cost before (`carry`).
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._samples = 0
        self._steps = 0
        self._carried = Cost(wall_seconds=0, cpu_seconds=0, peak_memory_bytes=0, samples_seen=0, steps=0)
        self._peak = 0
        self._stop = threading.Event()
        self._sampler: threading.Thread | None = None
        self._wall = self._cpu = self._beside = 0.0

    def __enter__(self) -> Meter:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            self._sampler = threading.Thread(target=self._sample_memory, daemon=True)
            self._sampler.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._sampler:
            self._sampler.join()

    def count(self, samples: int, steps: int = 1) -> None:
        """Add samples whose gradients were computed, and steps."""
        self._samples += samples
        self._steps += steps

    def beside(self, cpu_seconds: float) -> None:
        """Add processor time of other processes that did a part of the work."""
        self._beside += cpu_seconds

    def carry(self, cost: Cost) -> None:
        """Add what earlier attempts at the same work had cost; what this one counted so far, it repeated of them."""
        self._carried = cost
        self._samples = self._steps = 0
        self._beside = 0.0

    @property
    def cost(self) -> Cost:
        """Cost so far."""
        peak = torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else self._peak
        return self._carried + Cost(
            wall_seconds=time.perf_counter() - self._wall,
            cpu_seconds=time.process_time() - self._cpu + self._beside,
            peak_memory_bytes=peak,
            samples_seen=self._samples,
            steps=self._steps,
        )

    def _sample_memory(self) -> None:
        process = psutil.Process()
        while True:
            self._peak = max(self._peak, process.memory_info().rss)
            if self._stop.wait(0.02):
                return
