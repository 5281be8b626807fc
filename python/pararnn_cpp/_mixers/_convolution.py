"""The causal depthwise convolution that mixers share."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import Module, Parameter, functional


class CausalConvolution(Module):
    """Every channel filtered by K taps of its own, y_t = sum over k of w_k x_{t-K+1+k}; with a
    bias, silu of the sum of both."""

    def __init__(self, channels: int, width: int, *, bias: bool = False) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.weight = Parameter(torch.empty(width, channels).uniform_(-bound, bound))
        self.bias = Parameter(torch.empty(channels).uniform_(-bound, bound)) if bias else None

    def forward(
        self, x: Tensor, before: Tensor | None, reset: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x (B,T,d) and the inputs before it (B,K-1,d), or None for zeros -> y (B,T,d), and the
        inputs before what comes next. What is before a step that reset (B,T) marks is zeros to it
        and to those behind it."""
        taps, steps = self.weight.shape[0], x.shape[1]
        if before is None:
            before = x.new_zeros(x.shape[0], taps - 1, x.shape[2])
        padded = torch.cat((before.to(x.dtype), x), 1)
        y = x * self.weight[taps - 1]
        if reset is None:
            for k in range(taps - 1):
                y = y + padded[:, k : k + steps] * self.weight[k]
            # A copy, so that the state does not hold on to all of x.
            return self._end(y), padded[:, steps:].clone()
        # How often each row has started anew.
        times = functional.pad(reset.int().cumsum(1), (taps - 1, 0))
        for k in range(taps - 1):
            same = (times[:, k : k + steps] == times[:, taps - 1 :]).unsqueeze(2)
            y = y + torch.where(same, padded[:, k : k + steps], 0) * self.weight[k]
        same = (times[:, steps:] == times[:, -1:]).unsqueeze(2)
        return self._end(y), torch.where(same, padded[:, steps:], 0)

    def _end(self, y: Tensor) -> Tensor:
        return y if self.bias is None else functional.silu(y + self.bias)
