"""A nonlinear recurrent cell between two projections (ParaRNN, arXiv:2510.21450)."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import Module, Parameter, RMSNorm, functional

from .._cells import Cell, as_cell
from .._scan import scan
from ._convolution import CausalConvolution
from ._documents import Documents
from ._mixer import Mixer, MixerOptions, MixerState, check_sizes, linear, output_of_branch

if TYPE_CHECKING:
    from .._model_config import ModelConfig

#: The longest memory given to a channel at first, in steps.
_LONGEST_MEMORY = 128.0


@dataclasses.dataclass(frozen=True)
class RnnOptions(MixerOptions):
    """The options of the rnn mixer.

    Raises ValueError, which names the value that is wrong, and RuntimeError if there is no such
    cell.
    """

    cell: str | Cell = "gru"  #: a name, a file or a `Cell`
    heads: int = 1  #: blocks of the cell's block-diagonal input projection; 1: dense
    conv_width: int = 4  #: taps of the causal depthwise convolution
    weight_bound: float = 0.0  #: bound on the size of the recurrent weights; 0: none

    def __post_init__(self) -> None:
        check_sizes(self, heads=1, conv_width=1)
        if not 0 <= self.weight_bound < math.inf:
            raise ValueError(
                f"weight_bound must be 0 (none) or a positive number, not {self.weight_bound}"
            )
        object.__setattr__(self, "cell", as_cell(self.cell))

    def validate(self, config: ModelConfig) -> None:
        """Raises ValueError where they do not go together with the model's."""
        if config.width % self.heads != 0:
            raise ValueError(
                f"rnn.heads must divide width: {self.heads} does not divide {config.width}"
            )


class _HeadProjection(Module):
    """The projection to a cell's inputs, block-diagonal over heads."""

    def __init__(self, width: int, heads: int, inputs: int) -> None:
        super().__init__()
        self.inputs = inputs
        channels = width // heads
        weight = torch.randn(heads, inputs * channels, channels) / math.sqrt(channels)
        self.weight = Parameter(weight)
        self.bias = Parameter(torch.zeros(heads, inputs * channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (B,T,d) -> u (B,T,H,U,d/H), or (B,T,U,d) for one head."""
        heads = self.weight.shape[0]
        if heads == 1:
            u = functional.linear(x, self.weight[0], self.bias[0])
            return torch.unflatten(u, -1, (self.inputs, -1))
        columns = torch.unflatten(x, -1, (heads, -1)).flatten(0, 1).transpose(0, 1)
        products = torch.baddbmm(self.bias.unsqueeze(1), columns, self.weight.mT)  # (H,B·T,U·d/H)
        rows = torch.unflatten(products.transpose(0, 1), 0, x.shape[:2])
        return torch.unflatten(rows, -1, (self.inputs, -1))


class RnnMixer(Mixer):
    """A cell between two projections, with a gate (ParaRNN, arXiv:2510.21450)."""

    def __init__(self, options: RnnOptions, config: ModelConfig) -> None:
        super().__init__()
        self.cell = cell = as_cell(options.cell)
        width, self._bound = config.width, options.weight_bound
        learned = [i for i in range(cell.inputs) if i not in cell.side_inputs]
        self.input = linear(width, 2 * width)
        self.convolution = CausalConvolution(width, options.conv_width)
        self.projection = _HeadProjection(width, options.heads, len(learned))
        reach = min(0.5, self._bound or 0.5)
        weight = torch.empty(cell.params, width).uniform_(-reach, reach)
        self.recurrent_weight = Parameter(weight)
        self.norm = RMSNorm(width, config.norm_epsilon)
        self.output = output_of_branch(config)
        # Gates under which the channels forget over 2 to 128 steps, spread evenly on a logarithmic
        # scale: a forget gate sigmoid(b) = 1 - 1/m has b = log(m - 1) (Tallec and Ollivier, "Can
        # recurrent neural networks warp time?", 2018).
        if cell.memory_input in learned:
            row = learned.index(cell.memory_input)
            gate = torch.unflatten(self.projection.bias.detach(), 1, (len(learned), -1))[:, row]
            memory = 2 * (_LONGEST_MEMORY / 2) ** torch.rand_like(gate)
            gate.copy_(cell.memory_direction * torch.log(memory - 1))

    def forward(
        self, x: Tensor, state: MixerState | None, documents: Documents
    ) -> tuple[Tensor, MixerState]:
        """As `Mixer`. State: the last K - 1 inputs of the convolution of K taps (B,K-1,d), and the
        state of the cell (B,S,d)."""
        before, h0 = (None, None) if state is None else state
        branch, gate = self.input(x).chunk(2, -1)
        convolved, before = self.convolution(branch, before, documents.reset)
        u = self._with_side_inputs(self.projection(convolved))
        y, hT = scan(u, self.recurrent_weight, h0, cell=self.cell, reset=documents.reset)
        normed = self.norm(y.to(self.norm.weight.dtype))
        return self.output(normed * functional.silu(gate)), (before, hT)

    @torch.no_grad()
    def clip_weights(self) -> None:
        """Brings the recurrent weights back into their bound."""
        if self._bound > 0:
            self.recurrent_weight.clamp_(-self._bound, self._bound)

    def _with_side_inputs(self, u: Tensor) -> Tensor:
        """u with a row of ones for each input of the cell that is given rather than projected."""
        given = self.cell.side_inputs
        if not given:
            return u
        rows = iter(u.unbind(-2))
        ones = torch.ones_like(u[..., 0, :])
        inputs = [ones if i in given else next(rows) for i in range(self.cell.inputs)]
        return torch.stack(inputs, -2)
