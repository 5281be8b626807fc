"""Times the Python package beside loops over PyTorch's operations.

    python scripts/bench_python --device cuda --json python-gpu.json --markdown python.md \\
        --plot python-gpu.svg
    python scripts/bench_python --from a.json,b.json --markdown python.md    # of one machine

Three parts:

cells   five cells, forward and backward: the package; the loop over their steps, one operation
        after another, and by torch.compile (16 steps at a time, as it unrolls them); and torch.nn's
        layer where there is one, which is another model: its recurrent weights are dense, and it
        projects its input. Results are compared before they are timed.
traced  a GRU that is a Python function with @cell, beside the one built in.
host    the time that a call takes on the host, without a gradient, with what is kept for one, and
        with the gradient itself, beside that of u + u.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from cells import find_cells
from measure import Measurement, measure_cell, measure_host, measure_traced
from report import Report, page, plot, tables
from timing import Timer, describe_machine

PARTS = ("cells", "traced", "host")
CELLS = ("elman", "gru", "lstm", "mgu", "momentum")
#: Batch and channels of the cells, and the shape of the traced one.
SHAPES = {"cpu": (1, 64), "cuda": (8, 256)}
TRACED_SHAPES = {"cpu": (8, 1024, 512), "cuda": (8, 2048, 2048)}


def measure(options: argparse.Namespace, timer: Timer) -> Iterator[Measurement]:
    if "cells" in options.part:
        batch, channels = SHAPES[timer.device.type]
        for name, cell in find_cells(options.cell).items():
            torch.compiler.reset()
            yield from measure_cell(name, cell, batch, options.steps, channels, timer)
    if "traced" in options.part:
        yield measure_traced(*TRACED_SHAPES[timer.device.type], timer)
    if "host" in options.part:
        yield from measure_host(timer)


def run(options: argparse.Namespace) -> Report:
    device = torch.device(options.device)
    results: list[Measurement] = []
    report = {"device": device.type, "machine": describe_machine(device), "results": results}
    for measurement in measure(options, Timer(device, options.seconds)):
        results.append(measurement)
        print(json.dumps(measurement), file=sys.stderr, flush=True)
        if options.json:
            options.json.write_text(json.dumps(report, indent=2) + "\n")
    return report


def read(paths: list[str]) -> Report:
    """Reports of one machine as one; of what was measured twice, the later."""
    reports: list[Report] = [json.loads(Path(path).read_text()) for path in paths]
    for path, report in zip(paths, reports, strict=True):
        if report["machine"] != reports[0]["machine"]:
            raise SystemExit(f"{paths[0]} and {path} are of different machines")
    results = {
        tuple(m.get(key) for key in ("part", "cell", "batch", "steps", "channels", "name")): m
        for report in reports
        for m in report["results"]
    }
    return reports[0] | {"results": list(results.values())}


def comma_separated(text: str) -> list[str]:
    return text.split(",")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench_python",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=SHAPES, default="cpu")
    parser.add_argument("--part", type=comma_separated, default=PARTS, help=",".join(PARTS))
    parser.add_argument("--cell", type=comma_separated, default=CELLS, help=",".join(CELLS))
    parser.add_argument(
        "--steps",
        type=lambda text: [int(number) for number in text.split(",")],
        default=[512, 2048, 8192, 32768, 65536],
        help="lengths of the sequences of the cells",
    )
    parser.add_argument("--seconds", type=float, default=0.25, help="how long to time each")
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file, as a page")
    parser.add_argument("--plot", type=Path, help="write a plot of time against steps, as SVG")
    parser.add_argument(
        "--from", dest="reports", type=comma_separated, help="measure nothing; read these files"
    )
    options = parser.parse_args()
    unknown = [part for part in options.part if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]}; there are {', '.join(PARTS)}")
    report = read(options.reports) if options.reports else run(options)
    if options.reports and options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    if options.plot:
        options.plot.write_text(plot(report))
    if options.markdown:
        folder = options.markdown.parent
        picture = os.path.relpath(options.plot, folder) if options.plot else None
        options.markdown.write_text(page(report, picture))
    print(tables(report))
    wrong = [m for m in report["results"] if "wrong" in m]
    if wrong:
        raise SystemExit(f"{wrong[0]['cell']}, {wrong[0]['name']}: {wrong[0]['wrong']}")


if __name__ == "__main__":
    main()
