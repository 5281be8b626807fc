"""The mixer of Mamba2 (Dao and Gu, "Transformers are SSMs", arXiv:2405.21060)."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import Parameter, RMSNorm, functional

from ._convolution import CausalConvolution
from ._documents import Documents
from ._mixer import Mixer, MixerOptions, MixerState, check_sizes, linear

if TYPE_CHECKING:
    from .._model_config import ModelConfig

#: Steps of a chunk, within which the recurrence is a product of matrices.
_CHUNK = 128


@dataclasses.dataclass(frozen=True)
class Mamba2Options(MixerOptions):
    """The options of the mamba2 mixer. Raises ValueError, which names the value that is wrong."""

    expand: int = 2  #: channels of the recurrence, times the width
    head_channels: int = 64  #: of each head
    state: int = 128  #: components of each channel
    groups: int = 1  #: of heads that share b and c
    conv_width: int = 4  #: taps of the causal depthwise convolution

    def __post_init__(self) -> None:
        check_sizes(self, expand=1, head_channels=1, state=1, groups=1, conv_width=1)

    def validate(self, config: ModelConfig) -> None:
        """Raises ValueError unless channels make whole heads, and heads whole groups."""
        channels = self.expand * config.width
        if channels % self.head_channels != 0:
            raise ValueError(
                "mamba2.head_channels must divide mamba2.expand times width: "
                f"{self.head_channels} does not divide {channels}"
            )
        heads = channels // self.head_channels
        if heads % self.groups != 0:
            raise ValueError(
                "mamba2.groups must divide the heads of mamba2: "
                f"{self.groups} does not divide {heads}"
            )


def ssd(
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    h0: Tensor,
    reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """h_t = exp(a dt_t) h_{t-1} + dt_t x_t b_t^T, y_t = h_t c_t, for each head, in chunks.

    Args:
        x: (B,T,H,P).
        dt: (B,T,H), positive.
        a: (H), negative.
        b, c: (B,T,G,N); a group's are of H/G neighbouring heads.
        h0: (B,H,P,N).
        reset: (B,T), bool: h is zeros before each step that it marks.

    Returns:
        y (B,T,H,P) and h (B,H,P,N) after step T, in h0's dtype.
    """
    steps, heads = x.shape[1:3]
    if steps == 0:
        return x, h0
    chunk = min(steps, _CHUNK)

    def cut(t: Tensor) -> Tensor:
        """(B,T,H,...) -> (B,L,H,Q,...), with zeros behind step T."""
        behind = [0, 0] * (t.dim() - 2) + [0, -steps % chunk]
        return torch.unflatten(functional.pad(t, behind), 1, (-1, chunk)).transpose(2, 3)

    x, b, c = (cut(t.repeat_interleave(heads // t.shape[2], 2)) for t in (x, b, c))
    dt = cut(dt.to(h0.dtype))
    log = (dt * a.to(h0.dtype).unsqueeze(-1)).cumsum(-1)  # of the decay since the chunk began
    after = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).triu(1)
    apart = torch.zeros_like(log, dtype=torch.bool)  # from the chunk's start
    end_apart = apart  # from its end
    if reset is not None:
        times = cut(reset.int().unsqueeze(2)).cumsum(-1)  # how often it has started anew
        after = after | (times.unsqueeze(-1) != times.unsqueeze(-2))
        apart, end_apart = times != 0, times != times[..., -1:]
    between = (log.unsqueeze(-1) - log.unsqueeze(-2)).masked_fill(after, -math.inf).exp()
    from_start = log.exp().masked_fill(apart, 0)
    to_end = (log[..., -1:] - log).exp().masked_fill(end_apart, 0) * dt

    masked = (c @ b.mT) * (between * dt.unsqueeze(-2)).to(x.dtype)
    added = (x * to_end.unsqueeze(-1).to(x.dtype)).mT @ b  # (B,L,H,P,N)
    entering = []
    h = h0
    for chunk_added, decay in zip(added.unbind(1), from_start[..., -1].unbind(1), strict=True):
        entering.append(h)
        h = decay[..., None, None] * h + chunk_added
    before = c @ torch.stack(entering, 1).to(x.dtype).mT
    y = masked @ x + before * from_start.unsqueeze(-1).to(x.dtype)
    return y.transpose(2, 3).flatten(1, 2)[:, :steps], h


class Mamba2Mixer(Mixer):
    """Convolved x, b and c and a step dt a head into the state-space recurrence, a gate behind."""

    def __init__(self, options: Mamba2Options, config: ModelConfig) -> None:
        super().__init__()
        self._options = options
        self._channels = channels = options.expand * config.width
        self._shared = options.groups * options.state
        self._heads = heads = channels // options.head_channels
        convolved = channels + 2 * self._shared
        self.input = linear(config.width, channels + convolved + heads)
        self.convolution = CausalConvolution(convolved, options.conv_width, bias=True)
        # As published: -a from 1 to 16, and steps from 0.001 to 0.1, evenly on a logarithmic scale.
        self.decay_log = Parameter(torch.empty(heads).uniform_(1, 16).log())
        dt = 1e-3 * 100 ** torch.rand(heads)
        self.step_bias = Parameter(dt + torch.log(-torch.expm1(-dt)))
        self.skip = Parameter(torch.ones(heads))
        self.norm = RMSNorm(channels, config.norm_epsilon)
        self.output = linear(channels, config.width, 1 / math.sqrt(2 * max(config.layers, 1)))

    def forward(
        self, x: Tensor, state: MixerState | None, documents: Documents
    ) -> tuple[Tensor, MixerState]:
        """As `Mixer`. State: the last K - 1 inputs of the convolution of K taps, and that of the
        recurrence (B,H,P,N)."""
        shared, channels, components = self._shared, self._channels, self._options.state
        gate, inner, steps = self.input(x).split((channels, channels + 2 * shared, self._heads), -1)
        before, h0 = (None, None) if state is None else state
        convolved, before = self.convolution(inner, before, documents.reset)
        inputs, b, c = convolved.split((channels, shared, shared), -1)
        heads = torch.unflatten(inputs, 2, (self._heads, -1))
        dt = functional.softplus(steps.to(self.step_bias.dtype) + self.step_bias)
        if h0 is None:
            h0 = dt.new_zeros(x.shape[0], *heads.shape[2:], components)
        b, c = (torch.unflatten(t, 2, (-1, components)) for t in (b, c))
        y, h = ssd(heads, dt, -self.decay_log.exp(), b, c, h0, documents.reset)
        y = (y + self.skip.unsqueeze(-1) * heads).flatten(2) * functional.silu(gate)
        return self.output(self.norm(y.to(self.norm.weight.dtype))), (before, h)
