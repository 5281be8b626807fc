"""The examples and the benchmarks of the Python package run, and say what they should."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).parents[2]
COMPILED_LM = ROOT / "examples/python/compiled_lm.py"
BENCH = ROOT / "scripts/bench_python"
LEARN = ROOT / "scripts/learn.py"
PROGRAM = Path(os.environ.get("PARARNN_PROGRAM") or ROOT / "build" / "pararnn")

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


def learn(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """scripts/learn.py, with models and runs that take less than a second."""
    if not PROGRAM.is_file():
        pytest.skip(f"there is no {PROGRAM}")
    small = ["--program", PROGRAM, "--device", "cpu", "--precision", "float32", "--size", "tiny"]
    small += ["--tokens", "6400", "--batch", "4", "--length", "64", "--vocabulary", "400"]
    return subprocess.run(
        [sys.executable, LEARN, *small, *arguments], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str | Path], Path]:
    """What learn.py was given, and the folder where it left what two cells learned."""
    folder = tmp_path_factory.mktemp("learn")
    archive, out = folder / "text.tar.xz", folder / "out"
    with tarfile.open(archive, "w:xz") as text:
        text.add(
            ROOT / "docs",
            "docs",
            filter=lambda m: m if m.isdir() or m.name.endswith("md") else None,
        )
    arguments: list[str | Path] = ["--out", out, "--learning-rates", "0.003,0.01"]
    arguments += ["--text", archive, ROOT / "README.md"]
    done = learn(*arguments, "--models", "gru,lstm_cifg")
    assert done.returncode == 0, done.stderr
    return arguments, out


def test_models_learn_from_the_same_text_by_the_best_learning_rate(
    learned: tuple[list[str | Path], Path],
) -> None:
    _, out = learned
    figures = json.loads((out / "learn.json").read_text())
    first, second = figures["results"]
    assert [first["model"], second["model"]] == ["gru", "lstm_cifg"]
    assert first["parameters"] == pytest.approx(second["parameters"], rel=0.03)
    assert [v["tokens"] for v in first["curve"]] == [v["tokens"] for v in second["curve"]]
    for entry in (first, second):
        losses = entry["loss_by_learning_rate"]
        assert losses[f"{entry['learning_rate']:g}"] == min(losses.values())
        curve = entry["curve"]
        assert curve[-1]["tokens"] == figures["steps"] * 4 * 64 <= 6400
        assert curve[-1]["loss"] < curve[0]["loss"]
        seconds = [v["seconds"] for v in curve]
        assert seconds == sorted(seconds) and seconds[0] > 0
        fields = f"| {entry['model']} | .* | {curve[-1]['perplexity']:.3f} |"
        assert re.search(fields.replace("|", r"\|"), (out / "learn.md").read_text())
        assert not list((out / "tries").glob("*/step-*"))
        assert len(list((out / "runs" / entry["model"]).glob("step-*"))) == 1
    points = sum(len(entry["curve"]) for entry in (first, second))
    for name in ("tokens.svg", "minutes.svg"):
        assert (out / name).read_text().count("<circle") == points + 2  # and the legend


def test_what_was_learned_is_not_learned_again(learned: tuple[list[str | Path], Path]) -> None:
    arguments, out = learned
    files = ("learn.json", "tries/gru-0.01/log.jsonl", "runs/lstm_cifg/log.jsonl")
    before = [(out / file).read_text() for file in files]
    again = learn(*arguments, "--models", "gru,lstm_cifg")
    assert again.returncode == 0, again.stderr
    results = [json.loads(text)["results"] for text in (before[0], (out / files[0]).read_text())]
    assert results[0] == results[1]
    assert before[1:] == [(out / file).read_text() for file in files[1:]]


def test_learning_that_cannot_go_on_is_told_in_a_sentence(
    learned: tuple[list[str | Path], Path], tmp_path: Path
) -> None:
    arguments, out = learned
    for more, words in (
        (["--batch", "2"], f"{out} was made with --batch 4, not 2"),
        (["--out", ROOT / "docs"], "is not empty"),
        (["--out", tmp_path / "new", "--text", "nowhere.txt"], "nowhere.txt does not exist"),
        (["--out", tmp_path / "late", "--minutes", "1e-9"], "1e-09 minutes are over"),
        (["--models", "gru,grux"], "there is no grux: there are gru, lstm_cifg"),
    ):
        done = learn(*arguments, "--models", "gru", *more)
        assert done.returncode != 0 and words in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
