"""The operators: a cell over a sequence in parallel, one step of it, and what a scan did."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ._cells import Cell, key_of
from ._compiled import scan_compiled
from ._library import operators


def scan(
    u: Tensor,
    w: Tensor,
    h0: Tensor | None = None,
    *,
    cell: str | Cell,
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
        h0: (B,S,D), or None for zeros.
        cell: a name ("gru"), a file ("./leaky.hpp") or a `Cell`, of S states, U inputs and P
            parameters a channel.
        plan: "auto", or "planner", "sequential", "speculative", "newton": another plan changes
            the time, and the result within the tolerance.
        chunk: steps a chunk; 0: chosen.
        burn_in: steps that a chunk starts early; -1: chosen.
        tolerance: the mismatch that a chunk boundary may have, relative to 1 + |state|; 0: 1e-6
            in float32 arithmetic, 1e-12 in float64.

    Returns:
        y (B,T,D) in u's dtype, and hT (B,S,D) in the arithmetic's: float32 for u of float16,
        bfloat16 and float32, float64 for float64. Differentiable in u, w and h0.

    Raises:
        RuntimeError: one sentence that names the argument that is wrong, and what it should be.
    """
    options = key_of(cell), plan, chunk, burn_in, tolerance
    if torch.compiler.is_compiling():
        return scan_compiled(u, w, h0, *options)
    y, hT = operators.scan(u, w, h0, *options)
    return y, hT


def step(u: Tensor, w: Tensor, h: Tensor, *, cell: str | Cell) -> tuple[Tensor, Tensor]:
    """One step, for decoding: u (B,U,D) or (B,H,U,D/H), w (P,D), h (B,S,D) -> y (B,D), h (B,S,D).

    No gradient. Raises RuntimeError as `scan`.
    """
    y, h = operators.step(u, w, h, key_of(cell))
    return y, h


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

    def of(backward: bool) -> ScanStatistics:
        plan, counts, largest_mismatch = operators._last_statistics(backward)
        chunk, chunks, burn_in, iterations, columns, corrected, repaired = counts
        return ScanStatistics(
            plan=plan,
            chunk=chunk,
            chunks=chunks,
            burn_in=burn_in,
            newton_iterations=iterations,
            columns=columns,
            columns_corrected=corrected,
            columns_repaired=repaired,
            largest_mismatch=largest_mismatch,
        )

    return of(False), of(True)
