"""Text to tokens and back, as `pararnn` does it, without loss: decode(encode(x)) is x."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from ._files import checksum, read_file, read_json, write_file, write_json

__all__ = ["ByteTokenizer", "SentencePieceTokenizer", "Tokenizer", "load_tokenizer"]

_FORMAT = 1
_JSON = "tokenizer.json"
_MODEL = "tokenizer.model"


class Tokenizer(Protocol):
    """Text as tokens from 0 to vocabulary - 1."""

    @property
    def name(self) -> str:
        """ "bytes" or "sentencepiece"."""

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""

    @property
    def end_of_document(self) -> int:
        """The token that ends a document, which has no text."""

    @property
    def model(self) -> bytes:
        """What the tokenizer is made from; empty for bytes."""

    def encode(self, text: str | bytes) -> list[int]:
        """The tokens of a text, any bytes."""

    def decode(self, tokens: Iterable[int]) -> bytes:
        """The texts of the tokens, one after another. Raises ValueError for one that is none."""


def _decoded(texts: list[bytes], tokens: Iterable[int]) -> bytes:
    """The text of each token, one after another."""
    pieces = []
    for token in tokens:
        if not 0 <= token < len(texts):
            raise ValueError(f"token {token} is outside the vocabulary of {len(texts)}")
        pieces.append(texts[token])
    return b"".join(pieces)


class ByteTokenizer:
    """One token a byte, and one that ends a document: a vocabulary of 257."""

    name = "bytes"
    vocabulary = 257
    end_of_document = 256
    model = b""
    _texts = [bytes([byte]) for byte in range(256)] + [b""]

    def encode(self, text: str | bytes) -> list[int]:
        """As `Tokenizer.encode`."""
        return list(text.encode() if isinstance(text, str) else text)

    def decode(self, tokens: Iterable[int]) -> bytes:
        """As `Tokenizer.decode`."""
        return _decoded(self._texts, tokens)


class SentencePieceTokenizer:
    """The pieces of a SentencePiece model, such as `pararnn tokenize` learns.

    Args:
        model: the bytes of a file tokenizer.model.

    Raises:
        ImportError: without the package sentencepiece.
        ValueError: if the model cannot be read, or does not give back every text.
    """

    name = "sentencepiece"

    def __init__(self, model: bytes) -> None:
        try:
            from sentencepiece import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
                SentencePieceProcessor,
            )
        except ImportError as error:
            raise ImportError(
                "a SentencePiece tokenizer needs the package sentencepiece: "
                "pip install sentencepiece"
            ) from error
        self.model = model
        try:
            pieces = SentencePieceProcessor(model_proto=model)
            self.vocabulary = int(pieces.get_piece_size())
        except RuntimeError as error:
            raise ValueError(f"the SentencePiece model cannot be read: {error}") from error
        self._pieces = pieces
        self.end_of_document = int(pieces.eos_id())
        if self.end_of_document < 0:
            raise ValueError("the SentencePiece model has no piece that ends a document")
        self._texts = [self._text_of(token) for token in range(self.vocabulary)]
        self._byte_tokens = {
            self._texts[token][0]: token
            for token in range(self.vocabulary)
            if pieces.is_byte(token)
        }
        if len(self._byte_tokens) < 256:
            raise ValueError(
                "the SentencePiece model has no pieces for bytes; train one with byte fallback"
            )
        probe = "  a\tb \r\n \U0001f642".encode()
        if self.decode(self.encode(probe)) != probe:
            raise ValueError(
                "the SentencePiece model changes the text it encodes; train one without "
                "normalisation"
            )

    def __reduce__(self) -> tuple[type, tuple[bytes]]:
        return (SentencePieceTokenizer, (self.model,))

    def encode(self, text: str | bytes) -> list[int]:
        """As `Tokenizer.encode`."""
        tokens: list[int] = []
        for segment in _segments(text.encode() if isinstance(text, str) else text):
            # What the library does not give back unchanged is spelled in byte tokens: zeros, U+2581
            # and bytes that are no UTF-8, which stand as surrogates here.
            readable = segment.decode("utf-8", "surrogateescape")
            for part in re.findall("[^\0\u2581\udc80-\udcff]+|.", readable, re.DOTALL):
                if part[0] in "\0\u2581" or "\udc80" <= part[0] <= "\udcff":
                    spelled = part.encode("utf-8", "surrogateescape")
                    tokens += [self._byte_tokens[byte] for byte in spelled]
                else:
                    tokens += self._pieces.encode(part)
        return tokens

    def decode(self, tokens: Iterable[int]) -> bytes:
        """As `Tokenizer.decode`."""
        return _decoded(self._texts, tokens)

    def _text_of(self, token: int) -> bytes:
        pieces = self._pieces
        if pieces.is_control(token) or pieces.is_unknown(token):
            return b""
        piece = str(pieces.id_to_piece(token))
        if pieces.is_byte(token):  # "<0x0A>"
            return bytes([int(piece[3:5], 16)])
        return piece.replace("\u2581", " ").encode()


def _segments(text: bytes, most: int = 4096) -> Iterator[bytes]:
    """The parts that are encoded by themselves: lines, and where they are longer than `most` bytes,
    parts of them that do not cut a character."""
    begin = 0
    while begin < len(text):
        end = text.find(b"\n", begin, begin + most) + 1
        if end == 0:
            end = min(begin + most, len(text))
            if end < len(text):
                cuts = (end - back for back in range(4) if text[end - back] & 0xC0 != 0x80)
                end = next(cuts, end)
        yield text[begin:end]
        begin = end


def save_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """Writes it into a folder."""
    description: dict[str, object] = {
        "format": _FORMAT,
        "name": tokenizer.name,
        "vocabulary": tokenizer.vocabulary,
    }
    if tokenizer.model:
        write_file(folder / _MODEL, [tokenizer.model])
        description |= {"model": _MODEL, "model_hash": checksum(tokenizer.model)}
    write_json(folder / _JSON, description)


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer in a folder: a checkpoint, or the shards of `pararnn tokenize`.

    Raises:
        RuntimeError: one sentence that names the file that is missing or damaged.
        ImportError: as `SentencePieceTokenizer`.
    """
    path = Path(folder) / _JSON
    description = read_json(path)
    if description.get("format") != _FORMAT:
        raise RuntimeError(f"{path} is damaged or of another version: its format is not {_FORMAT}")
    name = description.get("name")
    tokenizer: Tokenizer
    if name == ByteTokenizer.name:
        tokenizer = ByteTokenizer()
    elif name == SentencePieceTokenizer.name:
        model_path = path.with_name(_MODEL)
        model = read_file(model_path)
        if description.get("model_hash") != checksum(model):
            raise RuntimeError(
                f"{model_path} is damaged: it is not the model that {path} describes"
            )
        try:
            tokenizer = SentencePieceTokenizer(model)
        except ValueError as error:
            raise RuntimeError(f"{model_path}: {error}") from error
    else:
        raise RuntimeError(
            f"{path} names the tokenizer {name!r}; there are bytes and sentencepiece"
        )
    if description.get("vocabulary") != tokenizer.vocabulary:
        raise RuntimeError(
            f"{path} is damaged: it gives a vocabulary of {description.get('vocabulary')}, and the "
            f"tokenizer has {tokenizer.vocabulary}"
        )
    return tokenizer
