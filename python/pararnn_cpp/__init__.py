"""Nonlinear recurrent networks, trained in parallel along the sequence.

    import torch
    from pararnn_cpp import scan

    u = torch.randn(8, 2048, 3, 512, requires_grad=True)    # (B,T,U,D)
    w = torch.rand(3, 512, requires_grad=True)              # (P,D)
    y, hT = scan(u, w, cell="gru")                          # (B,T,D), (B,S,D)

`pararnn_cpp.nn` has layers like torch.nn's, `pararnn_cpp.lm` the language model of `pararnn train`.
"""

from . import lm, nn
from ._cells import Cell
from ._functions import (
    abs,
    cos,
    erf,
    exp,
    floor,
    log,
    log_sigmoid,
    maximum,
    minimum,
    pow,
    relu,
    sigmoid,
    silu,
    sin,
    softplus,
    sqrt,
    square,
    tanh,
    where,
)
from ._scan import ScanStatistics, last_statistics, scan, step
from ._trace import CellOptions, TraceError, cell, trace
from ._verdict import Verdict, verdict

__all__ = [
    "Cell",
    "CellOptions",
    "ScanStatistics",
    "TraceError",
    "Verdict",
    "abs",
    "cell",
    "cos",
    "erf",
    "exp",
    "floor",
    "last_statistics",
    "lm",
    "log",
    "log_sigmoid",
    "maximum",
    "minimum",
    "nn",
    "pow",
    "relu",
    "scan",
    "sigmoid",
    "silu",
    "sin",
    "softplus",
    "sqrt",
    "square",
    "step",
    "tanh",
    "trace",
    "verdict",
    "where",
]
