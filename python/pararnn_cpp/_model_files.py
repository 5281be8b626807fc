"""A language model in a folder: config.json, model.safetensors, the tokenizer's files, and
cell.hpp, the source of its cell, so that the folder alone is enough to run the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ._cells import Cell, as_cell
from ._checkpoint import CONFIG
from ._files import read_json, write_file, write_json
from ._library import operators
from ._model_config import ModelConfig
from ._safetensors import load_safetensors, save_safetensors
from ._tokenizers import Tokenizer, save_tokenizer

_WEIGHTS = "model.safetensors"
_CELL = "cell.hpp"

#: All that a model may consist of.
MODEL_FILES = (CONFIG, _WEIGHTS, _CELL, "tokenizer.json", "tokenizer.model")


def _values_of(config: ModelConfig) -> dict[str, Any]:
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def read_config(folder: Path, trust_cell: bool) -> ModelConfig:
    """The config of the model in a folder, with the cell that it carries."""
    path = folder / CONFIG
    if not path.is_file():
        raise RuntimeError(f"there is no model in {folder}: it lacks {path.name}")
    values = read_json(path)
    known = {field.name: type(field.default) for field in dataclasses.fields(ModelConfig)}
    for key in values:
        if key not in known:
            raise RuntimeError(f"{path} has the unknown key '{key}'")
    for key, kind in known.items():
        if key not in values:
            raise RuntimeError(f"{path} lacks the key '{key}'")
        if type(values[key]) is not kind and (kind, type(values[key])) != (float, int):
            raise RuntimeError(f"'{key}' in {path} must be a {kind.__name__}, not {values[key]!r}")
    name, source = values["cell"], folder / _CELL
    if "/" in name or "." in name:  # a file would be compiled, whoever wrote it
        raise RuntimeError(f"'cell' in {path} must be a name, not the file '{name}'")
    if source.exists():
        values["cell"] = Cell.named(operators._stored_cell_key(str(source), name, trust_cell))
    try:
        return ModelConfig(**values)
    except ValueError as error:
        raise RuntimeError(f"{path}: {error}") from error


def read_weights(folder: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the model in a folder, which has just the expected names and shapes."""
    path = folder / _WEIGHTS
    found = load_safetensors(path)
    for name in found:
        if name not in expected:
            raise RuntimeError(f"{path} holds the tensor '{name}', which the model does not have")
    for name, parameter in expected.items():
        if name not in found:
            raise RuntimeError(f"{path} lacks the tensor '{name}' of the model")
        tensor = found[name]
        if tensor.shape != parameter.shape:
            raise RuntimeError(
                f"{path}: tensor '{name}' is of shape {tuple(tensor.shape)}, the model's of "
                f"{tuple(parameter.shape)}"
            )
        if not tensor.is_floating_point():
            raise RuntimeError(
                f"{path}: tensor '{name}' must be of a floating-point dtype, not {tensor.dtype}"
            )
    return found


def write_model(
    folder: Path, config: ModelConfig, tokenizer: Tokenizer, tensors: Mapping[str, Tensor]
) -> None:
    """Writes a model into a folder, which must exist."""
    cell = as_cell(config.cell)
    write_json(folder / CONFIG, _values_of(config) | {"cell": cell.name})
    write_file(folder / _CELL, [cell.source])
    save_tokenizer(folder, tokenizer)
    save_safetensors(folder / _WEIGHTS, tensors)
