"""What a run keeps in its folder: run.json, with what may not change, and its checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as distributed_checkpoint
from torch import nn

from .world import World


def require_same_run(folder: Path, settings: dict[str, Any]) -> None:
    """Writes the settings down, or compares them with those that are.

    Raises ValueError with the first that is another.
    """
    file = folder / "run.json"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings, indent=2) + "\n")
        return
    before = json.loads(file.read_text())
    for name, value in settings.items():
        if before.get(name) != value:
            raise ValueError(
                f"{name} is {value}, but {before.get(name)} in the run in {folder}: give that, or "
                "another --out"
            )


def checkpoints(folder: Path) -> dict[int, Path]:
    """The complete checkpoints by their step, in order. Of each, `.metadata` is written last."""
    found = (file.parent for file in folder.glob("step-*/.metadata"))
    return {int(path.name.removeprefix("step-")): path for path in sorted(found)}


def training_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The tensors themselves, of which each process has a part, by name.

    The optimizer is asked for its parameters, as after a forward pass alone the model's are those
    that were gathered for it.
    """
    states = {
        name: optimizer.state[parameter]
        for group in optimizer.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
    }
    return {"model": model.state_dict(), "optimizer": states}


def save(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    keep: int,
    world: World,
) -> tuple[Path, int]:
    """Writes a checkpoint, each process its part, and deletes all but the newest ones.

    Returns its folder and its bytes.
    """
    path = folder / f"step-{step:08}"
    state = training_state(model, optimizer)
    # Checksums, which nothing that reads a checkpoint looks at, would take two thirds of the time.
    torch.serialization.set_crc32_options(False)
    # With a single thread, copies of all that is written would stay in pinned memory ever after.
    writer = distributed_checkpoint.FileSystemWriter(path, thread_count=4)
    distributed_checkpoint.save(state, storage_writer=writer, process_group=world.cpus)
    if world.rank == 0:
        for old in list(checkpoints(folder).values())[:-keep]:
            shutil.rmtree(old)
    return path, sum(file.stat().st_size for file in path.iterdir())


def restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, world: World) -> None:
    """Reads a checkpoint, from whatever number of processes."""
    # The optimizer makes its state in its first step, here one that changes nothing.
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    state = training_state(model, optimizer)
    distributed_checkpoint.load(state, checkpoint_id=path, process_group=world.cpus)
