"""The mixers of a model: a file each, with its options and its module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._documents import Documents
from ._mixer import Mixer, MixerOptions, MixerState
from .attention import AttentionMixer, AttentionOptions
from .mamba2 import Mamba2Mixer, Mamba2Options
from .rnn import RnnMixer, RnnOptions

if TYPE_CHECKING:
    from .._model_config import ModelConfig

__all__ = [
    "MIXERS",
    "AttentionOptions",
    "Documents",
    "Mamba2Options",
    "Mixer",
    "MixerOptions",
    "MixerState",
    "RnnOptions",
    "make_mixer",
]

#: The options of each mixer, which a `ModelConfig` has under its name.
MIXERS: dict[str, type[MixerOptions]] = {
    "rnn": RnnOptions,
    "attention": AttentionOptions,
    "mamba2": Mamba2Options,
}


def make_mixer(name: str, config: ModelConfig) -> Mixer:
    """A layer of that mixer, freshly initialised."""
    if name == "attention":
        return AttentionMixer(config.attention, config)
    if name == "mamba2":
        return Mamba2Mixer(config.mamba2, config)
    return RnnMixer(config.rnn, config)
