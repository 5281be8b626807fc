"""The mixers of a model: a file each, with its options and its module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._mixer import Mixer, MixerOptions, MixerState
from .attention import AttentionMixer, AttentionOptions
from .rnn import RnnMixer, RnnOptions

if TYPE_CHECKING:
    from .._model_config import ModelConfig

__all__ = [
    "MIXERS",
    "AttentionOptions",
    "Mixer",
    "MixerOptions",
    "MixerState",
    "RnnOptions",
    "make_mixer",
]

#: The options of each mixer, which a `ModelConfig` has under its name.
MIXERS: dict[str, type[MixerOptions]] = {"rnn": RnnOptions, "attention": AttentionOptions}


def make_mixer(name: str, config: ModelConfig) -> Mixer:
    """A layer of that mixer, freshly initialised."""
    if name == "attention":
        return AttentionMixer(config.attention, config)
    return RnnMixer(config.rnn, config)
