"""Traced cells compute what their Python functions compute on tensors, and read well."""

# Steps have no types here, as those of users.
# mypy: allow-untyped-defs, allow-untyped-calls, check-untyped-defs

from __future__ import annotations

import copy
import inspect
import math
import pickle
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import pararnn_cpp as pt
from pararnn_cpp import Cell, scan
from pararnn_cpp._trace import CellOptions, StepFunction, TraceError, cell, trace

# Steps from the literature.


def gru(h, u, w):
    z = torch.sigmoid(u[0] + w[0] * h[0])
    r = torch.sigmoid(u[1] + w[1] * h[0])
    c = torch.tanh(u[2] + w[2] * (r * h[0]))
    return [h[0] + z * (c - h[0])]


def lstm(h, u, w):
    f, i, o = (torch.sigmoid(u[k] + w[k] * h[0]) for k in range(3))
    c = f * h[1] + i * (u[3] + w[3] * h[0]).tanh()
    return [o * c.tanh(), c]


def peephole_lstm(s, u, w):
    f = pt.sigmoid(u[0] + w[0] * s[0] + w[4] * s[1])
    i = pt.sigmoid(u[1] + w[1] * s[0] + w[5] * s[1])
    g = pt.tanh(u[3] + w[3] * s[0])
    c = f * s[1] + i * g
    o = pt.sigmoid(u[2] + w[2] * s[0] + w[6] * c)
    return [o * pt.tanh(c), c]


def slstm(state, u, w):
    h = state[0]
    a = F.logsigmoid(u[0] + w[0] * h) + state[3]
    b = u[1] + w[1] * h
    m = torch.maximum(a, b)
    forget, take = torch.exp(a - m), torch.exp(b - m)
    c = forget * state[1] + take * torch.tanh(u[2] + w[2] * h)
    n = forget * state[2] + take
    return [torch.sigmoid(u[3] + w[3] * h) * (c / n.clamp(min=1e-30)), c, n, m]


def cfc(h, u, w):
    f = u[0] + w[0] * h[0]
    gate = torch.sigmoid(-f * u[3])
    return [gate * torch.tanh(u[1] + w[1] * h[0]) + (1 - gate) * torch.tanh(u[2] + w[2] * h[0])]


def gru_d(h, u, w):
    decayed = torch.exp(-torch.relu(w[6] * u[4] + w[7])) * h[0]
    z = torch.sigmoid(u[0] + w[0] * decayed + w[3] * u[3])
    r = torch.sigmoid(u[1] + w[1] * decayed + w[4] * u[3])
    c = torch.tanh(u[2] + w[2] * (r * decayed) + w[5] * u[3])
    return [(1 - z) * decayed + z * c]


def janet(h, u, w):
    s = u[0] + w[0] * h[0]
    g = torch.tanh(u[1] + w[1] * h[0])
    return [torch.sigmoid(s) * h[0] + (1 - torch.sigmoid(s - 1)) * g]


def indrnn_relu(h, u, w):
    return [F.relu(u[0] + w[0] * h[0])]


def multiscale(s, u, w):
    c = torch.tanh(u[0] + sum(w[i] * s[i] for i in range(3)))
    return [keep * s[i] + (1 - keep) * c for i, keep in enumerate((0.5, 0.9, 0.99))]


def cornn(s, u, w):
    force = torch.tanh(u[0] + w[0] * s[0] + w[1] * s[1])
    z = s[1] + 0.042 * (force - 2.7 * s[0] - 4.7 * s[1])
    return s[0] + 0.042 * z, z


def logistic_map(h, u, w):
    x = pt.maximum(-1, pt.minimum(1, h[0] + 0.01 * torch.tanh(u[0] + w[0] * h[0])))
    return [0.1 - 0.3 * torch.square(x)]


# Steps of what may stand in one.


def in_three(terms):
    """Three numbers of all terms: fewer states compile sooner."""
    return [sum((1 + 0.1 * k) * x for k, x in enumerate(terms[i::3])) for i in range(3)]


def functions(h, u, w):
    x, y, positive = u[0], u[1], u[0] * u[0] + 0.5
    terms = [
        pt.exp(-pt.abs(x)) + 0.1 * w[0] * h[0],
        pt.log(positive),
        pt.sqrt(positive) + torch.rsqrt(positive),
        pt.sin(x) - pt.cos(y),
        pt.erf(x) + x.erf(),
        pt.floor(3 * x) + x,
        pt.square(y) + torch.reciprocal(positive),
        pt.softplus(x) + F.softplus(y, beta=2.0),
        pt.log_sigmoid(x) + F.logsigmoid(5 * y),
        pt.silu(x) + F.silu(y, inplace=False),
        pt.relu(x) * F.relu(y) + y.relu(),
        F.gelu(x) + F.gelu(y, approximate="tanh"),
        F.leaky_relu(x, 0.2) + F.hardtanh(y),
        torch.clamp(x, -0.5, 0.5) + y.clamp(min=-0.3) + torch.clip(x, max=w[0]),
        torch.lerp(x, y, 0.3) + torch.lerp(x, y, torch.sigmoid(h[0])),
        pt.maximum(x, y) * pt.minimum(x, 0.2) + torch.max(x, y) - torch.min(x, y),
        torch.add(x, y, alpha=2) - torch.sub(x, y, alpha=0.5) + torch.mul(x, 3) + torch.div(y, 3),
        torch.nn.Tanh()(x) + torch.special.expit(y) + torch.neg(x) + x.abs() + abs(y),
        torch.where(x > 0, x, torch.zeros_like(x)) + torch.ones_like(x) * torch.full_like(x, 2.5),
    ]
    return in_three(terms)


def comparisons(h, u, w):
    x, y = u[0], u[1]
    zero = torch.tensor(0.0, dtype=torch.float64)
    masks = [
        x < y,
        x <= y,
        x > y,
        x >= y,
        x == y,
        x != y,
        0 < x,
        zero <= x,
        0.5 > x,
        zero >= x,
        x == 0.5,
        zero != y,
        (x < y) & (y < 1) | ~(x > 0),
        torch.logical_and(torch.lt(x, y), torch.ge(y, 0.5)),
        torch.logical_or(torch.eq(x, y), torch.logical_not(torch.le(y, zero))),
        x.gt(0) & y.ne(0.5),
    ]
    kept = w[0] * h[0]
    terms = [pt.where(mask, kept + x * y, 2 * x - kept) for mask in masks] + [
        pt.where(x < y, 1.0, y) + pt.where(x < y, x, 2.0)
    ]
    return in_three(terms)


def powers(h, u, w):
    x, positive = u[0], u[0] * u[0] + 0.5
    tenth = torch.tensor(0.1)  # a float32: 0.1 to 8 digits
    total = 0
    for i in range(3):
        total += x**i
    other = x + 1
    alias = other
    other *= 2
    terms = [
        x**2 + x.pow(3) + x**3.0 + 0.1 * w[0] * h[0],
        positive**-1 + positive**-2 + x**1 + x**0,
        positive**0.5 + positive**-0.5 + positive**2.5 + torch.pow(positive, -1.25),
        positive**x + pt.pow(positive, u[1]),
        2**x + torch.pow(1.5, x) + tenth**x,
        1 - x + (x - 1) * 2 / positive - positive / 3 - (-x) - -2,
        tenth * x + x * tenth + (tenth - x) / (positive + tenth) + tenth / positive,
        np.float64(0.25) * x + x * np.float64(0.75) - np.float32(0.5) / positive,
        total + max(3, 4) * math.pi,
        x - (positive - (x - 3)) - (x + (x + 1e-3)) * (x / (positive * 2)) / (positive / 3),
        alias - other + alias * 1e-20 + 123456789012.0 * 1e-12,
        h[0] + pt.exp(0.5) * x + pt.sqrt(2),
        0.5,
    ]
    return in_three(terms)


# The same, but for what they cost to compile: several steps as one cell.


class Part:
    """Some of the numbers of an argument."""

    def __init__(self, whole, begin):
        self.whole, self.begin = whole, begin

    def __getitem__(self, i):
        return self.whole[self.begin + i]


def together(*steps: tuple[StepFunction, int, int, int]) -> tuple[StepFunction, list[int]]:
    """One step of many, each of (function, states, inputs, parameters), and its sizes."""

    def step(h, u, w):
        begins = [0, 0, 0]
        result: list[Any] = []
        for function, *sizes in steps:
            result += function(*(Part(x, at) for x, at in zip((h, u, w), begins, strict=True)))
            begins = [at + size for at, size in zip(begins, sizes, strict=True)]
        return result

    return step, [sum(sizes) for sizes in list(zip(*steps, strict=True))[1:]]


CELLS: dict[str, tuple[StepFunction, list[int]]] = {
    "gated": together((gru, 1, 3, 3), (janet, 1, 2, 2), (cfc, 1, 4, 3), (lstm, 2, 4, 4)),
    "stabilised": together((slstm, 4, 4, 4), (gru_d, 1, 5, 8), (indrnn_relu, 1, 1, 1)),
    "memories": together(
        (peephole_lstm, 2, 4, 7), (cornn, 2, 1, 2), (multiscale, 3, 1, 3), (logistic_map, 1, 1, 1)
    ),
    "functions": (functions, [3, 2, 1]),
    "comparisons": (comparisons, [3, 2, 1]),
    "powers": (powers, [3, 2, 1]),
}


def loop(step: StepFunction, u: Tensor, w: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
    """What scan gives, by the Python function on tensors."""
    h = list(h0.unbind(1))
    y = []
    for t in range(u.shape[1]):
        h = [torch.as_tensor(x).expand_as(h[0]) for x in step(h, u[:, t].unbind(1), w.unbind(0))]
        y.append(h[0])
    return torch.stack(y, 1), torch.stack([x.to(h0.dtype) for x in h], 1)


def arguments(sizes: Sequence[int], steps: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    state, inputs, params = sizes
    batch, channels = 2, 3
    generator = torch.Generator().manual_seed(1)
    u = torch.randn(batch, steps, inputs, channels, dtype=torch.float64, generator=generator)
    w = torch.rand(params, channels, dtype=torch.float64, generator=generator) - 0.3
    h0 = torch.randn(batch, state, channels, dtype=torch.float64, generator=generator)
    return u, w, h0


def results_and_gradients(
    function: Callable[..., tuple[Tensor, Tensor]], leaves: Sequence[Tensor]
) -> list[Tensor]:
    """y, hT, and the derivatives of a sum of them, with fixed weights, to the leaves."""
    leaves = [x.clone().requires_grad_() for x in leaves]
    results = function(*leaves)
    generator = torch.Generator().manual_seed(2)
    total = torch.zeros((), dtype=torch.float64)
    for x in results:
        total = total + (x * torch.rand(x.shape, dtype=x.dtype, generator=generator)).sum()
    return [*results, *torch.autograd.grad(total, leaves)]


@pytest.mark.parametrize("name", CELLS)
def test_computes_what_the_function_computes(name: str) -> None:
    step, sizes = CELLS[name]
    traced = cell(step, name=f"traced_{name}")
    assert [traced.state, traced.inputs, traced.params] == sizes
    u, w, h0 = arguments(sizes)
    if name == "comparisons":
        u = (2 * u).round() / 2  # often equal
        assert (u[:, :, 0] == u[:, :, 1]).any()

    expected = results_and_gradients(lambda u, w, h0: loop(step, u, w, h0), (u, w, h0))
    found = results_and_gradients(
        lambda u, w, h0: scan(u, w, h0, cell=traced, plan="sequential"), (u, w, h0)
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_a_traced_gru_is_the_gru() -> None:
    @cell(name="traced_gru", input_names=["z", "r", "c"])
    def traced(h, u, w):
        return gru(h, u, w)

    built_in = Cell.named("gru")
    assert (traced.state, traced.inputs, traced.params) == (1, 3, 3)
    assert traced.memory_input == built_in.memory_input
    assert traced.memory_direction == built_in.memory_direction
    assert traced.name == "traced_gru" and traced.input_names == ("z", "r", "c")
    u, w, h0 = arguments([1, 3, 3], steps=40)
    torch.testing.assert_close(scan(u, w, h0, cell=traced), scan(u, w, h0, cell="gru"))

    restored = pickle.loads(pickle.dumps(traced))
    assert restored == traced and restored.source == traced.source


def test_derivatives_at_kinks_are_those_of_one_side() -> None:
    step = cell(
        lambda h, u, w: [pt.relu(u[0]) + 10 * pt.abs(u[0]) + 100 * pt.maximum(u[0], u[1])],
        name="kinks",
        side_inputs=[1],
        memory_input=-1,
        memory_direction=0,
    )
    assert step.side_inputs == (1,) and step.memory_input == -1
    u = torch.zeros(1, 1, 2, 1, dtype=torch.float64, requires_grad=True)
    y, _ = scan(u, torch.zeros(0, 1, dtype=torch.float64), cell=step)
    assert y.item() == 0
    y.sum().backward()
    assert u.grad is not None and u.grad.flatten().tolist() == [111, 0]


# The source.


def test_source_is_what_a_person_would_write() -> None:
    def leaky_unit(h, u, w):
        """Leaky "integrator".

        More of it.
        """
        rate = pt.sigmoid(u[0])
        unused = torch.exp(rate)  # noqa: F841
        return [(1 - rate) * h[0] + rate * torch.tanh(u[1] + w[0] * h[0])]

    line = leaky_unit.__code__.co_firstlineno
    source = trace(leaky_unit, input_names=["rate", "c"], memory_input="rate", memory_direction=-1)
    assert source == (
        f"// Traced from the Python function leaky_unit,\n// test_trace.py, line {line}.\n"
        r"""#pragma once

#include "pararnn/cell.hpp"

using pararnn::Vec;

struct LeakyUnit {
  static constexpr int kState = 1, kInputs = 2, kParams = 1;
  static constexpr const char* kSummary = "Leaky \"integrator\".";
  static constexpr const char* kInputNames[] = {"rate", "c"};
  static constexpr int kMemory[] = {0, -1};

  template <class T>
  PARARNN_FN static Vec<T, 1> step(const Vec<T, 1>& h, const Vec<T, 2>& u, const Vec<T, 1>& w) {
    const T rate = sigmoid(u[0]);
    return {(1 - rate) * h[0] + rate * tanh(u[1] + w[0] * h[0])};
  }
};
"""
    )


def body(step: StepFunction) -> list[str]:
    """The lines of the step between its braces."""
    source = trace(step, name="step", inputs=3)
    lines = source.split(" w) {\n")[1].removesuffix("  }\n};\n").splitlines()
    return [line.strip() for line in lines]


@pytest.mark.parametrize(
    "step, expected",
    [
        (lambda h, u, w: [h[0] - (u[0] - u[1]) - u[2]], "h[0] - (u[0] - u[1]) - u[2]"),
        (lambda h, u, w: [h[0] + (u[0] + u[1]) * u[2]], "h[0] + (u[0] + u[1]) * u[2]"),
        (lambda h, u, w: [h[0] / (u[0] * u[1])], "h[0] / (u[0] * u[1])"),
        (lambda h, u, w: [-(h[0] * u[0]) - (-h[0].neg())], "-(h[0] * u[0]) - -(-h[0])"),
        (lambda h, u, w: [-h[0] * u[0]], "-h[0] * u[0]"),
        (lambda h, u, w: [h[0] * -0.5 - (-3)], "h[0] * -0.5 - -3"),
        (lambda h, u, w: [2.0 * h[0] + 0.1], "2 * h[0] + 0.1"),
        (lambda h, u, w: [1e300 * h[0] + 4e9], "1e+300 * h[0] + 4000000000.0"),
        (lambda h, u, w: [h[0] * -0.0], "h[0] * -0.0"),
        (lambda h, u, w: [sum([h[0], u[0]])], "h[0] + u[0]"),
        (lambda h, u, w: [h[0] ** 3 + u[0] ** 2], "pow(h[0], 3) + square(u[0])"),
        (lambda h, u, w: [torch.zeros_like(h[0]).exp()], "exp(T(0))"),
        (
            lambda h, u, w: [pt.where((h[0] < 1) & ((u[0] > 2) | ~(u[1] >= 3)), 1, h[0])],
            "select(h[0] < 1 && (u[0] > 2 || !(u[1] >= 3)), 1, h[0])",
        ),
        (lambda h, u, w: [pt.where(u[0] == 1, h[0], 2)], "select(u[0] <= 1 && u[0] >= 1, h[0], 2)"),
        (lambda h, u, w: [torch.where(torch.tensor(True), h[0], u[0])], "h[0]"),
    ],
)
def test_expressions(step: StepFunction, expected: str) -> None:
    assert body(step) == [f"return {{{expected}}};"]


def test_shared_subexpressions_are_computed_once() -> None:
    def step(h, u, w):
        return [torch.tanh(u[0] + h[0]) * torch.tanh(u[0] + h[0]), h[1] + torch.tanh(u[0] + h[0])]

    assert body(step) == ["const T t0 = tanh(u[0] + h[0]);", "return {t0 * t0, h[1] + t0};"]


def test_variables_keep_their_names_where_cpp_takes_them() -> None:
    def step(h, u, w):
        new = u[0] + 1
        exp = torch.exp(new)
        inside = exp < 2
        t0 = exp + new
        MACRO = exp * 2
        größe = exp * 3
        h = h[0] * 5
        return [pt.where(inside, t0, MACRO) + größe + h]

    assert body(step) == [
        "const T new_ = u[0] + 1;",
        "const T exp_ = exp(new_);",
        "const auto inside = exp_ < 2;",
        "const T t0 = exp_ + new_;",
        "const T h_ = h[0] * 5;",
        "return {select(inside, t0, exp_ * 2) + exp_ * 3 + h_};",
    ]


def test_lines_are_not_long() -> None:
    def a_step_with_a_long_name(the_state, the_inputs, the_weights):
        x = the_inputs[0]
        for i in range(20):
            x = torch.tanh(the_weights[i % 4] * x + the_state[0]) * (1 - x)
        return [x, x * (the_state[1] + the_weights[0]) + (x + 1) * (the_state[1] + 2) * (x + 3)]

    source = trace(a_step_with_a_long_name)
    assert max(map(len, source.splitlines())) <= 100
    assert "const Vec<T, 4>& the_weights) {\n" in source


def test_functions_of_every_kind() -> None:
    factor = torch.tensor(0.5)

    class Maker:
        def step(self, h, u, w):
            return [self.scaled(h[0]) + u[0]]

        def scaled(self, x):
            return factor * x

    def decorated(function):
        @torch.no_grad()
        def inner(*arguments):
            return function(*arguments)

        return inner

    expected = ["return {0.5 * h[0] + u[0]};"]
    assert body(Maker().step) == expected
    assert body(lambda h, u, w: [factor * h[0] + u[0]]) == expected
    assert body(decorated(Maker().step)) == expected
    assert body(lambda *all: [0.5 * all[0][0] + all[1][0]]) == expected


def test_known_sizes_have_an_end() -> None:
    def step(h, u, w):
        z, c = u
        return [x + z * c * len(w) for x in h]

    source = trace(step, state=2, input_names=["z", "c"], params=3)
    assert "kState = 2, kInputs = 2, kParams = 3;" in source


def test_skipped_indices_count() -> None:
    assert "kInputs = 3, kParams = 6;" in trace(lambda h, u, w: [u[0] + u[2] + w[5]], name="a")


def test_tracing_leaves_nothing_behind() -> None:
    calls = []

    def step(h, u, w):
        calls.append(sys.getprofile())
        return [h[0] + u[0]]

    profiler = sys.getprofile()
    before = torch.random.get_rng_state()
    first = trace(step)
    assert trace(step) == first and len(calls) == 2
    assert sys.getprofile() is profiler
    assert torch.equal(before, torch.random.get_rng_state()) and torch.is_grad_enabled()


def test_functions_take_tensors_and_numbers() -> None:
    x = torch.randn(5, dtype=torch.float32)
    assert torch.equal(pt.tanh(x), torch.tanh(x))
    assert torch.equal(pt.maximum(0, x), x.clamp(min=0)) and pt.maximum(0, x).dtype == x.dtype
    assert torch.equal(pt.where(x > 0, x, 0.0), x.relu())
    assert pt.sqrt(2) == pytest.approx(math.sqrt(2), rel=1e-15)
    assert pt.pow(2, 0.5) == pytest.approx(math.sqrt(2), rel=1e-15)
    assert pt.minimum(1, 2.5) == 1 and pt.where(True, 1, 2) == 1


# What is refused: each at the line that ends in "here".


def kept(h, u, w):
    KEPT.append(h[0])
    return [h[0] + u[0]]


KEPT: list[Any] = []
trace(kept)


def branches(h, u, w):
    if u[0]:  # here
        return [h[0]]
    return [u[0]]


def branches_on_a_comparison(h, u, w):
    x = u[0] + 1
    while x < 2:  # here
        x = x + 1
    return [x]


def chains(h, u, w):
    return [pt.where(0 < u[0] < 1, h[0], u[0])]  # here


def takes_the_builtin_max(h, u, w):
    x = max(u[0], 0)  # here
    return [h[0] + x]


def helper(x):
    return x if x > 0 else -x  # here


def branches_in_a_helper(h, u, w):
    return [helper(u[0]) + h[0]]


def takes_float(h, u, w):
    return [h[0] + float(u[0])]  # here


def takes_math(h, u, w):
    return [h[0] + math.tanh(u[0])]  # here


def takes_int(h, u, w):
    return [h[0] + int(u[0])]  # here


def takes_item(h, u, w):
    return [h[0] + u[0].item()]  # here


def rounds(h, u, w):
    return [h[0] + round(u[0])]  # here


def takes_an_unknown_function(h, u, w):
    return [torch.lgamma(u[0]) + h[0]]  # here


def takes_an_unknown_module(h, u, w):
    x = u[0]
    y = torch.nn.ELU()(x)  # here
    return [y + h[0]]


def takes_an_unknown_option(h, u, w):
    return [torch.div(u[0], h[0], rounding_mode="floor")]  # here


def takes_an_unknown_method(h, u, w):
    return [u[0].lgamma() + h[0]]  # here


def asks_for_a_shape(h, u, w):
    return [h[0].reshape(u[0].shape)]  # here


def divides_whole(h, u, w):
    return [u[0] // 2]  # here


def multiplies_matrices(h, u, w):
    return [h[0] @ u[0]]  # here


def takes_numpy(h, u, w):
    return [h[0] + np.tanh(u[0])]  # here


def takes_a_function_of_numpy(h, u, w):
    return [h[0] + np.where(u[0] > 0, u[0], 1)]  # here


def takes_an_array(h, u, w):
    return [np.ones(3) * u[0]]  # here


def slices(h, u, w):
    return [h[0] + x for x in u[:2]]  # here


def counts_from_the_end(h, u, w):
    return [h[-1] + u[0]]  # here


def indexes_by_a_value(h, u, w):
    return [h[u[0]]]  # here


def indexes_by_two(h, u, w):
    return [h[0, 1]]  # here


def indexes_beyond(h, u, w):
    return [u[32]]  # here


def indexes_a_number(h, u, w):
    return [h[0] + u[0][1]]  # here


def iterates(h, u, w):
    total = h[0]
    for x in u:  # here
        total = total + x
    return [total]


def unpacks(h, u, w):
    z, c = u  # here
    return [z * c]


def takes_len(h, u, w):
    return [h[0] * len(u)]  # here


def assigns(h, u, w):
    h[0] = u[0]  # here
    return [h[0]]


def changes_an_argument(h, u, w):
    x = h[0]
    x += u[0]  # here
    return [x]


def computes_with_all(h, u, w):
    return [w[0] * h + u[0]]  # here


def gives_all_to_torch(h, u, w):
    return [torch.tanh(u) + h[0]]  # here


def mixes_tracings(h, u, w):
    return [KEPT[0] + u[0]]  # here


def returns_another_tracing(h, u, w):
    x = u[0]  # noqa: F841
    return [KEPT[0]]  # here


def takes_infinity(h, u, w):
    return [pt.maximum(u[0], -math.inf)]  # here


def takes_nan(h, u, w):
    return [u[0] * float("nan")]  # here


def takes_a_long_tensor(h, u, w):
    return [u[0] * torch.ones(3)]  # here


def takes_a_learned_tensor(h, u, w):
    return [u[0] * torch.tensor(1.0, requires_grad=True)]  # here


def takes_text(h, u, w):
    return [u[0] + "1"]  # here


def adds_a_comparison(h, u, w):
    return [h[0] + (u[0] > 0)]  # here


def converts_a_comparison(h, u, w):
    return [h[0] + (u[0] > 0).float()]  # here


def combines_numbers(h, u, w):
    return [pt.where(u[0] & h[0], u[0], 1)]  # here


def chooses_by_a_number(h, u, w):
    return [torch.where(u[0], u[0], 1)]  # here


def raises_a_negative_base(h, u, w):
    return [(-2) ** u[0]]  # here


def returns_nothing(h, u, w):
    h[0] + u[0]  # here


def returns_one(h, u, w):
    x = h[0] + u[0]
    return x  # here


def returns_a_tensor(h, u, w):
    x = h[0] + u[0]  # noqa: F841
    return torch.zeros(1)  # here


def returns_a_comparison(h, u, w):
    x = h[0] > u[0]
    return [x]  # here


def returns_none_in_a_list(h, u, w):
    x = h[0] + u[0]
    return [x, None]  # here


def returns_too_few(h, u, w):
    x = h[0] + h[1]  # here
    return [x + u[0]]


def stacks(h, u, w):
    return torch.stack([h[0], u[0]])  # here


REFUSED: dict[StepFunction, str] = {
    branches: "where(a < b, x, y)",
    branches_on_a_comparison: "where(a < b, x, y)",
    chains: "a < b < c",
    takes_the_builtin_max: "maximum",
    takes_float: "float()",
    takes_math: "torch.tanh(x) in place of math.tanh(x)",
    takes_int: "write floor(x)",
    takes_item: "item cannot be traced",
    rounds: "floor(x + 0.5)",
    takes_an_unknown_function: "lgamma cannot be traced: .* abs, .* zeros_like",
    takes_an_unknown_module: "elu cannot be traced",
    takes_an_unknown_option: r"div takes \(input, other\)",
    takes_an_unknown_method: "lgamma cannot be traced",
    asks_for_a_shape: "cannot be traced",
    divides_whole: r"floor\(x / y\)",
    multiplies_matrices: "@ cannot be traced",
    takes_numpy: "numpy",
    takes_a_function_of_numpy: "numpy",
    takes_an_array: "ndarray",
    slices: "a slice of u",
    counts_from_the_end: "count from 0",
    indexes_by_a_value: "cannot be an index",
    indexes_by_two: "one whole number",
    indexes_beyond: "at most 32",
    indexes_a_number: "no parts",
    iterates: r"@cell\(inputs=...\)",
    unpacks: r"@cell\(inputs=...\)",
    takes_len: r"@cell\(inputs=...\)",
    assigns: "cannot assign to h",
    changes_an_argument: r"x = x \+ y",
    computes_with_all: r"write h\[0\]",
    gives_all_to_torch: r"write u\[0\]",
    mixes_tracings: "another tracing",
    returns_another_tracing: "another tracing",
    takes_infinity: "not finite",
    takes_nan: "not finite",
    takes_a_long_tensor: r"shape \(3,\)",
    takes_a_learned_tensor: "make it a parameter",
    takes_text: "str '1'",
    adds_a_comparison: "a comparison is no number",
    converts_a_comparison: r"where\(a < b, 1, 0\)",
    combines_numbers: "a comparison is wanted",
    chooses_by_a_number: "a comparison is wanted",
    raises_a_negative_base: "-2",
    returns_nothing: "returns nothing",
    returns_one: "return the next state in a list",
    returns_a_tensor: "a tensor of shape",
    returns_a_comparison: "a comparison is no number",
    returns_none_in_a_list: "None cannot stand in a step",
    returns_too_few: r"uses h\[1\], and returns 1 of the 2",
    stacks: r"return \[x, y\]",
}


def line_here(function: Callable[..., Any]) -> int:
    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if line.rstrip().endswith("# here"))


@pytest.mark.parametrize("step", REFUSED, ids=lambda step: step.__name__)
def test_refused(step: StepFunction) -> None:
    with pytest.raises(TraceError) as raised:
        trace(step)
    place, _, reason = str(raised.value).partition(": ")
    assert place == f"{__file__}:{line_here(step)}"
    expected = REFUSED[step]
    assert re.search(expected, reason) or expected in reason
    assert "\n" not in reason
    assert isinstance(raised.value, ValueError)


def test_refused_in_a_helper() -> None:
    with pytest.raises(TraceError) as raised:
        trace(branches_in_a_helper)
    assert str(raised.value).startswith(f"{__file__}:{line_here(helper)}: ")


@pytest.mark.parametrize(
    "step, options, reason",
    [
        (lambda h, u, w: [h[0] + u[0]], {}, "has no name of its own"),
        (lambda h, u, w: [h[0] + u[0]], {"name": "2x"}, "cannot name a cell"),
        (lambda h, u, w: [h[0] + u[0]], {"name": "größe"}, "cannot name a cell"),
        (lambda h, u, w: [h[0]], {"name": "a"}, "at least one input"),
        (lambda h, u: [h[0]], {"name": "a"}, "three arguments"),
        (lambda h, u, w: [], {"name": "a"}, "return the next state"),
        (lambda h, u, w: [h[0] + u[0]], {"name": "a", "state": 2}, "returns 1 numbers, and state"),
        (lambda h, u, w: [h[0] + u[1]], {"name": "a", "inputs": 1}, r"no u\[1\], as inputs is 1"),
        (lambda h, u, w: [u[1]], {"name": "a", "input_names": ["x"]}, r"no u\[1\]"),
        (lambda h, u, w: [u[0]], {"name": "a", "inputs": 2, "input_names": ["x"]}, "agree"),
        (lambda h, u, w: [u[0]], {"name": "a", "input_names": ["x y"]}, "letters, digits"),
        (lambda h, u, w: [u[0]], {"name": "a", "inputs": -1}, "not below 0"),
        (lambda h, u, w: [u[0]], {"name": "a", "side_inputs": ["dt"]}, "names the input 'dt'"),
        (lambda h, u, w: [u[0]], {"name": "a", "side_inputs": [1]}, "names the input 1"),
        (lambda h, u, w: [u[0]], {"name": "a", "memory_input": 0}, "go together"),
        (lambda h, u, w: [u[0]], {"name": "a", "memory_direction": 1}, "go together"),
        (lambda h, u, w: [h[0] + u[20] + w[20]], {"name": "a"}, "at most 32 together"),
    ],
)
def test_refused_options(step: StepFunction, options: CellOptions, reason: str) -> None:
    with pytest.raises(TraceError, match=reason) as raised:
        trace(step, **options)
    assert str(raised.value).startswith(f"{__file__}:")


def test_wrong_calls() -> None:
    with pytest.raises(TypeError, match="no option 'inptus'"):
        trace(gru, inptus=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="takes a function"):
        cell("gru")  # type: ignore[call-overload]


def test_traced_values_can_be_looked_at() -> None:
    seen = []

    def step(h, u, w):
        x = torch.tanh(u[0] + 1)
        seen.extend([repr(x), repr(x < 2), repr(u), hasattr(x, "lgamma"), hasattr(x, "tanh")])
        copies = {x: copy.copy(x)}
        return [copies[x] + h[0]]

    trace(step)
    assert seen == [
        "<Traced tanh(u[0] + 1)>",
        "<TracedMask tanh(u[0] + 1) < 2>",
        "<the argument u of a step>",
        False,
        True,
    ]
