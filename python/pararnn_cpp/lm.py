"""The language model that `pararnn train` trains, as modules of torch.

    from pararnn_cpp.lm import LanguageModel

    model = LanguageModel.from_checkpoint("run")
    print(model.generate("Once upon a time"))

It reads a whole text at once, for training, or piece by piece with a state, for decoding; both give
the same logits. Names and shapes of its parameters are those of a checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias, overload

import torch
from torch import Tensor
from torch.nn import Module, Parameter, RMSNorm, functional

from ._checkpoint import find_checkpoint, verify_checkpoint, write_checkpoint, write_continued_run
from ._mixers import Documents, Mixer, MixerState, make_mixer
from ._mixers._mixer import linear
from ._mixers.attention import AttentionOptions
from ._mixers.mamba2 import Mamba2Options
from ._mixers.rnn import RnnOptions
from ._model_config import ModelConfig
from ._model_files import MODEL_FILES, check_weights, read_config, read_weights, write_model
from ._tokenizers import ByteTokenizer, SentencePieceTokenizer, Tokenizer, load_tokenizer

__all__ = [
    "AttentionOptions",
    "ByteTokenizer",
    "LanguageModel",
    "Mamba2Options",
    "ModelConfig",
    "RnnOptions",
    "SentencePieceTokenizer",
    "State",
    "Tokenizer",
    "load_tokenizer",
]

#: What a model remembers of the text so far: of each layer the tensors of its mixer. Of rnn the
#: last K - 1 inputs of its convolution of K taps (B,K-1,d), and the state of its cell (B,S,d). Of
#: attention the keys and values of the C steps so far (B,C,H',n), and the first of them that may
#: still be looked at (B). Of mamba2 the last inputs of its convolution, and its state (B,H,P,N).
State: TypeAlias = list[MixerState]


class _Mlp(Module):
    """SwiGLU: y = W_out (silu(W_gate x) ⊙ W_value x), the two inner products in one."""

    def __init__(self, width: int, hidden: int, gain: float) -> None:
        super().__init__()
        self.input = linear(width, 2 * hidden)
        self.output = linear(hidden, width, gain)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.input(x).chunk(2, -1)
        y: Tensor = self.output(functional.silu(gate) * value)
        return y


class _Block(Module):
    """x + s1 ⊙ mixer(norm(x)), then x + s2 ⊙ mlp(norm(x)), with scales s a channel."""

    def __init__(self, config: ModelConfig, mixer: Mixer) -> None:
        super().__init__()
        width = config.width
        self.mixer_norm = RMSNorm(width, config.norm_epsilon)
        self.mixer = mixer
        self.mixer_scale = Parameter(torch.ones(width))
        self.mlp_norm = RMSNorm(width, config.norm_epsilon)
        self.mlp = _Mlp(width, config.hidden_width, 1 / math.sqrt(2 * config.layers))
        self.mlp_scale = Parameter(torch.ones(width))

    def forward(
        self, x: Tensor, state: MixerState | None, documents: Documents
    ) -> tuple[Tensor, MixerState]:
        """x (B,T,d) -> x after the block, and the mixer's state."""
        mixed, state = self.mixer(self.mixer_norm(x), state, documents)
        x = x + self.mixer_scale * mixed
        return x + self.mlp_scale * self.mlp(self.mlp_norm(x)), state


class LanguageModel(Module):
    """Embedding, blocks, RMSNorm, logits.

    B is the number of texts, T of their tokens, V = config.vocabulary, d = config.width.

    Args:
        config: sizes and parts.
        tokenizer: of its texts, with V tokens; None: bytes if V is 257, otherwise none, and then
            the model reads and writes tokens only.

    Made on the CPU in float32, with random weights of torch's default generator; `to(device)`,
    `torch.autocast`, `torch.compile` and state_dict work as with any module.

    Raises:
        ValueError: if the tokenizer has another number of tokens.
    """

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        if tokenizer is None and config.vocabulary == ByteTokenizer.vocabulary:
            tokenizer = ByteTokenizer()
        if tokenizer is not None and tokenizer.vocabulary != config.vocabulary:
            raise ValueError(
                f"the tokenizer has {tokenizer.vocabulary} tokens, and the model's vocabulary is "
                f"{config.vocabulary}: they do not belong together"
            )
        self.config = config
        self.tokenizer = tokenizer
        shape, scale = (config.vocabulary, config.width), 1 / math.sqrt(config.width)
        self.embedding = Parameter(torch.randn(shape) * scale)  # (V,d)
        if not config.tie_embedding:
            self.output = Parameter(torch.randn(shape) * scale)  # (V,d)
        for i, mixer in enumerate(config.layer_mixers):
            self.add_module(f"block{i}", _Block(config, make_mixer(mixer, config)))
        self.norm = RMSNorm(config.width, config.norm_epsilon)

    @property
    def blocks(self) -> list[Module]:
        """Its layers, in order."""
        return [self.get_submodule(f"block{i}") for i in range(self.config.layers)]

    def forward(
        self, tokens: Tensor, state: State | None = None, *, reset: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Reads texts.

        Args:
            tokens: (B,T), int32 or int64.
            state: after what was read before. None: nothing was.
            reset: (B,T), bool: a row begins anew before each step that it marks, as if nothing had
                been read. `pararnn train --documents` marks the tokens that end a document.

        Returns:
            logits (B,T,V) of the token after each, in the parameters' dtype, and the state after
            the last.

        Raises:
            ValueError: for tokens of another shape or dtype, or outside the vocabulary; these fail
                an assertion of the device on a GPU.
        """
        x, state = self._read(tokens, state, reset)
        return self._logits(x), state

    @torch.no_grad()
    def step(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """One step of decoding: tokens (B) -> logits (B,V), and the state. No gradient.

        Its cost grows with the text where there are layers of attention, otherwise not. Raises
        ValueError as `forward`.
        """
        logits, state = self(tokens.unsqueeze(1), state)
        return logits.squeeze(1), state

    @overload
    def generate(
        self,
        prompt: str,
        tokens: int = 500,
        *,
        temperature: float = 0.8,
        top_p: float = 0.95,
        seed: int = 0,
    ) -> str: ...

    @overload
    def generate(
        self,
        prompt: Sequence[int] | Tensor,
        tokens: int = 500,
        *,
        temperature: float = 0.8,
        top_p: float = 0.95,
        seed: int = 0,
    ) -> list[int]: ...

    def generate(
        self,
        prompt: str | Sequence[int] | Tensor,
        tokens: int = 500,
        *,
        temperature: float = 0.8,
        top_p: float = 0.95,
        seed: int = 0,
    ) -> str | list[int]:
        """Writes what follows a prompt, until the model ends the document.

        The prompt is read in one parallel pass; then each token is drawn and fed back through the
        state. The options are those of `pararnn generate`, which draws other tokens by the same
        seed, and the same ones at temperature 0.

        Args:
            prompt: the beginning of a document, or tokens (N), at least one.
            tokens: most tokens to write.
            temperature: below 1 likely tokens become likelier, above 1 less so; 0: always the
                likeliest.
            top_p: draw only from the likeliest tokens that together have this probability; 1: all.
            seed: of the drawing.

        Returns:
            the text for a text, with U+FFFD for what is no UTF-8; the tokens for tokens.

        Raises:
            ValueError: one sentence that names the argument that is wrong, and what it should be.
            RuntimeError: if logits are not numbers.
        """
        options: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "seed": seed}
        if not isinstance(prompt, str):
            return list(self.stream(prompt, tokens, **options))
        if self.tokenizer is None:
            raise ValueError("the model has no tokenizer: give the prompt as tokens")
        # The model has learned that a text begins after the end of another.
        beginning = [self.tokenizer.end_of_document, *self.tokenizer.encode(prompt)]
        written = self.tokenizer.decode(self.stream(beginning, tokens, **options))
        return written.decode(errors="replace")

    @torch.no_grad()
    def stream(
        self,
        prompt: Sequence[int] | Tensor,
        tokens: int = 500,
        *,
        temperature: float = 0.8,
        top_p: float = 0.95,
        seed: int = 0,
    ) -> Iterator[int]:
        """`generate` token by token, as they are drawn; the end of a document is the last one."""
        if not 0 <= temperature < math.inf:
            raise ValueError(f"temperature must be 0 or a positive number, not {temperature}")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {top_p}")
        if tokens < 0:
            raise ValueError(f"tokens must be 0 or more, not {tokens}")
        read = torch.as_tensor(prompt, device=self.embedding.device)
        if read.dim() != 1 or len(read) == 0:
            raise ValueError("the prompt must be a row of at least one token")
        end = None if self.tokenizer is None else self.tokenizer.end_of_document
        generator = torch.Generator().manual_seed(seed)
        x, state = self._read(read.unsqueeze(0), None)
        logits = self._logits(x[:, -1])
        for i in range(tokens):
            token = _draw(logits[0], temperature, top_p, generator)
            yield token
            if token == end or i + 1 == tokens:
                return
            logits, state = self.step(torch.tensor([token], device=read.device), state)

    def clip_weights(self) -> None:
        """Brings the recurrent weights back into their bound. Call after every update."""
        for block in self.blocks:
            assert isinstance(block, _Block)
            block.mixer.clip_weights()

    @classmethod
    def from_checkpoint(cls, path: str | Path, *, trust_cell: bool = False) -> LanguageModel:
        """The model in a folder, on the CPU in float32.

        Args:
            path: a run of `pararnn train`, whose newest checkpoint is taken, a checkpoint, or what
                `save` wrote.
            trust_cell: whether to compile and run the cell that comes with the model though you
                have not used it before: its source is code, which can do whatever you can.

        Raises:
            RuntimeError: one sentence that names the file that is missing, damaged or of another
                version, and what is wrong in it; or the cell that is not to be trusted.
            ImportError: if the tokenizer needs the package sentencepiece.
        """
        folder = find_checkpoint(path)
        verify_checkpoint(folder)
        config = read_config(folder, trust_cell)
        tokenizer = load_tokenizer(folder)
        tensors = read_weights(folder, config)
        with torch.device("meta"):
            try:
                model = cls(config, tokenizer)
            except ValueError as error:
                raise RuntimeError(f"{folder}: {error}") from error
        check_weights(folder, tensors, model.state_dict())
        converted = {name: tensor.float() for name, tensor in tensors.items()}
        model.load_state_dict(converted, assign=True)
        return model

    def save(self, path: str | Path, *, run: str | Path | None = None) -> None:
        """Writes the model into a folder, which `from_checkpoint`, `pararnn eval` and `pararnn
        generate` read: config, weights, the cell's source, tokenizer.

        Args:
            path: the folder, which appears whole or not at all; one that holds a model and nothing
                else is replaced.
            run: a run of `pararnn train`, or a checkpoint of it, with a model like this one. Then
                `path` becomes a run with one checkpoint, in which this model has the place of
                that one: `pararnn train --resume --out path` goes on with its options, data, step
                and moments of the optimizer. `path` must be new.

        Raises:
            ValueError: if the model has no tokenizer, or is not like that of the run.
            RuntimeError: one sentence that names the file that cannot be read or written.
        """
        if self.tokenizer is None:
            raise ValueError("a model without a tokenizer is not written: give it one")
        tokenizer = self.tokenizer

        def write_files(folder: Path) -> None:
            write_model(folder, self.config, tokenizer, self.state_dict())

        if run is None:
            write_checkpoint(Path(path), write_files, MODEL_FILES)
            return
        checkpoint = find_checkpoint(run)
        verify_checkpoint(checkpoint, manifest_needed=True)
        if read_config(checkpoint, trust_cell=False) != self.config:
            raise ValueError(f"the model in {checkpoint} has another config than this one")
        write_continued_run(Path(path), checkpoint, write_files)

    def _read(
        self, tokens: Tensor, state: State | None, reset: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """tokens (B,T) -> what the logits are made of (B,T,d), and the state after them."""
        self._check(tokens, state)
        x = functional.embedding(tokens, self.embedding)
        blocks = [getattr(self, f"block{i}") for i in range(self.config.layers)]
        states = [None] * len(blocks) if state is None else state
        documents = Documents(reset)
        for block, before in zip(blocks, states, strict=True):
            documents = block.mixer.prepare(documents, before, x)
        after = []
        for block, before in zip(blocks, states, strict=True):
            x, of_block = block(x, before, documents)
            after.append(of_block)
        return self.norm(x), after

    def _logits(self, x: Tensor) -> Tensor:
        """(...,d) -> (...,V)."""
        weight = self.embedding if self.config.tie_embedding else self.output
        return functional.linear(x, weight).to(weight.dtype)

    def _check(self, tokens: Tensor, state: State | None) -> None:
        if tokens.dim() != 2:
            raise ValueError(f"tokens must be (B,T), not of {tokens.dim()} dimensions")
        if tokens.dtype not in (torch.int32, torch.int64):
            raise ValueError(f"tokens must be int32 or int64, not {tokens.dtype}")
        if state is not None and len(state) != self.config.layers:
            raise ValueError(
                f"the state is of {len(state)} layers, the model of {self.config.layers}"
            )
        # To look at values on a GPU would be to wait; in a compiled function there are none.
        if torch.compiler.is_compiling() or not tokens.is_cpu or tokens.numel() == 0:
            return
        least, largest = (int(value) for value in torch.aminmax(tokens))
        if least < 0 or largest >= self.config.vocabulary:
            raise ValueError(
                f"tokens must be from 0 to {self.config.vocabulary - 1}, the model's vocabulary "
                f"less one, but range from {least} to {largest}"
            )


def _draw(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    """A token by its logit (V)."""
    scores = logits.double().cpu()
    if not scores.max() < math.inf:
        raise RuntimeError(
            "the model's logits are not numbers: its weights or its state have overflowed"
        )
    if temperature == 0:
        return int(scores.argmax())
    probabilities, order = torch.softmax(scores / temperature, 0).sort(descending=True, stable=True)
    likelier = probabilities.cumsum(0) - probabilities
    kept = probabilities[likelier < top_p]
    return int(order[torch.multinomial(kept, 1, generator=generator)])
