"""The verdict on a cell: does it parallelise along the sequence, and why?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ._cells import Cell, key_of
from ._library import load_verdict, operators


class Verdict(dict[str, Any]):
    """The figures, as `pararnn cells check --json` writes them; prints as its report does."""

    def __str__(self) -> str:
        return str(operators._verdict_text(json.dumps(self)))

    def save_page(self, path: str | Path) -> None:
        """Writes a page with plots, as `pararnn cells check --html` does."""
        Path(path).write_text(operators._verdict_page(json.dumps(self)), encoding="utf-8")


def verdict(cell: str | Cell, devices: Sequence[str | torch.device] | None = None) -> Verdict:
    """What is found out about a cell: whether its derivatives are right, the engine equals its
    loop, how fast it forgets, how Newton's method converges, Lyapunov exponents, cost.

    Args:
        cell: a name, a file or a `Cell`.
        devices: where to check and time it; the CPU, and the GPU if there is one, unless given.

    Returns:
        sections of figures; `verdict(cell)["conclusion"]` says whether it parallelises well, with
        corrections, or runs in sequence. Takes 10 to 60 seconds.

    Raises:
        RuntimeError: if there is no such cell.
    """
    load_verdict()
    if devices is None:
        devices = ["cpu", "cuda:0"] if torch.cuda.is_available() else ["cpu"]
    return Verdict(
        json.loads(operators._verdict(key_of(cell), json.dumps([str(d) for d in devices])))
    )
