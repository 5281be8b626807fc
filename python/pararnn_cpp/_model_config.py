"""What defines a language model: the weights mean nothing without it."""

from __future__ import annotations

import dataclasses
import math

from ._cells import Cell, as_cell


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What defines a language model: its sizes and the choice of its parts.

    Raises ValueError, which names the value that makes no model, and RuntimeError if there is no
    such cell.
    """

    vocabulary: int = 257  #: V, tokens
    width: int = 256  #: d, channels of the residual stream
    layers: int = 3  #: blocks, each a mixer and an MLP
    mixer: str = "rnn"  #: the sequence mixer of every block: "rnn" is the one there is
    cell: str | Cell = "gru"  #: the cell of an rnn mixer: a name, a file or a `Cell`
    heads: int = 1  #: blocks of the cell's block-diagonal input projection; 1: dense
    conv_width: int = 4  #: taps of the causal depthwise convolution
    mlp_width: int = 0  #: hidden channels of the MLP; 0: 8d/3 rounded up to a multiple of 32
    tie_embedding: bool = True  #: output logits through the transposed embedding
    weight_bound: float = 0.0  #: bound on the size of the recurrent weights; 0: none
    norm_epsilon: float = 1e-5  #: added to the mean square in every RMSNorm

    def __post_init__(self) -> None:
        for name, least in (
            ("vocabulary", 1),
            ("width", 1),
            ("layers", 0),
            ("heads", 1),
            ("conv_width", 1),
            ("mlp_width", 0),
        ):
            size = getattr(self, name)
            if type(size) is not int or not least <= size < 2**31:
                raise ValueError(
                    f"{name} must be a whole number from {least} to 2^31 - 1, not {size}"
                )
        if self.width % self.heads != 0:
            raise ValueError(f"heads must divide width: {self.heads} does not divide {self.width}")
        if not 0 <= self.weight_bound < math.inf:
            raise ValueError(
                f"weight_bound must be 0 (none) or a positive number, not {self.weight_bound}"
            )
        if not 0 < self.norm_epsilon < math.inf:
            raise ValueError(f"norm_epsilon must be a positive number, not {self.norm_epsilon}")
        if self.mixer != "rnn":
            raise ValueError(f"unknown mixer {self.mixer!r}: there is rnn")
        object.__setattr__(self, "cell", as_cell(self.cell))

    @property
    def hidden_width(self) -> int:
        """mlp_width with its default worked out."""
        return self.mlp_width or (8 * self.width // 3 + 31) // 32 * 32
