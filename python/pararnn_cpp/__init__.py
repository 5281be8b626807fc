"""Nonlinear recurrent networks, trained in parallel along the sequence.

import torch
from pararnn_cpp import scan

u = torch.randn(8, 2048, 3, 512, requires_grad=True)   # (B,T,U,D)
w = torch.rand(3, 512, requires_grad=True)              # (P,D)
y, hT = scan(u, w, cell="gru")                          # (B,T,D), (B,S,D)
"""

from ._cells import Cell
from ._scan import ScanStatistics, last_statistics, scan, step
from ._verdict import Verdict, verdict

__all__ = ["Cell", "ScanStatistics", "Verdict", "last_statistics", "scan", "step", "verdict"]
