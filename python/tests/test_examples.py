"""The examples and the benchmarks of the Python package run, and say what they should."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).parents[2]
COMPILED_LM = ROOT / "examples/python/compiled_lm.py"
BENCH = ROOT / "scripts/bench_python"

MY_CELLS = """
import torch
from pararnn_cpp import cell

@cell(memory_input=0, memory_direction=-1)
def light_gru(h, u, w):
    z = torch.sigmoid(u[0] + w[0] * h[0])
    return [(1 - z) * h[0] + z * torch.tanh(u[1])]
"""

#: Runs a program in which torch.compile does nothing. (TORCH_COMPILE_DISABLE is an error with
#: fullgraph=True in newer versions of torch.)
UNCOMPILED = """
import runpy, sys, torch
torch.compile = lambda function, **settings: function
torch.nn.Module.compile = lambda module, **settings: None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(program: Path, *arguments: str | Path) -> str:
    """What a program prints. It compiles nothing, which spares minutes."""
    finished = subprocess.run(
        [sys.executable, "-c", UNCOMPILED, str(program), *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def compiled_lm() -> ModuleType:
    specification = importlib.util.spec_from_file_location("compiled_lm", COMPILED_LM)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules["compiled_lm"] = module
    specification.loader.exec_module(module)
    return module


def test_language_models_of_any_cell_beside_a_transformer(tmp_path: Path) -> None:
    (tmp_path / "my_cells.py").write_text(MY_CELLS)
    mixers = [
        "gru",
        str(ROOT / "examples/cells/mgu.hpp"),
        f"{tmp_path / 'my_cells.py'}:light_gru",
        "attention",
        "attention-without-positions",
    ]
    report = tmp_path / "lm.json"
    table = run(
        COMPILED_LM,
        *("--size", "tiny", "--steps", "64", "--seconds", "0.1", "--device", "cpu"),
        *("--mixer", ",".join(mixers), "--json", report),
    )
    results = json.loads(report.read_text())["results"]
    assert [m["mixer"] for m in results] == mixers
    for m in results:
        assert m["batch"] * m["steps"] == 1024
        assert m["last_loss"] < m["first_loss"]  # of the same tokens, again and again
    assert len(table.splitlines()) == 2 + len(mixers)
    assert run(COMPILED_LM, "--from", report) == table


@pytest.mark.parametrize("mixer", ["lstm_cifg", "attention"])
@pytest.mark.parametrize(("unit", "graphs"), [("model", 1), ("block", 2)])
def test_a_compiled_language_model_computes_what_it_does_uncompiled(
    compiled_lm: ModuleType, mixer: str, unit: str, graphs: int
) -> None:
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    torch.manual_seed(0)
    size = compiled_lm.SIZES["tiny"]
    model = compiled_lm.make_model(size, mixer, 48)
    text = torch.randint(size.vocabulary, (2, 49))
    parameters = list(model.parameters())

    def loss_and_gradients() -> tuple[Tensor, ...]:
        loss = model(text[:, :-1], text[:, 1:])
        return loss.detach(), *torch.autograd.grad(loss, parameters)

    uncompiled = loss_and_gradients()
    compiled_lm.compile_model(model, unit, backend="aot_eager")
    torch.testing.assert_close(loss_and_gradients(), uncompiled, rtol=1e-4, atol=1e-5)
    # The blocks share one.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


@pytest.mark.parametrize(
    ("size", "parameters"), [("134m", 0.134e9), ("363m", 0.368e9), ("1.3b", 1.34e9)]
)
@pytest.mark.parametrize("mixer", ["gru", "attention"])
def test_sizes_are_what_they_are_called(
    compiled_lm: ModuleType, size: str, parameters: float, mixer: str
) -> None:
    with torch.device("meta"):
        model = compiled_lm.make_model(compiled_lm.SIZES[size], mixer, 8)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == pytest.approx(parameters, rel=0.02)


def test_the_report_in_the_documentation_is_read() -> None:
    report = ROOT / "docs/benchmarks-lm.json"
    measurements = json.loads(report.read_text())["results"]
    table = run(COMPILED_LM, "--from", report).splitlines()
    assert len(table) == 2 + len(measurements)
    documentation = (ROOT / "docs/benchmarks.md").read_text()
    for line in table[2:]:
        assert line in documentation


def test_a_mixer_that_is_none_is_refused_in_a_sentence(compiled_lm: ModuleType) -> None:
    for name, words in (
        ("grux", "there is no cell 'grux'"),
        ("nowhere.py:f", "there is no file nowhere.py"),
        (f"{Path(__file__)}:run", "has no cell run"),
    ):
        with pytest.raises(SystemExit, match=words):
            compiled_lm.find_cell(name)


def test_the_bench_measures_all_its_parts(tmp_path: Path) -> None:
    json_file, plot = tmp_path / "bench.json", tmp_path / "bench.svg"
    tables = run(
        BENCH,
        *("--cell", "elman,momentum", "--steps", "32,64", "--seconds", "0.001"),
        *("--json", json_file, "--plot", plot),
    )
    results = json.loads(json_file.read_text())["results"]
    assert {m["part"] for m in results} == {"cells", "traced", "host"}
    for m in results:
        assert "wrong" not in m and "skipped" not in m
        assert all(m[key] > 0 for key in m if key.endswith(("_ms", "_us")))
    names = {m["name"] for m in results if m["part"] == "cells" and m["cell"] == "elman"}
    assert len(names) == 4  # the package, two loops, torch.nn's layer
    assert plot.read_text().count("<circle") == 2 * (4 + 3) + 4
    assert run(BENCH, "--from", json_file) == tables
