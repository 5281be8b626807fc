"""The derivatives of a scan, of both modes and any order.

Backward, the library has an operator. Forward, the tangent of a cell is a cell, whose scan is the
tangent of the cell's scan: y' and hT' along u', w', h0'. Second derivatives follow from these two.
With L = <dy, y> + <dhT, hT>, whose gradients du, dw, dh0 the backward operator gives, and a
direction v in the space of u, w, h0:

    d/dv (du, dw, dh0) = gradients of <dy, y'> + <dhT, hT'>: a backward scan of the tangent cell
    d/d(dy, dhT) of <v, (du, dw, dh0)> = y', hT' along v: a scan of the tangent cell

(Griewank and Walther, "Evaluating Derivatives", chapter 5.) All of them are scans, which run in
parallel and are differentiable in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import _operators as operators

Gradients = tuple[Tensor | None, ...]
#: where states start anew within rows: cu_seqlens, reset
Starts = tuple[Tensor | None, Tensor | None]
#: arguments of a scan behind u, w and h0: its starts, and its options cell, plan, chunk, burn_in,
#: tolerance
_OTHERS = 7


@contextmanager
def _below_this_tangent(ctx: Any) -> Iterator[list[Any]]:
    """What `ctx` saved, without the tangents that a jvp is asked for; those of an outer transform
    are kept, whose derivative of this jvp is wanted. PyTorch turns all of them off in a jvp."""
    with forward_ad._set_fwd_grad_enabled(True):
        yield [
            None if t is None else forward_ad.unpack_dual(t).primal  # type: ignore[no-untyped-call]
            for t in ctx.saved_tensors
        ]


def _or_zeros(tangent: Tensor | None, of: Tensor) -> Tensor:
    return torch.zeros_like(of) if tangent is None else tangent.to(of.dtype)


def _start(u: Tensor, w: Tensor, h0: Tensor | None, starts: Starts, cell: str) -> Tensor:
    """h0 itself, or the zeros that it stands for."""
    if h0 is not None:
        return h0
    shape = operators.sequences_of(u, starts[0]), operators.state_count(cell), w.shape[1]
    return u.new_zeros(shape, dtype=operators.arithmetic_of(u))


class _TangentScan:
    """The scan of the tangent cell along (du, dw, dh0) from (u, w, h0)."""

    def __init__(
        self,
        u: Tensor,
        w: Tensor,
        h0: Tensor | None,
        du: Tensor | None,
        dw: Tensor | None,
        dh0: Tensor | None,
        starts: Starts,
        options: tuple[Any, ...],
    ) -> None:
        cell, *others = options
        start = _start(u, w, h0, starts, cell)
        self.starts = starts
        self.options = (operators.tangent_of(cell), *others)
        self.inputs, self.params, self.state = u.shape[-2], w.shape[0], start.shape[1]
        self.arguments = (
            torch.cat([u, _or_zeros(du, u)], -2),
            torch.cat([w, _or_zeros(dw, w)], 0),
            torch.cat([_or_zeros(dh0, start), start], 1),
        )
        self.y, hT, self.checkpoints, self.remembers = TransformedScan.apply(  # type: ignore[no-untyped-call]
            *self.arguments, *starts, *self.options
        )
        self.hT = hT[:, : self.state]

    def gradients(self, dy: Tensor, dhT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of <dy, y'> + <dhT, hT'> in u, w and h0."""
        du, dw, dh0 = ScanGradients.apply(  # type: ignore[no-untyped-call]
            *self.arguments,
            self.checkpoints,
            self.remembers,
            dy,
            torch.cat([dhT, torch.zeros_like(dhT)], 1),
            *self.starts,
            *self.options,
        )
        return du.narrow(-2, 0, self.inputs), dw[: self.params], dh0[:, self.state :]


class ScanGradients(torch.autograd.Function):
    """du, dw and dh0 of a scan, in the dtypes of u, w and h0, as a function that has derivatives:
    u, w, h0, checkpoints, remembers, dy, dhT, *starts, *options -> du, dw, dh0."""

    @staticmethod
    def forward(
        u: Tensor,
        w: Tensor,
        h0: Tensor | None,
        checkpoints: Tensor,
        remembers: Tensor,
        dy: Tensor,
        dhT: Tensor,
        cu_seqlens: Tensor | None,
        reset: Tensor | None,
        *options: Any,
    ) -> tuple[Tensor, Tensor, Tensor]:
        starts = cu_seqlens, reset
        return _gradients(u, w, h0, checkpoints, remembers, dy, dhT, starts, options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        tensors, ctx.options = inputs[:9], inputs[9:]
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, gu: Tensor, gw: Tensor, gh0: Tensor | None) -> Gradients:
        u, w, h0, _, _, dy, dhT, cu_seqlens, reset = ctx.saved_tensors
        if h0 is None:
            gh0 = None
        along = _TangentScan(u, w, h0, gu, gw, gh0, (cu_seqlens, reset), ctx.options)
        du, dw, dh0 = along.gradients(dy, dhT)
        of_h0 = None if h0 is None else dh0
        return du, dw, of_h0, None, None, along.y, along.hT, *[None] * _OTHERS

    @staticmethod
    def jvp(
        ctx: Any,
        du: Tensor | None,
        dw: Tensor | None,
        dh0: Tensor | None,
        _checkpoints: None,
        _remembers: None,
        ddy: Tensor | None,
        ddhT: Tensor | None,
        *_: None,
    ) -> Gradients:
        with _below_this_tangent(ctx) as (u, w, h0, checkpoints, remembers, dy, dhT, *starts):
            along = _TangentScan(u, w, h0, du, dw, dh0, (*starts,), ctx.options).gradients(dy, dhT)
            # Linear in dy and dhT.
            ddy, ddhT = _or_zeros(ddy, dy), _or_zeros(ddhT, dhT)
            of_dy = ScanGradients.apply(  # type: ignore[no-untyped-call]
                u, w, h0, checkpoints, remembers, ddy, ddhT, *starts, *ctx.options
            )
            return tuple(a + b for a, b in zip(along, of_dy, strict=True))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        _refuse_mapped_starts(in_dims[7:9])
        n, heads = info.batch_size, _is_in_heads(inputs[0], in_dims[0])
        u, w, h0, checkpoints, remembers, dy, dhT = inputs[:7]
        at_u, at_w, at_h0, at_checkpoints, _, at_dy, at_dhT = in_dims[:7]
        du, dw, dh0 = ScanGradients.apply(  # type: ignore[no-untyped-call]
            _fold_inputs(u, at_u, n),
            _fold(w, at_w, n),
            None if h0 is None else _fold(h0, at_h0, n),
            _fold(checkpoints, at_checkpoints, n),
            remembers,
            _fold(dy, at_dy, n),
            _fold(dhT, at_dhT, n),
            *inputs[7:],
        )
        return (_unfold_inputs(du, n, heads), _unfold(dw, n), _unfold(dh0, n)), (0, 0, 0)


class TransformedScan(torch.autograd.Function):
    """A scan as torch.func's transforms and forward mode take it:
    u, w, h0, *starts, *options -> y, hT, checkpoints, remembers."""

    @staticmethod
    def forward(
        u: Tensor,
        w: Tensor,
        h0: Tensor | None,
        cu_seqlens: Tensor | None,
        reset: Tensor | None,
        *options: Any,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        interval = operators.checkpoint_interval(u)
        y, hT, checkpoints, remembers = operators.scan_forward(
            u, w, h0, *options, interval, cu_seqlens, reset
        )
        return y, hT, checkpoints, remembers

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, _, checkpoints, remembers = output
        ctx.mark_non_differentiable(checkpoints, remembers)
        ctx.options = inputs[5:]
        ctx.save_for_backward(*inputs[:5], checkpoints, remembers)
        ctx.save_for_forward(*inputs[:5])

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dhT: Tensor, *_: Any) -> Gradients:
        u, w, h0, cu_seqlens, reset, checkpoints, remembers = ctx.saved_tensors
        du, dw, dh0 = ScanGradients.apply(  # type: ignore[no-untyped-call]
            u, w, h0, checkpoints, remembers, dy, dhT, cu_seqlens, reset, *ctx.options
        )
        return du, dw, None if h0 is None else dh0, *[None] * _OTHERS

    @staticmethod
    def jvp(
        ctx: Any, du: Tensor | None, dw: Tensor | None, dh0: Tensor | None, *_: None
    ) -> Gradients:
        with _below_this_tangent(ctx) as (u, w, h0, cu_seqlens, reset, *_kept):
            along = _TangentScan(u, w, h0, du, dw, dh0, (cu_seqlens, reset), ctx.options)
            return along.y, along.hT, None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], u: Any, w: Any, h0: Any, *others: Any
    ) -> tuple[Any, Any]:
        _refuse_mapped_starts(in_dims[3:5])
        n = info.batch_size
        y, hT, checkpoints, remembers = TransformedScan.apply(  # type: ignore[no-untyped-call]
            _fold_inputs(u, in_dims[0], n),
            _fold(w, in_dims[1], n),
            None if h0 is None else _fold(h0, in_dims[2], n),
            *others,
        )
        unfolded = _unfold(y, n), _unfold(hT, n), _unfold(checkpoints, n), remembers
        return unfolded, (0, 0, 0, None)


class Scan(torch.autograd.Function):
    """A scan for backward alone, and for torch.compile: a third of the other's host time.
    u, w, h0, *starts, *options -> y, hT."""

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        w: Tensor,
        h0: Tensor | None,
        cu_seqlens: Tensor | None,
        reset: Tensor | None,
        *options: Any,
    ) -> tuple[Tensor, Tensor]:
        interval = operators.checkpoint_interval(u)
        y, hT, checkpoints, remembers = operators.scan_forward(
            u, w, h0, *options, interval, cu_seqlens, reset
        )
        ctx.save_for_backward(u, w, h0, checkpoints, remembers, cu_seqlens, reset)
        ctx.options = options
        return y, hT

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dhT: Tensor) -> Gradients:
        u, w, h0, checkpoints, remembers, cu_seqlens, reset = ctx.saved_tensors
        starts = cu_seqlens, reset
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            du, dw, dh0 = ScanGradients.apply(  # type: ignore[no-untyped-call]
                u, w, h0, checkpoints, remembers, dy, dhT, *starts, *ctx.options
            )
        else:
            du, dw, dh0 = _gradients(u, w, h0, checkpoints, remembers, dy, dhT, starts, ctx.options)
        return du, dw, None if h0 is None else dh0, *[None] * _OTHERS


def _gradients(
    u: Tensor,
    w: Tensor,
    h0: Tensor | None,
    checkpoints: Tensor,
    remembers: Tensor,
    dy: Tensor,
    dhT: Tensor,
    starts: Starts,
    options: tuple[Any, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    # Where a row begins with it alone, it is in the checkpoints.
    again = None if starts[0] is None else h0
    du, dw, dh0 = operators.scan_backward(
        u, w, checkpoints, remembers, dy, dhT, *options, again, *starts
    )
    return du, dw.to(w.dtype), dh0 if h0 is None else dh0.to(h0.dtype)


# vmap: n scans side by side are one scan of n times the channels, those of each in a head of its
# own. So u is read where it is, and each has its own w and its own gradient of it.


def _refuse_mapped_starts(in_dims: tuple[int | None, ...]) -> None:
    for name, at in zip(("cu_seqlens", "reset"), in_dims, strict=True):
        if at is not None:
            raise RuntimeError(
                f"scan: {name} is mapped by vmap, but should be the same for all; "
                "give it with in_dims None, or scan a batch"
            )


def _mapped_first(t: Tensor, at: int | None, n: int) -> Tensor:
    return t.expand(n, *t.shape) if at is None else t.movedim(at, 0)


def _is_in_heads(u: Tensor, at: int | None) -> bool:
    return u.dim() - (at is not None) == 5


def _fold_inputs(u: Tensor, at: int | None, n: int) -> Tensor:
    """(B,T,U,D) -> (B,T,n,U,D); (B,T,H,U,D/H) -> (B,T,nH,U,D/H)."""
    side_by_side = _mapped_first(u, at, n).movedim(0, 2)
    return side_by_side.flatten(2, 3) if side_by_side.dim() == 6 else side_by_side


def _unfold_inputs(u: Tensor, n: int, in_heads: bool) -> Tensor:
    side_by_side = u.reshape(*u.shape[:2], n, u.shape[2] // n, *u.shape[3:]) if in_heads else u
    return side_by_side.movedim(2, 0)


def _fold(t: Tensor, at: int | None, n: int) -> Tensor:
    """(...,D) -> (...,nD)."""
    return _mapped_first(t, at, n).movedim(0, -2).flatten(-2)


def _unfold(t: Tensor, n: int) -> Tensor:
    return t.reshape(*t.shape[:-1], n, t.shape[-1] // n).movedim(-2, 0)
