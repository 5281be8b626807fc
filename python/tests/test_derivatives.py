"""Derivatives of every mode and order: those of the loop, or refused in a sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import pararnn_cpp._library
from pararnn_cpp import Cell, cell, scan, step

F = torch.func
BATCH, STEPS, CHANNELS = 2, 6, 3
Function = Callable[..., tuple[Tensor, Tensor]]
ALL = (0, 1, 2)


def gru(u: Tensor, w: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
    return scan(u, w, h0, cell="gru")


def gru_loop(u: Tensor, w: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
    if u.dim() == 5:
        u = u.movedim(2, 3).flatten(-2)  # heads side by side
    h, outputs = h0[:, 0], []
    for at in u.unbind(1):
        z = torch.sigmoid(at[:, 0] + w[0] * h)
        r = torch.sigmoid(at[:, 1] + w[1] * h)
        c = torch.tanh(at[:, 2] + w[2] * (r * h))
        h = (1 - z) * h + z * c
        outputs.append(h)
    return torch.stack(outputs, 1), h.unsqueeze(1)


def arguments(*leading: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """u, w and h0 of a GRU, random, behind other dimensions."""
    generator = torch.Generator().manual_seed(sum(leading) + 1)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*leading, *shape, generator=generator, dtype=torch.float64).to(dtype)

    return (
        randn(BATCH, STEPS, 3, CHANNELS),
        0.4 * randn(3, CHANNELS),
        randn(BATCH, 1, CHANNELS),
    )


def along(of: tuple[Tensor, ...], which: int) -> tuple[Tensor, ...]:
    """A direction; not random, which vmap does not allow."""
    return tuple(
        torch.linspace(which, 9, t.numel(), dtype=t.dtype).cos().reshape(t.shape) for t in of
    )


def total(function: Function) -> Callable[..., Tensor]:
    """A number of both outputs, in which they count differently."""

    def number(*of: Tensor) -> Tensor:
        y, hT = function(*of)
        return y.sin().sum() + hT.cos().sum()

    return number


def of_gradients(function: Function) -> Callable[..., Tensor]:
    """A number of the gradients."""
    return lambda *of: sum(g.sin().sum() for g in F.grad(total(function), ALL)(*of))


TRANSFORMS: dict[str, Callable[[Function], Callable[..., Any]]] = {
    "grad": lambda f: F.grad(total(f), ALL),
    "vjp": lambda f: lambda *of: F.vjp(f, *of)[1]((of[0][:, :, 0], of[2])),
    "jvp": lambda f: lambda *of: F.jvp(f, of, along(of, 1)),
    "jacrev": lambda f: F.jacrev(f, ALL),
    "jacfwd": lambda f: F.jacfwd(f, ALL),
    "hessian": lambda f: F.hessian(total(f), ALL),
    "reverse over reverse": lambda f: F.jacrev(F.jacrev(total(f), ALL), ALL),
    "reverse over forward": lambda f: F.jacrev(F.jacfwd(total(f), ALL), ALL),
    "forward over forward": lambda f: F.jacfwd(F.jacfwd(total(f), ALL), ALL),
    "jvp of jvp": lambda f: (
        lambda *of: F.jvp(lambda *x: F.jvp(f, x, along(x, 1))[1], of, along(of, 2))
    ),
    "jvp of grad": lambda f: lambda *of: F.jvp(F.grad(total(f), ALL), of, along(of, 3)),
    "third": lambda f: F.grad(of_gradients(f), ALL),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_are_those_of_the_loop(name: str) -> None:
    transform, inputs = TRANSFORMS[name], arguments()
    torch.testing.assert_close(transform(gru)(*inputs), transform(gru_loop)(*inputs))


#: which of u, w and h0 are mapped, and along which dimension
MAPPED = [(0, None, None), (None, 0, None), (None, None, 0), (0, 0, 0), (2, 1, 2)]
VMAPPED: dict[str, Callable[[Function], Callable[..., Any]]] = {
    "value": lambda f: f,
    "grad": TRANSFORMS["grad"],
    "jvp": TRANSFORMS["jvp"],
    "hessian": TRANSFORMS["hessian"],
}


@pytest.mark.parametrize("name", VMAPPED)
@pytest.mark.parametrize("dims", MAPPED)
def test_vmap_is_that_of_the_loop(name: str, dims: tuple[int | None, ...]) -> None:
    transform = VMAPPED[name]
    inputs = tuple(
        one if at is None else many.movedim(0, at)
        for one, many, at in zip(arguments(), arguments(4), dims, strict=True)
    )
    found, expected = (torch.vmap(transform(f), dims) for f in (gru, gru_loop))
    torch.testing.assert_close(found(*inputs), expected(*inputs))
    found, expected = (F.grad(total(torch.vmap(f, dims)), ALL) for f in (gru, gru_loop))
    torch.testing.assert_close(found(*inputs), expected(*inputs))


def test_vmap_of_heads_and_of_vmap() -> None:
    def both(transform: Callable[[Function], Callable[..., Any]], *inputs: Tensor) -> None:
        torch.testing.assert_close(transform(gru)(*inputs), transform(gru_loop)(*inputs))

    u, w, h0 = arguments(4)
    heads = u.unflatten(-1, (3, 1)).movedim(-2, 3)  # (4,B,T,H,U,D/H)
    both(lambda f: torch.vmap(f, (0, 0, 0)), heads, w, h0)
    both(lambda f: torch.vmap(F.grad(total(f), ALL), (0, None, 0)), heads, w[0], h0)
    twice = lambda f: torch.vmap(torch.vmap(f, (0, None, None)), (None, 0, None))  # noqa: E731
    both(twice, u, w, h0[0])


def test_a_step_has_the_derivatives_of_the_loop() -> None:
    def one(function: Function) -> Function:
        def run(u: Tensor, w: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            y, h = function(u.unsqueeze(1), w, h)
            return y[:, 0], h

        return run

    u, w, h0 = arguments(4)
    stepped, looped = lambda *of: step(*of, cell="gru"), one(gru_loop)
    inputs = (u[:, :, 0], w, h0)
    for transform in (VMAPPED["value"], *(TRANSFORMS[n] for n in ("grad", "jvp", "hessian"))):
        torch.testing.assert_close(
            torch.vmap(transform(stepped))(*inputs), torch.vmap(transform(looped))(*inputs)
        )
    leaves = [t[0].clone().requires_grad_() for t in inputs]
    torch.testing.assert_close(
        torch.autograd.grad(total(stepped)(*leaves), leaves),
        torch.autograd.grad(total(looped)(*leaves), leaves),
    )


def test_forward_mode_within_and_around_backward() -> None:
    inputs = arguments()
    directions = along(inputs, 4)

    def tangents(function: Function, grad: bool) -> list[Tensor]:
        with torch.set_grad_enabled(grad), forward_ad.dual_level():
            duals = (forward_ad.make_dual(t, d) for t, d in zip(inputs, directions, strict=True))
            return [forward_ad.unpack_dual(t).tangent.clone() for t in function(*duals)]

    def backward_of_tangents(function: Function) -> tuple[Tensor, ...]:
        leaves = tuple(t.clone().requires_grad_() for t in inputs)
        _, (y, hT) = F.jvp(function, leaves, directions)
        return torch.autograd.grad(y.sin().sum() + hT.sum(), leaves)

    def tangents_of_gradients(function: Function) -> list[Tensor]:
        with forward_ad.dual_level():
            duals = [
                forward_ad.make_dual(t.clone().requires_grad_(), d)
                for t, d in zip(inputs, directions, strict=True)
            ]
            gradients = torch.autograd.grad(total(function)(*duals), duals, create_graph=True)
            return [forward_ad.unpack_dual(t).tangent.clone() for t in gradients]

    for grad in (False, True):
        torch.testing.assert_close(tangents(gru, grad), tangents(gru_loop, grad))
    torch.testing.assert_close(backward_of_tangents(gru), backward_of_tangents(gru_loop))
    torch.testing.assert_close(tangents_of_gradients(gru), tangents_of_gradients(gru_loop))
    with forward_ad.dual_level():  # none of them has a tangent
        assert forward_ad.unpack_dual(gru(*inputs)[0]).tangent is None


@pytest.mark.parametrize("name", ["elman", "gru", "lstm_cifg", "lstm", "slstm"])
def test_cells_pass_gradcheck_and_gradgradcheck(name: str) -> None:
    known = Cell.named(name)
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        numbers = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1
        return numbers.requires_grad_()

    inputs = (random(2, 5, known.inputs, 2), random(known.params, 2), random(2, known.state, 2))
    run = lambda u, w, h0=None: scan(u, w, h0, cell=known)  # noqa: E731
    assert torch.autograd.gradcheck(run, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs[:2])


def test_a_cell_of_many_numbers_has_second_derivatives() -> None:
    """Its tangent has more numbers than a cell may have."""

    @cell
    def wide(h: Any, u: Any, w: Any) -> list[Any]:
        driven = w[8] * h[0] + w[9] * h[1]
        for i in range(8):
            driven = driven + w[i] * u[i]
        return [torch.tanh(driven), torch.sigmoid(h[0] + w[9])]

    assert (wide.state, wide.inputs, wide.params) == (2, 8, 10)
    generator = torch.Generator().manual_seed(3)
    inputs = tuple(
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in ((1, 2, 8, 1), (10, 1), (1, 2, 1))
    )
    run = lambda u, w, h0: scan(u, w, h0, cell=wide)  # noqa: E731
    assert torch.autograd.gradcheck(run, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(run, inputs)
    with pytest.raises(RuntimeError, match="at most 32 together"):
        u, w, h0 = (t.detach() for t in inputs)
        once = lambda w: F.jvp(lambda w: run(u, w, h0), (w,), (w,))[1]  # noqa: E731
        F.jvp(once, (w,), (w,))


def test_second_derivatives_over_many_chunks() -> None:
    """The scans of the tangent are cut into chunks and verified like any other."""
    generator = torch.Generator().manual_seed(2)
    u = torch.randn(1, 300, 3, 2, generator=generator, dtype=torch.float64)
    _, w, _ = arguments()
    inputs = (u, w[:, :2].contiguous(), u.new_zeros(1, 1, 2))

    def second(function: Function) -> tuple[Tensor, ...]:
        return F.grad(of_gradients(function), ALL)(*inputs)

    expected = second(gru_loop)
    for plan in ("sequential", "speculative", "newton"):
        run = lambda *of, plan=plan: scan(*of, cell="gru", plan=plan, chunk=64)  # noqa: E731
        torch.testing.assert_close(second(run), expected)


def test_gradients_have_the_dtypes_of_their_arguments() -> None:
    u, w, h0 = arguments()
    inputs = (u.bfloat16(), w.half(), h0.float())
    leaves = [t.requires_grad_() for t in inputs]
    found = torch.autograd.grad(total(gru)(*leaves), leaves, create_graph=True)
    assert [g.dtype for g in found] == [t.dtype for t in inputs]
    second = torch.autograd.grad(sum(g.float().sum() for g in found), leaves)
    assert [g.dtype for g in second] == [t.dtype for t in inputs]


ALONE = """
import sys
import torch
from torch.autograd import forward_ad

torch.ops.load_library(sys.argv[1])
P = torch.ops.pararnn
u, w, h = torch.randn(2, 5, 3, 4), torch.rand(3, 4), torch.randn(2, 1, 4)
at = u[:, 0]
scan = lambda u, w, h: P.scan(u, w, h, "gru")[0]
step = lambda u, w, h: P.step(u, w, h, "gru")[0]


def refuses(run):
    try:
        run()
    except RuntimeError as error:
        words = str(error)
        return "has no derivatives by itself" in words and "\\n" not in words
    return False


for f, x in ((scan, u), (step, at)):
    assert f(x, w, h).isfinite().all()
    assert refuses(lambda: f(x, w.clone().requires_grad_(), h))
    assert refuses(lambda: f(x.clone().requires_grad_() * 2, w, h))
    assert refuses(lambda: f(x, w, h.clone().requires_grad_()))
    assert refuses(lambda: torch.func.grad(lambda x: f(x, w, h).sum())(x))
    assert refuses(lambda: torch.func.jvp(lambda w: f(x, w, h), (w,), (w,)))
    with forward_ad.dual_level():
        assert refuses(lambda: f(forward_ad.make_dual(x, x), w, h))
        assert f(x, w, h).isfinite().all()
    with torch.no_grad():
        assert not f(x, w.clone().requires_grad_(), h).requires_grad
    with torch.inference_mode():
        assert f(x * 1, w, h).isfinite().all()
assert P.scan(u, w, None, "gru")[0].isfinite().all()
print("alone")
"""


def test_the_library_alone_loses_no_derivative() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", ALONE, str(pararnn_cpp._library.library)],
        capture_output=True,
        text=True,
    )
    assert ran.stdout == "alone\n", ran.stderr
