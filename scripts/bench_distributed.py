"""Checks and times training on the GPUs of one machine, and writes JSON: docs/distributed.md.

    python3 scripts/bench_distributed.py scaling --ranks 1 2 --json scaling.json

Each stage is a command that ends within ten minutes: right, checkpoints, killed, scaling, large,
devices. What stands after `--` goes to examples/python/train_lm.py, and wins over what the stage
gives it; so a stage is tried on CPUs, with a small model:

    python3 scripts/bench_distributed.py right --ranks 2 -- --device cpu --width 32 --layers 2 \\
        --heads 2 --vocabulary 300 --length 32 --batch 8
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

PROGRAM = Path(__file__).parents[1] / "examples/python/train_lm.py"
STEPS = 20
#: Trainings whose losses are compared. Where they fall smoothly, rounding stays as small as it is.
COMPARED = ["--data=random", f"--steps={STEPS}", "--batch=16", "--length=1024"]
COMPARED += ["--learning-rate=3e-4"]
Entry = dict[str, Any]


class Training:
    """train_lm.py under torchrun, on so many processes, and what it logged."""

    def __init__(self, ranks: int, options: Sequence[str], restarts: int = 0) -> None:
        self.folder = Path(tempfile.mkdtemp())
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        torchrun += ["--local-addr=127.0.0.1", f"--max-restarts={restarts}"]
        log = f"--json={self.folder / 'log'}"
        command = [*torchrun, f"--nproc-per-node={ranks}", str(PROGRAM), log, *options]
        print("+", *command[2:], flush=True)
        threads = str(max((os.cpu_count() or 1) // ranks, 1))
        self.output = (self.folder / "output").open("w")
        self.process = subprocess.Popen(
            command,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": threads, **os.environ},
        )

    def entries(self) -> list[Entry]:
        log = self.folder / "log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def checkpoints(self, done: str) -> list[Entry]:
        """Those that it wrote (`checkpoint`) or read (`restored`), without their paths."""
        return [
            {key: value for key, value in entry.items() if key != done}
            for entry in self.entries()
            if done in entry
        ]

    def steps(self) -> list[Entry]:
        return [entry for entry in self.entries() if "loss" in entry]

    def wait_for_step(self, step: int) -> None:
        while not any(entry["step"] >= step for entry in self.steps()):
            if self.process.poll() is not None:
                sys.exit(f"it ended before step {step}:\n{self.words()}")
            time.sleep(0.02)

    def words(self) -> str:
        return Path(self.output.name).read_text()

    def finish(self) -> Training:
        if self.process.wait() != 0:
            sys.exit(f"it failed:\n{self.words()[-6000:]}")
        last = self.steps()[-1]
        print(f"  step {last['step']}: loss {last['loss']:.5f}, {last['seconds']:.3f} s a step")
        return self


def train(ranks: int, *options: str) -> Training:
    return Training(ranks, options).finish()


def losses(*trainings: Training) -> list[float]:
    """By step, of trainings that go on from one another."""
    by_step = {entry["step"]: entry["loss"] for t in trainings for entry in t.steps()}
    return [by_step[step] for step in sorted(by_step)]


def difference(a: Sequence[float], b: Sequence[float]) -> float:
    """The largest, relative to b. Raises ValueError if they are not as many."""
    return max(abs(x - y) / abs(y) for x, y in zip(a, b, strict=True))


def right(options: argparse.Namespace, more: list[str]) -> Entry:
    """Ranks equal one, up to what rounding does.

    What it does is seen on one rank that takes its rows in as many parts: the same sums in another
    order.
    """
    ranks = options.ranks[-1]
    common = [*COMPARED, *more]
    one = losses(train(1, *common))
    in_parts = losses(train(1, *common, f"--accumulate={ranks}"))
    several = losses(train(ranks, *common))
    rounding = difference(in_parts, one)
    found = difference(several, one)
    return {
        "ranks": ranks,
        "losses_of_one": one,
        "losses_of_several": several,
        "difference": found,
        "difference_by_rounding": rounding,
        "right": found <= max(3 * rounding, 1e-6),
    }


def checkpoints(options: argparse.Namespace, more: list[str]) -> Entry:
    """Several ranks, then one, then several, each from the checkpoint before: as never stopped."""
    ranks = options.ranks[-1]
    common = [*COMPARED, *more]
    whole = losses(train(ranks, *common))
    again = losses(train(ranks, *common, "--accumulate=2"))
    with tempfile.TemporaryDirectory() as folder:
        parts = [
            train(size, *common, f"--out={folder}", f"--stop-after={stop}")
            for size, stop in ((ranks, 8), (1, 14), (ranks, STEPS))
        ]
    resumed = losses(*parts)
    rounding = difference(again, whole)
    found = difference(resumed, whole)
    return {
        "ranks": [ranks, 1, ranks],
        "losses_never_stopped": whole,
        "losses_resumed": resumed,
        "difference": found,
        "difference_by_rounding": rounding,
        "right": found <= max(3 * rounding, 1e-6),
        "saved": [entry for part in parts for entry in part.checkpoints("checkpoint")],
    }


def killed(options: argparse.Namespace, more: list[str]) -> Entry:
    """One rank is killed after step 6: the others end, and torchrun starts all of them anew."""
    ranks = options.ranks[-1]
    common = [*COMPARED, *more]
    whole = losses(train(ranks, *common))
    with tempfile.TemporaryDirectory() as folder:
        training = Training(ranks, [*common, f"--out={folder}", "--checkpoint-every=2"], restarts=1)
        training.wait_for_step(6)
        pids = children(training.process.pid)
        os.kill(pids[-1], signal.SIGKILL)
        start = time.monotonic()
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            time.sleep(0.02)
        seconds_to_end = time.monotonic() - start
        before = len(training.steps())
        while len(training.steps()) == before and training.process.poll() is None:
            time.sleep(0.02)
        seconds_to_next_step = time.monotonic() - start
        training.finish()
    sentences = [line for line in training.words().splitlines() if line.startswith("train_lm, ")]
    return {
        "ranks": ranks,
        "sentences": sentences,
        "seconds_until_all_have_ended": seconds_to_end,
        "seconds_until_the_next_step": seconds_to_next_step,
        "loss_at_the_end": losses(training)[-1],
        "loss_never_killed": whole[-1],
        "right": len(sentences) >= ranks - 1 and len(losses(training)) == STEPS,
    }


def children(pid: int) -> list[int]:
    """The processes that a process has started, in order."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def scaling(options: argparse.Namespace, more: list[str]) -> Entry:
    """As many rows for each rank, on more and more ranks."""
    rows = []
    for ranks in options.ranks:
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder) / "trace.json"
            training = train(
                ranks,
                "--preset=1b",
                "--data=random",
                "--length=2048",
                f"--steps={STEPS}",
                f"--batch={options.rows * ranks}",
                f"--trace={trace}",
                *more,
            )
            rows.append({"ranks": ranks, **speed(training, ranks), **unhidden(trace)})
        rows[-1]["efficiency"] = (
            rows[-1]["tokens_per_second_and_rank"] / rows[0]["tokens_per_second_and_rank"]
        )
        print_row(rows[-1])
    return {"rows_of_a_rank": options.rows, "rows": rows}


def large(options: argparse.Namespace, more: list[str]) -> Entry:
    """The 7b preset on all ranks with every block recomputed; --checkpoint: saved and resumed."""
    ranks = options.ranks[-1]
    common = ["--preset=7b", "--data=random", "--length=2048", f"--batch={options.rows * ranks}"]
    common += [f"--steps={STEPS}", "--recompute=32", "--warmup=0.25", "--learning-rate=1e-4"]
    rows = []
    for name in options.models:
        mixer = ["--mixer=attention"] if name == "attention" else [f"--cell={name}"]
        if not options.checkpoint:
            training = train(ranks, *common, *mixer, *more)
            row = {"model": name, **speed(training, ranks), "losses": losses(training)}
        else:
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                out = f"--out={folder}"
                first = train(ranks, *common, *mixer, out, "--stop-after=3", *more)
                (saved,) = first.checkpoints("checkpoint")
                print_row(saved)
                start = time.monotonic()
                second = Training(ranks, [*common, *mixer, out, *more])
                second.wait_for_step(4)
                seconds_to_next_step = time.monotonic() - start
                second.wait_for_step(6)
                second.process.terminate()  # the disk need not hold a second checkpoint
                second.process.wait()
            row = {
                "model": name,
                "parameters": first.entries()[0]["parameters"],
                "losses": losses(first, second),
                "saved": saved,
                "restored": second.checkpoints("restored")[0],
                "seconds_until_the_next_step": seconds_to_next_step,
            }
        rows.append({"ranks": ranks, **row})
        print_row(rows[-1])
    return {"rows_of_a_rank": options.rows, "rows": rows}


def devices(options: argparse.Namespace, more: list[str]) -> Entry:
    """The scan on every device of this one process, forward and backward, beside the CPU's."""
    from pararnn_cpp import scan

    torch.manual_seed(0)
    inputs = torch.randn(2, 1024, 3, 256), torch.rand(3, 256) - 0.5

    def results(device: str) -> list[torch.Tensor]:
        u, w = (x.to(device, copy=True).requires_grad_() for x in inputs)
        y, final = scan(u, w, cell="gru")
        (y.square().mean() + final.square().mean()).backward()
        assert u.grad is not None and w.grad is not None
        return [x.detach().cpu() for x in (y, final, u.grad, w.grad)]

    expected = results("cpu")
    rows = []
    for device in ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]:
        pairs = zip(results(device), expected, strict=True)
        found = max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
        rows.append({"device": device, "difference": found, "right": found < 1e-5})
        print_row(rows[-1])
    return {"rows": rows}


def speed(training: Training, ranks: int) -> Entry:
    """The median of the steps after the ten first ones, in which is all that is done once."""
    steps = sorted(training.steps()[10:], key=lambda step: step["seconds"])
    middle = steps[len(steps) // 2]
    return {
        "parameters": training.entries()[0]["parameters"],
        "seconds": middle["seconds"],
        "tokens_per_second_and_rank": middle["tokens_per_second"] / ranks,
        "share_of_peak": middle["share_of_peak"],
        "peak_memory_gib": max(step["peak_memory"] for step in steps) / 2**30,
    }


def unhidden(trace: Path) -> Entry:
    """From the profiler's trace of three steps: milliseconds a step of communication, of that with
    no other work beside it, and of nothing at all."""
    kernels = [
        (event["ts"], event["ts"] + event["dur"], "nccl" in event["name"].lower())
        for event in json.loads(trace.read_text())["traceEvents"]
        if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")
    ]
    if not kernels:
        return {}
    everything = covered((begin, end) for begin, end, _ in kernels)
    work = covered((begin, end) for begin, end, is_nccl in kernels if not is_nccl)
    communication = covered((begin, end) for begin, end, is_nccl in kernels if is_nccl)
    whole = max(end for _, end, _ in kernels) - min(begin for begin, _, _ in kernels)
    return {
        "communication_ms": communication / 3000,
        "communication_not_hidden_ms": (everything - work) / 3000,
        "idle_ms": (whole - everything) / 3000,
    }


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """The length of the union."""
    length, reach = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        length += max(end - max(begin, reach), 0)
        reach = max(reach, end)
    return length


def print_row(row: Entry) -> None:
    texts = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
    print(" ", ", ".join(texts), flush=True)


STAGES = {stage.__name__: stage for stage in (right, checkpoints, killed, scaling, large, devices)}


def main() -> None:
    own = sys.argv[1:]
    own, more = (own[: own.index("--")], own[own.index("--") + 1 :]) if "--" in own else (own, [])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("stage", choices=STAGES)
    add("--ranks", type=int, nargs="+", default=[max(torch.cuda.device_count(), 1)])
    add("--rows", type=int, default=8, help="of a rank, in a step (scaling, large)")
    add("--models", nargs="+", default=["gru"], help="cells, and attention (large)")
    add("--checkpoint", action="store_true", help="large: save and resume")
    add("--folder", type=Path, help="large: of the checkpoint; needs 12 bytes a parameter")
    add("--json", type=Path)
    options = parser.parse_args(own)
    found = STAGES[options.stage](options, more)
    cuda = range(torch.cuda.device_count())
    result = {
        "stage": options.stage,
        "devices": [torch.cuda.get_device_name(n) for n in cuda] or ["cpu"],
        "torch": torch.__version__,
        "options": more,
        **found,
    }
    print(json.dumps({key: value for key, value in found.items() if key != "rows"}))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(not all(entry.get("right", True) for entry in [found, *found.get("rows", [])]))


if __name__ == "__main__":
    main()
