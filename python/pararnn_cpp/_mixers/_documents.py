"""Where the documents of a batch begin, and what follows from that for all layers alike."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Documents(NamedTuple):
    """The documents of B rows of T steps.

    What stands behind `reset` is for mixers that look back at steps: `Mixer.prepare` makes it once
    for all layers.
    """

    reset: Tensor | None = None  #: (B,T), bool: a row begins anew before each step that it marks
    positions: Tensor | None = None  #: (B,T), int64: of the steps in their documents
    begin: Tensor | None = None  #: (B), int64: where the last document begins in all steps so far
    mask: Tensor | None = None  #: (B,1,T,C+T), bool: what each step looks at; None: all up to it
