"""Causal softmax attention with rotary positions, as Llama has it (arXiv:2302.13971)."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from ._documents import Documents
from ._mixer import Mixer, MixerOptions, MixerState, check_sizes, linear, output_of_branch

if TYPE_CHECKING:
    from .._model_config import ModelConfig

#: The most channels of a head.
_MOST_CHANNELS = 512


@dataclasses.dataclass(frozen=True)
class AttentionOptions(MixerOptions):
    """The options of the attention mixer.

    Raises ValueError, which names the value that is wrong.
    """

    heads: int = 0  #: heads of queries; 0: one for each 64 of the width
    key_value_heads: int = 0  #: of keys and values, which heads of queries share; 0: as heads
    rotary_base: float = 10000.0  #: of the rotary positions: larger for longer texts

    def __post_init__(self) -> None:
        check_sizes(self, heads=0, key_value_heads=0)
        if not 0 < self.rotary_base < math.inf:
            raise ValueError(f"rotary_base must be a positive number, not {self.rotary_base}")

    def heads_of(self, config: ModelConfig) -> tuple[int, int]:
        """How many of queries, and of keys and values, with the defaults worked out."""
        heads = self.heads or max(config.width // 64, 1)
        return heads, self.key_value_heads or heads

    def validate(self, config: ModelConfig) -> None:
        """Raises ValueError where they do not go together with the model's."""
        (heads, key_value_heads), width = self.heads_of(config), config.width
        if width % heads != 0:
            raise ValueError(
                f"the heads of attention must divide width: {heads} does not divide {width}: give "
                "other attention.heads"
            )
        if heads % key_value_heads != 0:
            raise ValueError(
                "attention.key_value_heads must divide the heads of attention: "
                f"{key_value_heads} does not divide {heads}"
            )
        channels = width // heads
        if channels % 2 != 0 or channels > _MOST_CHANNELS:
            raise ValueError(
                "a head of attention must have an even number of channels, at most "
                f"{_MOST_CHANNELS}, not width / heads = {width} / {heads} = {channels}: give "
                "another width or attention.heads"
            )


class AttentionMixer(Mixer):
    """softmax(q kᵀ/√n) v over the steps so far, between two projections.

    State: the keys, rotated, and the values of the steps so far, (B,C,H',n) both, and the first of
    them that may still be looked at (B).
    """

    def __init__(self, options: AttentionOptions, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.key_value_heads = options.heads_of(config)
        self.channels = config.width // self.heads
        self.rotary_base = options.rotary_base
        outputs = (self.heads + 2 * self.key_value_heads) * self.channels
        self.input = linear(config.width, outputs)
        self.output = output_of_branch(config)

    def prepare(self, documents: Documents, state: MixerState | None, x: Tensor) -> Documents:
        """As `Mixer`."""
        if documents.positions is not None:
            return documents
        reset, (batch, steps) = documents.reset, x.shape[:2]
        earlier = 0 if state is None else state[0].shape[1]
        own = torch.arange(earlier, earlier + steps, device=x.device)
        begin = own.new_zeros(batch) if state is None else state[2]
        first = begin.unsqueeze(1).expand(-1, steps)  # that each step looks at
        if reset is not None:
            first = torch.maximum(first, torch.where(reset, own, 0).cummax(1).values)
        mask = None
        if state is not None or reset is not None:
            step = torch.arange(earlier + steps, device=x.device)
            mask = ((step <= own[:, None]) & (step >= first[:, :, None])).unsqueeze(1)
        return Documents(reset, own - first, first[:, -1] if steps > 0 else begin, mask)

    def forward(
        self, x: Tensor, state: MixerState | None, documents: Documents
    ) -> tuple[Tensor, MixerState]:
        """As `Mixer`."""
        _, positions, begin, mask = self.prepare(documents, state, x)
        assert positions is not None
        assert begin is not None
        heads = torch.unflatten(self.input(x), 2, (-1, self.channels))
        sizes = [self.heads, self.key_value_heads, self.key_value_heads]
        queries, keys, values = torch.split(heads, sizes, 2)
        queries, keys = (self._rotated(part, positions) for part in (queries, keys))
        if state is not None:
            keys = torch.cat((state[0].to(keys.dtype), keys), 1)
            values = torch.cat((state[1].to(values.dtype), values), 1)
        mixed = functional.scaled_dot_product_attention(
            queries.transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=mask,
            is_causal=mask is None,
            enable_gqa=self.key_value_heads != self.heads,
        )
        y: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return y, (keys, values, begin)

    def _rotated(self, x: Tensor, positions: Tensor) -> Tensor:
        """x (B,T,H,n) with channels i and i + n/2 turned by position · base^(-2i/n)."""
        pairs = self.channels // 2
        pair = torch.arange(pairs, dtype=torch.float64, device=x.device)
        frequencies = torch.pow(self.rotary_base, -pair / pairs)
        angles = (positions.double().unsqueeze(2) * frequencies).unsqueeze(2)  # (B,T,1,n/2)
        exact = x if x.dtype == torch.float64 else x.float()
        cosines, sines = angles.cos().to(exact.dtype), angles.sin().to(exact.dtype)
        a, b = exact.chunk(2, 3)
        return torch.cat((a * cosines - b * sines, b * cosines + a * sines), 3).to(x.dtype)
