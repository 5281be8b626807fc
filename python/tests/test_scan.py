"""The operators as PyTorch's tools see them."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch.library import opcheck

import pararnn_cpp
from pararnn_cpp import Cell, last_statistics, scan, step, verdict

LEAKY = """#include "pararnn/cell.hpp"
struct Leaky {
  static constexpr int kState = 1, kInputs = 2, kParams = 1;
  template <class T>
  PARARNN_FN static pararnn::Vec<T, 1> step(const pararnn::Vec<T, 1>& h,
                                            const pararnn::Vec<T, 2>& u,
                                            const pararnn::Vec<T, 1>& w) {
    const T rate = sigmoid(u[0]);
    return {(1 - rate) * h[0] + rate * tanh(u[1] + w[0] * h[0])};
  }
};
"""


def problem(
    steps: int = 40, dtype: torch.dtype = torch.float64, requires_grad: bool = True
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """u, w and h0 of a GRU."""
    generator = torch.Generator().manual_seed(steps)
    u = torch.randn(2, steps, 3, 5, generator=generator, dtype=torch.float64)
    w = torch.rand(3, 5, generator=generator, dtype=torch.float64) - 0.5
    h0 = torch.randn(2, 1, 5, generator=generator, dtype=torch.float64)
    return tuple(t.to(dtype).requires_grad_(requires_grad) for t in (u, w, h0))  # type: ignore


def gru_loop(
    u: torch.Tensor, w: torch.Tensor, h0: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    h, outputs = h0[:, 0], []
    for at in u.unbind(1):
        z = torch.sigmoid(at[:, 0] + w[0] * h)
        r = torch.sigmoid(at[:, 1] + w[1] * h)
        c = torch.tanh(at[:, 2] + w[2] * (r * h))
        h = (1 - z) * h + z * c
        outputs.append(h)
    return torch.stack(outputs, 1), h.unsqueeze(1)


def test_is_the_loop_and_so_are_its_gradients() -> None:
    for plan in ("auto", "sequential", "speculative", "newton"):
        inputs = problem(100)
        y, hT = scan(*inputs, cell="gru", plan=plan)
        y_loop, hT_loop = gru_loop(*inputs)
        torch.testing.assert_close((y, hT), (y_loop, hT_loop))
        torch.testing.assert_close(
            torch.autograd.grad((y.sin().sum(), hT.sum()), inputs),
            torch.autograd.grad((y_loop.sin().sum(), hT_loop.sum()), inputs),
        )


def test_operators_pass_the_checks() -> None:
    inputs = problem(37, requires_grad=False)
    options = ("gru", "auto", 0, -1, 0.0)
    u, w, h0 = inputs
    crossed = u.transpose(-1, -2).contiguous().transpose(-1, -2)
    for u, w, h0 in (inputs, (u, w.float(), None), (crossed, w, h0), (crossed.half(), w, None)):
        opcheck(torch.ops.pararnn.scan.default, (u, w, h0, *options))
        opcheck(torch.ops.pararnn._scan.default, (u, w, h0, *options))
        opcheck(torch.ops.pararnn._scan_forward.default, (u, w, h0, *options, 16))
        y, hT, *kept = torch.ops.pararnn._scan_forward(u, w, h0, *options, 16)
        gradients = (torch.ones_like(y), torch.ones_like(hT))
        opcheck(torch.ops.pararnn._scan_backward.default, (u, w, *kept, *gradients, *options))
    step_inputs = (inputs[0][:, 0], *inputs[1:], "gru")
    opcheck(torch.ops.pararnn.step.default, step_inputs)
    opcheck(torch.ops.pararnn._step.default, step_inputs)


def test_compiles_as_one_graph_for_any_number_of_steps() -> None:
    @torch.compile(fullgraph=True, dynamic=True)
    def loss(u: torch.Tensor, w: torch.Tensor, h0: torch.Tensor) -> torch.Tensor:
        y, hT = scan(u * 2, w, h0, cell="gru")
        return y.sin().sum() + hT.sum()

    torch.compiler.reset()
    for steps in range(5, 65, 3):  # far more lengths than are compiled
        inputs = problem(steps)
        expected = scan(inputs[0] * 2, *inputs[1:], cell="gru")
        value = loss(*inputs)
        torch.testing.assert_close(value, expected[0].sin().sum() + expected[1].sum())
        gradients = torch.autograd.grad(value, inputs)
        expected_value = expected[0].sin().sum() + expected[1].sum()
        torch.testing.assert_close(gradients, torch.autograd.grad(expected_value, inputs))


def test_exports_with_any_number_of_steps() -> None:
    class Layer(torch.nn.Module):
        def forward(self, u: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            return scan(u, w, cell="gru")[0]

    u, w, _ = problem(40, requires_grad=False)
    dynamic = {"u": {1: torch.export.Dim("steps", min=32, max=5000)}, "w": None}
    exported = torch.export.export(Layer(), (u, w), dynamic_shapes=dynamic)
    other, _, _ = problem(77, requires_grad=False)
    torch.testing.assert_close(exported.module()(other, w), scan(other, w, cell="gru")[0])


def test_derivatives_of_compiled_functions_are_right_or_refused() -> None:
    inputs = problem(20, requires_grad=False)
    along = tuple(torch.randn_like(t) for t in inputs)

    @torch.compile(fullgraph=True)
    def tangent(*both: torch.Tensor) -> torch.Tensor:
        run = lambda u, w, h0: scan(u, w, h0, cell="gru")[0]  # noqa: E731
        return torch.func.jvp(run, both[:3], both[3:])[1]

    _, expected = torch.func.jvp(lambda *of: gru_loop(*of)[0], inputs, along)
    try:
        found = tangent(*inputs, *along)
    except Exception:  # the compiler's own, which says why
        return
    torch.testing.assert_close(found, expected)


def test_forward_mode_is_the_derivative() -> None:
    inputs = problem(requires_grad=False)
    along = [torch.randn_like(t) for t in inputs]
    with torch.autograd.forward_ad.dual_level():
        duals = [
            torch.autograd.forward_ad.make_dual(t, d) for t, d in zip(inputs, along, strict=True)
        ]
        y, hT = scan(*duals, cell="gru")
        y_tangent = torch.autograd.forward_ad.unpack_dual(y).tangent
        expected = torch.autograd.forward_ad.unpack_dual(gru_loop(*duals)[0]).tangent
    torch.testing.assert_close(y_tangent, expected)


def test_takes_strides_heads_and_half_precision() -> None:
    u, w, h0 = problem(50, torch.float32, requires_grad=False)
    time_first = u.transpose(0, 1).contiguous().transpose(0, 1)
    torch.testing.assert_close(scan(time_first, w, h0, cell="gru"), scan(u, w, h0, cell="gru"))
    one_head = u.unsqueeze(2)
    torch.testing.assert_close(scan(one_head, w, h0, cell="gru"), scan(u, w, h0, cell="gru"))
    y, hT = scan(u.bfloat16(), w, h0, cell="gru")
    assert y.dtype == torch.bfloat16 and hT.dtype == torch.float32


def test_steps_add_up_to_the_scan() -> None:
    u, w, h = problem(9, requires_grad=False)
    y, hT = scan(u, w, h, cell="gru")
    for t in range(9):
        output, h = step(u[:, t], w, h, cell="gru")
        torch.testing.assert_close(output, y[:, t])
    torch.testing.assert_close(h, hT)


def test_runs_in_inference_mode_and_in_several_threads() -> None:
    inputs = problem(200, requires_grad=False)
    with torch.inference_mode():
        expected = scan(*inputs, cell="gru")
    results: list[tuple[torch.Tensor, torch.Tensor]] = []
    threads = [
        threading.Thread(target=lambda: results.append(scan(*inputs, cell="gru"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        torch.testing.assert_close(result, expected)


def test_wrong_arguments_are_one_sentence() -> None:
    u, w, h0 = problem(requires_grad=False)
    for arguments, options, words in (
        ((u, w[:2], h0), {}, "w has shape"),
        ((u, w, h0[:1]), {}, "h0 has shape"),
        ((u[0], w, h0), {}, "u has shape"),
        ((u.int(), w, h0), {}, "u has dtype"),
        ((u, w, h0), {"plan": "fast"}, "there is no plan 'fast'"),
        ((u, w, h0), {"tolerance": -1.0}, "tolerance is -1"),
    ):
        with pytest.raises(RuntimeError, match=words):
            scan(*arguments, cell="gru", **options)
    with pytest.raises(RuntimeError, match="there is no cell 'perceptron'"):
        scan(u, w, h0, cell="perceptron")


def test_derivatives_of_both_modes_and_second_ones_pass_the_checks() -> None:
    for cell in ("gru", "elman"):
        run = lambda u, w, h0, cell=cell: scan(u, w, h0, cell=cell)  # noqa: E731
        inputs = problem(7)
        if cell == "elman":
            inputs = (inputs[0][:, :, :1].detach().requires_grad_(), inputs[1][:1], inputs[2])
        assert torch.autograd.gradcheck(run, inputs, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(run, inputs)


def test_cells_are_values(tmp_path: Path) -> None:
    (tmp_path / "leaky.hpp").write_text(LEAKY)
    from_file = Cell.from_file(tmp_path / "leaky.hpp")
    from_source = Cell.from_source(LEAKY)
    assert from_file.key == from_source.key and from_file.name == "leaky"
    assert (from_file.state, from_file.inputs, from_file.params) == (1, 2, 1)
    assert Cell.named("gru").input_names and Cell.named("gru").summary
    for cell in (from_file, Cell.named("lstm")):
        assert pickle.loads(pickle.dumps(cell)) == cell and copy.deepcopy(cell) == cell
    from_file.save(tmp_path / "again.hpp")
    assert Cell.from_file(tmp_path / "again.hpp") == from_file
    y, _ = scan(torch.randn(1, 20, 2, 3), torch.rand(1, 3), cell=from_file)
    assert y.isfinite().all()
    with pytest.raises(RuntimeError, match=r"bad.hpp:\d+: the cell leaky does not compile"):
        (tmp_path / "bad.hpp").write_text(LEAKY.replace("tanh(", "tanhh("))
        Cell.from_file(tmp_path / "bad.hpp")


def test_says_what_a_scan_did() -> None:
    inputs = problem(400)
    y, _ = scan(*inputs, cell="gru", plan="newton", chunk=64)
    y.sum().backward()
    forward, backward = last_statistics()
    assert forward.plan == backward.plan == "newton" and forward.columns == 10
    assert forward.chunks == 7 and forward.newton_iterations >= 1
    assert forward.largest_mismatch <= 1e-12


def test_verdict_is_what_the_program_says(tmp_path: Path) -> None:
    found = verdict("elman", devices=["cpu"])
    assert found["conclusion"]["verdict"] == "parallelises well"
    assert str(found).startswith("elman: parallelises well")
    found.save_page(tmp_path / "elman.html")
    assert "<svg" in (tmp_path / "elman.html").read_text()
