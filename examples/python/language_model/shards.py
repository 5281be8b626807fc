"""The tokens that `pararnn tokenize` wrote, and the order in which training reads them.

A shard is, little-endian: a header of 48 bytes; the tokens, 2 or 4 bytes each; zeros up to a
multiple of 4; and the CRC-32 of each 64 KiB of tokens. The header carries its own CRC-32 and that
of the list of checksums.
"""

from __future__ import annotations

import bisect
import json
import mmap
import struct
import zlib
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

HEADER = struct.Struct("<8sIIQQQII")
BLOCK = 1 << 16


class Shard:
    """One file of tokens, mapped into memory; a block of it is checked when it is first read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.require(path.stat().st_size >= HEADER.size, "it is shorter than its header")
        with path.open("rb") as file:
            # A private mapping: torch asks for memory that could be written to.
            self.bytes = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        self.header = bytes(self.bytes[: HEADER.size])
        magic, version, width, self.tokens, _, self.vocabulary, checksums_crc, header_crc = (
            HEADER.unpack(self.header)
        )
        self.require(magic == b"pararnn\0", "it does not begin as shards do")
        self.require(zlib.crc32(self.header[:-4]) == header_crc, "its header is not right")
        self.require(version == 1 and width in (2, 4), "it is of a version unknown here")
        self.dtype = torch.uint16 if width == 2 else torch.int32
        end = HEADER.size + self.tokens * width
        blocks = -(-self.tokens * width // BLOCK)
        self.data = self.bytes[HEADER.size : end]
        checksums = self.bytes[end + -end % 4 :]
        self.require(len(checksums) == 4 * blocks, "it has another size than its header says")
        self.require(zlib.crc32(checksums) == checksums_crc, "its checksums are not right")
        self.checksums = checksums.cast("I")
        self.checked: set[int] = set()

    def require(self, right: bool, what: str) -> None:
        if not right:
            raise ValueError(
                f"the shard {self.path} is damaged: {what}; make it again with pararnn tokenize"
            )

    def read(self, begin: int, end: int) -> Tensor:
        """Tokens begin to end, of those there are: int64."""
        width = self.dtype.itemsize
        begin, end = max(begin, 0), min(end, self.tokens)
        if begin >= end:
            return torch.empty(0, dtype=torch.int64)
        for block in range(begin * width // BLOCK, -(-end * width // BLOCK)):
            if block not in self.checked:
                crc = zlib.crc32(self.data[block * BLOCK : (block + 1) * BLOCK])
                self.require(crc == self.checksums[block], f"its block {block} is not right")
                self.checked.add(block)
        part = self.data[begin * width : end * width]
        return torch.frombuffer(part, dtype=self.dtype).to(torch.int64)


class TokenShards:
    """The shards of one side of a folder, "training" or "held_out", as one row of tokens.

    Raises ValueError, which names the file, for a folder that is none and for damaged shards.
    """

    def __init__(self, folder: Path, side: str = "training") -> None:
        try:
            files = json.loads((folder / "shards.json").read_text())[side]
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"{folder} is not a folder that pararnn tokenize wrote: {error}"
            ) from error
        self.shards = [Shard(folder / file) for file in files]
        self.begins = [0, *accumulate(shard.tokens for shard in self.shards)]
        self.size = self.begins.pop()
        self.vocabulary = max((shard.vocabulary for shard in self.shards), default=0)
        #: The same for the same tokens; almost surely another for others.
        self.fingerprint = f"{zlib.crc32(b''.join(shard.header for shard in self.shards)):08x}"

    def read(self, begin: int, count: int) -> Tensor:
        """Tokens begin to begin + count, (count) int64."""
        first = bisect.bisect_right(self.begins, begin) - 1
        last = bisect.bisect_left(self.begins, begin + count)
        return torch.cat(
            [
                shard.read(begin - start, begin + count - start)
                for shard, start in zip(
                    self.shards[first:last], self.begins[first:last], strict=True
                )
            ]
        )


class Windows:
    """Rows of a batch: row number n of a run, from 0, is length + 1 tokens.

    Windows lie side by side, each read once an epoch in a pseudo-random order, and each epoch
    shifts them all. Row n is a function of n and the seed alone: no number of processes is in it,
    and nothing needs to be restored. It is the order of `pararnn train`.
    """

    def __init__(self, tokens: TokenShards, length: int, seed: int) -> None:
        if tokens.size <= length:
            raise ValueError(
                f"the data has {tokens.size} tokens, too few for a row of {length} and the one "
                "that follows; give more, or a smaller length"
            )
        self.tokens, self.length, self.seed = tokens, length, seed
        # One window less than would fit leaves room for the shifts.
        self.windows = max(tokens.size // length - 1, 1)
        self.shifts = tokens.size - self.windows * length

    def begin(self, row: int) -> int:
        """Where a row begins among the tokens."""
        epoch, place = divmod(row, self.windows)
        key = mix(mix(self.seed) + epoch)
        return mix(key) % self.shifts + permute(place, self.windows, key) * self.length

    def __call__(self, row: int) -> Tensor:
        return self.tokens.read(self.begin(row), self.length + 1)


def mix(x: int) -> int:
    """Spreads every bit over the word of 64, one to one: splitmix64 (Steele et al., 2014)."""
    word = (1 << 64) - 1
    x = (x + 0x9E3779B97F4A7C15) & word
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & word
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & word
    return x ^ (x >> 31)


def permute(index: int, size: int, key: int) -> int:
    """The place of index in the permutation of 0..size-1 that belongs to key, without a table.

    A Feistel network permutes the numbers of an even count of bits; its cycle is walked until a
    number below size comes (Black and Rogaway, 2002).
    """
    half = ((size - 1).bit_length() + 1) // 2
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for turn in range(6):
            left, right = right, left ^ (mix(mix(key + turn) ^ right) & mask)
        index = left << half | right
        if index < size:
            return index
