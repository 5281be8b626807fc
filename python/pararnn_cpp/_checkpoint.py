"""Folders that `pararnn` reads and writes: a model, a checkpoint of a run, and a run.

A checkpoint's manifest.json lists its other files with sizes and checksums, so that damage is found
and named. A folder appears whole or not at all: it is written aside and renamed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ._files import checksum, force_to_disk, map_file, read_json, write_json

_MANIFEST = "manifest.json"
CONFIG = "config.json"
# What a checkpoint holds of its run, beside the model.
_RUN_STATE = "state.json"
_OPTIMIZER = "optimizer.safetensors"
_FORMAT = "pararnn checkpoint 1"
# Names that begin so are being written or deleted, and mean nothing to anyone else.
_ASIDE = ".aside-"


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint that is meant: of a run the newest one, otherwise the folder itself."""
    folder = Path(path)
    if not folder.exists():
        raise RuntimeError(f"{folder} does not exist")
    if (folder / _MANIFEST).exists() or (folder / CONFIG).exists():
        return folder
    checkpoints = _list_checkpoints(folder)
    if not checkpoints:
        raise RuntimeError(f"{folder} holds no checkpoint: it is neither a run nor a checkpoint")
    return checkpoints[-1]


def _step_of(folder: Path) -> int | None:
    named = re.fullmatch(r"step-([0-9]+)", folder.name)
    return int(named[1]) if named else None


def _list_checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    if not run.is_dir():
        return []
    steps = [(_step_of(entry), entry) for entry in run.iterdir() if entry.is_dir()]
    return [entry for _, entry in sorted((step, e) for step, e in steps if step is not None)]


def verify_checkpoint(checkpoint: Path, manifest_needed: bool = False) -> None:
    """Raises RuntimeError, with the damaged file and the checkpoint to use instead, unless every
    file is as it was written. A folder without a manifest has nothing to be compared with."""
    if not manifest_needed and not (checkpoint / _MANIFEST).exists():
        return
    damage = _find_damage(checkpoint)
    if damage is None:
        return
    # A name like `latest` is resolved, so that the checkpoints before it are found.
    resolved = checkpoint.resolve()
    step = _step_of(resolved)
    earlier = [
        other
        for other in _list_checkpoints(resolved.parent)
        if (_step_of(other) or 0) < (step or 0)
    ]
    mend = (
        f"use the checkpoint before it, {checkpoint.parent / earlier[-1].name}"
        if earlier
        else "there is no earlier checkpoint beside it"
    )
    raise RuntimeError(f"{damage}; {mend}")


def _find_damage(checkpoint: Path) -> str | None:
    manifest_path = checkpoint / _MANIFEST
    if not manifest_path.exists():
        return f"{manifest_path} is missing"
    damaged = f"{manifest_path} is damaged"
    try:
        manifest = read_json(manifest_path)
    except RuntimeError:
        return damaged
    files = manifest.get("files")
    if (
        manifest.get("format") != _FORMAT
        or not isinstance(files, dict)
        or manifest.get("checksum") != _checksum_of_list(files)
    ):
        return damaged
    for name, expected in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{path} is missing"
        contents = map_file(path)
        if not isinstance(expected, dict) or expected.get("bytes") != len(contents):
            return f"{path} is truncated or has grown"
        if expected.get("checksum") != checksum(contents):
            return f"{path} is damaged"
    return None


def _checksum_of_list(files: dict[str, Any]) -> str:
    text = json.dumps(files, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return checksum(text.encode("utf-8", "surrogatepass"))


def write_checkpoint(
    folder: Path, write_files: Callable[[Path], None], replaceable: Collection[str] = ()
) -> None:
    """Makes a folder of what `write_files` puts into the one it is given, and a manifest.

    Replaces a folder that holds nothing but files named in `replaceable` and their manifest.
    Raises RuntimeError (another file in the way, a full disk) and leaves what was there as it was.
    """
    folder = Path(os.path.abspath(folder))
    aside, replaced = (folder.with_name(_ASIDE + part + folder.name) for part in ("", "old-"))
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise RuntimeError(f"{folder} is no folder: save in another place")
    present = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    for name in sorted(present - {*replaceable, _MANIFEST}):
        raise RuntimeError(
            f"{folder} holds {name}, which would be lost: save in a folder of its own"
        )
    shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        write_files(aside)
        _write_manifest(aside)
        if folder.exists():
            folder.rename(replaced)
        try:
            aside.rename(folder)
        except OSError:
            if replaced.exists():
                replaced.rename(folder)
            raise
        force_to_disk(folder.parent)
    except OSError as error:
        raise RuntimeError(f"cannot write {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def write_continued_run(run: Path, checkpoint: Path, write_files: Callable[[Path], None]) -> None:
    """Makes a new run of one checkpoint: what `write_files` writes, with the options, step and
    optimizer of the run that `checkpoint` is of. Raises ValueError if there is something already,
    and RuntimeError as `write_checkpoint`."""
    if run.exists():
        raise ValueError(f"{run} exists already, and a run takes a new folder: name another")
    state = checkpoint / _RUN_STATE
    step = read_json(state).get("step")
    if type(step) is not int:
        raise RuntimeError(f"{state} makes no state of a run: it lacks the step")

    def write_all(folder: Path) -> None:
        write_files(folder)
        for name in (_RUN_STATE, _OPTIMIZER):
            shutil.copyfile(checkpoint / name, folder / name)

    write_checkpoint(run / f"step-{step:08}", write_all)


def _write_manifest(folder: Path) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        contents = map_file(path)
        files[path.name] = {"bytes": len(contents), "checksum": checksum(contents)}
        force_to_disk(path)
    manifest = {"format": _FORMAT, "files": files, "checksum": _checksum_of_list(files)}
    write_json(folder / _MANIFEST, manifest)
    force_to_disk(folder / _MANIFEST)
    force_to_disk(folder)
