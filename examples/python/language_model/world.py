"""The processes that train together: how they meet, and how they end when one of them does."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.rendezvous import rendezvous

#: How far apart processes may be in starting, compiling and writing checkpoints.
PATIENCE = timedelta(minutes=10)

MEND = "the same command goes on from the newest checkpoint in --out"


@dataclass(frozen=True)
class World:
    """The processes, and this one's place among them."""

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh
    cpus: dist.ProcessGroup  #: the same processes, with the patience that checkpoints need

    def say(self, text: str) -> None:
        """Prints a line, once for all."""
        if self.rank == 0:
            print(text, flush=True)

    def set_timeout(self, seconds: float) -> None:
        """How long this process waits for the others, but for checkpoints, before it ends."""
        for group in (dist.group.WORLD, self.mesh.get_group()):
            assert group is not None
            group.set_timeout(timedelta(seconds=seconds))


@contextmanager
def join_world(device_type: str) -> Iterator[World]:
    """Meets the processes that torchrun started; a process by itself is a world of one."""
    device = torch.device(device_type)
    if device_type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    backend = "nccl" if device_type == "cuda" else "gloo"
    store, rank, size = dist.HashStore(), 0, 1
    if "RANK" in os.environ:
        store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
        # Where torchrun starts all anew, its store still has what the first start left there.
        store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    mesh = init_device_mesh(device_type, (size,))
    cpus = dist.new_group(backend="gloo", timeout=PATIENCE)
    yield World(rank, size, device, mesh, cpus)
    dist.destroy_process_group()


def end(message: str) -> NoReturn:
    """Ends this process with a sentence, at once, whatever its device still waits for."""
    print(f"train_lm, process {os.environ.get('RANK', 0)}: {message}", file=sys.stderr, flush=True)
    os._exit(1)


def end_when_told() -> None:
    """Has a signal end this process with a sentence, though it waits for one that is gone.

    torchrun sends SIGTERM to the others when a process ends. A Python handler would run when the
    wait is over, which for a GPU may be never; what writes to the pipe is not Python.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer)

    def wait() -> None:
        number = os.read(reader, 1)[0]
        why = ", as torchrun does when another has ended" if number == signal.SIGTERM else ""
        end(f"ended by {signal.Signals(number).name}{why}; {MEND}")

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def ending_with_a_sentence() -> Iterator[None]:
    """Ends this process with a sentence for what a user can mend; others keep their traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        end(str(error))
    except RuntimeError as error:
        # What gloo raises has no class of its own.
        if isinstance(error, dist.DistError) or "/gloo/" in str(error):
            end(f"another process has ended or does not answer ({error}); {MEND}")
        raise
