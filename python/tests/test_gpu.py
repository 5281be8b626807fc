"""The package on a GPU: what it gives on a CPU, compiled, packed, and in streams."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import pararnn_cpp
from pararnn_cpp import cell, scan, sigmoid, step, tanh
from pararnn_cpp.nn import Scan

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@cell
def leaky(h, u, w):  # type: ignore[no-untyped-def]
    keep = sigmoid(u[0] + w[0])
    return [keep * h[0] + (1 - keep) * tanh(u[1] + w[1] * h[0])]


def arguments(of: pararnn_cpp.Cell, batch: int, steps: int, channels: int, dtype: torch.dtype):  # type: ignore[no-untyped-def]
    torch.manual_seed(3)
    arithmetic = torch.float64 if dtype == torch.float64 else torch.float32
    return (
        torch.randn(batch, steps, of.inputs, channels).to(dtype),
        (torch.rand(of.params, channels) - 0.5).to(arithmetic),
        (0.1 + torch.rand(batch, of.state, channels)).to(arithmetic),
    )


def results(inputs: list[Tensor], *, second: bool, **options: object) -> list[Tensor]:
    """Values, their gradients, and, if `second`, the gradients of these."""
    y, hT = scan(*inputs, **options)
    first = torch.autograd.grad((y * y).sum() + hT.sum(), inputs, create_graph=second)
    of_first = sum((g * g).sum() for g in first)
    more = torch.autograd.grad(of_first, inputs) if second else ()
    return [t.detach().cpu() for t in (y, hT, *first, *more)]


# Second derivatives are scans of the tangent cell: kernels of their own, which take seconds.
@pytest.mark.parametrize(
    ("of", "plan", "dtype", "second"),
    [
        ("gru", "auto", torch.float32, False),
        ("gru", "newton", torch.float64, True),
        ("lstm", "sequential", torch.float32, False),
        (leaky, "newton", torch.float32, True),
    ],
)
def test_equals_the_cpu(
    of: str | pararnn_cpp.Cell, plan: str, dtype: torch.dtype, second: bool
) -> None:
    known = of if isinstance(of, pararnn_cpp.Cell) else pararnn_cpp.Cell.named(of)
    inputs = arguments(known, 2, 200, 21, dtype)
    here, there = (
        results(
            [t.detach().to(device).requires_grad_() for t in inputs],
            second=second,
            cell=of,
            plan=plan,
        )
        for device in ("cpu", "cuda")
    )
    tolerance = 1e-9 if dtype == torch.float64 else 2e-4
    for a, b in zip(there, here, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


def test_steps_add_up_to_the_scan() -> None:
    u, w, h = (
        t.cuda() for t in arguments(pararnn_cpp.Cell.named("lstm"), 4, 9, 33, torch.bfloat16)
    )
    y, hT = scan(u, w, h, cell="lstm", plan="sequential")
    for t in range(9):
        out, h = step(u[:, t], w, h, cell="lstm")
        torch.testing.assert_close(out, y[:, t], rtol=2e-2, atol=1e-2)
    torch.testing.assert_close(h, hT, rtol=1e-5, atol=1e-5)


def test_compiled_with_any_number_of_steps() -> None:
    @torch.compile(fullgraph=True, dynamic=True)
    def loss(x: Tensor, w: Tensor) -> Tensor:
        return scan(2 * x, w, cell="gru")[0].square().sum()

    for steps in (16, 33, 64, 100):
        u, w, _ = arguments(pararnn_cpp.Cell.named("gru"), 2, steps, 64, torch.float32)
        u, w = u.cuda().requires_grad_(), w.cuda()
        (got,) = torch.autograd.grad(loss(u, w), u)
        (expected,) = torch.autograd.grad(scan(2 * u, w, cell="gru")[0].square().sum(), u)
        torch.testing.assert_close(got, expected)


def test_autocast_and_a_captured_graph() -> None:
    module = Scan(64, 64, cell="gru", batch_first=True).cuda()
    x = torch.randn(2, 300, 64, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        y, _ = module(x)
    assert y.dtype == torch.bfloat16
    u, w, h = (
        t.cuda() for t in arguments(pararnn_cpp.Cell.named("gru"), 2, 300, 64, torch.float32)
    )
    with torch.no_grad():
        scan(u, w, h, cell="gru", plan="speculative", chunk=64)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y, _ = scan(u, w, h, cell="gru", plan="speculative", chunk=64)
        u.neg_()
        graph.replay()
        expected, _ = scan(u, w, h, cell="gru", plan="speculative", chunk=64)
    assert torch.equal(y, expected)


def test_streams_do_not_disturb_each_other() -> None:
    u, w, h = (
        t.cuda() for t in arguments(pararnn_cpp.Cell.named("gru"), 2, 500, 64, torch.float32)
    )
    expected, _ = scan(u, w, h, cell="gru", plan="planner")
    streams = [torch.cuda.Stream() for _ in range(3)]
    torch.cuda.synchronize()
    results = []
    for stream in streams * 4:
        with torch.cuda.stream(stream):
            results.append(scan(u, w, h, cell="gru", plan="planner")[0])
    torch.cuda.synchronize()
    assert all(torch.equal(y, expected) for y in results)


def test_too_little_memory_is_one_sentence() -> None:
    u = torch.zeros(1, 1, 3, 1, device="cuda", dtype=torch.float16).expand(64, 2**20, 3, 4096)
    w = torch.zeros(3, 4096, device="cuda")
    with pytest.raises(RuntimeError) as caught:
        scan(u, w, cell="gru")
    sentence = str(caught.value)
    assert "memory" in sentence and "\n" not in sentence, sentence
    assert scan(u[:1, :10].contiguous(), w, cell="gru")[0].isfinite().all()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_modules_pack(bidirectional: bool) -> None:
    torch.manual_seed(2)
    module = Scan(6, 8, cell="lstm", bidirectional=bidirectional)
    texts = [torch.randn(n, 6) for n in (30, 7, 19, 1)]
    packed = torch.nn.utils.rnn.pack_sequence(texts, enforce_sorted=False)
    expected, h_n = module(packed)
    there, h_there = module.cuda()(packed.to("cuda"))
    torch.testing.assert_close(there.data.cpu(), expected.data, rtol=1e-4, atol=1e-5)
    for got, of_cpu in zip(h_there, h_n, strict=True):
        torch.testing.assert_close(got.cpu(), of_cpu, rtol=1e-4, atol=1e-5)


def test_a_cell_of_python_has_a_verdict(tmp_path: Path) -> None:
    devices = pararnn_cpp.verdict(leaky)["engine_against_loop"]["devices"]
    assert {d["device"].split(":")[0] for d in devices} == {"cpu", "cuda"}
