"""The operators: a cell over a sequence in parallel, one step of it, and what a scan did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling

from . import _operators
from ._cells import Cell, key_of, lasting_key
from ._derivatives import Scan, TransformedScan
from ._library import operators


def _is_transformed() -> bool:
    """Whether forward-mode differentiation or one of torch.func's transforms is under way."""
    transformed = forward_ad._current_level >= 0 or _are_functorch_transforms_active()
    if transformed and torch.compiler.is_compiling():
        # torch 2.11 compiles gradients of zero, and tangents are dropped in any version.
        raise RuntimeError(
            "scan and step take neither torch.func's transforms nor forward mode inside a compiled "
            "function: transform them outside of torch.compile"
        )
    return transformed


def scan(
    u: Tensor,
    w: Tensor,
    h0: Tensor | None = None,
    *,
    cell: str | Cell,
    cu_seqlens: Tensor | None = None,
    reset: Tensor | None = None,
    plan: str = "auto",
    chunk: int = 0,
    burn_in: int = -1,
    tolerance: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Runs a cell over T steps in parallel: h_t = f(h_{t-1}, u_t; w), y_t = component 0 of h_t.

    Args:
        u: (B,T,U,D), or (B,T,H,U,D/H) for H heads; float16, bfloat16, float32 or float64. Any
            strides of B, T, H and U; channels contiguous, or u is copied once.
        w: (P,D).
        h0: (B,S,D), or (N,S,D) with cu_seqlens; or None for zeros.
        cell: a name ("gru"), a file ("./leaky.hpp") or a `Cell`, of S states, U inputs and P
            parameters a channel.
        cu_seqlens: (N+1), int32, from 0 to T, never falling: N sequences packed in one row, B = 1,
            steps cu_seqlens[n] to cu_seqlens[n+1] - 1 each. Each is as if it were alone. On a GPU,
            which is not waited for, wrong ones make all results NaN.
        reset: (B,T), bool: the state is zero before each step that it marks.
        plan: "auto", or "planner", "sequential", "speculative", "newton": another plan changes
            the time, and the result within the tolerance.
        chunk: steps a chunk; 0: chosen.
        burn_in: steps that a chunk starts early; -1: chosen.
        tolerance: the mismatch that a chunk boundary may have, relative to 1 + |state|; 0: 1e-6
            in float32 arithmetic, 1e-12 in float64.

    Returns:
        y (B,T,D) in u's dtype, and hT, like h0, in the arithmetic's: float32 for u of float16,
        bfloat16 and float32, float64 for float64. Differentiable in u, w and h0.

    Raises:
        RuntimeError: one sentence that names the argument that is wrong, and what it should be.
        TypeError: the same for a cell that is neither a `Cell` nor a text.
    """
    key = cell.key if type(cell) is Cell else key_of(cell)
    # Plans that are learned differ from call to call, and in the last digits of the results.
    if plan == "auto" and u.is_cuda and torch.are_deterministic_algorithms_enabled():
        plan = "planner"
    if _is_transformed():
        options = lasting_key(key), plan, chunk, burn_in, tolerance
        results: Any = TransformedScan.apply(u, w, h0, cu_seqlens, reset, *options)  # type: ignore[no-untyped-call]
        return results[0], results[1]
    if torch.is_grad_enabled() and (
        u.requires_grad or w.requires_grad or (h0 is not None and h0.requires_grad)
    ):
        options = lasting_key(key), plan, chunk, burn_in, tolerance
        return Scan.apply(u, w, h0, cu_seqlens, reset, *options)  # type: ignore[no-untyped-call, no-any-return]
    # As most calls are. An argument of an operator takes a twentieth of the host's time of a call.
    if (
        plan == "auto"
        and chunk == 0
        and burn_in == -1
        and tolerance == 0
        and cu_seqlens is None
        and reset is None
    ):
        if is_dynamo_compiling():
            return _operators.plain_scan(u, w, h0, key)  # type: ignore[no-any-return]
        return _operators.eager_plain_scan(u, w, h0, key)  # type: ignore[no-any-return]
    return _operators.scan(  # type: ignore[no-any-return]
        u, w, h0, key, plan, chunk, burn_in, tolerance, cu_seqlens, reset
    )


def step(u: Tensor, w: Tensor, h: Tensor, *, cell: str | Cell) -> tuple[Tensor, Tensor]:
    """One step, for decoding: u (B,U,D) or (B,H,U,D/H), w (P,D), h (B,S,D) -> y (B,D), h (B,S,D).

    Differentiable as `scan`, and raises as it does.
    """
    # _is_transformed, without a call: it is a tenth of the host's time of a step.
    if (
        forward_ad._current_level >= 0
        or _are_functorch_transforms_active()
        or (torch.is_grad_enabled() and (u.requires_grad or w.requires_grad or h.requires_grad))
    ):
        y, h = scan(u.unsqueeze(1), w, h, cell=cell, plan="sequential")
        return y.squeeze(1), h
    key = cell.key if type(cell) is Cell else key_of(cell)
    if is_dynamo_compiling():
        return _operators.step(u, w, h, key)  # type: ignore[no-any-return]
    return _operators.eager_step(u, w, h, key)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ScanStatistics:
    """What one pass did. A column is one channel of one batch row."""

    plan: str  #: "sequential", "speculative" or "newton"; empty if there was no pass yet
    chunk: int
    chunks: int
    burn_in: int
    newton_iterations: int  #: corrections, the one of the plan newton included
    columns: int
    columns_corrected: int
    columns_repaired: int
    largest_mismatch: float  #: left at the boundaries, in the measure of the tolerance


def last_statistics() -> tuple[ScanStatistics, ScanStatistics]:
    """Of the last forward and the last backward pass of this process. Waits for a GPU."""

    def of(numbers: list[float]) -> ScanStatistics:
        way, chunk, chunks, burn_in, largest_mismatch, *counts = numbers
        iterations, columns, corrected, repaired = map(int, counts)
        return ScanStatistics(
            plan=("", "sequential", "speculative", "newton")[int(way) + 1],
            chunk=int(chunk),
            chunks=int(chunks),
            burn_in=int(burn_in),
            newton_iterations=iterations,
            columns=columns,
            columns_corrected=corrected,
            columns_repaired=repaired,
            largest_mismatch=largest_mismatch,
        )

    forward, backward = operators._last_statistics().tolist()
    return of(forward), of(backward)
