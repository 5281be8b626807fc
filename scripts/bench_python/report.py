"""Tables and a plot of what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from loops import COMPILED_STEPS
from measure import COMPILED, DENSE, LOOP, PACKAGE, Measurement
from svg import Panel, Series, log_log_panels

Report = dict[str, Any]

EXPLANATION = f"""Medians of calls, the host's time included; each result is compared with that of a
loop in float64 before it is timed (beyond 1024 steps with that of the package's plan "sequential").
Inputs and weights are random, weights within ±1.

*{LOOP}* is a loop over the steps in Python, one operation of PyTorch after another. *{COMPILED}*
puts {COMPILED_STEPS} steps at a time through torch.compile, which unrolls them. *{DENSE}* is RNN,
GRU or LSTM of torch.nn (cuDNN's on a GPU), another model: its recurrent weights are dense, and it
projects its input. What stands as *from* fewer steps is their time in proportion, where it would
have taken seconds. Cells are built in, from a C++ file, or Python functions with @cell.
"""


def machine_line(report: Report) -> str:
    machine = report["machine"]
    if "multiprocessors" in machine:
        return (
            f"{machine['processor']}, {machine['multiprocessors']} multiprocessors; "
            f"LibTorch {machine['libtorch']}.\n"
        )
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{machine['instruction_set']}; LibTorch {machine['libtorch']}.\n"
    )


def page(report: Report, picture: str | None) -> str:
    """A document of the report, and of a picture beside it."""
    parts = [
        "# Benchmarks from Python\n",
        "Written by `python scripts/bench_python --markdown`.\n",
        EXPLANATION,
    ]
    if picture:
        parts.append(f"![Time against steps]({picture})\n")
    return "\n".join([*parts, tables(report)])


def tables(report: Report) -> str:
    """All of the report, as Markdown."""
    parts = (
        ("Cells from Python", _cells_table),
        ("A cell by @cell beside the same built in", _traced_table),
        ("Host time of a call", _host_table),
    )
    texts = [machine_line(report)]
    for title, table in parts:
        rows = table(report["results"])
        if rows:
            texts.append(f"## {title}\n\n{rows}")
    return "\n".join(texts)


def plot(report: Report) -> str:
    """Time of both passes against steps, a panel for each cell, as SVG."""
    panels: dict[str, dict[str, Series]] = {}
    for m in _of_part(report["results"], "cells"):
        if "forward_backward_ms" not in m:
            continue
        name = m["name"]
        series = panels.setdefault(m["cell"], {}).setdefault(name, Series(name, []))
        series.points.append((m["steps"], m["forward_backward_ms"], "measured_steps" in m))
    if not panels:
        raise SystemExit("the report has no times of cells to plot")
    first = _of_part(report["results"], "cells")[0]
    return log_log_panels(
        f"Forward and backward, ms, against steps: B{first['batch']} D{first['channels']}, "
        f"{first['dtype']}; {report['machine']['processor']}",
        [Panel(cell, list(series.values())) for cell, series in panels.items()],
    )


def _of_part(results: Iterable[Measurement], part: str) -> list[Measurement]:
    return [m for m in results if m["part"] == part]


def _cells_table(results: Sequence[Measurement]) -> str:
    measurements = _of_part(results, "cells")
    packages = {(m["cell"], m["steps"]): m for m in measurements if m["name"] == PACKAGE}
    rows = []
    for m in measurements:
        fields = [f"{m['cell']}, {m['origin']}", _shape(m), m["name"]]
        package = packages.get((m["cell"], m["steps"]), {})
        if "measured_steps" in m:
            fields[2] += f", from {m['measured_steps']} steps"
        if "wrong" in m:
            fields += [f"**wrong**: {m['wrong']}", "", "", ""]
        elif "skipped" in m:
            fields += [f"not measured: {m['skipped']}", "", "", ""]
        else:
            for key in ("forward_ms", "forward_backward_ms"):
                beside = m["name"] != PACKAGE and key in package
                fields += [_number(m[key]), _times(m[key], package[key]) if beside else ""]
        rows.append(fields)
    return _table(
        ["cell", "shape", "what"],
        ["forward, ms", "of the package's", "forward + backward, ms", "of the package's"],
        rows,
    )


def _traced_table(results: Sequence[Measurement]) -> str:
    rows = []
    for m in _of_part(results, "traced"):
        fields = [m["cell"], _shape(m)]
        for key in ("forward_ms", "forward_backward_ms"):
            traced = m[f"traced_{key}"]
            fields += [_number(m[key]), _number(traced), f"{traced / m[key]:.3f}×"]
        rows.append(fields)
    passes = ["{}, built in, ms", "by @cell, ms", "of the built-in's"]
    return _table(
        ["cell", "shape"],
        [text.format(name) for name in ("forward", "forward + backward") for text in passes],
        rows,
    )


def _host_table(results: Sequence[Measurement]) -> str:
    keys = ("us", "for_gradient_us", "with_gradient_us")
    rows = [
        [m["name"], *(f"{m[key]:.1f}" if key in m else "" for key in keys)]
        for m in _of_part(results, "host")
    ]
    return _table(
        ["call"],
        ["without a gradient, µs", "for a gradient, µs", "and the gradient, µs"],
        rows,
    )


def _shape(m: Measurement) -> str:
    return f"B{m['batch']} T{m['steps']} D{m['channels']}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _times(slow: float, fast: float) -> str:
    ratio = slow / fast
    return f"{ratio:.1f}×" if ratio < 10 else f"{ratio:.0f}×"


def _table(texts: Sequence[str], numbers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [
        f"| {' | '.join([*texts, *numbers])} |",
        "|" + "---|" * len(texts) + "--:|" * len(numbers),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"
