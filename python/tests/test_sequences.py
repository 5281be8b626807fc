"""Packed sequences and resets: each sequence is as if it were alone, in value and derivatives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import pararnn_cpp
from pararnn_cpp import scan

LENGTHS = [5, 0, 30, 1, 1, 47, 0]


def offsets_of(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


def arguments(cell: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    c = pararnn_cpp.Cell.named(cell)
    u = torch.randn(1, sum(LENGTHS), c.inputs, 3, dtype=dtype)
    w = torch.rand(c.params, 3, dtype=dtype) - 0.5
    h0 = 0.1 + torch.rand(len(LENGTHS), c.state, 3, dtype=dtype)
    return u, w, h0


def separately(u: Tensor, w: Tensor, h0: Tensor, cell: str) -> tuple[Tensor, Tensor]:
    ys, finals, begin = [], [], 0
    for n, length in enumerate(LENGTHS):
        part = u[:, begin : begin + length]
        y, hT = scan(part, w, h0[n : n + 1], cell=cell, plan="sequential")
        ys.append(y)
        finals.append(hT)
        begin += length
    return torch.cat(ys, 1), torch.cat(finals)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("plan", ["auto", "sequential", "speculative", "newton"])
def test_packed_equals_separate(cell: str, plan: str) -> None:
    inputs = [t.requires_grad_() for t in arguments(cell)]
    packed = scan(*inputs, cell=cell, cu_seqlens=offsets_of(LENGTHS), plan=plan, chunk=16)
    alone = separately(*inputs, cell)
    weights = [torch.randn_like(t) for t in alone]
    for got, expected in zip(packed, alone, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    for got, expected in zip(
        torch.autograd.grad(packed, inputs, weights),
        torch.autograd.grad(alone, inputs, weights),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_derivatives_of_both_orders_equal_finite_differences() -> None:
    offsets = offsets_of([2, 0, 3])
    inputs = (
        torch.randn(1, 5, 3, 2, dtype=torch.float64, requires_grad=True),
        torch.rand(3, 2, dtype=torch.float64, requires_grad=True),
        torch.rand(3, 1, 2, dtype=torch.float64, requires_grad=True),
    )

    def packed(*inputs: Tensor) -> Any:
        return scan(*inputs, cell="gru", cu_seqlens=offsets)

    def reset(*inputs: Tensor) -> Any:
        flags = torch.tensor([[False, True, False, True, True]])
        return scan(inputs[0], inputs[1], inputs[2][:1], cell="gru", reset=flags)

    for function in (packed, reset):
        assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(function, inputs)


def test_transforms() -> None:
    offsets = offsets_of(LENGTHS)
    u, w, h0 = arguments("gru")

    def loss(u: Tensor, w: Tensor, h0: Tensor) -> Tensor:
        y, hT = scan(u, w, h0, cell="gru", cu_seqlens=offsets)
        return (y**2).sum() + hT.sum()

    expected = torch.autograd.grad(
        sum((y**2).sum() for y in separately(u.requires_grad_(), w, h0, "gru")[:1]), u
    )[0]
    got = torch.func.grad(lambda u: (scan(u, w, h0, cell="gru", cu_seqlens=offsets)[0] ** 2).sum())(
        u.detach()
    )
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    many = torch.stack([w, 2 * w])
    both = torch.func.vmap(loss, (None, 0, None))(u.detach(), many, h0)
    torch.testing.assert_close(both, torch.stack([loss(u.detach(), m, h0) for m in many]))
    with pytest.raises(RuntimeError, match="cu_seqlens is mapped by vmap"):
        torch.func.vmap(lambda o: scan(u.detach(), w, h0, cell="gru", cu_seqlens=o)[0])(
            torch.stack([offsets, offsets])
        )


def test_compiled() -> None:
    @torch.compile(fullgraph=True, dynamic=True, backend="aot_eager")
    def loss(u: Tensor, w: Tensor, h0: Tensor, offsets: Tensor) -> Tensor:
        y, hT = scan(u, w, h0, cell="gru", cu_seqlens=offsets)
        return (y * y).sum() + hT.sum()

    for lengths in ([3, 4], [10, 0, 9], [40]):
        u = torch.randn(1, sum(lengths), 3, 5, requires_grad=True)
        w = torch.rand(3, 5) - 0.5
        h0 = torch.rand(len(lengths), 1, 5)
        (got,) = torch.autograd.grad(loss(u, w, h0, offsets_of(lengths)), u)
        y, hT = scan(u, w, h0, cell="gru", cu_seqlens=offsets_of(lengths))
        (expected,) = torch.autograd.grad((y * y).sum() + hT.sum(), u)
        torch.testing.assert_close(got, expected)


def test_operators_are_as_torch_expects() -> None:
    u, w, h0 = arguments("gru", torch.float32)
    offsets, reset = offsets_of(LENGTHS), torch.rand(1, sum(LENGTHS)) < 0.2
    operator = torch.ops.pararnn._scan_forward.default
    options = ("gru", "auto", 0, -1, 0.0, 16)
    for sample in ((u, w, h0, *options, offsets, None), (u, w, h0[:1], *options, None, reset)):
        torch.library.opcheck(operator, sample, test_utils=("test_schema", "test_faketensor"))


def test_resets_begin_with_zero() -> None:
    u, w, h0 = arguments("lstm")
    h0 = h0[:1]
    reset = torch.zeros(1, u.shape[1], dtype=torch.bool)
    reset[0, [7, 30]] = True
    y, hT = scan(u, w, h0, cell="lstm", reset=reset)
    first, _ = scan(u[:, :7], w, h0, cell="lstm")
    second, _ = scan(u[:, 7:30], w, cell="lstm")
    third, final = scan(u[:, 30:], w, cell="lstm")
    torch.testing.assert_close(y, torch.cat([first, second, third], 1), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(hT, final, rtol=1e-10, atol=1e-10)


def test_wrong_ones_are_told_by_name() -> None:
    u, w, h0 = arguments("gru")
    for cu_seqlens, words in (
        (torch.tensor([0, 84]), "cu_seqlens has dtype"),
        (torch.tensor([0, 83], dtype=torch.int32), "cu_seqlens ends with 83"),
        (torch.tensor([0, 50, 40, 84], dtype=torch.int32), "cu_seqlens falls from 50 to 40"),
    ):
        with pytest.raises(RuntimeError, match=words):
            scan(u, w, cell="gru", cu_seqlens=cu_seqlens)
    with pytest.raises(RuntimeError, match="reset has shape"):
        scan(u, w, cell="gru", reset=torch.zeros(1, 3, dtype=torch.bool))
