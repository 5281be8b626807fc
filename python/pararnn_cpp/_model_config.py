"""What defines a language model: the weights mean nothing without it."""

from __future__ import annotations

import dataclasses
import math
import re

from ._cells import Cell, as_cell

_LARGEST_SIZE = 2**31 - 1


def _check_sizes(options: object, **least: int) -> None:
    """Raises ValueError unless each of these fields is a whole number from so much on."""
    for name, start in least.items():
        size = getattr(options, name)
        if type(size) is not int or not start <= size <= _LARGEST_SIZE:
            raise ValueError(f"{name} must be a whole number from {start} to 2^31 - 1, not {size}")


@dataclasses.dataclass(frozen=True)
class RnnOptions:
    """The options of the rnn mixer.

    Raises ValueError, which names the value that is wrong, and RuntimeError if there is no such
    cell.
    """

    cell: str | Cell = "gru"  #: a name, a file or a `Cell`
    heads: int = 1  #: blocks of the cell's block-diagonal input projection; 1: dense
    conv_width: int = 4  #: taps of the causal depthwise convolution
    weight_bound: float = 0.0  #: bound on the size of the recurrent weights; 0: none

    def __post_init__(self) -> None:
        _check_sizes(self, heads=1, conv_width=1)
        if not 0 <= self.weight_bound < math.inf:
            raise ValueError(
                f"weight_bound must be 0 (none) or a positive number, not {self.weight_bound}"
            )
        object.__setattr__(self, "cell", as_cell(self.cell))


@dataclasses.dataclass(frozen=True)
class Mamba2Options:
    """The options of the mamba2 mixer. Raises ValueError, which names the value that is wrong."""

    expand: int = 2  #: channels of the recurrence, times the width
    head_channels: int = 64  #: of each head
    state: int = 128  #: components of each channel
    groups: int = 1  #: of heads that share b and c
    conv_width: int = 4  #: taps of the causal depthwise convolution

    def __post_init__(self) -> None:
        _check_sizes(self, expand=1, head_channels=1, state=1, groups=1, conv_width=1)

    def check(self, width: int) -> None:
        """Raises ValueError unless channels make whole heads, and heads whole groups."""
        channels = self.expand * width
        if channels % self.head_channels != 0:
            raise ValueError(
                f"head_channels must divide expand times width: {self.head_channels} does not "
                f"divide {channels}"
            )
        heads = channels // self.head_channels
        if heads % self.groups != 0:
            raise ValueError(f"groups must divide the heads: {self.groups} does not divide {heads}")


#: The options of each mixer, which a `ModelConfig` has under its name.
MIXERS: dict[str, type[RnnOptions | Mamba2Options]] = {"rnn": RnnOptions, "mamba2": Mamba2Options}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What defines a language model: its sizes and the choice of its parts.

    Raises ValueError, which names the value that makes no model.
    """

    vocabulary: int = 257  #: V, tokens
    width: int = 256  #: d, channels of the residual stream
    layers: int = 3  #: blocks, each a mixer and an MLP
    #: The sequence mixer of all layers, or a pattern: names with commas between them, `name*N` for
    #: N layers one behind another, repeated until there are enough. There are rnn and mamba2.
    mixer: str = "rnn"
    mlp_width: int = 0  #: hidden channels of the MLP; 0: 8d/3 rounded up to a multiple of 32
    tie_embedding: bool = True  #: output logits through the transposed embedding
    norm_epsilon: float = 1e-5  #: added to the mean square in every RMSNorm
    rnn: RnnOptions = RnnOptions()  #: of its rnn mixers
    mamba2: Mamba2Options = Mamba2Options()  #: of its mamba2 mixers

    def __post_init__(self) -> None:
        _check_sizes(self, vocabulary=1, width=1, layers=0, mlp_width=0)
        if not 0 < self.norm_epsilon < math.inf:
            raise ValueError(f"norm_epsilon must be a positive number, not {self.norm_epsilon}")
        runs = self._runs()
        for name, _ in runs:
            if name not in MIXERS:
                raise ValueError(f"unknown mixer {name!r}: there are {', '.join(MIXERS)}")
        length = sum(count for _, count in runs)
        if self.layers % length != 0:
            raise ValueError(
                f"layers must be a multiple of {length}, as many as the mixer {self.mixer!r} "
                f"stands for, not {self.layers}"
            )
        if any(name == "mamba2" for name, _ in runs):
            self.mamba2.check(self.width)
        if self.width % self.rnn.heads != 0:
            raise ValueError(
                f"heads must divide width: {self.rnn.heads} does not divide {self.width}"
            )

    def _runs(self) -> list[tuple[str, int]]:
        """The pattern's mixers, each with how many layers of it follow one another."""
        runs = []
        for part in self.mixer.split(","):
            found = re.fullmatch(r"([^*]+)(?:\*([0-9]{1,10}))?", part)
            count = int(found[2] or 1) if found else 0
            if not found or not 1 <= count <= _LARGEST_SIZE:
                raise ValueError(
                    f"mixer is {self.mixer!r}, but must be names with commas between them, each "
                    "with *N behind it for N layers: rnn, or rnn*3,rnn"
                )
            runs.append((found[1], count))
        return runs

    @property
    def layer_mixers(self) -> list[str]:
        """The mixer of each layer."""
        once = [name for name, count in self._runs() for _ in range(count)]
        return once * (self.layers // len(once))

    @property
    def hidden_width(self) -> int:
        """mlp_width with its default worked out."""
        return self.mlp_width or (8 * self.width // 3 + 31) // 32 * 32
