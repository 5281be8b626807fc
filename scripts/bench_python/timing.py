"""How long something takes, on a CPU or a GPU."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

MOST_REPEATS = 50
CALLS = 100  # in a row, fewer than the queue of a GPU holds


@dataclass(frozen=True)
class Timer:
    """Takes times on one device: of as many calls as `seconds` has room for, and at least one."""

    device: torch.device
    seconds: float

    def seconds_of(self, run: Callable[[], object]) -> float:
        """The median time of a call, until the device is done with it.

        For as long as it is timed it runs before: kernels are compiled, memory is found, and scans
        learn which plan is fastest.
        """

        def timed() -> float:
            self.wait()
            start = time.perf_counter()
            run()
            self.wait()
            return time.perf_counter() - start

        self._repeat(timed)
        return statistics.median(self._repeat(timed))

    def host_seconds_of(self, run: Callable[[], object]) -> float:
        """The time until a call returns, whatever the device is still doing.

        The least of many means: what else the host does only adds to it.
        """

        def timed() -> float:
            self.wait()
            start = time.perf_counter()
            for _ in range(CALLS):
                run()
            return time.perf_counter() - start

        self._repeat(timed)
        return min(self._repeat(timed)) / CALLS

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _repeat(self, timed: Callable[[], float]) -> list[float]:
        results: list[float] = []
        while not results or (sum(results) < self.seconds and len(results) < MOST_REPEATS):
            results.append(timed())
        return results


def describe_machine(device: torch.device) -> dict[str, Any]:
    """In the words of `pararnn bench`."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return {
            "processor": properties.name,
            "multiprocessors": properties.multi_processor_count,
            "libtorch": torch.__version__,
        }
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else "unknown",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "libtorch": torch.__version__,
    }
