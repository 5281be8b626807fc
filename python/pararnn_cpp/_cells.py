"""Cells as values: built in, from a file, from C++ text, from a Python function."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ._library import operators


@dataclass(frozen=True)
class Cell:
    """A recurrent cell h' = f(h, u; w), applied to every channel on its own.

    Made by `Cell.named`, `Cell.from_file`, `Cell.from_source` and `pararnn_cpp.cell`; equal cells
    have equal keys. Pickles as its source.
    """

    key: str  #: "name@digest": this very source, whatever is defined later
    name: str
    state: int = field(compare=False)  #: S, numbers of the state a channel
    inputs: int = field(compare=False)  #: U, inputs a channel and step
    params: int = field(compare=False)  #: P, recurrent parameters a channel
    source: str = field(compare=False, repr=False)  #: C++ text of its header
    struct: str = field(compare=False, repr=False)  #: name of its C++ struct
    summary: str = field(compare=False, repr=False)
    state_names: tuple[str, ...] = field(compare=False, repr=False)  #: empty if it has none
    input_names: tuple[str, ...] = field(compare=False, repr=False)
    param_names: tuple[str, ...] = field(compare=False, repr=False)
    #: inputs that are given (time gaps, masks) rather than projected
    side_inputs: tuple[int, ...] = field(compare=False, repr=False)
    #: the input that drives its memory, or -1, and the direction (+1, -1) that makes it longer
    memory_input: int = field(compare=False, repr=False)
    memory_direction: int = field(compare=False, repr=False)

    @classmethod
    def named(cls, name: str) -> Cell:
        """The cell of that name, such as "gru". Raises RuntimeError with the names there are."""
        described: dict[str, Any] = json.loads(operators._describe_cell(name))
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in described.items()
        }
        return cls(**fields)

    @classmethod
    def from_file(cls, path: str | Path, struct: str | None = None) -> Cell:
        """The cell in a C++ header; `struct` chooses one of several.

        Raises RuntimeError, with the file, the line and the compiler's words, if it is no cell.
        """
        file = str(path) if "/" in str(path) else f"./{path}"
        return cls.named(f"{file}:{struct}" if struct else file)

    @classmethod
    def from_source(cls, source: str, struct: str | None = None) -> Cell:
        """The cell in the text of a C++ header. Raises as `from_file`."""
        return cls.named(operators._define_cell(source, struct or "", ""))

    def save(self, path: str | Path) -> None:
        """Writes its source, which `from_file` and `pararnn train --cell` read."""
        Path(path).write_text(self.source, encoding="utf-8")

    def __reduce__(self) -> tuple[Any, tuple[str, str, str]]:
        return (Cell._restored, (self.name, self.source, self.struct))

    @classmethod
    def _restored(cls, name: str, source: str, struct: str) -> Cell:
        if name in json.loads(operators._cell_list()):
            known = cls.named(name)
            if known.source == source:
                return known
        return cls.from_source(source, struct)


def key_of(cell: str | Cell) -> str:
    """How the operators know a cell. Raises TypeError for what is neither a cell nor a text."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Cell):
        return cell.key
    raise TypeError(
        f"cell is of type {type(cell).__name__}, but should be a Cell, or the name or file of one; "
        "pararnn_cpp.cell makes one of a Python function"
    )


_built_in = frozenset(json.loads(operators._cell_list()))


def lasting_key(cell: str) -> str:
    """What goes on meaning the cell of that name, key or file when the name is given to another."""
    is_key = "@" in cell and "/" not in cell and "." not in cell
    if is_key or cell in _built_in or torch.compiler.is_compiling():
        return cell
    return str(operators._cell_key(cell))


def as_cell(cell: str | Cell) -> Cell:
    """The cell itself, or the one of that name or file."""
    return cell if isinstance(cell, Cell) else Cell.named(key_of(cell))
