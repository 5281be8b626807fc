"""What is said of each step: a line for people and one of JSON."""

from __future__ import annotations

import json
import resource
import time
from dataclasses import asdict
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from pararnn_cpp import ScanStatistics

from .world import World

#: Dense products of bfloat16, in 10^12 operations a second, as the maker states them.
PEAKS = {"H100 80GB HBM3": 989.0, "H200": 989.0}


class Moment:
    """When the device has done all that was launched so far."""

    def __init__(self, device: torch.device) -> None:
        self.event = torch.cuda.Event(enable_timing=True) if device.type == "cuda" else None
        if self.event is not None:
            self.event.record()
        self.time = time.monotonic()

    def since(self, earlier: Moment) -> float:
        """Seconds between two moments. Waits for this one."""
        if self.event is None or earlier.event is None:
            return self.time - earlier.time
        self.event.synchronize()
        return earlier.event.elapsed_time(self.event) / 1000


class Report:
    """Reports a step when the next one is launched, so that the device never waits for the host.

    Args:
        file: gets the JSON lines; None: nothing does.
        parameters: of the model, all.
        tokens: a step, of all processes.
        steps: of the run.
        peak: of one device, in 10^12 operations a second; None: as known for the device.
    """

    def __init__(
        self,
        file: Path | None,
        parameters: int,
        tokens: int,
        steps: int,
        peak: float | None,
        world: World,
    ) -> None:
        self.parameters, self.tokens, self.steps, self.world = parameters, tokens, steps, world
        if peak is None and world.device.type == "cuda":
            device = torch.cuda.get_device_name(world.device)
            peak = next((peak for name, peak in PEAKS.items() if name in device), None)
        self.peak = peak
        self.file = None
        if file is not None and world.rank == 0:
            file.parent.mkdir(parents=True, exist_ok=True)
            self.file = file.open("a")
        self.waiting: tuple[int, float, Tensor, Moment] | None = None
        self.restart_clock()

    def restart_clock(self) -> None:
        """What was done since the last step is not part of the next one's time."""
        self.last = Moment(self.world.device)

    def add(self, step: int, rate: float, loss: Tensor, norm: Tensor) -> None:
        """Keeps a step, and reports the one before."""
        values = torch.stack((loss, norm)).to("cpu", non_blocking=True)
        moment = Moment(self.world.device)
        self.finish()
        self.waiting = step, rate, values, moment

    def finish(self) -> None:
        """Reports the step that is kept. Raises ValueError if its loss is not finite."""
        if self.waiting is None:
            return
        step, rate, values, moment = self.waiting
        self.waiting = None
        seconds = moment.since(self.last)
        self.last = moment
        loss, norm = values.tolist()
        if not isfinite(loss) or not isfinite(norm):
            raise ValueError(
                f"the loss of step {step} is {loss} and its gradient's norm {norm}: go on from the "
                "newest checkpoint with a lower --learning-rate"
            )
        speed = self.tokens / seconds
        memory = peak_memory(self.world.device)
        share = None
        if self.peak is not None:
            share = 6 * self.parameters * speed / (self.peak * 1e12 * self.world.size)
        self.write(
            step=step,
            loss=loss,
            gradient_norm=norm,
            learning_rate=rate,
            seconds=seconds,
            tokens_per_second=speed,
            share_of_peak=share,
            peak_memory=memory,
        )
        of_peak = "" if share is None else f", {share:.1%} of the peak"
        self.world.say(
            f"step {step}/{self.steps}: loss {loss:.4f}, gradient {norm:.3f}, "
            f"{speed / 1000:.1f}k tokens/s{of_peak}, {memory / 2**30:.2f} GiB"
        )

    def validation(self, step: int, loss: float) -> None:
        self.write(step=step, validation_loss=loss)
        self.world.say(f"step {step}/{self.steps}: validation loss {loss:.4f}")

    def checkpoint(self, step: int, path: Path, size: int, seconds: float) -> None:
        self.write(step=step, checkpoint=str(path), bytes=size, seconds=seconds)
        self.world.say(f"step {step}/{self.steps}: {path}, {size / 1e9:.3f} GB in {seconds:.1f} s")

    def restored(self, step: int, path: Path, seconds: float) -> None:
        self.write(step=step, restored=str(path), seconds=seconds)
        self.world.say(f"going on from {path}, read in {seconds:.1f} s")

    def scan(self, direction: str, statistics: ScanStatistics) -> None:
        """What the last scan did to be exact."""
        self.write(scan=direction, **asdict(statistics))
        self.world.say(
            f"last scan {direction}: {statistics.plan}, {statistics.chunks} chunks, "
            f"{statistics.columns_corrected} of {statistics.columns} columns corrected, largest "
            f"mismatch {statistics.largest_mismatch:.1e}"
        )

    def write(self, **entry: object) -> None:
        """Writes a JSON line."""
        if self.file is not None:
            self.file.write(json.dumps(entry) + "\n")
            self.file.flush()


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that tensors took on this GPU, or that this process took of the host's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
