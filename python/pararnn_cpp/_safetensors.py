"""safetensors: named tensors in one file. Eight bytes give the length of a JSON header, the header
gives each tensor's dtype, shape and place, and the rest is their values, row-major, little-endian
and without gaps.
"""

from __future__ import annotations

import ctypes
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ._files import map_file, write_file

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_METADATA = "__metadata__"
_LONGEST_HEADER = 100_000_000  # longer ones are refused, as by other readers of the format


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a file, on the CPU.

    Raises RuntimeError, with the file and what is wrong in it, unless every byte is accounted for.
    """
    contents = map_file(path)
    try:
        return _read(contents)
    except ValueError as error:
        raise RuntimeError(f"{path} is no intact safetensors file: {error}") from error


def _read(contents: Tensor) -> dict[str, Tensor]:
    if len(contents) < 8:
        raise ValueError(f"it has {len(contents)} bytes, too few for a header")
    start = 8 + int.from_bytes(_bytes_of(contents[:8]), "little")
    if start > min(len(contents), _LONGEST_HEADER):
        raise ValueError(f"its header should have {start - 8} bytes, the file has {len(contents)}")
    try:
        header = json.loads(_bytes_of(contents[8:start]))
    except (ValueError, RecursionError):
        raise ValueError("its header is no valid JSON") from None
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    header.pop(_METADATA, None)
    places = [(*_place(name, entry), name) for name, entry in header.items()]
    tensors, position = {}, 0
    for begin, end, shape, dtype, name in sorted(places, key=lambda place: place[:2]):
        if begin != position:
            how = "overlaps with" if begin < position else "leaves a gap after"
            raise ValueError(f"the data of tensor '{name}' {how} what is before it")
        position = end
        if end > len(contents) - start:
            break
        values = contents[start + begin : start + end].clone()
        # A byte of a damaged file need not be a valid bool.
        typed = values != 0 if dtype is torch.bool else values.view(dtype)
        tensors[name] = typed.view(shape)
    if position != len(contents) - start:
        there = len(contents) - start
        raise ValueError(f"its tensors take {position} bytes, but {there} are there")
    return tensors


def _bytes_of(values: Tensor) -> bytes:
    return ctypes.string_at(values.data_ptr(), values.nbytes)


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _place(name: str, entry: Any) -> tuple[int, int, list[int], torch.dtype]:
    """Where a tensor lies in the data, its shape and dtype, from its entry in the header."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(
            f"tensor '{name}' must have dtype, shape and data_offsets and nothing else"
        )
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"tensor '{name}' is of the unknown dtype {dtype!r}")
    if not isinstance(shape, list) or not all(map(_is_size, shape)):
        raise ValueError(f"the shape of tensor '{name}' must be a list of sizes, not {shape!r}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise ValueError(
            f"the data_offsets of tensor '{name}' must be two positions, not {offsets!r}"
        )
    size = math.prod(shape) * _DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != size:
        raise ValueError(f"tensor '{name}' needs {size} bytes, but its data_offsets are {offsets}")
    return offsets[0], offsets[1], shape, _DTYPES[dtype]


def save_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors of any device, strides and known dtype by their values."""
    header: dict[str, Any] = {_METADATA: {"format": "pt"}}
    names = {dtype: name for name, dtype in _DTYPES.items()}
    buffers: list[Any] = []
    position = 0
    # The widest dtypes first, so that every value lies at a multiple of its size.
    for name in sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)):
        values = tensors[name].detach().cpu().contiguous()
        if values.dtype not in names:
            raise ValueError(f"tensor '{name}' is of dtype {values.dtype}, which is not written")
        header[name] = {
            "dtype": names[values.dtype],
            "shape": list(values.shape),
            "data_offsets": [position, position + values.nbytes],
        }
        position += values.nbytes
        buffers.append(values)
    text = json.dumps(header, separators=(",", ":"))
    text += " " * (-len(text) % 8)
    write_file(
        path,
        [len(text).to_bytes(8, "little"), text]
        + [(ctypes.c_char * v.nbytes).from_address(v.data_ptr()) for v in buffers if v.nbytes],
    )
