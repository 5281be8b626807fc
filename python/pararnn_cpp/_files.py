"""Files, whole and durable; what goes wrong with one is a RuntimeError of one sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ._library import operators


def map_file(path: Path) -> Tensor:
    """The bytes of a file (N), in memory as they are read."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise RuntimeError(f"cannot read {path}: {error.strerror}") from error
    if size == 0:
        return torch.empty(0, dtype=torch.uint8)
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)


def read_file(path: Path) -> bytes:
    """The bytes of a small file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise RuntimeError(f"cannot read {path}: {error.strerror}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        value = json.loads(read_file(path))
    except (ValueError, RecursionError) as error:
        raise RuntimeError(f"{path} is no valid JSON") from error
    if not isinstance(value, dict):
        raise RuntimeError(f"{path} should hold a JSON object")
    return value


def write_file(path: Path, pieces: Iterable[Any]) -> None:
    """Writes texts and buffers of bytes, one after another."""
    try:
        with path.open("wb") as file:
            for piece in pieces:
                file.write(piece.encode() if isinstance(piece, str) else piece)
    except OSError as error:
        raise RuntimeError(f"cannot write {path}: {error.strerror}") from error


def write_json(path: Path, value: object) -> None:
    write_file(path, [json.dumps(value, indent=2), "\n"])


def force_to_disk(path: Path) -> None:
    """What is in a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise RuntimeError(f"cannot write {path}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def checksum(values: Tensor | bytes) -> str:
    """As `pararnn` writes it beside the name of a file."""
    if isinstance(values, bytes):
        buffer = bytearray(values)
        values = torch.frombuffer(buffer, dtype=torch.uint8) if buffer else torch.empty(0).byte()
    return str(operators._checksum(values))
