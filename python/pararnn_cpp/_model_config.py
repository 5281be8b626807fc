"""What defines a language model: the weights mean nothing without it."""

from __future__ import annotations

import dataclasses
import math
import re

from ._mixers import MIXERS, AttentionOptions, Mamba2Options, MixerOptions, RnnOptions
from ._mixers._mixer import LARGEST_SIZE, check_sizes


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What defines a language model: its sizes and the choice of its parts.

    Raises ValueError, which names the value that makes no model.
    """

    vocabulary: int = 257  #: V, tokens
    width: int = 256  #: d, channels of the residual stream
    layers: int = 3  #: blocks, each a mixer and an MLP
    #: The sequence mixer of all layers, or a pattern: names with commas between them, `name*N` for
    #: N layers one behind another, repeated until there are enough. There are rnn,
    #: attention and mamba2.
    mixer: str = "rnn"
    mlp_width: int = 0  #: hidden channels of the MLP; 0: 8d/3 rounded up to a multiple of 32
    tie_embedding: bool = True  #: output logits through the transposed embedding
    norm_epsilon: float = 1e-5  #: added to the mean square in every RMSNorm
    rnn: RnnOptions = RnnOptions()  #: of its rnn mixers
    attention: AttentionOptions = AttentionOptions()  #: of its attention mixers
    mamba2: Mamba2Options = Mamba2Options()  #: of its mamba2 mixers

    def __post_init__(self) -> None:
        check_sizes(self, vocabulary=1, width=1, layers=0, mlp_width=0)
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
        for name in self.mixers:
            self.options_of(name).validate(self)

    def _runs(self) -> list[tuple[str, int]]:
        """The pattern's mixers, each with how many layers of it follow one another."""
        runs = []
        for part in self.mixer.split(","):
            found = re.fullmatch(r"([^*]+)(?:\*([0-9]{1,10}))?", part)
            count = int(found[2] or 1) if found else 0
            if not found or not 1 <= count <= LARGEST_SIZE:
                raise ValueError(
                    f"mixer is {self.mixer!r}, but must be names with commas between them, each "
                    "with *N behind it for N layers: rnn, or rnn*3,attention"
                )
            runs.append((found[1], count))
        return runs

    @property
    def mixers(self) -> list[str]:
        """The mixers that the pattern names."""
        return list(dict.fromkeys(name for name, _ in self._runs()))

    def options_of(self, mixer: str) -> MixerOptions:
        """The options of one of them."""
        options: MixerOptions = getattr(self, mixer)
        return options

    @property
    def layer_mixers(self) -> list[str]:
        """The mixer of each layer."""
        once = [name for name, count in self._runs() for _ in range(count)]
        return once * (self.layers // len(once))

    @property
    def hidden_width(self) -> int:
        """mlp_width with its default worked out."""
        return self.mlp_width or (8 * self.width // 3 + 31) // 32 * 32
