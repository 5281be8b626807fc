"""Loads the libraries that hold the operators: the engine's when the package is imported."""

from __future__ import annotations

import os
from pathlib import Path

import torch

# PARARNN_LIBRARY names the library of a build folder, to work on the package without installing it.
library = Path(
    os.environ.get("PARARNN_LIBRARY") or Path(__file__).parent / "lib" / "libpararnn_kernels.so"
)


def _load(path: Path) -> None:
    if not path.is_file():
        raise ImportError(
            f"pararnn_cpp lacks its library {path}: install the package, "
            "or name the library with PARARNN_LIBRARY"
        )
    try:
        torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
    except OSError as error:
        raise ImportError(f"pararnn_cpp cannot load {path}: {error}") from error


def _check_torch() -> None:
    """The library is of torch's stable interface as it is since 2.11."""
    version = torch.__version__.split(".")
    if (int(version[0]), int(version[1])) < (2, 11):
        raise ImportError(
            f"pararnn_cpp needs torch 2.11 or later, and this is torch {torch.__version__}: "
            "install a later one"
        )


def load_verdict() -> None:
    """The library of the verdict on cells, which few programs need."""
    if not hasattr(operators, "_verdict"):
        _load(library.with_name("libpararnn_verdict_operator.so"))


_check_torch()
_load(library)

operators = torch.ops.pararnn
