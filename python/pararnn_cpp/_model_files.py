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
from ._mixers import MIXERS, MixerOptions, RnnOptions
from ._model_config import ModelConfig
from ._safetensors import load_safetensors, save_safetensors
from ._tokenizers import Tokenizer, save_tokenizer

_WEIGHTS = "model.safetensors"
_CELL = "cell.hpp"

#: All that a model may consist of.
MODEL_FILES = (CONFIG, _WEIGHTS, _CELL, "tokenizer.json", "tokenizer.model")


def _values_of(options: ModelConfig | MixerOptions) -> dict[str, Any]:
    fields = dataclasses.fields(options)  # type: ignore[arg-type]
    names = [field.name for field in fields if field.name not in MIXERS]
    return {name: getattr(options, name) for name in names}


def _with_mixers(values: dict[str, Any]) -> dict[str, Any]:
    """A config of the older form, with the options of its mixer, rnn, where they stand now."""
    if "mixers" in values:
        return values
    moved = {"cell", "heads", "conv_width", "weight_bound"} & values.keys()
    others = {key: value for key, value in values.items() if key not in moved}
    return others | {"mixers": {"rnn": {key: values[key] for key in moved}}}


def _read_options(values: Any, defaults: ModelConfig | MixerOptions, place: str) -> dict[str, Any]:
    """The values, of which each must be one of the defaults' and of its type."""
    if not isinstance(values, dict):
        raise RuntimeError(f"{place} must be a JSON object, not {values!r}")
    known = _values_of(defaults)
    for key, value in values.items():
        if key not in known:
            raise RuntimeError(f"{place} has the unknown key '{key}'")
        kind = str if key == "cell" else type(known[key])
        if type(value) is not kind and (kind, type(value)) != (float, int):
            raise RuntimeError(f"'{key}' in {place} must be a {kind.__name__}, not {value!r}")
    return values


def read_config(folder: Path, trust_cell: bool) -> ModelConfig:
    """The config of the model in a folder, with the cell that it carries. What is missing has its
    default."""
    path = folder / CONFIG
    if not path.is_file():
        raise RuntimeError(f"there is no model in {folder}: it lacks {path.name}")
    values = _with_mixers(read_json(path))
    of_mixers = values.pop("mixers")
    own = _read_options(values, ModelConfig(), str(path))
    if not isinstance(of_mixers, dict):
        raise RuntimeError(f"'mixers' in {path} must be a JSON object, not {of_mixers!r}")
    try:
        for mixer, options in MIXERS.items():
            place = f"'{mixer}' of 'mixers' in {path}"
            values = _read_options(of_mixers.get(mixer, {}), options(), place)
            own[mixer] = options(**_with_cell(values, options, folder, trust_cell))
        config = ModelConfig(**own)
    except ValueError as error:
        raise RuntimeError(f"{path}: {error}") from error
    for mixer in of_mixers:
        if mixer not in config.mixers:
            raise RuntimeError(f"'mixers' in {path} has the unknown key '{mixer}'")
    return config


def _with_cell(
    values: dict[str, Any], options: type[MixerOptions], folder: Path, trust_cell: bool
) -> dict[str, Any]:
    """The values of options; of a cell, where they have one, that which the folder carries."""
    if not issubclass(options, RnnOptions):
        return values
    name, source = values.get("cell", options.cell), folder / _CELL
    if "/" in name or "." in name:  # a file would be compiled, whoever wrote it
        raise RuntimeError(f"'cell' in {folder / CONFIG} must be a name, not the file '{name}'")
    if not source.exists():
        return values
    return values | {"cell": Cell.named(operators._stored_cell_key(str(source), name, trust_cell))}


def read_weights(folder: Path, config: ModelConfig) -> dict[str, Tensor]:
    """The tensors in a folder, which has the last layer of the config: else a wrong number of
    layers would take all memory before they are missed."""
    path = folder / _WEIGHTS
    found = load_safetensors(path)
    last = f"block{config.layers - 1}.mixer_scale"
    if config.layers > 0 and last not in found:
        raise RuntimeError(f"{path} lacks the tensor '{last}' of the model")
    return found


def check_weights(
    folder: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    """Raises RuntimeError unless what was found has just the expected names and shapes."""
    path = folder / _WEIGHTS
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


def write_model(
    folder: Path, config: ModelConfig, tokenizer: Tokenizer, tensors: Mapping[str, Tensor]
) -> None:
    """Writes a model into a folder, which must exist."""
    mixers = {mixer: _values_of(config.options_of(mixer)) for mixer in config.mixers}
    for values in mixers.values():
        if "cell" in values:
            cell = as_cell(values["cell"])
            values["cell"] = cell.name
            write_file(folder / _CELL, [cell.source])
    write_json(folder / CONFIG, _values_of(config) | {"mixers": mixers})
    save_tokenizer(folder, tokenizer)
    save_safetensors(folder / _WEIGHTS, tensors)
