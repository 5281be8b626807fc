"""The operators as PyTorch's tools see them."""

from __future__ import annotations

import copy
import pickle
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.library import opcheck
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import pararnn_cpp._library
from pararnn_cpp import Cell, last_statistics, nn, scan, step, verdict

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
    u, w, h0 = problem(37, requires_grad=False)
    options = ("gru", "auto", 0, -1, 0.0)
    crossed = u.transpose(-1, -2).contiguous().transpose(-1, -2)
    operators = torch.ops.pararnn
    for inputs in ((u, w, h0), (u, w.float(), None), (crossed, w, h0), (crossed.half(), w, None)):
        opcheck(operators.scan.default, (*inputs, *options))
        opcheck(operators._scan.default, (*inputs, *options))
        opcheck(operators._plain_scan.default, (*inputs, "gru"))
        opcheck(operators._scan_forward.default, (*inputs, *options, 16))
        y, hT, *kept = operators._scan_forward(*inputs, *options, 16)
        gradients = (torch.ones_like(y), torch.ones_like(hT))
        opcheck(operators._scan_backward.default, (*inputs[:2], *kept, *gradients, *options))
    opcheck(operators.step.default, (u[:, 0], w, h0, "gru"))
    opcheck(operators._step.default, (u[:, 0], w, h0, "gru"))


def test_compiles_as_one_graph_for_any_number_of_steps() -> None:
    # Without the compiler of kernels, which takes long.
    @torch.compile(fullgraph=True, dynamic=True, backend="aot_eager")
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


def test_compiles_with_the_default_compiler() -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda *of: scan(*of, cell="gru"), fullgraph=True)  # nothing to fuse
    inputs = problem(20)
    found, expected = compiled(*inputs), scan(*inputs, cell="gru")
    torch.testing.assert_close(found, expected)
    both = [torch.autograd.grad((y.sum(), hT.sum()), inputs) for y, hT in (found, expected)]
    torch.testing.assert_close(*both)


def test_default_options_given_or_not_are_the_same() -> None:
    u, w, h0 = problem(70, requires_grad=False)
    for start in (h0, None):
        plain = scan(u, w, start, cell="gru")
        # By the operator that takes options, too.
        for tolerance in (0.0, 1e-12):
            options = ("gru", "auto", 0, -1, tolerance)
            torch.testing.assert_close(
                torch.ops.pararnn._scan(u, w, start, *options), plain, rtol=0, atol=0
            )


def test_modes_and_tracers_see_the_operators() -> None:
    class Dispatched(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    class Called(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    class Subclass(torch.Tensor):
        @classmethod
        def __torch_function__(
            cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(str(func))
            return super().__torch_function__(func, types, args, kwargs or {})

    def both(u: torch.Tensor, w: torch.Tensor, h0: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return *scan(u, w, h0, cell="gru"), *step(u[:, 0], w, h0, cell="gru")

    u, w, h0 = problem(5, requires_grad=False)
    expected = both(u, w, h0)
    operators = {"pararnn._plain_scan.default", "pararnn._step.default"}
    for mode in (Dispatched(), Called()):
        seen: list[str] = []
        with mode:
            torch.testing.assert_close(both(u, w, h0), expected)
        assert operators <= set(seen)
    seen = []
    results = both(u.as_subclass(Subclass), w, h0)
    assert operators <= set(seen)
    assert all(type(result) is Subclass for result in results)
    for how in ("real", "fake", "symbolic"):
        graph = make_fx(both, tracing_mode=how)(u, w, h0)
        assert operators <= {str(node.target) for node in graph.graph.nodes}
        torch.testing.assert_close(graph(u, w, h0), expected)


def test_exports_with_any_number_of_steps() -> None:
    class Layer(torch.nn.Module):
        def forward(self, u: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            return scan(u, w, cell="gru")[0]

    u, w, _ = problem(40, requires_grad=False)
    dynamic = {"u": {1: torch.export.Dim("steps", min=32, max=5000)}, "w": None}
    exported = torch.export.export(Layer(), (u, w), dynamic_shapes=dynamic)
    other, _, _ = problem(77, requires_grad=False)
    torch.testing.assert_close(exported.module()(other, w), scan(other, w, cell="gru")[0])


def test_transforms_inside_compiled_functions_are_right_or_refused() -> None:
    inputs = problem(20, requires_grad=False)

    def gru(w: torch.Tensor) -> torch.Tensor:
        return scan(inputs[0], w, inputs[2], cell="gru")[0]

    w = inputs[1]
    for transform in (
        lambda w: torch.func.jvp(gru, (w,), (w,))[1],
        lambda w: torch.func.grad(lambda w: gru(w).sin().sum())(w),
        lambda w: torch.vmap(gru)(torch.stack([w, 2 * w])),
    ):
        expected = transform(w)
        torch.compiler.reset()
        compiled = torch.compile(transform, backend="aot_eager")
        torch.testing.assert_close(compiled(w), expected)
        torch.compiler.reset()
        with pytest.raises(torch._dynamo.exc.Unsupported):
            torch.compile(transform, fullgraph=True, backend="aot_eager")(w)


def test_a_compiled_step_is_the_step_and_so_are_its_gradients() -> None:
    u, w, h = problem(1)

    def double(u: torch.Tensor, w: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return step(2 * u[:, 0], w, h, cell="gru")

    torch.compiler.reset()
    compiled = torch.compile(double, fullgraph=True)
    torch.testing.assert_close(compiled(u, w, h), double(u, w, h))
    found, expected = (
        torch.autograd.grad(sum(t.sin().sum() for t in f(u, w, h)), (u, w, h))
        for f in (compiled, double)
    )
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        torch.testing.assert_close(compiled(u, w, h), double(u, w, h))


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
    for call in (
        partial(scan, u, w, h0),
        partial(step, u[:, 0], w, h0),
        verdict,
        partial(nn.Scan, 2, 3),
    ):
        with pytest.raises(TypeError, match="cell is of type function, but should be a Cell"):
            call(cell=lambda h, u, w: [h[0]])


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


def test_too_little_memory_is_one_sentence() -> None:
    u = torch.zeros(1, 1, 3, 1).expand(1 << 22, 1 << 20, 3, 1)
    with pytest.raises(RuntimeError) as refused:
        scan(u, torch.zeros(3, 1), cell="gru")
    words = str(refused.value)
    assert "out of memory for y of shape (4194304,1048576,1)" in words and "\n" not in words
    # Channels that are no neighbours are copied first.
    with pytest.raises(RuntimeError) as refused:
        scan(u.expand(1 << 22, 1 << 20, 3, 2), torch.zeros(3, 2), cell="gru")
    words = str(refused.value)
    assert "out of memory for a copy of u of shape (4194304,1048576,3,2)" in words, words
    y, _ = scan(u[:1, :9], torch.zeros(3, 1), cell="gru")
    assert y.isfinite().all()


def test_no_result_depends_on_what_memory_held() -> None:
    """Uninitialised tensors are NaN here, and no number of any result is."""
    inputs = problem(333, torch.float32)
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.utils.deterministic.fill_uninitialized_memory
        for plan in ("auto", "sequential", "speculative", "newton"):
            y, hT = scan(*inputs, cell="gru", plan=plan, chunk=64)
            gradients = torch.autograd.grad(y.sin().sum() + hT.sum(), inputs)
            again = torch.autograd.grad(scan(*inputs, cell="gru", plan=plan)[0].sum(), inputs[0])
            for t in (y, hT, *gradients, *again):
                assert t.isfinite().all()
    finally:
        torch.use_deterministic_algorithms(False)


def test_takes_any_strides_and_addresses() -> None:
    u, w, h0 = problem(40, torch.float32, requires_grad=False)
    expected = scan(u, w, h0, cell="gru")

    def moved(t: torch.Tensor, by: int) -> torch.Tensor:
        """The same numbers behind `by` others, where nothing is aligned."""
        memory = torch.full((t.numel() + by,), torch.nan)
        return memory[by:].view(t.shape).copy_(t)

    def scattered(t: torch.Tensor) -> torch.Tensor:
        return t.transpose(0, -1).contiguous().transpose(0, -1)

    for change in (lambda t: moved(t, 1), lambda t: moved(t, 3), scattered):
        torch.testing.assert_close(scan(change(u), change(w), change(h0), cell="gru"), expected)


def test_autocast_leaves_states_in_single_precision() -> None:
    u, w, h0 = problem(40, torch.float32)
    layer = torch.nn.Linear(5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        y, hT = scan(layer(u), w, h0, cell="gru")
        loss = layer(y).float().sum() + hT.sum()
    assert y.dtype == torch.bfloat16 and hT.dtype == torch.float32
    for t, g in zip((u, w, h0), torch.autograd.grad(loss, (u, w, h0)), strict=True):
        assert g.dtype == t.dtype and g.isfinite().all()


def test_an_older_torch_is_refused_in_one_sentence() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "import torch; torch.__version__ = '2.10.0'; import pararnn_cpp"],
        capture_output=True,
        text=True,
    )
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("ImportError: pararnn_cpp needs torch 2.11 or later"), ran.stderr


@pytest.mark.parametrize("name", ["pararnn_kernels", "pararnn_verdict_operator"])
def test_libraries_need_only_the_stable_interface(name: str) -> None:
    """No CUDA, no Python, and of torch what every version since 2.11 has."""
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    path = pararnn_cpp._library.library.with_name(f"lib{name}.so")
    read = partial(subprocess.run, capture_output=True, text=True, check=True)
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", read(["readelf", "-d", path]).stdout))
    assert needed <= {
        "libpararnn_kernels.so",
        "libtorch_cpu.so",
        "libstdc++.so.6",
        "libm.so.6",
        "libgcc_s.so.1",
        "libc.so.6",
        "ld-linux-x86-64.so.2",
    }
    symbols = read(["readelf", "-W", "--dyn-syms", path]).stdout
    undefined = re.findall(r" UND (\S+)", symbols)
    foreign = [
        symbol
        for symbol in undefined
        if "@" not in symbol and not re.match(r"(aoti_)?torch_|_Z\w*7pararnn|_ITM_|__gmon", symbol)
    ]
    assert undefined and not foreign
    for version, latest in ((r"GLIBC_2\.(\d+)", 34), (r"GLIBCXX_3\.4\.(\d+)", 29)):
        assert max(map(int, re.findall(version, symbols))) <= latest


CPU_ALONE = """
import ctypes
import sys
from importlib.util import find_spec

libraries = find_spec("torch").submodule_search_locations[0] + "/lib/"
ctypes.CDLL(libraries + "libc10.so", ctypes.RTLD_GLOBAL)
torch = ctypes.CDLL(libraries + "libtorch_cpu.so")
ctypes.CDLL(sys.argv[1], 2)  # RTLD_NOW: every symbol is there
i64, pointer = ctypes.c_int64, ctypes.c_void_p


def ones(*shape):
    strides = [1] * len(shape)
    for i in reversed(range(len(shape) - 1)):
        strides[i] = strides[i + 1] * shape[i + 1]
    array, t, data = i64 * len(shape), pointer(), pointer()
    float32 = torch.aoti_torch_dtype_float32()
    arguments = (i64(len(shape)), array(*shape), array(*strides), float32, 0, -1)
    assert torch.aoti_torch_empty_strided(*arguments, ctypes.byref(t)) == 0
    assert torch.torch_get_mutable_data_ptr(t, ctypes.byref(data)) == 0
    numbers = ctypes.cast(data, ctypes.POINTER(ctypes.c_float))
    for i in range(shape[0] * strides[0]):
        numbers[i] = 1
    return t.value


def text(words):
    t = pointer()
    size = ctypes.c_size_t(len(words))
    assert torch.torch_new_string_handle(words, size, ctypes.byref(t)) == 0
    return t.value


tensors, texts, options = (ones(1, 5, 3, 1), ones(3, 1), 0), (b"gru", b"auto"), (0, 2**64 - 1, 0)
starts = (0, 0)
stack = (ctypes.c_uint64 * 10)(*tensors, *map(text, texts), *options, *starts)
version = ctypes.c_uint64(0x020B000000000000)
assert torch.torch_call_dispatcher(b"pararnn::_scan", b"", stack, version) == 0
y = pointer()
assert torch.torch_get_const_data_ptr(pointer(stack[0]), ctypes.byref(y)) == 0
print([round(v, 4) for v in ctypes.cast(y, ctypes.POINTER(ctypes.c_float))[:5]])
print("libtorch_cuda" in open("/proc/self/maps").read())
"""


def test_runs_without_libtorch_cuda() -> None:
    """In a process that has libtorch_cpu alone, as with a torch for CPUs."""
    ran = subprocess.run(
        [sys.executable, "-c", CPU_ALONE, str(pararnn_cpp._library.library)],
        capture_output=True,
        text=True,
    )
    y, _ = scan(torch.ones(1, 5, 3, 1), torch.ones(3, 1), cell="gru")
    assert ran.stdout.splitlines() == [str([round(v, 4) for v in y.flatten().tolist()]), "False"], (
        ran.stderr
    )
