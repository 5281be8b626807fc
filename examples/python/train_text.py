"""Trains a language model of bytes on a text, with a cell written in Python.

python examples/python/train_text.py book.txt --minutes 2
"""

import argparse
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pararnn_cpp import Cell, cell
from pararnn_cpp.nn import Scan


@cell(memory_input=0, memory_direction=-1)
def light_gru(h, u, w):
    """A gated unit without a reset gate."""
    z = torch.sigmoid(u[0] + w[0] * h[0])
    return [(1 - z) * h[0] + z * torch.tanh(u[1])]


class Block(nn.Module):
    """x (B,T,D) -> (B,T,D): a recurrent layer and a feed-forward one, each beside x itself."""

    def __init__(self, width: int, of: Cell) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.RMSNorm(width), nn.RMSNorm(width)])
        self.mixer = Scan(width, width, cell=of, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norms[0](x))[0]
        mixed: Tensor = x + self.mlp(self.norms[1](x))
        return mixed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--width", type=int, default=192)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    text = torch.tensor(list(options.text.read_bytes()), dtype=torch.uint8)
    model = nn.Sequential(
        nn.Embedding(256, options.width),
        *(Block(options.width, light_gru) for _ in range(2)),
        nn.Linear(options.width, 256),
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    start, batch, length, step = time.monotonic(), 16, 256, 0
    while time.monotonic() - start < 60 * options.minutes:
        places = torch.randint(len(text) - length - 1, (batch, 1))
        window = text[places + torch.arange(length + 1)].long().to(device)  # (batch, length + 1)
        logits = model(window[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(f"step {step}: {loss.item() / math.log(2):.3f} bits per byte", flush=True)
        step += 1


if __name__ == "__main__":
    main()
