"""What all mixers share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

from torch import Tensor
from torch.nn import Linear, Module, init

from ._documents import Documents

if TYPE_CHECKING:
    from .._model_config import ModelConfig

#: What a mixer remembers of the steps so far: tensors with the batch as their first dimension.
MixerState: TypeAlias = tuple[Tensor, ...]

LARGEST_SIZE = 2**31 - 1


def check_sizes(options: object, **least: int) -> None:
    """Raises ValueError unless each of these fields is a whole number from so much on."""
    for name, start in least.items():
        size = getattr(options, name)
        if type(size) is not int or not start <= size <= LARGEST_SIZE:
            raise ValueError(f"{name} must be a whole number from {start} to 2^31 - 1, not {size}")


class MixerOptions:
    """The options of a mixer, a frozen dataclass."""

    def validate(self, config: ModelConfig) -> None:
        """Raises ValueError where they do not go together with the model's."""


class Mixer(Module):
    """The part of a block that carries information along the sequence."""

    def forward(
        self, x: Tensor, state: MixerState | None, documents: Documents
    ) -> tuple[Tensor, MixerState]:
        """x (B,T,d), already normalised -> y (B,T,d) and the state after step T. A row begins with
        an empty state where a document does."""
        raise NotImplementedError

    def prepare(self, documents: Documents, state: MixerState | None, x: Tensor) -> Documents:
        """The documents with what layers of this mixer can share, where it is not there yet: for
        inputs of the size and on the device of x (B,T,d), before any layer goes on from its state,
        of which `state` is this layer's."""
        return documents

    def clip_weights(self) -> None:
        """Brings the weights back into the bounds that the options set."""


def linear(inputs: int, outputs: int, gain: float = 1.0) -> Linear:
    """Without bias; outputs of size `gain` for inputs of size 1."""
    made = Linear(inputs, outputs, bias=False)
    init.normal_(made.weight, std=gain / math.sqrt(inputs))
    return made


def output_of_branch(config: ModelConfig) -> Linear:
    """The last product of a mixer, small at first where there are many layers."""
    return linear(config.width, config.width, 1 / math.sqrt(2 * max(config.layers, 1)))
