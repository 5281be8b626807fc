"""The operators of the library: pure functions of tensors, without derivatives, whose shapes are
told here to whoever compiles or exports a graph of them, for any number of steps.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from ._library import operators

# Options are cell, plan, chunk, burn_in, tolerance. Starts, where states start anew within rows,
# are cu_seqlens and reset.
#: u, w, h0, *options, *starts -> y, hT
scan = operators._scan.default
#: the same with the default options, without starts: u, w, h0, cell -> y, hT
plain_scan = operators._plain_scan.default
#: u, w, h0, *options, the device's checkpoint interval, *starts -> y, hT, checkpoints, remembers
scan_forward = operators._scan_forward.default
#: u, w, checkpoints, remembers, dy, dhT, *options, h0, *starts -> du, dw, dh0
scan_backward = operators._scan_backward.default
#: u, w, h, cell -> y, h
step = operators._step.default

#: plain_scan and step as outside of torch.compile, which knows operators alone: theirs is one more
#: Python function around this, a tenth of a step's time
eager_plain_scan, eager_step = (getattr(op, "_op", op) for op in (plain_scan, step))


def state_count(cell: str) -> int:
    """S of a cell, by its name, key or file. Raises RuntimeError if there is none."""
    return int(operators._state_count(cell))


@cache
def tangent_of(cell: str) -> str:
    """The key of the tangent of the cell with that key."""
    return str(operators._tangent_key(cell))


def checkpoint_interval(u: Tensor) -> int:
    """Steps from one kept state to the next, on u's device."""
    return _intervals.get(u.device.type, _intervals["cpu"])


_intervals = {
    device: int(operators._checkpoint_interval(torch.device(device))) for device in ("cpu", "cuda")
}


def arithmetic_of(u: Tensor) -> torch.dtype:
    """The dtype that u is computed with, and that its states have."""
    return torch.float64 if u.dtype == torch.float64 else torch.float32


def sequences_of(u: Tensor, cu_seqlens: Tensor | None) -> int:
    """N of the states h0 and hT (N,S,D)."""
    return u.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1


@torch.library.register_fake("pararnn::_plain_scan")  # type: ignore[untyped-decorator]
@torch.library.register_fake("pararnn::_scan")  # type: ignore[untyped-decorator]
def _(
    u: Tensor,
    w: Tensor,
    h0: Tensor | None,
    cell: str,
    plan: str = "auto",
    chunk: int = 0,
    burn_in: int = -1,
    tolerance: float = 0.0,
    cu_seqlens: Tensor | None = None,
    reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    batch, steps, channels = u.shape[0], u.shape[1], w.shape[1]
    sequences, state = sequences_of(u, cu_seqlens), state_count(cell)
    return (
        u.new_empty(batch, steps, channels),
        u.new_empty(sequences, state, channels, dtype=arithmetic_of(u)),
    )


@torch.library.register_fake("pararnn::_scan_forward")  # type: ignore[untyped-decorator]
def _(
    u: Tensor,
    w: Tensor,
    h0: Tensor | None,
    cell: str,
    plan: str,
    chunk: int,
    burn_in: int,
    tolerance: float,
    interval: int,
    cu_seqlens: Tensor | None = None,
    reset: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, steps, channels = u.shape[0], u.shape[1], w.shape[1]
    state, dtype = state_count(cell), arithmetic_of(u)
    count = (steps + interval - 1) // interval if interval > 0 else 0
    return (
        u.new_empty(batch, steps, channels),
        u.new_empty(sequences_of(u, cu_seqlens), state, channels, dtype=dtype),
        u.new_empty(batch, count, state, channels, dtype=dtype),
        u.new_empty(1 if u.device.type == "cpu" else 0, dtype=torch.bool),
    )


@torch.library.register_fake("pararnn::_scan_backward")  # type: ignore[untyped-decorator]
def _(
    u: Tensor,
    w: Tensor,
    checkpoints: Tensor,
    remembers: Tensor | None,
    dy: Tensor,
    dhT: Tensor,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    in_order = u if u.shape[-1] == 1 or u.stride(-1) == 1 else u.contiguous()
    return (
        torch.empty_like(in_order),
        w.new_empty(w.shape, dtype=arithmetic_of(u)),
        dhT.new_empty(dhT.shape, dtype=arithmetic_of(u)),
    )


@torch.library.register_fake("pararnn::_step")  # type: ignore[untyped-decorator]
def _(u: Tensor, w: Tensor, h: Tensor, cell: str) -> tuple[Tensor, Tensor]:
    batch, channels = u.shape[0], w.shape[1]
    return (
        u.new_empty(batch, channels),
        u.new_empty(batch, state_count(cell), channels, dtype=arithmetic_of(u)),
    )
