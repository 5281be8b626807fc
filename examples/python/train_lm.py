"""Trains a language model on any number of processes.

    torchrun --nproc-per-node 8 examples/python/train_lm.py --preset 1b --data books.tokens \\
        --out runs/books --steps 20000

The same command goes on from the newest checkpoint in the folder of --out, on as many processes as
there are then. Without torchrun one process trains.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, fields, replace
from math import ceil, cos, pi
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from language_model.model import PRESETS, Block, LanguageModel, ModelConfig, decays, load_cell
from language_model.report import Report
from language_model.run_folder import checkpoints, require_same_run, restore, save
from language_model.shards import TokenShards, Windows
from language_model.world import World, end_when_told, ending_with_a_sentence, join_world
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.profiler import profile, schedule
from torch.utils.checkpoint import checkpoint

from pararnn_cpp import last_statistics

#: After warm-up; where to start, not tuned.
LEARNING_RATES = {"134m": 3e-3, "400m": 1.5e-3, "1b": 1e-3, "3b": 8e-4, "7b": 6e-4}

#: The longest chain of operations on elements that the compiler computes in one go: for cells long
#: enough for the convolution and what surrounds it, for attention as it is by default.
COMPILER_OPTIONS = {"rnn": {"realize_opcount_threshold": 48}, "attention": None}

#: The tokens of row number n of a run, (length + 1).
Rows = Callable[[int], Tensor]


def parse_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def add(name: str, help: str = "", **settings: Any) -> None:
        if settings.get("default") is not None:
            help += " (default: %(default)s)"
        parser.add_argument(name, help=help, **settings)

    add("--preset", choices=PRESETS, default="134m", help="the model, in which may be changed:")
    for field in fields(ModelConfig):
        add(f"--{field.name.replace('_', '-')}", type=type(field.default))
    add("--data", required=True, help="a folder that pararnn tokenize wrote, or: random")
    add("--out", type=Path, help="folder of log and checkpoints; none: neither")
    add("--steps", type=positive, required=True)
    add("--stop-after", type=positive, help="the step to end after, with a checkpoint")
    add("--batch", type=positive, default=32, help="rows a step, of all processes together")
    add("--length", type=positive, default=2048, help="tokens a row")
    add("--accumulate", type=positive, default=1, help="parts that a process takes its rows in")
    add("--learning-rate", type=float, help="after warm-up (default: by the preset)")
    add("--learning-rate-floor", type=float, default=0.05, help="share of it at the end")
    add("--warmup", type=float, default=0.03, help="share of the steps")
    add("--weight-decay", type=float, default=0.1)
    add("--clip", type=float, default=1.0, help="largest norm of the gradient")
    add("--z-loss", type=float, default=1e-4)
    add("--seed", type=int, default=0)
    add("--validate-every", type=positive, default=500)
    add("--validation-rows", type=positive, default=256)
    add("--checkpoint-every", type=positive, default=500)
    add("--keep", type=positive, default=3, help="checkpoints, the newest ones")
    add("--device", choices=("cuda", "cpu"))
    add("--precision", choices=("bfloat16", "float32"), help="of products; weights are float32")
    add("--compile", action=argparse.BooleanOptionalAction, help="(default: on a GPU)")
    add("--recompute", type=int, default=0, help="blocks that keep no activations: less memory")
    parser.add_argument(
        "--keep-weights", action="store_true", help="gather weights once a step: more memory"
    )
    add("--timeout", type=float, default=50, help="seconds to wait for the other processes")
    add("--json", type=Path, help="file for a JSON line a step (default: log.jsonl in --out)")
    add("--peak", type=float, help="10^12 operations a second of a device; some are known")
    add("--trace", type=Path, help="file for torch.profiler's trace of steps 5 to 7 of process 0")
    options = parser.parse_args(arguments)
    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = options.device == "cuda"
    options.precision = options.precision or ("bfloat16" if on_gpu else "float32")
    options.compile = on_gpu if options.compile is None else options.compile
    options.learning_rate = options.learning_rate or LEARNING_RATES[options.preset]
    options.stop_after = min(options.stop_after or options.steps, options.steps)
    if options.out is not None:
        options.json = options.json or options.out / "log.jsonl"
    return options


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def model_config(options: argparse.Namespace) -> ModelConfig:
    """The preset, with the fields that are given."""
    preset = PRESETS[options.preset]
    given = {name: getattr(options, name) for name in asdict(preset)}
    return replace(preset, **{name: value for name, value in given.items() if value is not None})


def make_model(config: ModelConfig, options: argparse.Namespace, world: World) -> LanguageModel:
    """The model, each part sharded as soon as it is made: no process ever holds it whole.

    Weights are float32, and each process keeps its share of every one (FSDP2). A block's are
    gathered in the precision of products while the block before computes.
    """
    shard = functools.partial(
        fully_shard,
        mesh=world.mesh,
        mp_policy=MixedPrecisionPolicy(
            param_dtype=getattr(torch, options.precision), reduce_dtype=torch.float32
        ),
    )
    made_blocks = 0

    def finish(part: nn.Module) -> None:
        nonlocal made_blocks
        is_block = isinstance(part, Block)
        made_blocks += is_block
        # Its forward, and not the module: FSDP's work before and after is not to be compiled.
        forward = part.forward
        if is_block and made_blocks <= options.recompute:
            forward = functools.partial(checkpoint, forward, use_reentrant=False)
        if options.compile:  # once for all blocks
            forward = torch.compile(
                forward, fullgraph=True, dynamic=False, options=COMPILER_OPTIONS[config.mixer]
            )
        part.forward = forward
        shard(part, reshard_after_forward=is_block and not options.keep_weights)

    with world.device:
        model = LanguageModel(config, options.seed, finish)
    shard(model)
    return model


def make_optimizer(model: nn.Module, weight_decay: float) -> torch.optim.AdamW:
    decaying, others = [], []
    for name, parameter in model.named_parameters():
        (decaying if decays(name, parameter) else others).append((name, parameter))
    groups: list[dict[str, Any]] = [
        {"params": decaying, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)


def open_data(options: argparse.Namespace, config: ModelConfig) -> tuple[Rows, Rows | None, str]:
    """Rows to train on, held-out ones if there are any, and a text that stands for their content.

    A row is a function of its number, so it does not matter how many processes read.
    """
    if options.data == "random":

        def random_row(number: int) -> Tensor:
            """One batch, again and again."""
            generator = torch.Generator().manual_seed(options.seed + number % options.batch)
            return torch.randint(config.vocabulary, (options.length + 1,), generator=generator)

        return random_row, None, "random"
    training, held_out = (
        TokenShards(Path(options.data), side) for side in ("training", "held_out")
    )
    if training.vocabulary > config.vocabulary:
        raise ValueError(
            f"vocabulary is {config.vocabulary}, but should be {training.vocabulary} or more for "
            f"{options.data}"
        )
    validation = None
    if held_out.size > options.length:
        validation = Windows(held_out, options.length, options.seed)
    return Windows(training, options.length, options.seed), validation, training.fingerprint


def batches(
    rows: Rows, number: int, options: argparse.Namespace, world: World
) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's share of batch `number`, in parts: tokens (B,T), and those that follow."""
    count = options.batch // (world.size * options.accumulate)
    begin = number * options.batch + world.rank * options.accumulate * count
    for first in range(begin, begin + options.accumulate * count, count):
        window = torch.stack([rows(row) for row in range(first, first + count)])
        if world.device.type == "cuda":  # the host waits for copies of memory that is not pinned
            window = window.pin_memory().to(world.device, non_blocking=True)
        yield window[:, :-1], window[:, 1:]


def learning_rate(step: int, options: argparse.Namespace) -> float:
    """A linear warm-up, then half a cosine down to the floor; steps count from 1."""
    progress, warmup, floor = step / options.steps, options.warmup, options.learning_rate_floor
    if progress < warmup:
        return options.learning_rate * progress / warmup
    cosine = (1 + cos(pi * (progress - warmup) / (1 - warmup))) / 2
    return options.learning_rate * (floor + (1 - floor) * cosine)


def train_step(
    model: LanguageModel,
    optimizer: torch.optim.Optimizer,
    parts: Iterator[tuple[Tensor, Tensor]],
    options: argparse.Namespace,
    world: World,
) -> tuple[Tensor, Tensor]:
    """One update. Returns the loss of the whole batch, in nats, and the norm of its gradient."""
    loss = torch.zeros((), device=world.device)
    for tokens, targets in parts:
        cross_entropy, z_loss = model(tokens, targets)
        ((cross_entropy + options.z_loss * z_loss) / options.accumulate).backward()
        loss += cross_entropy.detach() / (options.accumulate * world.size)
    dist.all_reduce(loss)
    parameters = list(model.parameters())
    norm = nn.utils.get_total_norm([p.grad for p in parameters]).full_tensor()
    nn.utils.clip_grads_with_norm_(parameters, options.clip, norm)
    optimizer.step()
    optimizer.zero_grad()
    model.bound_recurrent_weights()
    return loss, norm


@torch.no_grad()
def validate(model: nn.Module, rows: Rows, options: argparse.Namespace, world: World) -> float:
    """The mean loss, in nats, of held-out rows, the same ones each time."""
    count = ceil(options.validation_rows / options.batch)
    loss = torch.zeros((), device=world.device)
    for number in range(count):
        for tokens, targets in batches(rows, number, options, world):
            loss += model(tokens, targets)[0]
    dist.all_reduce(loss)
    return loss.item() / (count * options.accumulate * world.size)


def tracer(options: argparse.Namespace, world: World) -> AbstractContextManager[profile | None]:
    if options.trace is None or world.rank > 0:
        return nullcontext()
    return profile(
        schedule=schedule(wait=3, warmup=1, active=3, repeat=1),
        on_trace_ready=lambda trace: trace.export_chrome_trace(str(options.trace)),
    )


def train(options: argparse.Namespace, config: ModelConfig, world: World) -> None:
    if options.batch % (world.size * options.accumulate) != 0:
        raise ValueError(
            f"batch is {options.batch}, but should be a multiple of {world.size} processes times "
            f"accumulate = {options.accumulate}"
        )
    rows, held_out, content = open_data(options, config)
    settings: dict[str, Any] = asdict(config) | {"data": content}
    settings |= {name: getattr(options, name) for name in ("batch", "length", "seed")}
    if config.mixer == "rnn":
        settings["cell"] = load_cell(config.cell).key
    if options.out is not None and world.rank == 0:
        require_same_run(options.out, settings)
    model = make_model(config, options, world)
    optimizer = make_optimizer(model, options.weight_decay)
    parameters = sum(p.numel() for p in model.parameters())
    tokens = options.batch * options.length
    report = Report(options.json, parameters, tokens, options.steps, options.peak, world)
    report.write(settings=settings, parameters=parameters, processes=world.size, peak=report.peak)
    world.say(
        f"{config.mixer} of {parameters:,} parameters on {world.size} x {world.device.type}, "
        f"products in {options.precision}"
    )
    start = 0
    if options.out is not None and (found := checkpoints(options.out)):
        start, path = max(found.items())
        begin = time.monotonic()
        restore(path, model, optimizer, world)
        report.restored(start, path, time.monotonic() - begin)
    report.restart_clock()
    with tracer(options, world) as trace:
        for step in range(start + 1, options.stop_after + 1):
            rate = learning_rate(step, options)
            for group in optimizer.param_groups:
                group["lr"] = rate
            parts = batches(rows, step - 1, options, world)
            report.add(step, rate, *train_step(model, optimizer, parts, options, world))
            if step == start + 1:  # all is compiled
                world.set_timeout(options.timeout)
            if trace is not None:
                trace.step()
            last = step == options.stop_after
            if held_out is not None and (last or step % options.validate_every == 0):
                report.finish()
                report.validation(step, validate(model, held_out, options, world))
                report.restart_clock()
            if options.out is not None and (last or step % options.checkpoint_every == 0):
                report.finish()
                begin = time.monotonic()
                written = save(options.out, step, model, optimizer, options.keep, world)
                report.checkpoint(step, *written, time.monotonic() - begin)
                report.restart_clock()
        report.finish()
    if config.mixer == "rnn":
        for direction, statistics in zip(("forward", "backward"), last_statistics(), strict=True):
            report.scan(direction, statistics)


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(arguments)
    end_when_told()
    with ending_with_a_sentence():
        config = model_config(options)
        config.check()
        with join_world(options.device) as world:
            train(options, config, world)


if __name__ == "__main__":
    main()
