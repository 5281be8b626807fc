"""The measurements: dictionaries in the words of `pararnn bench --json`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

import pararnn_cpp
from cells import BenchCell, gru
from loops import Recurrence, compiled_loop, eager_loop
from pararnn_cpp import Cell
from timing import Timer

Measurement = dict[str, Any]

DTYPE = torch.float32
PACKAGE = "pararnn_cpp"
LOOP = "loop of operations"
COMPILED = "loop by torch.compile"
DENSE = "torch.nn, dense"

#: What would take longer is not run: its time is that of a shorter one, times the steps.
MOST_SECONDS = 3.0
#: Up to so many steps results are compared with a loop in float64; beyond, with the package's plan
#: "sequential".
STEPS_OF_REFERENCE = 1024
#: What a result may be off by: the difference's length, relative to the result's.
TOLERANCE = 1e-4
#: How often two cells take turns; the least time of each counts.
ROUNDS = 10


def package(cell: Cell, plan: str = "auto") -> Recurrence:
    """The recurrence by the package's scan."""
    return lambda u, w, h0: pararnn_cpp.scan(u, w, h0, cell=cell, plan=plan)[0]


class Problem:
    """Random inputs of a recurrence, and the direction dy of its gradient.

    With `steps_first`, the inputs of one step come after those of another in memory, as loops over
    the steps like it; the numbers are the same.
    """

    def __init__(
        self,
        cell: Cell,
        batch: int,
        steps: int,
        channels: int,
        device: torch.device,
        *,
        steps_first: bool = False,
    ) -> None:
        draw = torch.Generator().manual_seed(0)
        u = torch.randn(steps, batch, cell.inputs, channels, generator=draw).to(device, DTYPE)
        u = u.transpose(0, 1) if steps_first else u.transpose(0, 1).contiguous()
        w = (2 * torch.rand(cell.params, channels, generator=draw) - 1).to(device, DTYPE)
        h0 = torch.zeros(batch, cell.state, channels, device=device, dtype=DTYPE)
        self.leaves = [values.requires_grad_() for values in (u, w, h0)]
        self.dy = torch.randn(batch, steps, channels, generator=draw).to(device, DTYPE)

    def forward(self, run: Recurrence) -> Tensor:
        u, w, h0 = (leaf.detach() for leaf in self.leaves)
        return run(u, w, h0)

    def forward_backward(self, run: Recurrence) -> list[Tensor]:
        """y and the gradients of u, w and h0."""
        y = run(*self.leaves)
        return [y.detach(), *torch.autograd.grad(y, self.leaves, self.dy)]

    def in_float64(self, run: Recurrence) -> list[Tensor]:
        """The same, computed in float64."""
        leaves = [leaf.detach().double().requires_grad_() for leaf in self.leaves]
        y = run(*leaves)
        return [y.detach(), *torch.autograd.grad(y, leaves, self.dy.double())]


def what_is_wrong(results: Sequence[Tensor], reference: Sequence[Tensor]) -> str:
    """The result that is off by more than is permitted, or nothing."""
    for name, result, right in zip(("y", "du", "dw", "dh0"), results, reference, strict=True):
        off = (result.double() - right.double()).norm() / right.double().norm()
        if not off <= TOLERANCE:
            return f"{name} is off by {off.item():.2g} of its length"
    return ""


def measure_cell(
    name: str,
    bench: BenchCell,
    batch: int,
    lengths: Sequence[int],
    channels: int,
    timer: Timer,
) -> Iterator[Measurement]:
    """The package, the loops and the dense layer of torch.nn, at each number of steps."""
    loops = {LOOP: eager_loop(bench.step), COMPILED: compiled_loop(bench.step)}
    shorter: dict[str, Measurement] = {}
    for steps in sorted(lengths):
        problem = Problem(bench.cell, batch, steps, channels, timer.device)
        if steps <= STEPS_OF_REFERENCE:
            reference = problem.in_float64(eager_loop(bench.step))
        else:
            reference = problem.forward_backward(package(bench.cell, plan="sequential"))
        what = {
            "part": "cells",
            "cell": name,
            "origin": bench.origin,
            "dtype": str(DTYPE).removeprefix("torch."),
            "batch": batch,
            "steps": steps,
            "channels": channels,
        }
        yield what | {"name": PACKAGE} | _times(problem, package(bench.cell), reference, timer)
        problem = Problem(bench.cell, batch, steps, channels, timer.device, steps_first=True)
        baselines = {
            baseline: partial(_times, problem, loop, reference, timer)
            for baseline, loop in loops.items()
        }
        if bench.dense:
            baselines[DENSE] = partial(_dense_times, bench.dense, batch, steps, channels, timer)
        for baseline, measure in baselines.items():
            found = _longer(shorter.get(baseline), steps)
            if not found:
                found = measure()
                shorter[baseline] = {"steps": steps} | found
            yield what | {"name": baseline} | found


def _times(
    problem: Problem, run: Recurrence, reference: Sequence[Tensor], timer: Timer
) -> Measurement:
    """Of a recurrence whose results are right; the first call's tells of compilation."""
    start = time.perf_counter()
    try:
        results = problem.forward_backward(run)
    except TorchDynamoException as error:  # of the compiled loop: it makes code that Triton refuses
        reasons = [line.strip() for line in str(error).splitlines() if "Error: " in line]
        return {"skipped": f"torch.compile fails, {reasons[-1] if reasons else error}"}
    timer.wait()
    first = time.perf_counter() - start
    wrong = what_is_wrong(results, reference)
    if wrong:
        return {"wrong": wrong}
    return {
        "forward_ms": 1e3 * timer.seconds_of(partial(problem.forward, run)),
        "forward_backward_ms": 1e3 * timer.seconds_of(partial(problem.forward_backward, run)),
        "first_call_seconds": first,
    }


def _longer(shorter: Measurement | None, steps: int) -> Measurement | None:
    """Times in proportion to the steps, where it would take too long to measure them."""
    if shorter is None or "forward_backward_ms" not in shorter:
        return None
    factor = steps / shorter["steps"]
    if factor * shorter["forward_backward_ms"] <= 1e3 * MOST_SECONDS:
        return None
    return {
        "forward_ms": factor * shorter["forward_ms"],
        "forward_backward_ms": factor * shorter["forward_backward_ms"],
        "measured_steps": shorter["steps"],
    }


def _dense_times(
    layer: Callable[..., nn.Module], batch: int, steps: int, channels: int, timer: Timer
) -> Measurement:
    """Of torch.nn's layer (cuDNN's on a GPU), input projection included: another model."""
    network = layer(channels, channels, device=timer.device, dtype=DTYPE)
    x = torch.randn(steps, batch, channels, device=timer.device, dtype=DTYPE, requires_grad=True)
    dy = torch.randn_like(x)
    leaves = [x, *network.parameters()]

    def forward() -> None:
        with torch.no_grad():
            network(x)

    def forward_backward() -> None:
        torch.autograd.grad(network(x)[0], leaves, dy)

    try:
        return {
            "forward_ms": 1e3 * timer.seconds_of(forward),
            "forward_backward_ms": 1e3 * timer.seconds_of(forward_backward),
        }
    except RuntimeError as error:  # cuDNN has no layer of so many steps
        return {"skipped": str(error).splitlines()[0]}


def measure_host(timer: Timer) -> Iterator[Measurement]:
    """The time that a call takes on the host, beside that of u + u.

    Of few numbers: on a CPU the arithmetic is part of the time, and a GPU is to be done with a call
    before the next one comes.
    """
    cell = Cell.named("gru")
    steps, channels = 16, 8
    u, w, h0 = Problem(cell, 1, steps, channels, timer.device).leaves
    u_step = u.detach()[:, 0].contiguous().requires_grad_()

    def add(u: Tensor) -> Tensor:
        return u + u

    def scan(u: Tensor, w: Tensor) -> Tensor:
        return pararnn_cpp.scan(u, w, cell=cell)[0]

    def step(u: Tensor, w: Tensor, h: Tensor) -> Tensor:
        return pararnn_cpp.step(u, w, h, cell=cell)[0]

    def gradient(call: Callable[..., Tensor], leaves: list[Tensor], dy: Tensor) -> object:
        return torch.autograd.grad(call(*leaves), leaves, dy)

    calls: list[tuple[str, Callable[..., Tensor], list[Tensor]]] = [
        ("u + u", add, [u]),
        ("scan", scan, [u, w]),
        ("step", step, [u_step, w, h0]),
    ]
    for name, call, leaves in calls:
        values = [leaf.detach() for leaf in leaves]
        runs: dict[str, Callable[[], object]] = {"us": partial(call, *values)}
        if call(*leaves).requires_grad:
            dy = torch.ones_like(call(*values))
            runs["for_gradient_us"] = partial(call, *leaves)
            runs["with_gradient_us"] = partial(gradient, call, leaves, dy)
        yield {
            "part": "host",
            "name": name,
            "cell": "gru",
            "batch": 1,
            "steps": steps,
            "channels": channels,
            **{key: 1e6 * timer.host_seconds_of(run) for key, run in runs.items()},
        }


def measure_traced(batch: int, steps: int, channels: int, timer: Timer) -> Measurement:
    """A GRU by @cell beside the one built in, by turns, and with the same plan."""
    problem = Problem(Cell.named("gru"), batch, steps, channels, timer.device)
    built_in, traced = Cell.named("gru"), pararnn_cpp.cell(gru, name="traced_gru")
    result: Measurement = {
        "part": "traced",
        "cell": "gru",
        "dtype": str(DTYPE).removeprefix("torch."),
        "batch": batch,
        "steps": steps,
        "channels": channels,
    }
    for key, passes in (
        ("forward_ms", problem.forward),
        ("forward_backward_ms", problem.forward_backward),
    ):
        rounds = [
            [
                1e3 * timer.seconds_of(partial(passes, package(cell, plan="planner")))
                for cell in (built_in, traced)
            ]
            for _ in range(ROUNDS)
        ]
        result[key] = min(times[0] for times in rounds)
        result[f"traced_{key}"] = min(times[1] for times in rounds)
    return result
