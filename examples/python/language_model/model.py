"""Language models of nonlinear RNNs, and of attention to compare them with, in plain PyTorch.

A block is x <- x + scale * mixer(norm(x)), then x <- x + scale * mlp(norm(x)); what follows the
last block is the loss, so that the logits of a long text need not leave the function that uses
them. The mixer of RNNs is that of `pararnn train`.
"""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pararnn_cpp import Cell
from pararnn_cpp.nn import Scan


@dataclass(frozen=True)
class ModelConfig:
    """The sizes of a model and the choice of its parts."""

    vocabulary: int = 32_000
    width: int = 768  # d, the channels of the residual stream
    layers: int = 12
    mixer: str = "rnn"  # or "attention"
    cell: str = "gru"  # as load_cell takes it
    heads: int = 4  # blocks of the cell's block-diagonal input projection
    conv_width: int = 4  # taps of the causal convolution before it
    attention_heads: int = 12
    mlp_width: int = 0  # 0: 8d/3, rounded up to a multiple of 256
    weight_bound: float = 0.5  # on the size of the recurrent weights; 0: none

    def hidden_width(self) -> int:
        """mlp_width with its default worked out."""
        return self.mlp_width or math.ceil(8 * self.width / 3 / 256) * 256

    def check(self) -> None:
        """Raises ValueError with the first value that makes no model."""
        for name, value in vars(self).items():
            if isinstance(value, int) and value < (name != "mlp_width"):
                raise ValueError(f"{name} is {value}, but should be 1 or more")
        if self.mixer == "rnn":
            load_cell(self.cell)
        if self.mixer not in MIXERS:
            raise ValueError(f"mixer is {self.mixer}, but should be {' or '.join(MIXERS)}")
        if self.width % (2 * self.attention_heads) and self.mixer == "attention":
            raise ValueError(
                f"width is {self.width}, but should be a multiple of 2 * attention_heads = "
                f"{2 * self.attention_heads}"
            )
        if self.width % self.heads and self.mixer == "rnn":
            raise ValueError(
                f"width is {self.width}, but should be a multiple of heads = {self.heads}"
            )
        if self.weight_bound < 0:
            raise ValueError(f"weight_bound is {self.weight_bound}, but should be 0 or more")


#: Sizes to start from, by the parameters of a GRU of 32,000 tokens (7b: 50,432).
PRESETS = {
    "134m": ModelConfig(),
    "400m": ModelConfig(width=1024, layers=24, attention_heads=16),
    "1b": ModelConfig(width=2048, layers=24, attention_heads=16),
    "3b": ModelConfig(width=2560, layers=32, attention_heads=20, heads=2),
    "7b": ModelConfig(width=4096, layers=32, attention_heads=32, vocabulary=50_432),
}


@cache
def load_cell(text: str) -> Cell:
    """A cell by its name ("gru"), its C++ header ("./leaky.hpp"), or the Python file that traces it
    and its name there ("cells.py:light_gru")."""
    path, _, name = text.rpartition(":")
    if not path.endswith(".py"):
        try:
            return Cell.named(text)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
    cell = runpy.run_path(path).get(name)
    if not isinstance(cell, Cell):
        raise ValueError(f"cell is {text}, but {path} defines no cell {name}")
    return cell


class Linear(nn.Linear):
    """A linear map without bias, whose outputs have size `gain` at first for inputs of size 1."""

    def __init__(self, inputs: int, outputs: int, gain: float = 1) -> None:
        super().__init__(inputs, outputs, bias=False)
        nn.init.normal_(self.weight, std=gain / math.sqrt(inputs))


def norm(width: int) -> nn.RMSNorm:
    return nn.RMSNorm(width, eps=1e-5)


def gain_of_branch(config: ModelConfig) -> float:
    """The size of a branch's first output, such that all branches together add size 1."""
    return 1 / math.sqrt(2 * config.layers)


class RnnMixer(nn.Module):
    """x (B,T,d) -> (B,T,d): projection, causal convolution, scan of the cell, gated norm, output.

    The mixer of ParaRNN (arXiv:2510.21450). The projection to the cell's inputs is block-diagonal
    over heads, and part of `Scan`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, bound = config.width, 1 / math.sqrt(config.conv_width)
        self.input = Linear(width, 2 * width)
        self.taps = nn.Parameter(torch.empty(config.conv_width, width).uniform_(-bound, bound))
        cell = load_cell(config.cell)
        self.scan = Scan(width, width, cell=cell, heads=config.heads, batch_first=True)
        nn.init.normal_(self.scan.weight_ih_l0, std=math.sqrt(config.heads / width))
        self.norm = norm(width)
        self.output = Linear(width, width, gain_of_branch(config))

    def forward(self, x: Tensor) -> Tensor:
        branch, gate = self.input(x).chunk(2, -1)
        # The convolution is cheaper to compute again in the backward pass than to keep.
        branch = checkpoint(causal_convolution, branch, self.taps, use_reentrant=False)
        y, _ = self.scan(branch)
        return self.output(self.norm(y) * functional.silu(gate))


def causal_convolution(x: Tensor, taps: Tensor) -> Tensor:
    """x (B,T,d), taps (K,d) -> y (B,T,d), y_t = sum over k of taps_k * x_{t-K+1+k}."""
    steps = x.shape[1]
    padded = functional.pad(x, (0, 0, len(taps) - 1, 0))
    return sum(padded[:, k : k + steps] * tap for k, tap in enumerate(taps))


class AttentionMixer(nn.Module):
    """x (B,T,d) and `rotations` of T steps -> (B,T,d): causal attention with rotary positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.attention_heads
        self.input = Linear(config.width, 3 * config.width)
        self.output = Linear(config.width, config.width, gain_of_branch(config))

    def forward(self, x: Tensor, turns: Tensor) -> Tensor:
        heads = self.input(x).unflatten(-1, (3, self.heads, -1))  # (B,T,3,H,d/H)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each (B,H,T,d/H)
        y = functional.scaled_dot_product_attention(
            rotate(query, turns), rotate(key, turns), value, is_causal=True
        )
        return self.output(y.transpose(1, 2).flatten(2))


def rotations(steps: int, channels: int, device: torch.device) -> Tensor:
    """Cosines and sines (2,T,c/2) of the angles by which pairs of c channels turn in T steps.

    Pair i turns by 10000^(-2i/c) a step (Su et al., 2021).
    """
    pairs = torch.arange(channels // 2, device=device)
    rates = 10_000 ** (-2 * pairs / channels)
    angles = torch.arange(steps, device=device)[:, None] * rates
    return torch.stack((angles.cos(), angles.sin()))


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """x (B,H,T,c), each pair of channels i and c/2 + i turned by the angle of its step."""
    cosine, sine = turns.to(x.dtype)
    first, second = x.chunk(2, -1)
    return torch.cat((first * cosine - second * sine, first * sine + second * cosine), -1)


MIXERS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "rnn": RnnMixer,
    "attention": AttentionMixer,
}


class Mlp(nn.Module):
    """SwiGLU: x (B,T,d) -> W_out (silu(W_gate x) * W_value x), the two inner products in one."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input = Linear(config.width, 2 * config.hidden_width())
        self.output = Linear(config.hidden_width(), config.width, gain_of_branch(config))

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.input(x).chunk(2, -1)
        return self.output(functional.silu(gate) * value)


class Block(nn.Module):
    """One layer: x (B,T,d), and what its mixer takes beside it -> (B,T,d)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.mixer_norm, self.mlp_norm = norm(config.width), norm(config.width)
        self.mixer, self.mlp = MIXERS[config.mixer](config), Mlp(config)
        self.mixer_scale = nn.Parameter(torch.ones(config.width))
        self.mlp_scale = nn.Parameter(torch.ones(config.width))

    def forward(self, x: Tensor, *beside: Tensor) -> Tensor:
        x = x + self.mixer_scale * self.mixer(self.mixer_norm(x), *beside)
        return x + self.mlp_scale * self.mlp(self.mlp_norm(x))


class Embedding(nn.Embedding):
    """Tokens (B,T) -> x (B,T,d)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.vocabulary, config.width)
        nn.init.normal_(self.weight, std=1 / math.sqrt(config.width))


class Head(nn.Module):
    """x (B,T,d) and the tokens that follow (B,T) -> the mean cross-entropy in nats, and the mean of
    the squared log-partitions, the z-loss, which keeps the logits from drifting."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = norm(config.width)
        self.output = Linear(config.width, config.vocabulary)

    def forward(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.output(self.norm(x)).float()
        log_partition = logits.logsumexp(-1)
        chosen = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        return (log_partition - chosen).mean(), log_partition.square().mean()


class LanguageModel(nn.Module):
    """Tokens (B,T) and those that follow -> cross-entropy and z-loss, as `Head`.

    Its parts are made one after another, each with random numbers of its own, and `finish` is
    called with each before the next is made: it may move, shard or compile it. So the whole model
    need not fit where a part is made, and its weights depend on `seed` and the device alone.
    """

    def __init__(
        self, config: ModelConfig, seed: int, finish: Callable[[nn.Module], object]
    ) -> None:
        super().__init__()
        self.config = config

        def make(part: Callable[[ModelConfig], nn.Module], number: int) -> nn.Module:
            torch.manual_seed(seed * (config.layers + 2) + number)
            made = part(config)
            finish(made)
            return made

        self.embedding = make(Embedding, 0)
        self.blocks = nn.ModuleList(make(Block, 1 + layer) for layer in range(config.layers))
        self.head = make(Head, 1 + config.layers)

    def forward(self, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embedding(tokens)
        beside = ()
        if self.config.mixer == "attention":  # once for all blocks: sines are slow
            channels = self.config.width // self.config.attention_heads
            beside = (rotations(tokens.shape[1], channels, tokens.device),)
        for block in self.blocks:
            x = block(x, *beside)
        return self.head(x, targets)

    @torch.no_grad()
    def bound_recurrent_weights(self) -> None:
        """Brings the recurrent weights back to the config's bound. Call after every update."""
        bound = self.config.weight_bound
        for name, parameter in self.named_parameters():
            if bound > 0 and name.endswith("weight_hh_l0"):
                parameter.clamp_(-bound, bound)


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: to matrices, but not to norms, biases, scales and recurrent
    weights."""
    return parameter.dim() >= 2 and not name.endswith("weight_hh_l0")
