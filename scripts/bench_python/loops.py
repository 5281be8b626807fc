"""A recurrence as PyTorch's users write it: a loop over the steps, eager or compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cells import Step

#: u (B,T,U,D), w (P,D), h0 (B,S,D) -> y (B,T,D)
Recurrence = Callable[[Tensor, Tensor, Tensor], Tensor]

#: Steps that are compiled together. torch.compile unrolls a loop, and the time that it needs grows
#: with the number of steps: a longer sequence is a loop over compiled pieces.
COMPILED_STEPS = 16


def eager_loop(step: Step) -> Recurrence:
    """One operation after another."""

    def run(u: Tensor, w: Tensor, h0: Tensor) -> Tensor:
        outputs, _ = _steps(step, u, w, h0.unbind(1))
        return torch.stack(outputs, 1)

    return run


def compiled_loop(step: Step) -> Recurrence:
    """COMPILED_STEPS steps at a time through torch.compile."""

    def piece(u: Tensor, w: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        outputs, state = _steps(step, u, w, h.unbind(1))
        return torch.stack(outputs, 1), torch.stack(tuple(state), 1)

    compiled = torch.compile(piece, fullgraph=True, dynamic=False)

    def run(u: Tensor, w: Tensor, h0: Tensor) -> Tensor:
        outputs, h = [], h0
        for part in torch.split(u, COMPILED_STEPS, 1):
            y, h = compiled(part, w, h)
            outputs.append(y)
        return torch.cat(outputs, 1)

    return run


def _steps(
    step: Step, u: Tensor, w: Tensor, h: Sequence[Tensor]
) -> tuple[list[Tensor], Sequence[Tensor]]:
    """The output of each step, and the last state."""
    outputs = []
    weights = w.unbind(0)
    # One unbind in place of an index for each step, whose backward pass would fill all of u.
    for inputs in u.unbind(1):
        h = step(h, inputs.unbind(1), weights)
        outputs.append(h[0])
    return outputs, h
