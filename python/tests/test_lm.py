"""The language model against the program that trains it, and its files, good and bad."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import math
import os
import pickle
import random
import re
import shutil
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from pararnn_cpp.lm import (
    AttentionOptions,
    ByteTokenizer,
    LanguageModel,
    Mamba2Options,
    ModelConfig,
    RnnOptions,
    SentencePieceTokenizer,
    load_tokenizer,
)

ROOT = Path(__file__).parents[2]
PROGRAM = Path(os.environ.get("PARARNN_PROGRAM") or ROOT / "build" / "pararnn")
GRU_D = ROOT / "examples" / "cells" / "gru_d.hpp"

# Every part of a model in more than one form: heads, side inputs, cells built in and from a file.
MODELS = {
    "gru": "--cell gru --width 16 --layers 2",
    "lstm": "--cell lstm --width 16 --layers 1 --heads 4 --conv-width 1 --mlp-width 24 "
    "--tie-embedding false --weight-bound 0.3",
    "mamba2": "--mixer mamba2,rnn --width 16 --layers 2 --mamba2-head-channels 8 --mamba2-state 4 "
    "--mamba2-groups 2 --mamba2-conv-width 3",
    "attention": "--mixer attention --width 24 --layers 2 --attention-heads 6 --key-value-heads 2 "
    "--rotary-base 500",
    "hybrid": "--mixer rnn*2,attention --cell gru --width 16 --layers 3 --attention-heads 2",
    "file": f"--cell {GRU_D} --width 12 --layers 1 --heads 2 --conv-width 3",
}
SMALL = ModelConfig(vocabulary=11, width=16, layers=2, rnn=RnnOptions(heads=2))
HYBRID = dataclasses.replace(
    SMALL,
    mixer="attention,rnn",
    attention=AttentionOptions(heads=4, key_value_heads=2, rotary_base=100.0),
)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What cells are trusted is this test's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def pararnn(*arguments: str | Path) -> bytes:
    """What the program prints."""
    if not PROGRAM.is_file():
        pytest.skip(f"there is no {PROGRAM}")
    command = [str(PROGRAM), *map(str, arguments)]
    if arguments[0] != "tokenize":
        command += ["--device", "cpu"]
    run = subprocess.run([*command, "--threads", "1"], capture_output=True)
    assert run.returncode == 0, run.stderr.decode()
    return run.stdout


def sentences(length: int, seed: int = 1) -> bytes:
    words = "the |state |of |a |cell |depends |on its |input|.\n|and, |gates |forget ".split("|")
    draw = random.Random(seed)
    return "".join(draw.choice(words) for _ in range(length)).encode()[:length]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_bytes(sentences(20_000))
    return path


def train(text: Path, run: Path, options: str) -> None:
    pararnn(
        *f"train --data {text} --out {run} --batch 4 --length 64 --learning-rate 0.02".split(),
        *options.split(),
    )


@pytest.fixture(scope="module", params=MODELS)
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, text: Path
) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "run"
    train(text, folder, f"--steps 2 {MODELS[request.param]}")
    return folder


def exact_model(config: ModelConfig) -> LanguageModel:
    """In float64, where two ways to the same number agree to many digits."""
    return LanguageModel(config).double()


def loss_of(
    model: Callable[..., tuple[Tensor, object]], tokens: Tensor, reset: Tensor | None = None
) -> Tensor:
    """`reset` is that of all but the last token."""
    logits, _ = model(tokens[:, :-1], reset=reset)
    return functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def expect_equal(model: LanguageModel, other: LanguageModel) -> None:
    assert model.config == other.config
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


# ---- The program's models ----


def expect_as_evaluated(model: LanguageModel, folder: Path, text: bytes, file: Path) -> None:
    """`pararnn eval` tells the loss to six digits."""
    said = pararnn("eval", "--model", folder, "--data", file).decode()
    found = re.search(r"([0-9.]+) bits per byte, perplexity ([0-9.]+), ([0-9]+) tokens", said)
    assert found is not None, said
    tokens = torch.tensor(list(text))
    nats = 0.0
    with torch.no_grad():
        for window in (tokens[begin : begin + 257] for begin in range(0, len(text) - 1, 256)):
            nats += (len(window) - 1) * loss_of(model, window.unsqueeze(0)).item()
    assert int(found[3]) == len(text) - 1
    loss = nats / (len(text) - 1)
    assert float(found[1]) == pytest.approx(loss / math.log(2), abs=0.6e-4)
    assert float(found[2]) == pytest.approx(math.exp(loss), abs=0.6e-3)


def test_gives_the_programs_logits_and_greedy_text(run: Path, tmp_path: Path) -> None:
    model = LanguageModel.from_checkpoint(run)
    other = sentences(3_000, seed=2)
    (tmp_path / "other").write_bytes(other)
    expect_as_evaluated(model, run, other, tmp_path / "other")

    prompt = sentences(300, seed=3)
    options = ("--prompt", prompt.decode(), "--tokens", "60", "--temperature", "0")
    written = pararnn("generate", "--model", run, *options)
    tokens = model.stream([256, *prompt], 60, temperature=0)
    assert written == prompt + ByteTokenizer().decode(tokens) + b"\n"
    assert model.generate(prompt.decode(), 60, temperature=0) == written[300:-1].decode(
        errors="replace"
    )


def test_what_is_saved_is_what_was_loaded(run: Path, tmp_path: Path) -> None:
    model = LanguageModel.from_checkpoint(run)
    model.save(tmp_path / "saved")
    expect_equal(LanguageModel.from_checkpoint(tmp_path / "saved"), model)
    for path in (run, run / "latest", *run.glob("step-*")):
        expect_equal(LanguageModel.from_checkpoint(path), model)


def test_the_program_reads_what_python_made(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = LanguageModel(ModelConfig(width=16, layers=2, rnn=RnnOptions("lstm", heads=2)))
    text = sentences(3_000)
    (tmp_path / "text").write_bytes(text)
    model.save(tmp_path / "model")
    expect_as_evaluated(model, tmp_path / "model", text, tmp_path / "text")


def test_the_program_goes_on_with_what_was_saved_into_a_run(text: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(text, whole, "--steps 4 --checkpoint-every 2 --width 16 --layers 1")
    checkpoint = whole / "step-00000002"
    model = LanguageModel.from_checkpoint(checkpoint)
    model.save(parts, run=checkpoint)
    pararnn("train", "--resume", "--out", parts)
    expect_equal(LanguageModel.from_checkpoint(parts), LanguageModel.from_checkpoint(whole))
    moments = [folder / "step-00000004" / "optimizer.safetensors" for folder in (whole, parts)]
    assert moments[0].read_bytes() == moments[1].read_bytes()

    with pytest.raises(ValueError, match="exists already"):
        model.save(parts, run=checkpoint)
    with pytest.raises(ValueError, match="another config"):
        LanguageModel(ModelConfig(width=32, layers=1)).save(tmp_path / "new", run=whole)
    with pytest.raises(RuntimeError, match="which would be lost"):
        model.save(checkpoint)
    model.save(tmp_path / "model")
    with pytest.raises(RuntimeError, match="cannot read .*state.json"):
        model.save(tmp_path / "new", run=tmp_path / "model")


def test_a_cell_from_elsewhere_is_compiled_only_when_told(tmp_path: Path) -> None:
    source = tmp_path / "foreign.hpp"
    source.write_text(GRU_D.read_text().replace("GruD", "Foreign"))
    LanguageModel(ModelConfig(width=8, layers=1, rnn=RnnOptions(str(source)))).save(
        tmp_path / "model"
    )
    program = """
import sys
from pararnn_cpp.lm import LanguageModel

try:
    LanguageModel.from_checkpoint(sys.argv[1])
except RuntimeError as error:
    print(error)
LanguageModel.from_checkpoint(sys.argv[1], trust_cell=True)
LanguageModel.from_checkpoint(sys.argv[1])
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "model")],
        env={**os.environ, "XDG_DATA_HOME": str(tmp_path / "other-home")},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert "cell.hpp' is source code that came with the model" in ran.stdout
    assert "trust_cell=True" in ran.stdout and ran.stdout.count("\n") == 1


# ---- The model ----


@pytest.mark.parametrize("mixer", ["rnn", "attention", "attention,rnn"])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("heads", [1, 4])
def test_pieces_and_steps_equal_the_whole(cell: str, heads: int, mixer: str) -> None:
    options = RnnOptions(cell, heads=heads)
    model = exact_model(
        dataclasses.replace(
            HYBRID, mixer=mixer, rnn=options, attention=AttentionOptions(4, key_value_heads=heads)
        )
    )
    tokens = torch.randint(11, (3, 40))
    with torch.no_grad():
        expected, final = model(tokens)
        logits, state = model(tokens[:, :2])
        pieces = [logits]
        for piece in (tokens[:, 2:3], tokens[:, 3:25]):
            logits, state = model(piece, state)
            pieces.append(logits)
        for token in tokens[:, 25:].unbind(1):
            logits, state = model.step(token, state)
            pieces.append(logits.unsqueeze(1))
    torch.testing.assert_close(torch.cat(pieces, 1), expected)
    torch.testing.assert_close(state, final)
    changed = tokens.clone()
    changed[:, 20:] = (changed[:, 20:] + 1) % 11
    torch.testing.assert_close(model(changed)[0][:, :20], expected[:, :20])


@pytest.mark.parametrize("mixer", ["rnn", "attention", "mamba2"])
def test_a_text_of_no_tokens_changes_nothing(mixer: str) -> None:
    mamba2 = Mamba2Options(head_channels=8, state=3)
    model = exact_model(dataclasses.replace(HYBRID, mixer=mixer, mamba2=mamba2))
    tokens = torch.randint(11, (2, 12))
    state, pieces = None, []
    with torch.no_grad():
        for begin, end in ((0, 0), (0, 7), (7, 7), (7, 12)):
            logits, state = model(tokens[:, begin:end], state)
            assert logits.shape == (2, end - begin, 11)
            pieces.append(logits)
        torch.testing.assert_close(torch.cat(pieces, 1), model(tokens)[0])


@pytest.mark.parametrize("config", [SMALL, HYBRID], ids=["rnn", "hybrid"])
def test_documents_are_read_as_if_alone(config: ModelConfig) -> None:
    model = LanguageModel(config).double()
    tokens = torch.randint(SMALL.vocabulary, (2, 40))
    starts = [0, 1, 12, 15, 40]
    reset = torch.zeros(2, 40, dtype=torch.bool)
    reset[:, starts[1:-1]] = True
    logits, state = model(tokens, reset=reset)
    alone = [model(tokens[:, a:b]) for a, b in zip(starts, starts[1:], strict=False)]
    torch.testing.assert_close(logits, torch.cat([logits for logits, _ in alone], 1))
    for got, expected in zip(state, alone[-1][1], strict=True):
        if len(got) == 3:  # the keys and values of the last document, behind those of the others
            got = (got[0][:, starts[-2] :], got[1][:, starts[-2] :], got[2] - starts[-2])
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b)


class Calls(TorchDispatchMode):
    """Counts the operations that run, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.name()] += 1
        return func(*args, **(kwargs or {}))


def test_what_follows_from_documents_is_made_once_for_all_layers() -> None:
    tokens, reset = torch.randint(11, (2, 40)), torch.rand(2, 40) < 0.1
    counts = []
    for layers in (1, 4):
        model = LanguageModel(dataclasses.replace(HYBRID, mixer="attention", layers=layers))
        with Calls() as calls:
            _, state = model(tokens, reset=reset)
            model(tokens, state)
        counts.append(calls.counts)
    for name in ("aten::cummax", "aten::le.Tensor", "aten::ge.Tensor", "aten::bitwise_and.Tensor"):
        assert counts[0][name] == counts[1][name] > 0, name


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("config", [SMALL, HYBRID], ids=["rnn", "hybrid"])
def test_gradients_are_the_slopes_of_the_loss(tied: bool, config: ModelConfig) -> None:
    model = exact_model(dataclasses.replace(config, tie_embedding=tied))
    tokens = torch.randint(11, (2, 30))
    loss_of(model, tokens).backward()
    parameters = list(model.parameters())
    along = [torch.randn_like(p) for p in parameters]
    gradients = [p.grad for p in parameters]
    assert all(g is not None and g.abs().max() > 0 for g in gradients)
    slope = sum((g * d).sum().item() for g, d in zip(gradients, along, strict=True))
    step, losses = 1e-6, []
    with torch.no_grad():
        for sign in (1, -2):
            for p, d in zip(parameters, along, strict=True):
                p += sign * step * d
            losses.append(loss_of(model, tokens).item())
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(slope, rel=1e-6)


def expect_equal_gradients(
    model: LanguageModel, other: LanguageModel, documents: bool, steps: int
) -> None:
    tokens = torch.randint(11, (2, steps + 1))
    reset = torch.rand(2, steps) < 0.1 if documents else None
    gradients = []
    for of in (model, other):
        of.zero_grad()
        loss_of(of, tokens, reset).backward()
        gradients.append([p.grad for p in of.parameters()])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("config", [SMALL, HYBRID], ids=["rnn", "hybrid"])
def test_compiles_as_one_graph_with_gradients(config: ModelConfig, documents: bool) -> None:
    model = exact_model(config)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for steps in (19, 32):
        expect_equal_gradients(model, compiled, documents, steps)


@pytest.mark.parametrize("compiled", [False, True])
def test_blocks_are_compiled_and_computed_again(compiled: bool) -> None:
    config = dataclasses.replace(HYBRID, mixer="attention,attention,rnn", layers=3)
    model = exact_model(config)
    other = copy.deepcopy(model)
    for block in other.blocks:
        forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
        if compiled:
            forward = torch.compile(forward, fullgraph=True, backend="aot_eager")
        block.forward = forward  # type: ignore[method-assign]
    for steps in (19, 32):
        expect_equal_gradients(model, other, True, steps)


@pytest.mark.parametrize("config", [SMALL, HYBRID], ids=["rnn", "hybrid"])
def test_autocast_is_near(config: ModelConfig) -> None:
    model = LanguageModel(config)
    tokens = torch.randint(11, (2, 50))
    loss = loss_of(model, tokens)
    with torch.autocast("cpu", torch.bfloat16):
        rough = loss_of(model, tokens)
    rough.backward()
    assert rough.item() != loss.item()
    assert rough.item() == pytest.approx(loss.item(), rel=0.01)


def test_copies_are_models() -> None:
    model = LanguageModel(ModelConfig(width=16, layers=1))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        expect_equal(model, other)
        assert other.generate("a", 5) == model.generate("a", 5)


def test_clipping_bounds_the_recurrent_weights_alone() -> None:
    model = LanguageModel(dataclasses.replace(SMALL, rnn=RnnOptions(weight_bound=0.25)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 2 * torch.randn_like(parameter)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    model.clip_weights()
    for name, parameter in model.state_dict().items():
        bounded = name.endswith("recurrent_weight")
        expected = before[name].clamp(-0.25, 0.25) if bounded else before[name]
        assert torch.equal(parameter, expected), name


def test_wrong_arguments_are_refused_by_name() -> None:
    for wrong, said in (
        ({"width": 30, "rnn": RnnOptions(heads=4)}, "^rnn.heads must divide width: 4 does not"),
        ({"width": 0}, "width must be a whole number from 1"),
        ({"layers": 1.0}, "layers must be a whole number"),
        ({"mixer": "memory"}, "unknown mixer 'memory': there are rnn, attention"),
        (
            {"mixer": "attention", "width": 66, "attention": AttentionOptions(4)},
            "must divide width: 4 does not divide 66: give other attention.heads$",
        ),
        ({"mixer": "attention", "width": 9}, "even number of channels"),
        (
            {"mixer": "attention", "attention": AttentionOptions(4, key_value_heads=3)},
            "^attention.key_value_heads must divide the heads of attention: 3 does not divide 4$",
        ),
        ({"mixer": "rnn*2"}, "multiple of 2, as many as the mixer 'rnn.2' stands for, not 3"),
        ({"mixer": "rnn*0"}, "names with commas"),
        ({"mixer": "rnn,"}, "names with commas"),
        ({"norm_epsilon": math.nan}, "norm_epsilon"),
    ):
        with pytest.raises(ValueError, match=said):
            ModelConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weight_bound"):
        RnnOptions(weight_bound=-1.0)
    with pytest.raises(ValueError, match="rotary_base must be a positive number"):
        AttentionOptions(rotary_base=0)
    with pytest.raises(RuntimeError, match="there is no cell 'grue'"):
        RnnOptions("grue")
    with pytest.raises(ValueError, match="257 tokens, and the model's vocabulary is 11"):
        LanguageModel(SMALL, ByteTokenizer())

    model = LanguageModel(SMALL)
    row = torch.zeros(1, 3, dtype=torch.long)
    for call, said in (
        (lambda: model(row[0]), "tokens must be .B,T."),
        (lambda: model(row.float()), "int32 or int64, not torch.float32"),
        (lambda: model(row + 11), "from 0 to 10"),
        (lambda: model(row, []), "the state is of 0 layers, the model of 2"),
        (lambda: model.generate("text"), "the model has no tokenizer"),
        (lambda: model.save("model"), "without a tokenizer"),
        (lambda: model.generate([]), "at least one token"),
        (lambda: model.generate([1], temperature=-1), "temperature must be 0 or"),
        (lambda: model.generate([1], temperature=math.nan), "temperature must be 0 or"),
        (lambda: model.generate([1], top_p=0), "top_p must be above 0"),
        (lambda: model.generate([1], -1), "tokens must be 0 or more"),
    ):
        with pytest.raises(ValueError, match=said):
            call()


# ---- Sampling ----


def of_logits(logits: Tensor) -> LanguageModel:
    """A model whose logits are the same after every token."""
    model = LanguageModel(
        ModelConfig(vocabulary=len(logits), width=1, layers=0, tie_embedding=False)
    )
    with torch.no_grad():
        model.embedding.fill_(1e3)
        model.output.copy_(logits.unsqueeze(1))
    return model


def test_tokens_are_drawn_by_probability() -> None:
    logits, draws = torch.tensor([0.0, 1.0, -1.0, 0.5]), 1_500
    model = of_logits(logits)
    probability = torch.softmax(logits / 0.7, 0)
    tokens = model.generate([0], draws, temperature=0.7, top_p=1, seed=3)
    share = torch.bincount(torch.tensor(tokens), minlength=4) / draws
    deviation = (probability * (1 - probability) / draws).sqrt()
    assert ((share - probability).abs() < 5 * deviation).all()
    assert tokens == model.generate(torch.tensor([0]), draws, temperature=0.7, top_p=1, seed=3)
    assert tokens != model.generate([0], draws, temperature=0.7, top_p=1, seed=4)


def test_only_the_likeliest_tokens_are_drawn() -> None:
    logits = torch.randn(50)
    probability = torch.softmax(logits, 0)
    model = of_logits(logits)
    drawn = set(model.generate([0], 400, temperature=1, top_p=0.6))
    likelier = [float(probability[probability > probability[token]].sum()) for token in drawn]
    assert len(drawn) > 1 and max(likelier) < 0.6
    best = [int(logits.argmax())] * 5
    assert model.generate([0], 5, top_p=1e-9) == best
    assert model.generate([0], 5, temperature=1e-6) == best
    assert model.generate([0], 5, temperature=0) == best
    assert model.generate([0], 0) == []
    with torch.no_grad():
        model.output[3] = math.nan
    with pytest.raises(RuntimeError, match="logits are not numbers"):
        model.generate([0])


def test_writing_ends_with_the_document() -> None:
    logits = torch.zeros(257)
    logits[256] = 100
    model = of_logits(logits)
    assert model.generate([0], 100) == [256]
    assert model.generate("text", 100) == ""


# ---- Tokenizers ----


def test_bytes_come_back() -> None:
    tokenizer = ByteTokenizer()
    every = bytes(range(256))
    assert tokenizer.decode([*tokenizer.encode(every), 256]) == every
    assert tokenizer.encode("é") == [0xC3, 0xA9]
    with pytest.raises(ValueError, match="token 257 is outside the vocabulary of 257"):
        tokenizer.decode([257])


def test_sentencepiece_encodes_as_the_program_does(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    draw = random.Random(1)
    words = ["the ", "state ", "naïve ", "▁x ", "日本語 ", "é", "🙂 ", "\n", "a\tb  "]
    text = "".join(draw.choices(words, k=3_000)).encode() + b"x" * 5_000 + "日".encode() * 3_000
    for _ in range(200):  # bytes that are no UTF-8
        at = draw.randrange(len(text))
        text = text[:at] + bytes([draw.randrange(128, 256)]) + text[at + 1 :]
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "one").write_bytes(text)
    other = sentences(len(text))  # as long, so that one of the files is held out whole
    (tmp_path / "texts" / "two").write_bytes(other)
    shards = tmp_path / "shards"
    tokenize = (
        f"tokenize --data {tmp_path / 'texts'} --vocabulary 400 --held-out 0.5 --out {shards}"
    )
    pararnn(*tokenize.split())
    tokenizer = load_tokenizer(shards)
    encoded = set()
    for name in ("training", "held_out"):
        contents = (shards / f"{name}-00000.shard").read_bytes()
        (count,) = struct.unpack_from("<Q", contents, 16)
        encoded.add(struct.unpack_from(f"<{count}H", contents, 48))
    assert encoded == {tuple(tokenizer.encode(t)) for t in (text, other)}

    odd = text + b"\0\xe2\x82A\xed\xa0\x80\xf5"
    for copied in (tokenizer, pickle.loads(pickle.dumps(tokenizer))):
        assert copied.decode(copied.encode(odd)) == odd
    model = LanguageModel(ModelConfig(vocabulary=400, width=8, layers=1), tokenizer)
    model.save(tmp_path / "model")
    loaded = LanguageModel.from_checkpoint(tmp_path / "model")
    assert loaded.generate("the state", 9) == model.generate("the state", 9)
    assert b"bits per byte" in pararnn(
        "eval", "--model", tmp_path / "model", "--data", tmp_path / "texts" / "two"
    )
    (tmp_path / "model" / "manifest.json").unlink()
    (tmp_path / "model" / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(RuntimeError, match="tokenizer.model is damaged"):
        load_tokenizer(tmp_path / "model")
    with pytest.raises(ValueError, match="SentencePiece model cannot be read"):
        SentencePieceTokenizer(b"no model")


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ImportError, match="needs the package sentencepiece: pip install"):
        SentencePieceTokenizer(b"")


# ---- Files ----


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    LanguageModel(ModelConfig(width=8, layers=1)).save(tmp_path / "model")
    return tmp_path / "model"


def refused(folder: Path) -> str:
    """The sentence with which a folder is refused."""
    with pytest.raises(RuntimeError) as error:
        LanguageModel.from_checkpoint(folder)
    said = str(error.value)
    assert said and "\n" not in said
    return said


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "none")
    assert "neither a run nor a checkpoint" in refused(tmp_path)
    (tmp_path / "file").write_text("text")
    assert "neither a run nor a checkpoint" in refused(tmp_path / "file")


def test_any_damage_is_found_and_named(saved: Path) -> None:
    draw = random.Random(1)
    for path in sorted(saved.iterdir()):
        contents = path.read_bytes()
        at = draw.randrange(len(contents))
        flipped = contents[:at] + bytes([contents[at] ^ 1]) + contents[at + 1 :]
        for damaged in (b"", contents[:at], flipped):
            path.write_bytes(damaged)
            assert path.name in refused(saved)
        path.unlink()
        if path.name != "manifest.json":  # without it nothing is compared
            assert f"{path.name} is missing" in refused(saved)
        path.write_bytes(contents)
    LanguageModel.from_checkpoint(saved)


def test_an_earlier_checkpoint_is_named_where_one_is_damaged(saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for step in (99_999_999, 100_000_000):
        shutil.copytree(saved, run / f"step-{step}")
    (run / "step-100000000" / "model.safetensors").write_bytes(b"")
    assert f"use the checkpoint before it, {run / 'step-99999999'}" in refused(run)
    LanguageModel.from_checkpoint(run / "step-99999999")


def changed_json(change: Callable[[dict[str, object]], object]) -> Callable[[bytes], bytes]:
    def changed(contents: bytes) -> bytes:
        value = json.loads(contents)
        change(value)
        return json.dumps(value).encode()

    return changed


def changed_rnn(**options: object) -> Callable[[bytes], bytes]:
    """With other options of the rnn mixer."""
    return changed_json(lambda config: config["mixers"]["rnn"].update(options))  # type: ignore[index]


def changed_header(change: Callable[[dict[str, object]], object]) -> Callable[[bytes], bytes]:
    def changed(contents: bytes) -> bytes:
        length = int.from_bytes(contents[:8], "little")
        header = changed_json(change)(contents[8 : 8 + length])
        return len(header).to_bytes(8, "little") + header + contents[8 + length :]

    return changed


WRONG_FILES: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("config.json", lambda _: b"{", "no valid JSON"),
    ("config.json", lambda _: b"[" * 100_000, "no valid JSON"),
    ("config.json", lambda _: b"\xff", "no valid JSON"),
    ("config.json", lambda _: b"[]", "JSON object"),
    ("config.json", changed_json(lambda c: c.update(mixers=[])), "'mixers' in"),
    ("config.json", changed_json(lambda c: c.update(mixers={"mamba": {}})), "key 'mamba'"),
    ("config.json", changed_json(lambda c: c.update(heads=2)), "unknown key 'heads'"),
    (
        "config.json",
        changed_json(lambda c: c["mixers"].update(attention={})),  # of which there is no layer
        "'mixers' in .*unknown key 'attention'",
    ),
    ("config.json", changed_rnn(dropout=1), "'mixers' in .*unknown key 'dropout'"),
    ("config.json", changed_json(lambda c: c.update(dropout=1)), "unknown key 'dropout'"),
    ("config.json", changed_json(lambda c: c.update(width="8")), "'width' in"),
    ("config.json", changed_json(lambda c: c.update(tie_embedding=1)), "'tie_embedding' in"),
    ("config.json", changed_rnn(weight_bound=True), "'weight_bound' in"),
    ("config.json", changed_rnn(heads=3), "3 does not divide 8"),
    ("config.json", changed_json(lambda c: c.update(mixer="mamba")), "unknown mixer 'mamba'"),
    ("config.json", changed_rnn(cell="./gru.hpp"), "must be a name"),
    ("config.json", changed_rnn(cell="lstm"), "lstm"),
    ("config.json", changed_json(lambda c: c.update(width=16)), "(257, 16)"),
    ("config.json", changed_json(lambda c: c.update(layers=2)), "lacks the tensor 'block1"),
    ("config.json", changed_json(lambda c: c.update(layers=2**31 - 1)), "lacks the tensor 'block2"),
    ("config.json", changed_json(lambda c: c.update(layers=0)), "does not have"),
    ("config.json", changed_json(lambda c: c.update(vocabulary=300)), "do not belong together"),
    ("cell.hpp", lambda _: b"", "cell.hpp"),
    ("tokenizer.json", changed_json(lambda t: t.update(format=2)), "another version"),
    ("tokenizer.json", changed_json(lambda t: t.update(name="words")), "the tokenizer 'words'"),
    ("tokenizer.json", changed_json(lambda t: t.update(vocabulary=3)), "a vocabulary of 3"),
    (
        "tokenizer.json",
        changed_json(lambda t: t.update(name="sentencepiece")),
        "cannot read .*tokenizer.model",
    ),
    ("model.safetensors", lambda _: b"", "too few for a header"),
    ("model.safetensors", lambda c: c[:-1], "tensors take"),
    ("model.safetensors", lambda c: c + b"\0", "tensors take"),
    ("model.safetensors", lambda c: b"\xff" * 8 + c[8:], "its header should have"),
    ("model.safetensors", lambda c: c[:8] + b"}" + c[9:], "header is no valid JSON"),
    ("model.safetensors", changed_header(lambda h: h.pop("norm.weight")), "tensors take"),
    (
        "model.safetensors",
        changed_header(lambda h: h.update(more=h.pop("norm.weight"))),
        "holds the tensor 'more'",
    ),
    (
        "model.safetensors",
        changed_header(lambda h: h["norm.weight"].update(dtype="I32")),  # type: ignore[attr-defined]
        "floating-point",
    ),
    (
        "model.safetensors",
        changed_header(lambda h: h["norm.weight"].update(dtype="F33")),  # type: ignore[attr-defined]
        "unknown dtype 'F33'",
    ),
    (
        "model.safetensors",
        changed_header(lambda h: h["norm.weight"].update(shape=[2, 4])),  # type: ignore[attr-defined]
        "of shape .2, 4., the model's of .8,.",
    ),
    (
        "model.safetensors",
        changed_header(lambda h: h["norm.weight"].update(shape=[-8])),  # type: ignore[attr-defined]
        "must be a list of sizes",
    ),
    (
        "model.safetensors",
        changed_header(lambda h: h["norm.weight"].update(data_offsets=[0, 32])),  # type: ignore[attr-defined]
        "overlaps|gap",
    ),
]


@pytest.mark.parametrize(("name", "change", "said"), WRONG_FILES)
def test_wrong_contents_are_refused_by_name(
    saved: Path, name: str, change: Callable[[bytes], bytes], said: str
) -> None:
    (saved / "manifest.json").unlink()  # or nothing else would be looked at
    path = saved / name
    path.write_bytes(change(path.read_bytes()))
    sentence = refused(saved)
    assert re.search(said, sentence) or said in sentence, sentence


def test_a_config_of_the_older_form_is_read(tmp_path: Path) -> None:
    options = RnnOptions("lstm", heads=2, conv_width=3, weight_bound=0.5)
    model = LanguageModel(ModelConfig(width=8, layers=2, mlp_width=16, rnn=options))
    model.save(tmp_path / "model")
    (tmp_path / "model" / "manifest.json").unlink()
    older = """{
      "cell": "lstm",
      "conv_width": 3,
      "heads": 2,
      "layers": 2,
      "mixer": "rnn",
      "mlp_width": 16,
      "norm_epsilon": 1e-05,
      "tie_embedding": true,
      "vocabulary": 257,
      "weight_bound": 0.5,
      "width": 8
    }"""
    (tmp_path / "model" / "config.json").write_text(older)
    expect_equal(LanguageModel.from_checkpoint(tmp_path / "model"), model)
    (tmp_path / "text").write_bytes(sentences(600))
    pararnn("eval", "--model", tmp_path / "model", "--data", tmp_path / "text")


@pytest.mark.parametrize("mixer", ["rnn,rnn", "rnn,attention", "attention", "rnn,mamba2"])
def test_a_pattern_of_mixers_is_the_programs(mixer: str, tmp_path: Path) -> None:
    options = {"mamba2": Mamba2Options(head_channels=4, state=3)} if "mamba2" in mixer else {}
    config = ModelConfig(width=8, layers=4, mixer=mixer, **options)
    assert config.layer_mixers == (mixer.split(",") * 4)[:4]
    model = LanguageModel(config)
    model.save(tmp_path / "model")
    expect_equal(LanguageModel.from_checkpoint(tmp_path / "model"), model)
    text = sentences(600)
    (tmp_path / "text").write_bytes(text)
    expect_as_evaluated(model, tmp_path / "model", text, tmp_path / "text")


def test_a_model_replaces_a_model_and_nothing_else(saved: Path, tmp_path: Path) -> None:
    model = LanguageModel(ModelConfig(width=16, layers=1))
    model.save(saved)
    expect_equal(LanguageModel.from_checkpoint(saved), model)
    (saved / "notes").write_text("mine")
    with pytest.raises(RuntimeError, match="holds notes, which would be lost"):
        model.save(saved)
    with pytest.raises(RuntimeError, match="is no folder"):
        model.save(saved / "notes")
    with pytest.raises(RuntimeError, match="cannot write"):
        model.save("/proc/model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_tensors_are_those_of_the_formats_own_library(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    model = LanguageModel(ModelConfig(width=8, layers=1))
    model.save(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    read = library.load_file(weights)
    assert all(torch.equal(read[name], value) for name, value in model.state_dict().items())
    (tmp_path / "model" / "manifest.json").unlink()
    library.save_file({name: tensor.double() for name, tensor in read.items()}, weights)
    expect_equal(LanguageModel.from_checkpoint(tmp_path / "model"), model)
