"""Language models under torch.compile: recurrent cells beside a Transformer of the same size.

    python examples/python/compiled_lm.py --json lm.json                  # 134M, on a GPU
    python examples/python/compiled_lm.py --size 363m --steps 65536
    python examples/python/compiled_lm.py --size 1.3b --steps 2048        # 80 GB of memory
    python examples/python/compiled_lm.py --mixer ./my_cell.hpp,my_cells.py:my_cell,attention
    python examples/python/compiled_lm.py --from lm.json,more.json        # their table

Trains each model for a few seconds on random tokens, with autocast to bfloat16 and a fused AdamW,
and tells the tokens per second, what that is of the Transformer's, the share of the GPU's
arithmetic that it uses (6 operations a token and parameter), and the peak of its memory. The models
differ in the mixers of their blocks alone. A cell is a name, a C++ file, or a function of a Python
file that `pararnn_cpp.cell` decorates.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pararnn_cpp import Cell
from pararnn_cpp.nn import Scan

CONVOLUTION_TAPS = 4
CELL_HEADS = 4  # blocks of the projection to a cell's inputs
ROTARY_BASE = 10000.0

LEAST_STEPS = 4  # before the time is taken, and of it

#: The longest chain of operations on elements that the compiler may compute in one go: enough for
#: the convolution and what surrounds it. For attention its default is better.
LONG_CHAINS = {"realize_opcount_threshold": 48}

#: Dense bfloat16 operations per second, from the makers' data sheets.
PEAK_OPERATIONS = {"H100 80GB HBM3": 989e12, "H200": 989e12, "A100": 312e12}


@dataclass(frozen=True)
class Size:
    """Sizes of a model, and the tokens that a training step takes."""

    vocabulary: int
    width: int
    layers: int
    attention_heads: int
    tokens: int

    @property
    def hidden_width(self) -> int:
        """Channels within the feed-forward part."""
        return (8 * self.width // 3 + 255) // 256 * 256


SIZES = {
    "tiny": Size(vocabulary=256, width=64, layers=2, attention_heads=4, tokens=1024),  # for a look
    "134m": Size(vocabulary=32000, width=768, layers=12, attention_heads=12, tokens=65536),
    "363m": Size(vocabulary=32000, width=1024, layers=24, attention_heads=16, tokens=32768),
    "1.3b": Size(vocabulary=32000, width=2048, layers=24, attention_heads=16, tokens=16384),
}


class CausalConvolution(nn.Module):
    """x (B,T,D) -> (B,T,D): in each channel, a weighted sum of the last steps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(CONVOLUTION_TAPS, width) / CONVOLUTION_TAPS**0.5)

    def forward(self, x: Tensor) -> Tensor:
        # Cheaper to compute again in the backward pass than to keep: one pass over x.
        result: Tensor = checkpoint(self._convolve, x, use_reentrant=False)
        return result

    def _convolve(self, x: Tensor) -> Tensor:
        result = self.weight[0] * x
        for steps_ago in range(1, CONVOLUTION_TAPS):
            earlier = functional.pad(x, (0, 0, steps_ago, -steps_ago))
            result = result + self.weight[steps_ago] * earlier
        return result


class Recurrence(nn.Module):
    """x (B,T,D) -> (B,T,D): a cell behind a convolution, its output gated by a function of x."""

    def __init__(self, width: int, cell: Cell) -> None:
        super().__init__()
        self.input = nn.Linear(width, 2 * width, bias=False)
        self.convolution = CausalConvolution(width)
        self.scan = Scan(width, width, cell=cell, heads=CELL_HEADS, batch_first=True)
        self.norm = nn.RMSNorm(width)
        self.output = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        branch, gate = self.input(x).chunk(2, -1)
        y, _ = self.scan(self.convolution(branch))
        mixed: Tensor = self.output(self.norm(y.float()) * functional.silu(gate))
        return mixed


class RotaryPositions(nn.Module):
    """x (B,H,T,E) with each pair of its channels turned by an angle that grows with the step."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, steps: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        rates = ROTARY_BASE ** -(torch.arange(half) / half)
        angles = torch.arange(steps)[:, None] * rates
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        turned = torch.cat(
            (
                first * self.cosine - second * self.sine,
                second * self.cosine + first * self.sine,
            ),
            -1,
        )
        return turned.to(x.dtype)


class Attention(nn.Module):
    """x (B,T,D) -> (B,T,D): causal attention."""

    def __init__(self, width: int, heads: int, positions: nn.Module) -> None:
        super().__init__()
        self.heads = heads
        self.positions = positions
        self.input = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        by_head = torch.unflatten(self.input(x), -1, (3, self.heads, -1))  # (B,T,3,H,D/H)
        query, key, value = by_head.transpose(1, 3).unbind(2)  # each (B,H,T,D/H)
        attended = functional.scaled_dot_product_attention(
            self.positions(query), self.positions(key), value, is_causal=True
        )
        mixed: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    """x (B,T,D) -> (B,T,D): a mixer of the steps and a feed-forward part, each added to x."""

    def __init__(self, size: Size, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(size.width)
        self.mixer = mixer
        self.hidden_norm = nn.RMSNorm(size.width)
        self.to_hidden = nn.Linear(size.width, 2 * size.hidden_width, bias=False)
        self.from_hidden = nn.Linear(size.hidden_width, size.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.mixer_norm(x))
        hidden, gate = self.to_hidden(self.hidden_norm(x)).chunk(2, -1)
        mixed: Tensor = x + self.from_hidden(functional.silu(gate) * hidden)
        return mixed


class Head(nn.Module):
    """x (B,T,D) and the tokens (B,T) that come next -> the cross entropy of predicting them."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(size.width)
        self.output = nn.Linear(size.width, size.vocabulary, bias=False)

    def forward(self, x: Tensor, following: Tensor) -> Tensor:
        logits = self.output(self.norm(x))
        return functional.cross_entropy(logits.flatten(0, 1).float(), following.flatten())


class LanguageModel(nn.Module):
    """Tokens (B,T) and the ones that come next -> the mean cross entropy of predicting these."""

    def __init__(self, size: Size, make_mixer: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size.vocabulary, size.width)
        self.blocks = nn.ModuleList(Block(size, make_mixer()) for _ in range(size.layers))
        self.head = Head(size)

    def forward(self, tokens: Tensor, following: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        loss: Tensor = self.head(x, following)
        return loss


def is_attention(mixer: str) -> bool:
    return mixer in ("attention", "attention-without-positions")


def make_model(size: Size, mixer: str, steps: int) -> LanguageModel:
    """The model whose blocks mix by a cell, "attention", or "attention-without-positions"."""
    width, heads = size.width, size.attention_heads
    if mixer == "attention":
        positions = RotaryPositions(steps, width // heads)
        return LanguageModel(size, lambda: Attention(width, heads, positions))
    if mixer == "attention-without-positions":
        return LanguageModel(size, lambda: Attention(width, heads, nn.Identity()))
    cell = find_cell(mixer)
    return LanguageModel(size, lambda: Recurrence(width, cell))


def compile_model(model: LanguageModel, unit: str, **settings: Any) -> None:
    """Compiles it as one graph (unit "model"), or each block and the head (unit "block").

    All blocks have one graph, which is compiled once: a fraction of the time with 24 of them. But
    what spans two blocks, the sum before a norm, is then not computed in one go.
    """
    units = [model] if unit == "model" else [*model.blocks, model.head]
    for module in units:
        module.compile(fullgraph=True, dynamic=False, **settings)


def find_cell(name: str) -> Cell:
    """A cell by its name, its C++ file, or "file.py:function"."""
    path, _, function = name.partition(":")
    if not path.endswith(".py"):
        try:
            return Cell.named(name)
        except RuntimeError as error:
            raise SystemExit(str(error)) from None
    specification = importlib.util.spec_from_file_location(Path(path).stem, path)
    if specification is None or specification.loader is None or not Path(path).is_file():
        raise SystemExit(f"there is no file {path}, which should hold the cell {function}")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    cell = getattr(module, function, None)
    if not isinstance(cell, Cell):
        raise SystemExit(f"{path} has no cell {function}: decorate a step function with @cell")
    return cell


@dataclass(frozen=True)
class Measurement:
    """How one model trains on one length of text."""

    size: str
    mixer: str
    batch: int
    steps: int
    parameters: int
    tokens_per_second: float
    milliseconds: float  #: of a training step
    first_step_seconds: float  #: compilation
    share_of_peak: float | None  #: 6 operations a token and parameter, of the GPU's most
    peak_gigabytes: float | None  #: of the GPU's memory
    first_loss: float
    last_loss: float
    compiled: str = "model"  #: as one graph; "block", in parts


def measure(
    size_name: str, mixer: str, steps: int, unit: str, device: torch.device, seconds: float
) -> Measurement:
    """Trains a model on one batch of random tokens for twice so long, and times the second half.

    In the first half kernels are compiled, and the scans learn which plan is fastest.
    """
    size = SIZES[size_name]
    batch = max(1, size.tokens // steps)
    torch.manual_seed(0)
    with device:
        model = make_model(size, mixer, steps)
        text = torch.randint(size.vocabulary, (batch, steps + 1))
    compile_model(model, unit, options=None if is_attention(mixer) else LONG_CHAINS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def train() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            loss: Tensor = model(text[:, :-1], text[:, 1:])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    start = time.perf_counter()
    first_loss = train().item()
    first_step_seconds = time.perf_counter() - start
    repeats = 0
    start = time.perf_counter()
    while repeats < LEAST_STEPS or time.perf_counter() - start < seconds:
        train().item()
        repeats += 1
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    for _ in range(repeats):
        loss = train()
    last_loss = loss.item()  # waits for the device
    step_seconds = (time.perf_counter() - start) / repeats
    parameters = sum(parameter.numel() for parameter in model.parameters())
    tokens_per_second = batch * steps / step_seconds
    peak = peak_operations() if on_gpu else None
    return Measurement(
        size=size_name,
        mixer=mixer,
        compiled=unit,
        batch=batch,
        steps=steps,
        parameters=parameters,
        tokens_per_second=tokens_per_second,
        milliseconds=1e3 * step_seconds,
        first_step_seconds=first_step_seconds,
        share_of_peak=6 * parameters * tokens_per_second / peak if peak else None,
        peak_gigabytes=torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
        first_loss=first_loss,
        last_loss=last_loss,
    )


def peak_operations() -> float | None:
    name = torch.cuda.get_device_name()
    return next((peak for known, peak in PEAK_OPERATIONS.items() if known in name), None)


def describe_machine(device: torch.device) -> dict[str, str]:
    if device.type == "cuda":
        processor = torch.cuda.get_device_name()
    else:
        processor = platform.processor() or platform.machine()
    return {"processor": processor, "torch": torch.__version__}


def table(measurements: list[Measurement]) -> str:
    """As Markdown, with each model beside the fastest Transformer of its size and length."""
    transformers: dict[tuple[str, int], float] = {}
    for m in measurements:
        if is_attention(m.mixer):
            best = transformers.get((m.size, m.steps), 0.0)
            transformers[m.size, m.steps] = max(best, m.tokens_per_second)
    lines = [
        "| model | shape | mixer | tokens/s | of the Transformer's | of the peak | memory, GiB |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    for m in measurements:
        beside = transformers.get((m.size, m.steps))
        fields = [
            f"{m.parameters / 1e6:.0f}M" if m.parameters >= 1e6 else f"{m.parameters / 1e3:.0f}k",
            f"B{m.batch} T{m.steps}",
            m.mixer,
            f"{m.tokens_per_second / 1e3:.1f}k",
            f"{m.tokens_per_second / beside:.2f}×" if beside else "",
            f"{100 * m.share_of_peak:.1f} %" if m.share_of_peak else "",
            f"{m.peak_gigabytes:.1f}" if m.peak_gigabytes else "",
        ]
        lines.append(f"| {' | '.join(fields)} |")
    return "\n".join(lines)


def comma_separated(text: str) -> list[str]:
    return text.split(",")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="134m")
    parser.add_argument("--mixer", type=comma_separated, default=["gru", "lstm_cifg", "attention"])
    parser.add_argument("--steps", type=comma_separated, default=["2048", "16384", "65536"])
    parser.add_argument(
        "--compile", choices=("model", "block"), default="model", help="as one graph, or in parts"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long to time each")
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    parser.add_argument(
        "--from", dest="reports", type=comma_separated, help="measure nothing; read these files"
    )
    options = parser.parse_args()
    if options.reports:
        reports = [json.loads(Path(path).read_text()) for path in options.reports]
        print(table([Measurement(**m) for report in reports for m in report["results"]]))
        return
    device = torch.device(options.device)
    measurements = []
    for steps in map(int, options.steps):
        for mixer in options.mixer:
            try:
                m = measure(options.size, mixer, steps, options.compile, device, options.seconds)
            except torch.OutOfMemoryError:
                print(f"{mixer}, T{steps}: out of memory", file=sys.stderr)
                continue
            finally:
                torch.compiler.reset()  # and with it the model that was compiled
                gc.collect()
            measurements.append(m)
            print(
                f"{mixer}, B{m.batch} T{steps}: {m.tokens_per_second:.0f} tokens/s, "
                f"loss {m.first_loss:.3f} -> {m.last_loss:.3f}, "
                f"compiled in {m.first_step_seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            if options.json:
                report = {
                    "device": device.type,
                    "machine": describe_machine(device),
                    "results": [asdict(m) for m in measurements],
                }
                options.json.write_text(json.dumps(report, indent=2) + "\n")
    print(table(measurements))


if __name__ == "__main__":
    main()
