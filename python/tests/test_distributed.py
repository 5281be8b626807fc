"""Training on several processes: examples/python/train_lm.py, and pararnn_cpp.nn under FSDP2.

A process here is a fork of one that has imported everything, and they meet over gloo.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.distributed.launcher import LaunchConfig, elastic_launch

from pararnn_cpp import lm
from pararnn_cpp.nn import Scan

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/python"
sys.path.insert(0, str(EXAMPLES))

import train_lm  # noqa: E402
from language_model.model import PRESETS, LanguageModel, ModelConfig  # noqa: E402
from language_model.shards import Shard, TokenShards, Windows  # noqa: E402
from language_model.world import World  # noqa: E402

#: The program, which writes shards; ctest runs in the folder that it is built in.
PROGRAM = Path(os.environ.get("PARARNN_PROGRAM", "pararnn")).absolute()

CONTEXT = multiprocessing.get_context("forkserver")
#: The optimizer imports torch._dynamo in its first step.
PRELOADED = [Path(__file__).stem, "torch._dynamo"]


@pytest.fixture(scope="module", autouse=True)
def _fork_server() -> None:
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [*sys.path, str(Path(__file__).parent)])
    )
    CONTEXT.set_forkserver_preload(PRELOADED)


def in_process(
    rank: int,
    environment: dict[str, str],
    output: Path,
    function: Callable[..., None],
    *arguments: Any,
) -> None:
    """One of several processes, as torchrun would start it, with its words in a file."""
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    function(*arguments)


class Processes:
    """Several processes that run a function, with the store that lets them meet."""

    def __init__(self, folder: Path, size: int, function: Callable[..., None], *arguments: Any):
        folder.mkdir(parents=True, exist_ok=True)
        self.store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        environment = {
            "WORLD_SIZE": str(size),
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": str(self.store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
        self.outputs = [folder / f"output{rank}" for rank in range(size)]
        self.processes: list[BaseProcess] = []
        for rank, output in enumerate(self.outputs):
            arguments_of_rank = (rank, environment, output, function, *arguments)
            process = CONTEXT.Process(target=in_process, args=arguments_of_rank)
            process.start()
            self.processes.append(process)

    def join(self) -> list[int | None]:
        for process in self.processes:
            process.join()
        return [process.exitcode for process in self.processes]

    def words(self) -> list[str]:
        return [output.read_text() for output in self.outputs]


#: A model that trains in a moment.
SMALL = (
    "--width=32 --layers=2 --heads=2 --attention-heads=2 --vocabulary=300 --length=24 --batch=8 "
    "--device=cpu"
).split()


def train(folder: Path, size: int, *options: str) -> list[dict[str, Any]]:
    """Trains in so many processes, and returns the log's entries of steps, by step."""
    log = folder / "log.jsonl"
    before = log.read_text().count("\n") if log.exists() else 0
    processes = Processes(folder, size, train_lm.main, [*SMALL, f"--json={log}", *options])
    assert processes.join() == [0] * size, processes.words()
    entries = [json.loads(line) for line in log.read_text().splitlines()[before:]]
    return [entry for entry in entries if "loss" in entry or "validation_loss" in entry]


def values(entries: Sequence[dict[str, Any]]) -> list[tuple[float, ...]]:
    """What must be the same: losses, norms of gradients, and losses of held-out rows."""
    names = ("loss", "gradient_norm", "validation_loss")
    return [tuple(entry[name] for name in names if name in entry) for entry in entries]


def assert_close(
    actual: Sequence[tuple[float, ...]], expected: Sequence[tuple[float, ...]]
) -> None:
    """Equal up to the rounding of float32, which twenty steps of AdamW make larger."""
    assert [len(row) for row in actual] == [len(row) for row in expected]
    a, b = (torch.tensor([x for row in rows for x in row]) for rows in (actual, expected))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=0)


def write_shard(path: Path, tokens: Sequence[int], vocabulary: int, width: int) -> None:
    """A shard as docs/distributed.md and src/data/shard.hpp describe it."""
    data = b"".join(token.to_bytes(width, "little") for token in tokens)
    blocks = [data[begin : begin + 65536] for begin in range(0, len(data), 65536)]
    checksums = b"".join(zlib.crc32(block).to_bytes(4, "little") for block in blocks)
    header = struct.pack(
        "<8sIIQQQI", b"pararnn", 1, width, len(tokens), 0, vocabulary, zlib.crc32(checksums)
    )
    header += zlib.crc32(header).to_bytes(4, "little")
    path.write_bytes(header + data + bytes(-len(data) % 4) + checksums)


def write_folder(folder: Path, sides: dict[str, list[list[int]]], width: int = 2) -> None:
    """A folder of shards: the tokens of each, by side."""
    folder.mkdir()
    files = {
        side: [f"{side}-{n:05}.shard" for n in range(len(rows))] for side, rows in sides.items()
    }
    for side, rows in sides.items():
        for file, tokens in zip(files[side], rows, strict=True):
            write_shard(folder / file, tokens, 300, width)
    (folder / "shards.json").write_text(json.dumps({"format": 1, **files}))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokens that a model can learn something of: each is likely to follow from the one before."""
    folder = tmp_path_factory.mktemp("data") / "tokens"
    draw = random.Random(0)

    def tokens(count: int) -> list[int]:
        row = [0]
        while len(row) < count:
            row.append((7 * row[-1] + 1 + draw.randrange(3)) % 300)
        return row

    write_folder(folder, {"training": [tokens(3000), tokens(5001)], "held_out": [tokens(900)]})
    return folder


# --- the data ---


@pytest.mark.parametrize("width", [2, 4])
def test_shards_are_read_as_written(width: int, tmp_path: Path) -> None:
    draw = random.Random(width)
    top = 1 << 8 * width - 1
    parts = [[draw.randrange(top) for _ in range(count)] for count in (40_001, 1, 0, 30_000)]
    write_folder(tmp_path / "tokens", {"training": parts}, width)
    tokens = TokenShards(tmp_path / "tokens")
    whole = [token for part in parts for token in part]
    assert (tokens.size, tokens.vocabulary) == (len(whole), 300)
    for begin, count in ((0, len(whole)), (39_990, 30), (40_001, 1), (40_002, 5), (69_000, 1002)):
        assert tokens.read(begin, count).tolist() == whole[begin : begin + count]


def test_damage_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.shard"
    write_shard(path, range(200), 300, 2)
    right = path.read_bytes()
    for place in (0, 9, 13, 20, 30, 42, 46, 100, len(right) - 3):
        path.write_bytes(right[:place] + bytes([right[place] ^ 64]) + right[place + 1 :])
        with pytest.raises(ValueError, match=f"the shard {path} is damaged: .*; make it again"):
            Shard(path).read(0, 200)
    for size in (0, 47, 48, len(right) - 4):
        path.write_bytes(right[:size])
        with pytest.raises(ValueError, match=f"the shard {path} is damaged"):
            Shard(path)


def test_an_epoch_reads_each_window_once(data: Path) -> None:
    tokens = TokenShards(data)
    windows = Windows(tokens, 100, seed=3)
    for epoch in range(3):
        numbers = range(epoch * windows.windows, (epoch + 1) * windows.windows)
        begins = sorted(windows.begin(number) for number in numbers)
        assert all(after - before == 100 for before, after in pairwise(begins))
        assert begins[0] >= 0 and begins[-1] + 101 <= tokens.size
    assert torch.equal(windows(5), tokens.read(windows.begin(5), 101))
    with pytest.raises(ValueError, match="has 8001 tokens, too few for a row of 8001 and the one"):
        Windows(tokens, 8001, seed=3)


def test_the_order_of_tokens_does_not_depend_on_the_processes(data: Path) -> None:
    rows = Windows(TokenShards(data), 24, seed=0)

    def batch(number: int, size: int, accumulate: int) -> Tensor:
        options = train_lm.parse_options(
            [*SMALL, "--data=", "--steps=1", f"--accumulate={accumulate}"]
        )
        cpu: Any = torch.device("cpu")
        worlds = [World(rank, size, cpu, None, None) for rank in range(size)]  # type: ignore[arg-type]
        parts = [
            part for world in worlds for part in train_lm.batches(rows, number, options, world)
        ]
        assert len(parts) == size * accumulate
        assert all(torch.equal(tokens[:, 1:], targets[:, :-1]) for tokens, targets in parts)
        return torch.cat([tokens for tokens, _ in parts])

    for number in (0, 41, 1000):
        expected = batch(number, 1, 1)
        assert expected.shape == (8, 24)
        for size, accumulate in ((2, 1), (4, 1), (8, 1), (1, 4), (2, 2)):
            assert torch.equal(batch(number, size, accumulate), expected)


# --- the model ---


def test_presets_have_the_sizes_that_they_are_named_by() -> None:
    sizes = {"134m": 134e6, "400m": 370e6, "1b": 1.3e9, "3b": 2.8e9, "7b": 6.76e9}
    for name, config in PRESETS.items():
        for mixer in ("rnn", "attention"):
            with torch.device("meta"):
                model = LanguageModel(replace(config, mixer=mixer, layers=1), 0, lambda part: None)
            block = sum(p.numel() for p in model.blocks.parameters())
            count = sum(p.numel() for p in model.parameters()) + block * (config.layers - 1)
            assert abs(count / sizes[name] - 1) < 0.05, (name, mixer, count)


#: How the program names what the example names, in its checkpoints.
NAMES_OF_THE_PROGRAM = {
    "blocks.": "block",
    "taps": "convolution.weight",
    "scan.weight_ih_l0": "projection.weight",
    "scan.bias_ih_l0": "projection.bias",
    "scan.weight_hh_l0": "recurrent_weight",
    "embedding.weight": "embedding",
    "head.output.weight": "output",
    "head.norm": "norm",
}


def tensor_in(path: Path, name: str) -> Tensor:
    """A float32 tensor of a file of safetensors, flat."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    begin, end = json.loads(data[8 : 8 + size])[name]["data_offsets"]
    return torch.frombuffer(bytearray(data[8 + size + begin : 8 + size + end]), dtype=torch.float32)


def test_model_and_order_are_those_of_the_program(tmp_path: Path) -> None:
    """With the weights of `pararnn train`, its losses at a learning rate of 0."""
    if not PROGRAM.is_file():
        pytest.skip(f"there is no program {PROGRAM}")
    (tmp_path / "text").write_text("".join(f"{n} and {n * n} are numbers.\n" for n in range(3000)))
    for command in (
        "tokenize --data text --out tokens --vocabulary 300",
        "train --data tokens --out run --width 32 --layers 2 --heads 2 --mlp-width 96 --batch 4 "
        "--tie-embedding false --length 48 --steps 3 --learning-rate 0 --log-every 1 --seed 5 "
        "--device cpu",
    ):
        subprocess.run([PROGRAM, *command.split()], cwd=tmp_path, check=True, capture_output=True)
    entries = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    expected = [entry["loss"] for entry in entries if entry["event"] == "step"]

    model = LanguageModel(ModelConfig(300, 32, 2, heads=2, mlp_width=96), 0, lambda part: None)
    for name, parameter in model.named_parameters():
        for ours, of_program in NAMES_OF_THE_PROGRAM.items():
            name = name.replace(ours, of_program)
        stored = tensor_in(tmp_path / "run/step-00000003/model.safetensors", name)
        parameter.data.copy_(stored.view_as(parameter))
    rows = Windows(TokenShards(tmp_path / "tokens"), 48, seed=5)
    for step, loss in enumerate(expected):
        window = torch.stack([rows(4 * step + row) for row in range(4)])
        assert abs(model(window[:, :-1], window[:, 1:])[0].item() - loss) < 1e-5 * loss


# --- training ---


@pytest.fixture(scope="module")
def one_process(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[float, ...]]:
    """Twenty steps of one process: what others are compared with."""
    folder = tmp_path_factory.mktemp("one")
    return values(train(folder, 1, f"--data={data}", "--steps=20", "--validate-every=10"))


def test_it_learns(one_process: list[tuple[float, ...]]) -> None:
    validations = [row[0] for row in one_process if len(row) == 1]
    assert len(one_process) == 22 and len(validations) == 2
    assert validations[1] < validations[0] < one_process[0][0]


@pytest.mark.parametrize("options", ["2 --recompute=1", "4 --accumulate=2 --keep-weights"])
def test_processes_equal_one(
    options: str, data: Path, tmp_path: Path, one_process: list[tuple[float, ...]]
) -> None:
    size, *more = options.split()
    entries = train(
        tmp_path, int(size), f"--data={data}", "--steps=20", "--validate-every=10", *more
    )
    assert_close(values(entries), one_process)


def test_resumed_equals_never_stopped(
    data: Path, tmp_path: Path, one_process: list[tuple[float, ...]]
) -> None:
    entries = []
    for size, stop in ((2, 7), (4, 14), (1, 20)):
        entries += train(
            tmp_path,
            size,
            f"--data={data}",
            "--steps=20",
            "--validate-every=10",
            f"--out={tmp_path}",
            f"--stop-after={stop}",
            "--keep=2",
        )
    entries = [e for e in entries if "loss" in e or e["step"] in (10, 20)]
    assert_close(values(entries), one_process)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    saved = {entry["checkpoint"]: entry for entry in log if "checkpoint" in entry}
    restored = {entry["restored"]: entry for entry in log if "restored" in entry}
    assert [entry["step"] for entry in restored.values()] == [7, 14]
    assert restored.keys() < saved.keys()
    assert all(entry["seconds"] > 0 for entry in restored.values())
    folders = sorted(path.name for path in tmp_path.glob("step-*"))
    assert folders == ["step-00000014", "step-00000020"]


def train_compiled(arguments: list[str]) -> None:
    """Compiled but for the last stage, whose C++ would take a minute."""
    compile_whole = torch.compile
    torch.compile = lambda forward, options, **more: compile_whole(  # options are of that stage
        forward, backend="aot_eager", **more
    )
    train_lm.main(arguments)


def test_compiled_equals_not_compiled(tmp_path: Path) -> None:
    options = [*SMALL, "--data=random", "--steps=4", "--recompute=1"]
    losses = []
    for function, more in ((train_lm.main, "--no-compile"), (train_compiled, "--compile")):
        file = tmp_path / more
        processes = Processes(tmp_path, 1, function, [*options, f"--json={file}", more])
        assert processes.join() == [0], processes.words()
        entries = [json.loads(line) for line in file.read_text().splitlines()]
        losses.append(values([entry for entry in entries if "loss" in entry]))
    assert len(losses[0]) == 4
    assert_close(losses[1], losses[0])


@pytest.mark.parametrize(
    "options", [f"--cell={EXAMPLES / 'train_text.py'}:light_gru", "--mixer=attention"]
)
def test_other_models(options: str, tmp_path: Path) -> None:
    entries = train(tmp_path, 1, "--data=random", "--steps=10", options)
    assert entries[-1]["loss"] < 0.8 * entries[0]["loss"]
    assert entries[-1]["tokens_per_second"] > 0 and entries[-1]["peak_memory"] > 1 << 26


# --- what goes wrong ---


def running(folder: Path, size: int, *options: str) -> Processes:
    """Processes that have trained a few steps of very many."""
    log = folder / "log"
    processes = Processes(
        folder, size, train_lm.main, [*SMALL, f"--json={log}", "--steps=1000000", *options]
    )
    while not log.exists() or log.read_text().count("\n") < 4:
        assert all(process.is_alive() for process in processes.processes), processes.words()
        time.sleep(0.05)
    return processes


def running_alone(how: str, folder: Path) -> Processes:
    """Two processes, of which the second has been lost, or the first told to end."""
    processes = running(folder, 2, "--data=random", f"--timeout={10 if how == 'hung' else 100}")
    survivor, lost = processes.processes
    assert lost.pid is not None
    os.kill(lost.pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    if how == "told":
        survivor.terminate()
    return processes


def test_a_lost_process_ends_the_other(tmp_path: Path) -> None:
    # One that hangs is given up after ten seconds, in which the other two are tried.
    ways = {how: running_alone(how, tmp_path / how) for how in ("hung", "killed", "told")}
    for how, processes in reversed(ways.items()):
        survivor, lost = processes.processes
        survivor.join(60)
        lost.kill()
        assert survivor.exitcode == 1, how
        what = (
            "ended by SIGTERM, as torchrun does when another has ended"
            if how == "told"
            else "another process has ended or does not answer"
        )
        words = processes.words()[0]
        assert f"train_lm, process 0: {what}" in words and "Traceback" not in words, words
        assert words.endswith("; the same command goes on from the newest checkpoint in --out\n")


def train_and_tell(folder: Path, arguments: list[str]) -> None:
    """Trains, and leaves the number of its process in a file."""
    (folder / f"process{os.environ['RANK']}").write_text(str(os.getpid()))
    train_lm.main(arguments)


def launch_with_restart(folder: Path, arguments: list[str]) -> None:
    """What `torchrun --standalone --nproc-per-node 2 --max-restarts 1` does."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=1,
        monitor_interval=0.1,
        start_method="forkserver",  # forks of the agent, which has threads, abort now and then
    )
    CONTEXT.set_forkserver_preload(PRELOADED)
    elastic_launch(config, train_and_tell)(folder, arguments)


def test_torchrun_goes_on_after_a_loss(
    data: Path, tmp_path: Path, one_process: list[tuple[float, ...]]
) -> None:
    """All are started anew when one is killed, and they end as if none had been."""
    arguments = [*SMALL, f"--data={data}", "--steps=20", "--validate-every=10", f"--out={tmp_path}"]
    arguments += ["--checkpoint-every=1"]
    launch = Processes(tmp_path, 1, launch_with_restart, tmp_path, arguments)
    (agent,) = launch.processes
    log = tmp_path / "log.jsonl"
    while not log.exists() or log.read_text().count('"loss"') < 4:
        assert agent.is_alive(), launch.words()
        time.sleep(0.05)
    os.kill(int((tmp_path / "process1").read_text()), signal.SIGKILL)
    assert launch.join() == [0], launch.words()
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert sum("settings" in entry for entry in entries) == 2
    of_steps = [entry for entry in entries if "loss" in entry or "validation_loss" in entry]
    final = {(entry["step"], "validation_loss" in entry): entry for entry in of_steps}
    assert_close(values([final[key] for key in sorted(final)]), one_process)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--batch=6 --accumulate=4", "batch is 6, but should be a multiple of 1 processes times"),
        ("--heads=3", "width is 32, but should be a multiple of heads = 3"),
        ("--mixer=ssm", "mixer is ssm, but should be rnn or attention"),
        ("--layers=0", "layers is 0, but should be 1 or more"),
        ("--cell=gruu", "there is no cell 'gruu'; the cells are"),
        (f"--cell={ROOT}/python/tests/nowhere.py:f", "No such file"),
        (f"--cell={EXAMPLES}/train_text.py:Block", "train_text.py defines no cell Block"),
        ("--data=nowhere", "nowhere is not a folder that pararnn tokenize wrote: "),
        ("--data={data} --vocabulary=299", "vocabulary is 299, but should be 300 or more for"),
        ("--data={data} --length=9000", "has 8001 tokens, too few for a row of 9000"),
        (
            "--learning-rate=1e30",
            "and its gradient's norm nan: go on from the newest checkpoint with",
        ),
        ("--out={out} --seed=1", "seed is 1, but 0 in the run in"),
    ],
)
def test_errors_are_sentences(options: str, message: str, data: Path, tmp_path: Path) -> None:
    if "{out}" in options:
        train(tmp_path / "out", 1, "--data=random", "--steps=1", f"--out={tmp_path / 'out'}")
    arguments = options.format(data=data, out=tmp_path / "out").split()
    processes = Processes(
        tmp_path, 1, train_lm.main, [*SMALL, "--steps=3", "--data=random", *arguments]
    )
    assert processes.join() == [1]
    words = processes.words()[0].splitlines()
    assert words[-1].startswith("train_lm, process 0: ") and message in words[-1], words
    assert not any("Traceback" in line for line in words)


# --- layers of the package ---


def gradients_under_fsdp(folder: Path) -> None:
    """One half of the batch of each of two processes, through layers whose weights are sharded."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    layers, x, side = torch.load(folder / "layers.pt", weights_only=False)
    fully_shard(layers)
    half = slice(2 * rank, 2 * rank + 2)
    y, h_n = layers(x[half], side=None if side is None else side[half])
    (y.square().mean() + sum(h.square().mean() for h in h_n)).backward()
    gradients = {name: p.grad.full_tensor() for name, p in layers.named_parameters()}
    torch.optim.AdamW(layers.parameters()).step()
    state = {name: value.full_tensor() for name, value in layers.state_dict().items()}
    if rank == 0:
        torch.save((gradients, state), folder / "gradients.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("cell", ["lstm", str(ROOT / "examples/cells/gru_d.hpp")])
def test_layers_under_fsdp(cell: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = Scan(
        4, 6, cell=cell, num_layers=2, heads=2, bidirectional=True, batch_first=True
    ).double()
    x = torch.randn(4, 9, 4, dtype=torch.float64)
    side = torch.rand(4, 9, 2, dtype=torch.float64) if layers.cell.side_inputs else None
    torch.save((layers, x, side), tmp_path / "layers.pt")
    processes = Processes(tmp_path, 2, gradients_under_fsdp, tmp_path)
    assert processes.join() == [0, 0], processes.words()
    gradients, state = torch.load(tmp_path / "gradients.pt")

    y, h_n = layers(x, side=side)
    (y.square().mean() + sum(h.square().mean() for h in h_n)).backward()
    torch.optim.AdamW(layers.parameters()).step()
    for name, parameter in layers.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad)
        torch.testing.assert_close(state[name], parameter.data)


def model_of_documents_under_fsdp(folder: Path) -> None:
    """One half of the batch of each of two processes, through a model whose blocks are sharded."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    config, weights, tokens, reset = torch.load(folder / "model.pt", weights_only=False)
    model = lm.LanguageModel(config).double()
    model.load_state_dict(weights)
    for block in model.blocks:
        fully_shard(block)
    fully_shard(model)
    half = slice(rank, rank + 1)
    model(tokens[half], reset=reset[half])[0].square().mean().backward()
    gradients = {name: p.grad.full_tensor() for name, p in model.named_parameters()}
    if rank == 0:
        torch.save(gradients, folder / "gradients.pt")
    dist.destroy_process_group()


def test_documents_of_a_model_under_fsdp(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = lm.ModelConfig(
        vocabulary=11,
        width=16,
        layers=3,
        mixer="attention,attention,rnn",
        attention=lm.AttentionOptions(heads=2),
    )
    model = lm.LanguageModel(config).double()
    tokens, reset = torch.randint(11, (2, 30)), torch.rand(2, 30) < 0.2
    torch.save((config, model.state_dict(), tokens, reset), tmp_path / "model.pt")
    processes = Processes(tmp_path, 2, model_of_documents_under_fsdp, tmp_path)
    assert processes.join() == [0, 0], processes.words()
    gradients = torch.load(tmp_path / "gradients.pt")

    model(tokens, reset=reset)[0].square().mean().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad)
