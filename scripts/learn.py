"""Trains language models that differ in their mixers on the same text, and draws what they learn.

    python3 scripts/learn.py --text text.tar.xz --out learned                        # on a GPU
    python3 scripts/learn.py --text book.txt --out learned --size tiny --tokens 2e5 --batch 8 \\
        --length 256 --models gru,lstm_cifg --precision float32                      # on a CPU

The text is tokenized once. Then each model is trained with three learning rates on a tenth of the
tokens, and with the one that predicts held-out text best on all of them. All models have as many
parameters, give or take a few percent, and read the same tokens in the same order.

--text takes text files, folders of them, and archives (.tar, .tar.xz) of such folders; a file is a
document. What was done stays in the folder --out:

    tokens/             what `pararnn tokenize` made of the text
    tries/, runs/       the runs, and what they said; weights of `runs` alone are kept
    learn.json          all figures
    learn.md            their table
    tokens.svg          perplexity on held-out text against tokens,
    minutes.svg         and against minutes of training, without validations

The same command goes on where it was stopped: a run that is complete is not done again. --minutes
stops it by itself, with a checkpoint of the run at hand.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VALIDATIONS = 20  # of a run, spread evenly over it
LINES_OF_LOG = 200
SHARE_OF_TRIES = 0.1  # of the tokens
#: What all models are trained with, beside what options and sizes say.
COMMON = ["--warmup=0.05", "--z-loss=1e-4", "--checkpoint-every=0", "--keep=1"]
OF_CELLS = ["--heads=4", "--weight-bound=0.5"]

Entry = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """What mixes in a model's layers."""

    mixer: str  #: as `pararnn train --mixer` takes it
    cell: str | None
    #: Hidden channels of the MLP at a width d of 512, so that all models have as many parameters:
    #: a mixer and its MLP about 12 d² (of them a cell's mixer 3.75, attention 4, Mamba2 6.5).
    hidden: int

    def options(self) -> list[str]:
        of_cell = [] if self.cell is None else [f"--cell={self.cell}", *OF_CELLS]
        return [f"--mixer={self.mixer}", *of_cell]


MODELS = {
    "gru": Model("rnn", "gru", 1408),
    "lstm_cifg": Model("rnn", "lstm_cifg", 1408),
    "attention": Model("attention", None, 1376),
    "mamba2": Model("mamba2", None, 928),
    "gru-attention": Model("rnn*3,attention", "gru", 1408),
}


@dataclass(frozen=True)
class Size:
    """Sizes that the models share."""

    width: int
    layers: int

    def options(self, model: Model) -> list[str]:
        hidden = model.hidden * self.width // 512
        return [f"--width={self.width}", f"--layers={self.layers}", f"--mlp-width={hidden}"]


SIZES = {"30m": Size(width=512, layers=8), "tiny": Size(width=64, layers=4)}


class TimeIsOver(Exception):
    """That --minutes are over."""


class Failure(Exception):
    """What went wrong, in a sentence."""


class Program:
    """The program pararnn, until a moment of the monotonic clock."""

    def __init__(self, path: Path, end: float) -> None:
        self.path = path.absolute()
        self.end = end

    def run(self, *arguments: str, words: Path | None = None, folder: Path | None = None) -> None:
        """Runs it in a folder; what it says goes into the file `words`.

        At the end of the time, or where this script is told to end, it is told to stop, which for
        `train` means with a checkpoint.
        """
        if time.monotonic() >= self.end:
            raise TimeIsOver
        with (words or Path(os.devnull)).open("a") as said:
            try:
                process = subprocess.Popen(
                    [str(self.path), *arguments],
                    stdout=said,
                    stderr=subprocess.PIPE,
                    text=True,
                    cwd=folder,
                )
            except OSError as error:
                raise Failure(
                    f"cannot run {self.path}: {error.strerror}: build it, or give --program"
                ) from None
        left = self.end - time.monotonic()
        try:
            errors = process.communicate(timeout=None if left == float("inf") else left)[1]
        except (subprocess.TimeoutExpired, SystemExit) as stop:
            process.send_signal(signal.SIGTERM)
            process.communicate()
            raise (TimeIsOver if isinstance(stop, subprocess.TimeoutExpired) else stop) from None
        except KeyboardInterrupt:  # which the program got as well
            process.communicate()
            raise
        if process.returncode != 0:
            raise Failure(errors.strip()[-2000:] or f"pararnn {arguments[0]} has failed")


def read_log(run: Path) -> list[Entry]:
    """The events of a run; the last line, which may be being written, if it is whole."""
    log = run / "log.jsonl"
    if not log.exists():
        return []
    return [json.loads(line) for line in log.read_text().splitlines(True) if line.endswith("\n")]


def validations(run: Path) -> list[Entry]:
    """What a run said of held-out text, with the tokens and the seconds that it had trained.

    The seconds are without those of the validations. Of a step that was validated twice, as the
    end of a run that was resumed when it was complete, the last counts.
    """
    found: dict[int, Entry] = {}
    tokens_of_step, seconds, validated = 0, 0.0, 0.0
    for event in read_log(run):
        if event["event"] == "start":
            options = event["options"]
            tokens_of_step = options["batch"] * options["length"] * options["accumulate"]
        elif event["event"] == "step":
            seconds = event["seconds"] - validated
        elif event["event"] == "validation":
            found[event["step"]] = {
                "step": event["step"],
                "tokens": event["step"] * tokens_of_step,
                "seconds": seconds,
                "loss": event["loss"],
                "perplexity": event["perplexity"],
                "bits_per_byte": event["bits_per_byte"],
            }
            validated += event["seconds"]
    return list(found.values())


class Study:
    """The runs in a folder, and what they are run with."""

    def __init__(self, options: argparse.Namespace, program: Program) -> None:
        self.options = options
        self.program = program
        self.out: Path = options.out
        tokens_of_step = options.batch * options.length
        steps = int(options.tokens) // tokens_of_step
        self.log_every = max(steps // LINES_OF_LOG, 1)
        self.validate_every = self.log_every * max(LINES_OF_LOG // VALIDATIONS, 1)
        # A validation is the end.
        self.steps = max(steps // self.validate_every, 1) * self.validate_every
        self.steps_of_tries = max(int(self.steps * SHARE_OF_TRIES), 1)

    def prepare(self) -> None:
        """Makes the folder, or throws Failure where it holds something else; tokenizes the text."""
        keys = ("size", "tokens", "batch", "length", "vocabulary", "learning_rates", "precision")
        settings = {key: getattr(self.options, key) for key in keys}
        settings["text"] = [path.resolve().name for path in self.options.text]
        file = self.out / "settings.json"
        if file.exists():
            for key, value in json.loads(file.read_text()).items():
                if value != settings[key]:
                    option = f"--{key.replace('_', '-')}"
                    raise Failure(
                        f"{self.out} was made with {option} {value}, not {settings[key]}: "
                        "give that, or another --out"
                    )
        elif self.out.exists() and any(self.out.iterdir()):
            raise Failure(f"{self.out} is not empty, and not of this script: give another --out")
        for folder in ("tries", "runs"):
            (self.out / folder).mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings, indent=2) + "\n")
        if not (self.out / "tokens").exists():
            gather(self.options.text, self.out / "text")
            say(f"tokenizing {', '.join(map(str, self.options.text))}")
            self.program.run(
                "tokenize",
                f"--data={self.out / 'text'}",
                f"--vocabulary={self.options.vocabulary}",
                f"--out={self.out / 'tokens'}",
            )
            shutil.rmtree(self.out / "text")

    def train(self, run: Path, model: Model, rate: float, steps: int, *more: str) -> Entry:
        """Trains a model, unless that is done or goes on from a checkpoint; its last validation."""
        if not any(v["step"] == steps for v in validations(run)):
            if (run / "latest").exists():
                settings = ["--resume"]
            else:
                settings = [
                    "--overwrite",
                    f"--data={self.out / 'tokens'}",
                    *model.options(),
                    *SIZES[self.options.size].options(model),
                    *COMMON,
                    f"--steps={steps}",
                    f"--learning-rate={rate}",
                    f"--batch={self.options.batch}",
                    f"--length={self.options.length}",
                    f"--precision={self.options.precision}",
                    f"--validation-tokens={self.options.validation_tokens}",
                    *more,
                ]
            self.program.run(
                "train",
                f"--out={run}",
                f"--device={self.options.device}",
                *settings,
                words=words_of(run),
            )
        last = validations(run)[-1]
        if last["step"] != steps or last["loss"] is None:
            raise Failure(f"{run} has come to the loss {last['loss']} after {last['step']} steps")
        return last

    def learning_rates(self, name: str) -> dict[float, float | None]:
        """The loss that each one comes to on a tenth of the tokens; None: the run has failed."""
        losses: dict[float, float | None] = {}
        for rate in self.options.learning_rates:
            run = self.out / "tries" / f"{name}-{rate:g}"
            every = f"--log-every={max(self.steps_of_tries // VALIDATIONS, 1)}"
            more = [every, "--validate-every=0"]
            try:
                last = self.train(run, MODELS[name], rate, self.steps_of_tries, *more)
            except Failure as failure:
                losses[rate] = None
                say(f"{name}, learning rate {rate:g}: {failure}")
                continue
            losses[rate] = last["loss"]
            delete_checkpoints(run)
            say(f"{name}, learning rate {rate:g}: {describe(last)}")
        return losses

    def study(self, name: str) -> Entry:
        """All that there is to say of a model."""
        losses = self.learning_rates(name)
        finite = {rate: loss for rate, loss in losses.items() if loss is not None}
        if not finite:
            raise Failure("each learning rate has failed")
        best = min(finite, key=finite.__getitem__)
        run = self.out / "runs" / name
        every = [f"--log-every={self.log_every}", f"--validate-every={self.validate_every}"]
        last = self.train(run, MODELS[name], best, self.steps, *every)
        say(f"{name}: {describe(last)}")
        events = read_log(run)
        start = events[0]
        speeds = [e["tokens_per_second"] for e in events if e["event"] == "step"]
        return {
            "model": name,
            "options": [
                *MODELS[name].options(),
                *SIZES[self.options.size].options(MODELS[name]),
                *COMMON,
            ],
            "parameters": start["parameters"],
            "device": start["device"],
            "learning_rate": best,
            "loss_by_learning_rate": {f"{rate:g}": loss for rate, loss in losses.items()},
            "best_is_at_an_end": len(losses) > 1 and best in (min(losses), max(losses)),
            "tokens_per_second": statistics.median(speeds),
            "skipped": max((e.get("skipped", 0) for e in events), default=0),
            "curve": validations(run),
        }

    def report(self, results: Sequence[Entry]) -> None:
        """Writes the figures, the table and the curves."""
        figures = {
            "command": " ".join(["python3", *sys.argv]),
            "data": self.data(results),
            "steps": self.steps,
            "batch": self.options.batch,
            "length": self.options.length,
            "precision": self.options.precision,
            "results": list(results),
        }
        (self.out / "learn.json").write_text(json.dumps(figures, indent=2) + "\n")
        text = markdown(figures)
        (self.out / "learn.md").write_text(text)
        say("\n" + text)
        for axis in ("tokens", "minutes"):
            Program(self.program.path, float("inf")).run(
                "plot",
                *(entry["model"] for entry in results),
                f"--x={axis}",
                "--y=perplexity",
                "--log-y",
                "--held-out",
                f"--out={(self.out / f'{axis}.svg').absolute()}",
                folder=self.out / "runs",
            )

    def data(self, results: Sequence[Entry]) -> str:
        """The text in the words of the program."""
        words = words_of(self.out / "runs" / results[0]["model"]).read_text()
        found = re.search(r"^data: [^\n]*?: (.*)$", words, re.MULTILINE)
        return found[1] if found else ""


def gather(texts: Sequence[Path], folder: Path) -> None:
    """A folder with links to texts, and what archives among them hold."""
    parts = folder.with_name(folder.name + ".partial")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    safely: Entry = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    for number, text in enumerate(texts):
        if not text.exists():
            raise Failure(f"--text: {text} does not exist")
        place = parts / f"{number:03d}-{text.resolve().name}"
        if text.is_file() and tarfile.is_tarfile(text):
            say(f"unpacking {text}")
            with tarfile.open(text) as archive:
                archive.extractall(place, **safely)
        else:
            place.symlink_to(text.resolve())
    parts.rename(folder)


def words_of(run: Path) -> Path:
    """The file of what a run says, beside its folder."""
    return run.with_name(run.name + ".txt")


def delete_checkpoints(run: Path) -> None:
    (run / "latest").unlink(missing_ok=True)
    for checkpoint in run.glob("step-*"):
        shutil.rmtree(checkpoint)


def describe(validation: Entry) -> str:
    return (
        f"perplexity {validation['perplexity']:.3f}, {validation['bits_per_byte']:.4f} bits a byte "
        f"after {count(validation['tokens'])} tokens, {validation['seconds']:.1f} s"
    )


def count(number: float) -> str:
    return f"{number / 1e6:.3g}M" if number >= 1e6 else f"{number / 1e3:.3g}k"


def markdown(figures: Entry) -> str:
    results = figures["results"]
    tokens = results[0]["curve"][-1]["tokens"]
    parameters = [entry["parameters"] for entry in results]
    middle = (max(parameters) + min(parameters)) / 2
    spread = 100 * (max(parameters) / middle - 1)
    lines = [
        f"{count(tokens)} tokens in {figures['steps']} steps of {figures['batch']} rows of "
        f"{figures['length']}, {figures['precision']}, on {results[0]['device']}. Parameters "
        f"within {spread:.1f} % of {count(middle)}. Text: {figures['data']}.",
        "",
        "| model | parameters | learning rate | perplexity | bits a byte | seconds | tokens/s |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for entry in results:
        last = entry["curve"][-1]
        fields = [
            entry["model"],
            count(entry["parameters"]),
            f"{entry['learning_rate']:g}" + ("*" if entry["best_is_at_an_end"] else ""),
            f"{last['perplexity']:.3f}",
            f"{last['bits_per_byte']:.4f}",
            f"{last['seconds']:.1f}",
            count(entry["tokens_per_second"]),
        ]
        lines.append(f"| {' | '.join(fields)} |")
    if any(entry["best_is_at_an_end"] for entry in results):
        lines += ["", "\\* the lowest or the highest that was tried"]
    return "\n".join(lines) + "\n"


def say(words: str) -> None:
    print(words, flush=True)


def comma_separated(text: str) -> list[str]:
    return text.split(",")


def numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    root = Path(__file__).parents[1]
    add("--text", type=Path, nargs="+", required=True, help="files, folders, archives")
    add("--out", type=Path, required=True, help="the folder for all that is made")
    add("--models", type=comma_separated, default=list(MODELS), help=f"of {', '.join(MODELS)}")
    add("--size", choices=SIZES, default="30m")
    add("--tokens", type=float, default=60e6, help="that each model is trained on, at most")
    add("--batch", type=int, default=16, help="rows in a step")
    add("--length", type=int, default=2048, help="tokens in a row")
    add("--vocabulary", type=int, default=8192)
    add("--validation-tokens", type=int, default=500_000)
    add("--learning-rates", type=numbers, default=[1.5e-3, 3e-3, 6e-3], help="that are tried")
    add("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    add("--device", default="auto", help="as pararnn takes it")
    add("--minutes", type=float, help="stop then; the same command goes on")
    add("--program", type=Path, default=root / "build" / "pararnn")
    options = parser.parse_args()
    for name in options.models:
        if name not in MODELS:
            parser.error(f"--models: there is no {name}: there are {', '.join(MODELS)}")
    for name in ("tokens", "batch", "length"):
        if not getattr(options, name) >= 1:
            parser.error(f"--{name} must be 1 or more")
    return options


def main() -> None:
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    end = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
    study = Study(options, Program(options.program, end))
    results: list[Entry] = []
    failures: list[str] = []
    try:
        study.prepare()
        for name in options.models:
            try:
                results.append(study.study(name))
            except Failure as failure:  # the others go on
                failures.append(f"{name}: {failure}")
                say(failures[-1])
    except TimeIsOver:
        failures.append(f"{options.minutes:g} minutes are over: the same command goes on")
    except Failure as failure:
        failures.append(str(failure))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    if results:
        study.report(results)
    if failures:
        sys.exit(os.linesep.join(f"learn: {failure}" for failure in failures))


if __name__ == "__main__":
    main()
