"""The scan as torch.compile sees it: two operators whose shapes may be unknown numbers.

What the C++ derivative of `scan` traces to has the sizes of the first call in it, so each number of
steps would be compiled anew.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._library import operators


def arithmetic_of(u: Tensor) -> torch.dtype:
    """The dtype that u is computed with, and that its states have."""
    return torch.float64 if u.dtype == torch.float64 else torch.float32


@torch.library.register_fake("pararnn::_compiled_scan")  # type: ignore[untyped-decorator]
def _(
    u: Tensor,
    w: Tensor,
    h0: Tensor | None,
    cell: str,
    plan: str,
    chunk: int,
    burn_in: int,
    tolerance: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, steps, channels = u.shape[0], u.shape[1], w.shape[1]
    state = operators._cell_sizes(cell)[0]
    interval = operators._checkpoint_interval(u.device)
    dtype = arithmetic_of(u)
    return (
        u.new_empty(batch, steps, channels),
        u.new_empty(batch, state, channels, dtype=dtype),
        u.new_empty(batch, (steps + interval - 1) // interval, state, channels, dtype=dtype),
        torch.empty((), dtype=torch.bool),
    )


@torch.library.register_fake("pararnn::_compiled_scan_backward")  # type: ignore[untyped-decorator]
def _(
    u: Tensor,
    w: Tensor,
    checkpoints: Tensor,
    remembers: Tensor,
    dy: Tensor,
    dhT: Tensor,
    cell: str,
    plan: str,
    chunk: int,
    burn_in: int,
    tolerance: float,
) -> tuple[Tensor, Tensor, Tensor]:
    in_order = u if u.shape[-1] == 1 or u.stride(-1) == 1 else u.contiguous()
    return (
        torch.empty_like(in_order),
        torch.empty_like(w, dtype=arithmetic_of(u), memory_format=torch.contiguous_format),
        torch.empty_like(dhT, dtype=arithmetic_of(u), memory_format=torch.contiguous_format),
    )


class _Scan(torch.autograd.Function):
    """Has no forward mode, which PyTorch then refuses; one of an operator would give zeros."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, w: Tensor, h0: Tensor | None, *options: Any
    ) -> tuple[Tensor, Tensor]:
        y, hT, checkpoints, remembers = operators._compiled_scan(u, w, h0, *options)
        ctx.save_for_backward(u, w, checkpoints, remembers)
        ctx.options = options
        ctx.h0_dtype = None if h0 is None else h0.dtype
        return y, hT

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dhT: Tensor) -> tuple[Tensor | None, ...]:
        u, w, checkpoints, remembers = ctx.saved_tensors
        du, dw, dh0 = operators._compiled_scan_backward(
            u, w, checkpoints, remembers, dy, dhT, *ctx.options
        )
        dh0 = None if ctx.h0_dtype is None else dh0.to(ctx.h0_dtype)
        return du, dw.to(w.dtype), dh0, None, None, None, None, None


def scan_compiled(
    u: Tensor, w: Tensor, h0: Tensor | None, *options: str | int | float
) -> tuple[Tensor, Tensor]:
    """`scan`, with its options in their order, for tensors of a function that is being compiled."""
    y, hT = _Scan.apply(u, w, h0, *options)  # type: ignore[no-untyped-call]
    return y, hT
