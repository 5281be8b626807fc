"""The cells that are timed: a step in PyTorch's operations, and the same as a cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pararnn_cpp
from pararnn_cpp import Cell

MGU_FILE = Path(__file__).parents[2] / "examples" / "cells" / "mgu.hpp"

#: h (S), u (U), w (P) -> the next state (S); each element (B,D), or (D) of w.
Step = Callable[[Any, Any, Any], Sequence[Any]]


def elman(h: Any, u: Any, w: Any) -> Sequence[Any]:
    return [torch.tanh(u[0] + w[0] * h[0])]


def gru(h: Any, u: Any, w: Any) -> Sequence[Any]:
    z = torch.sigmoid(u[0] + w[0] * h[0])
    r = torch.sigmoid(u[1] + w[1] * h[0])
    c = torch.tanh(u[2] + w[2] * (r * h[0]))
    return [h[0] + z * (c - h[0])]


def lstm(h: Any, u: Any, w: Any) -> Sequence[Any]:
    f = torch.sigmoid(u[0] + w[0] * h[0])
    i = torch.sigmoid(u[1] + w[1] * h[0])
    o = torch.sigmoid(u[2] + w[2] * h[0])
    g = torch.tanh(u[3] + w[3] * h[0])
    c = f * h[1] + i * g
    return [o * torch.tanh(c), c]


def mgu(h: Any, u: Any, w: Any) -> Sequence[Any]:
    f = torch.sigmoid(u[0] + w[0] * h[0])
    c = torch.tanh(u[1] + w[1] * (f * h[0]))
    return [(1 - f) * h[0] + f * c]


def momentum(h: Any, u: Any, w: Any) -> Sequence[Any]:
    """A gated unit whose change goes on for a while: state (h, v), which the library lacks."""
    z = torch.sigmoid(u[0] + w[0] * h[0])
    keep = torch.sigmoid(w[1])
    v = keep * h[1] + z * (torch.tanh(u[1] + w[2] * h[0]) - h[0])
    return [h[0] + (1 - keep) * v, v]


@dataclass(frozen=True)
class BenchCell:
    """A cell, its step in PyTorch's operations, and the layer of torch.nn that is like it."""

    cell: Cell
    step: Step
    origin: str  #: "built in", "file" or "@cell"
    #: With dense recurrent weights, so another model.
    dense: Callable[..., nn.Module] | None = None


def find_cells(names: Sequence[str]) -> dict[str, BenchCell]:
    """The cells of these names, compiled where they are not built in."""
    makers: dict[str, Callable[[], BenchCell]] = {
        "elman": lambda: BenchCell(Cell.named("elman"), elman, "built in", nn.RNN),
        "gru": lambda: BenchCell(Cell.named("gru"), gru, "built in", nn.GRU),
        "lstm": lambda: BenchCell(Cell.named("lstm"), lstm, "built in", nn.LSTM),
        "mgu": lambda: BenchCell(Cell.from_file(MGU_FILE), mgu, "file"),
        "momentum": lambda: BenchCell(pararnn_cpp.cell(momentum), momentum, "@cell"),
    }
    unknown = [name for name in names if name not in makers]
    if unknown:
        raise SystemExit(f"there is no cell {unknown[0]} to time; there are {', '.join(makers)}")
    return {name: makers[name]() for name in names}
