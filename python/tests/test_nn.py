"""The layers of pararnn_cpp.nn against loops over torch's operations and against torch.nn."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

from pararnn_cpp import Cell, scan
from pararnn_cpp.nn import GRU, LSTM, Scan

GRU_D = Path(__file__).parents[2] / "examples" / "cells" / "gru_d.hpp"
LENGTHS = (3, 7, 1, 7, 5)

# Side inputs that stand around the learned one, and are named last first.
AROUND = """
#include "pararnn/cell.hpp"
struct Around {
  static constexpr int kState = 1, kInputs = 3, kParams = 1;
  static constexpr int kSideInputs[] = {2, 0};
  template <class T>
  PARARNN_FN static pararnn::Vec<T, 1> step(const pararnn::Vec<T, 1>& h,
                                            const pararnn::Vec<T, 3>& u,
                                            const pararnn::Vec<T, 1>& w) {
    return {u[0] * tanh(u[1] + w[0] * h[0]) + 0.25 * u[2]};
  }
};
"""


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def gru_d() -> Cell:
    return Cell.from_file(GRU_D)


def gru_step(h: Tensor, u: Tensor, w: Tensor) -> Tensor:
    """One step of the cell "gru": h (B,1,D), u (B,3,D), w (3,D)."""
    update = functional.sigmoid(u[:, 0] + w[0] * h[:, 0])
    reset = functional.sigmoid(u[:, 1] + w[1] * h[:, 0])
    candidate = functional.tanh(u[:, 2] + w[2] * reset * h[:, 0])
    return ((1 - update) * h[:, 0] + update * candidate).unsqueeze(1)


def lstm_step(h: Tensor, u: Tensor, w: Tensor) -> Tensor:
    """One step of the cell "lstm": h (B,2,D), u (B,4,D), w (4,D)."""
    forget, write, output = functional.sigmoid(u[:, :3] + w[:3] * h[:, :1]).unbind(1)
    memory = forget * h[:, 1] + write * functional.tanh(u[:, 3] + w[3] * h[:, 0])
    return torch.stack((output * functional.tanh(memory), memory), 1)


STEPS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"gru": gru_step, "lstm": lstm_step}


def by_loop(layers: Scan, x: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """What the layers should give for x (B,T,C), from and to states (B,S,D)."""
    finals: list[Tensor] = []
    for layer in range(layers.num_layers):
        outputs = []
        for ending in ("", "_reverse")[: 2 if layers.bidirectional else 1]:
            weight = layers.get_parameter(f"weight_ih_l{layer}{ending}")
            heads, channels = layers.heads, layers.hidden_size // layers.heads
            # In a layer above a bidirectional one, a head takes its part of both directions.
            wholes = x.tensor_split(x.shape[-1] // layers.hidden_size, -1) if layer > 0 else (x,)
            blocks = []
            for head, block in enumerate(weight.chunk(heads)):
                part = torch.cat([whole.chunk(heads, -1)[head] for whole in wholes], -1)
                u = part @ block.T
                if layers.bias:
                    u = u + layers.get_parameter(f"bias_ih_l{layer}{ending}").chunk(heads)[head]
                blocks.append(torch.unflatten(u, -1, (-1, channels)))
            u = torch.cat(blocks, -1)
            h, ys = states[len(finals)], []
            times = range(u.shape[1])
            for t in reversed(times) if ending else times:
                h = STEPS[layers.cell.name](
                    h, u[:, t], layers.get_parameter(f"weight_hh_l{layer}{ending}")
                )
                ys.append(h[:, 0])
            outputs.append(torch.stack(ys[::-1] if ending else ys, 1))
            finals.append(h)
        x = torch.cat(outputs, -1)
    return x, finals


def shapes(result: Any) -> Any:
    """The same nesting of tuples, with shapes in the place of tensors."""
    if isinstance(result, Tensor):
        return tuple(result.shape)
    return tuple(shapes(part) for part in result)


def random_like(tensors: Any) -> Any:
    if isinstance(tensors, Tensor):
        return torch.randn_like(tensors)
    return tuple(random_like(part) for part in tensors)


def weighted(results: Any) -> Tensor:
    """A sum of results in which each number has another weight, to take gradients of."""
    if isinstance(results, Tensor):
        numbers = results.flatten().double()
        return (numbers * torch.arange(1, len(numbers) + 1).sin()).sum()
    return torch.stack([weighted(part) for part in results]).sum()


def as_tuple(state: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (state,) if isinstance(state, Tensor) else state


def assert_equal(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "bias": False},
        {"num_layers": 2, "bidirectional": True, "heads": 2},
    ],
    ids=str,
)
def test_equals_a_loop(cell: str, options: dict[str, Any]) -> None:
    layers = Scan(4, 6, cell=cell, batch_first=True, dtype=torch.float64, **options)
    x = torch.randn(3, 9, 4, dtype=torch.float64, requires_grad=True)
    rows = layers.num_layers * (2 if layers.bidirectional else 1)
    states = [
        torch.randn(rows, 3, 6, dtype=torch.float64, requires_grad=True)
        for _ in range(layers.cell.state)
    ]
    y, h_n = layers(x, states[0] if cell == "gru" else tuple(states))
    expected_y, finals = by_loop(layers, x, list(torch.stack(states, 2)))
    expected_h_n = torch.stack(finals).unbind(2)
    assert_equal(y, expected_y)
    assert_equal(as_tuple(h_n), expected_h_n)
    of = [x, *states, *layers.parameters()]
    assert_equal(
        torch.autograd.grad(weighted((y, as_tuple(h_n))), of),
        torch.autograd.grad(weighted((expected_y, expected_h_n)), of),
    )


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_gradients_equal_finite_differences(cell: str) -> None:
    layers = Scan(2, 2, cell=cell, bidirectional=True, heads=2, dtype=torch.float64)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    names, values = zip(*layers.named_parameters(), strict=True)

    def run(x: Tensor, *values: Tensor) -> Any:
        y, h_n = torch.func.functional_call(layers, dict(zip(names, values, strict=True)), (x,))
        return y, *as_tuple(h_n)

    assert torch.autograd.gradcheck(run, (x, *values))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_shapes_are_those_of_torch(batch_first: bool, bidirectional: bool, num_layers: int) -> None:
    options: dict[str, Any] = {
        "num_layers": num_layers,
        "batch_first": batch_first,
        "bidirectional": bidirectional,
    }
    for ours, theirs in ((GRU, torch.nn.GRU), (LSTM, torch.nn.LSTM)):
        expected_layers = theirs(4, 6, **options)
        for heads in (1, 2):
            layers = ours(4, 6, **options, heads=heads)
            layers.flatten_parameters()
            for x in (torch.randn(5, 3, 4), torch.randn(5, 4)):
                expected = expected_layers(x)
                assert shapes(layers(x)) == shapes(expected)
                assert shapes(layers(x, random_like(expected[1]))) == shapes(expected)


def test_arguments_and_names_are_those_of_torch() -> None:
    ours = GRU(4, 6, 2, True, True, 0.5, True)
    theirs = torch.nn.GRU(4, 6, 2, True, True, 0.5, True)
    for name in ("num_layers", "bias", "batch_first", "dropout", "bidirectional"):
        assert getattr(ours, name) == getattr(theirs, name)
    expected = {name for name, _ in theirs.named_parameters() if not name.startswith("bias_hh")}
    assert {name for name, _ in ours.named_parameters()} == expected
    assert ours.weight_ih_l1_reverse.shape == theirs.weight_ih_l1_reverse.shape
    assert ours.weight_hh_l0.shape == (3, 6)
    assert GRU(4, 6, bias=False).bias_ih_l0 is None


def test_layout_does_not_change_values() -> None:
    time_first = GRU(4, 6, num_layers=2, bidirectional=True).double()
    batch_first = GRU(4, 6, num_layers=2, bidirectional=True, batch_first=True).double()
    batch_first.load_state_dict(time_first.state_dict())
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    y, h_n = time_first(x)
    assert_equal(batch_first(x.transpose(0, 1)), (y.transpose(0, 1), h_n))
    y_of_one, h_of_one = time_first(x[:, 1])
    assert_equal((y_of_one, h_of_one), (y[:, 1], h_n[:, 1]))


@pytest.mark.parametrize("cell", ["gru", "lstm", "slstm"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("with_h_0", [False, True])
def test_packed_equals_row_by_row(cell: str, bidirectional: bool, with_h_0: bool) -> None:
    layers = Scan(3, 4, cell=cell, num_layers=2, bidirectional=bidirectional, dtype=torch.float64)
    rows = 4 if bidirectional else 2
    xs = [torch.randn(t, 3, dtype=torch.float64, requires_grad=True) for t in LENGTHS]
    h_0 = [
        torch.randn(rows, len(xs), 4, dtype=torch.float64, requires_grad=with_h_0)
        for _ in range(layers.cell.state)
    ]

    def given(states: list[Tensor]) -> Any:
        if not with_h_0:
            return None
        return states[0] if layers.cell.state == 1 else tuple(states)

    output, h_n = layers(pack_sequence(xs, enforce_sorted=False), given(h_0))
    ys = torch.nn.utils.rnn.unpack_sequence(output)
    singles = [layers(x, given([h[:, b] for h in h_0])) for b, x in enumerate(xs)]
    expected_ys = [y for y, _ in singles]
    states = [as_tuple(state) for _, state in singles]
    expected_h_n = tuple(torch.stack(column, 1) for column in zip(*states, strict=True))
    assert_equal(ys, expected_ys)
    assert_equal(as_tuple(h_n), expected_h_n)
    of = [*xs, *layers.parameters(), *(h_0 if with_h_0 else [])]
    assert_equal(
        torch.autograd.grad(weighted((*ys, as_tuple(h_n))), of),
        torch.autograd.grad(weighted((*expected_ys, expected_h_n)), of),
    )


@pytest.mark.parametrize("enforce_sorted", [False, True])
def test_packed_keeps_the_order_of_torch(enforce_sorted: bool) -> None:
    lengths = sorted(LENGTHS, reverse=True) if enforce_sorted else list(LENGTHS)
    x = torch.randn(len(lengths), max(lengths), 4)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=enforce_sorted)
    layers = GRU(4, 6, bidirectional=True, batch_first=True)
    output, h_n = layers(packed)
    expected, expected_h_n = torch.nn.GRU(4, 6, bidirectional=True, batch_first=True)(packed)
    assert isinstance(output, PackedSequence)
    assert output.data.shape == expected.data.shape and h_n.shape == expected_h_n.shape
    for ours, theirs in zip(output[1:], expected[1:], strict=True):
        assert_equal(ours, theirs)


def test_packed_bfloat16() -> None:
    layers = LSTM(4, 6, bidirectional=True, dtype=torch.bfloat16)
    xs = [torch.randn(t, 4, dtype=torch.bfloat16) for t in LENGTHS]
    h_0 = torch.randn(2, 5, 6, dtype=torch.bfloat16)
    output, (h_n, _) = layers(pack_sequence(xs, enforce_sorted=False), (h_0, h_0))
    assert output.data.dtype == torch.bfloat16 and h_n.dtype == torch.float32
    expected, (expected_h_n, _) = layers(xs[0], (h_0[:, 0], h_0[:, 0]))
    torch.testing.assert_close(torch.nn.utils.rnn.unpack_sequence(output)[0], expected)
    torch.testing.assert_close(h_n[:, 0], expected_h_n, rtol=1e-5, atol=1e-5)


def test_dropout_is_between_layers_and_in_training() -> None:
    layers = GRU(4, 6, num_layers=2, dropout=0.5)
    without = GRU(4, 6, num_layers=2)
    without.load_state_dict(layers.state_dict())
    x = torch.randn(5, 3, 4)
    (first, first_h), (second, second_h) = layers(x), layers(x)
    assert not torch.equal(first, second)
    assert torch.equal(first_h[0], second_h[0]) and not torch.equal(first_h[1], second_h[1])
    assert (first != 0).all()  # the last layer's output is whole
    assert_equal(layers.eval()(x), without(x))
    with pytest.warns(UserWarning, match="has no effect with num_layers = 1"):
        GRU(4, 6, dropout=0.5)


def test_step_equals_forward() -> None:
    for cell in ("gru", "lstm"):
        layers = Scan(4, 6, cell=cell, num_layers=2, heads=2)
        x = torch.randn(7, 3, 4)
        expected, expected_h = layers(x)
        h, ys = None, []
        for one in x:
            y, h = layers.step(one, h)
            ys.append(y)
        torch.testing.assert_close(torch.stack(ys), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(h, expected_h, rtol=1e-5, atol=1e-5)
        assert not ys[0].requires_grad


@pytest.mark.parametrize("heads", [1, 2])
def test_side_inputs(gru_d: Cell, heads: int) -> None:
    layers = Scan(4, 6, cell=gru_d, heads=heads, bidirectional=True, num_layers=2)
    x, side = torch.randn(5, 3, 4), torch.rand(5, 3, 2)
    y, h_n = layers(x, side=side)
    assert_equal(layers(x, side=side.unsqueeze(-1).expand(5, 3, 2, 6)), (y, h_n))
    assert_equal(layers(x), layers(x, side=torch.ones(5, 3, 2)))
    assert not torch.equal(y, layers(x)[0])
    one = layers(x[:, 1], side=side[:, 1])
    torch.testing.assert_close(one, (y[:, 1], h_n[:, 1]))
    mask = side > 0.5
    assert_equal(layers(x, side=mask), layers(x, side=mask.float()))

    xs, sides = [x[:t, 0] for t in (3, 5)], [side[:t, 0] for t in (3, 5)]
    packed, packed_side = (pack_sequence(s, enforce_sorted=False) for s in (xs, sides))
    output, _ = layers(packed, side=packed_side)
    for y, x, side in zip(torch.nn.utils.rnn.unpack_sequence(output), xs, sides, strict=True):
        torch.testing.assert_close(y, layers(x, side=side)[0])


def test_side_inputs_go_where_the_cell_names_them() -> None:
    cell = Cell.from_source(AROUND)
    layers = Scan(4, 6, cell=cell, batch_first=True, dtype=torch.float64)
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    side = torch.rand(3, 5, 2, 6, dtype=torch.float64)
    assert layers.weight_ih_l0.shape == (6, 4)
    u = torch.empty(3, 5, 3, 6, dtype=torch.float64)
    u[:, :, list(cell.side_inputs)] = side
    u[:, :, 1] = layers.get_parameter("bias_ih_l0") + x @ layers.get_parameter("weight_ih_l0").T
    y, h_n = scan(u, layers.get_parameter("weight_hh_l0"), cell=cell)
    assert_equal(layers(x, side=side), (y, h_n.transpose(0, 1)))
    y_of_step, _ = layers.step(x[:, 0], side=side[:, 0])
    assert_equal(y_of_step, y[:, 0].detach())


def test_parameters_at_first() -> None:
    layers = GRU(16, 64, num_layers=2, heads=4)
    for layer in range(2):
        weight = layers.get_parameter(f"weight_ih_l{layer}")
        assert 0.2 < weight.abs().max() <= 1 / 4
        recurrent = layers.get_parameter(f"weight_hh_l{layer}")
        assert 0.4 < recurrent.abs().max() <= 0.5
        update, *others = layers.get_parameter(f"bias_ih_l{layer}").view(4, 3, 16).unbind(1)
        steps = 1 + torch.exp(-update)  # a small update gate makes memory long
        assert 2 <= steps.min() < 4 and 64 < steps.max() <= 128
        assert max(bias.abs().max() for bias in others) <= 1 / 4
    forget = LSTM(16, 64).get_parameter("bias_ih_l0").view(4, 64)[0]
    assert forget.min() >= 0 and forget.max() > 3


def test_state_dict_copy_and_pickle(gru_d: Cell, tmp_path: Path) -> None:
    x = torch.randn(5, 3, 4)
    for cell in ("lstm", gru_d):
        layers = Scan(4, 6, cell=cell, num_layers=2, bidirectional=True, heads=2)
        expected = layers(x)
        other = Scan(4, 6, cell=cell, num_layers=2, bidirectional=True, heads=2)
        torch.save(layers.state_dict(), tmp_path / "layers.pt")
        other.load_state_dict(torch.load(tmp_path / "layers.pt"))
        copies = (other, copy.deepcopy(layers), pickle.loads(pickle.dumps(layers)))
        for one in copies:
            assert one.cell == layers.cell
            assert_equal(one(x), expected)
    assert pickle.loads(pickle.dumps(LSTM(4, 6))).cell == Cell.named("lstm")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    layers = LSTM(4, 6, num_layers=2, bidirectional=True).to(dtype)
    x = torch.randn(5, 3, 4, dtype=dtype, requires_grad=True)
    y, (h_n, c_n) = layers(x)
    arithmetic = torch.float64 if dtype == torch.float64 else torch.float32
    assert y.dtype == dtype and h_n.dtype == c_n.dtype == arithmetic
    assert layers(x, (h_n, c_n))[0].dtype == dtype
    torch.autograd.backward(weighted((y, h_n, c_n)))
    for tensor in (x, *layers.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.dtype == dtype and tensor.grad.isfinite().all()


@pytest.mark.parametrize("heads", [1, 2])
def test_autocast(heads: int) -> None:
    layers = GRU(4, 6, num_layers=2, bidirectional=True, heads=heads)
    x = torch.randn(5, 3, 4, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, h_n = layers(x)
    assert y.dtype == torch.bfloat16 and h_n.dtype == torch.float32
    torch.testing.assert_close(y.float(), layers(x)[0], rtol=0.05, atol=0.05)
    torch.autograd.backward(weighted((y, h_n)))
    for tensor in (x, *layers.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.dtype == torch.float32 and tensor.grad.isfinite().all()


def test_moves_between_devices() -> None:
    layers = LSTM(4, 6, device="meta")
    y, (h_n, _) = layers(torch.empty(5, 3, 4, device="meta"))
    assert y.shape == (5, 3, 6) and h_n.device.type == "meta"
    layers = layers.to_empty(device="cpu")
    layers.reset_parameters()
    assert layers(torch.randn(5, 3, 4))[0].isfinite().all()


def test_parametrizations() -> None:
    layers = GRU(4, 6)
    x = torch.randn(5, 3, 4)
    expected = layers(x)
    parametrizations.weight_norm(layers, "weight_ih_l0")
    torch.testing.assert_close(layers(x), expected)
    parametrizations.spectral_norm(layers, "weight_hh_l0")
    torch.autograd.backward(weighted(layers(x)))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layers.parameters())


@pytest.mark.parametrize("cell", ["lstm", "side"])
def test_compiled_equals_eager(cell: str, gru_d: Cell) -> None:
    torch.compiler.reset()
    layers = Scan(
        4, 6, cell=gru_d if cell == "side" else cell, num_layers=2, bidirectional=True, heads=2
    ).double()
    compiled = torch.compile(layers, fullgraph=True, dynamic=True, backend="aot_eager")
    for steps in range(5, 16):  # more lengths than are compiled
        x = torch.randn(steps, 3, 4, dtype=torch.float64, requires_grad=True)
        options = {"side": torch.rand(steps, 3, 2)} if cell == "side" else {}
        expected, results = layers(x, **options), compiled(x, **options)
        assert_equal(results, expected)
        assert_equal(layers(x, results[1], **options), compiled(x, results[1], **options))
        of = [x, *layers.parameters()]
        assert_equal(
            torch.autograd.grad(weighted(results), of),
            torch.autograd.grad(weighted(expected), of),
        )


def gradients_of_rank(rank: int, folder: str) -> None:
    """Half of a batch in one of two processes, whose gradients are then averaged."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    layers, x = torch.load(f"{folder}/layers.pt", weights_only=False)
    parallel = torch.nn.parallel.DistributedDataParallel(layers)
    y, _ = parallel(x[:, 2 * rank : 2 * rank + 2])
    torch.autograd.backward(y.square().mean())
    torch.save([p.grad for p in layers.parameters()], f"{folder}/gradients{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    layers = LSTM(4, 6, num_layers=2, bidirectional=True, dtype=torch.float64)
    x = torch.randn(5, 4, 4, dtype=torch.float64)
    torch.save((layers, x), tmp_path / "layers.pt")
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=gradients_of_rank, args=(rank, str(tmp_path))) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    torch.autograd.backward(layers(x)[0].square().mean())
    expected = [p.grad for p in layers.parameters()]
    for rank in range(2):
        assert_equal(torch.load(tmp_path / f"gradients{rank}.pt"), expected)


def test_text() -> None:
    assert repr(GRU(4, 6)) == "GRU(4, 6, cell=gru)"
    text = repr(Scan(4, 6, cell="lstm", num_layers=2, batch_first=True, heads=2))
    assert text == "Scan(4, 6, cell=lstm, num_layers=2, batch_first=True, heads=2)"


X = torch.zeros(5, 3, 4)
PACKED = pack_sequence([torch.zeros(3, 4), torch.zeros(2, 4)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GRU(0, 6), "input_size is 0, but should be 1 or more"),
        (lambda: GRU(4, 6, num_layers=0), "num_layers is 0, but should be 1 or more"),
        (lambda: GRU(4, 6, heads=4), "hidden_size is 6, but should be a multiple of heads = 4"),
        (lambda: GRU(3, 6, heads=2), "input_size is 3, but should be a multiple of heads = 2"),
        (lambda: GRU(4, 6, 2, dropout=1.5), "dropout is 1.5, but should be from 0 to 1"),
        (
            lambda: GRU(4, 6)(torch.zeros(4)),
            "input has shape (4), but should be (T,B,C), or (T,C) unbatched",
        ),
        (
            lambda: GRU(4, 6, batch_first=True)(torch.zeros(1, 1, 1, 4)),
            "input has shape (1,1,1,4), but should be (B,T,C), or (T,C) unbatched",
        ),
        (
            lambda: GRU(8, 6)(X),
            "input has shape (5,3,4), but its last size should be input_size = 8",
        ),
        (
            lambda: GRU(4, 6)(X.double()),
            "input has dtype torch.float64, but the parameters have torch.float32; convert one of "
            "them",
        ),
        (
            lambda: GRU(4, 6)(X, torch.zeros(1, 5, 6)),
            "h_0 has shape (1,5,6), but should be (1,3,6)",
        ),
        (
            lambda: GRU(4, 6)(X[:, 0], torch.zeros(1, 1, 6)),
            "h_0 has shape (1,1,6), but should be (1,6)",
        ),
        (
            lambda: LSTM(4, 6)(X, torch.zeros(1, 3, 6)),
            "h_0 is a tensor, but for the cell lstm it should be a tuple of 2 tensors",
        ),
        (
            lambda: LSTM(4, 6)(X, (torch.zeros(1, 3, 6),)),
            "h_0 is a tuple of length 1, but for the cell lstm it should be a tuple of 2 tensors",
        ),
        (
            lambda: GRU(4, 6)(X, (torch.zeros(1, 3, 6),)),
            "h_0 is a tuple of length 1, but for the cell gru it should be a tensor",
        ),
        (
            lambda: GRU(4, 6).step(X[0], torch.zeros(1, 2, 6)),
            "h has shape (1,2,6), but should be (1,3,6)",
        ),
        (lambda: GRU(4, 6).step(X), "input has shape (5,3,4), but step takes (B,C)"),
        (
            lambda: GRU(4, 6, bidirectional=True).step(X[0]),
            "bidirectional is True, but step needs False: the reverse direction starts at the end; "
            "use forward",
        ),
        (
            lambda: GRU(4, 6)(X, side=torch.zeros(5, 3, 1)),
            "side is given, but the cell gru has no side inputs; leave it out",
        ),
        (
            lambda: GRU(8, 6)(PACKED),
            "input has shape (5,4), but its last size should be input_size = 8",
        ),
        (
            lambda: GRU(4, 6)(pack_sequence([torch.zeros(3, 1, 4)])),
            "input packs data of shape (3,1,4), but should pack (N,C)",
        ),
        (
            lambda: GRU(4, 6)(PACKED, torch.zeros(1, 3, 6)),
            "h_0 has shape (1,3,6), but should be (1,2,6)",
        ),
        (
            lambda: GRU(4, 6)(PACKED, side=torch.zeros(5, 1)),
            "side should be a PackedSequence of the same lengths and order as input; pack both "
            "alike",
        ),
    ],
    ids=str,
)
def test_errors(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == message


def test_errors_of_side_inputs(gru_d: Cell) -> None:
    layers = Scan(4, 6, cell=gru_d)
    with pytest.raises(ValueError) as error:
        layers(X, side=torch.zeros(5, 3))
    assert str(error.value) == (
        "side has shape (5,3), but for input of shape (5,3,4) it should be (5,3,2) or (5,3,2,6)"
    )
    with pytest.raises(ValueError, match="^side is packed, but input is not; pack both or none$"):
        layers(X, side=PACKED)
    others = pack_sequence([torch.zeros(2, 2), torch.zeros(3, 2)], enforce_sorted=False)
    with pytest.raises(ValueError, match="of the same lengths and order as input; pack both alike"):
        layers(PACKED, side=others)


def test_errors_of_the_operators() -> None:
    with pytest.raises(RuntimeError, match="there is no cell 'gruu'; the cells are .*gru"):
        Scan(4, 6, cell="gruu")
    with pytest.raises(RuntimeError, match="plan"):
        GRU(4, 6, plan="fast")(X)
    with pytest.raises(RuntimeError, match="tolerance is -1"):
        GRU(4, 6, tolerance=-1)(X)
