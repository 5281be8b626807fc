"""The mixer of Mamba2 against the plain recurrence, step by step."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from pararnn_cpp._mixers import Documents
from pararnn_cpp._mixers.mamba2 import Mamba2Mixer, ssd
from pararnn_cpp.lm import LanguageModel, Mamba2Options, ModelConfig

OPTIONS = Mamba2Options(head_channels=4, state=3, groups=2)
CONFIG = ModelConfig(vocabulary=11, width=8, layers=2, mixer="mamba2", mamba2=OPTIONS)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def loop(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, h: Tensor, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    b, c = (t.repeat_interleave(x.shape[2] // t.shape[2], 2) for t in (b, c))
    y = []
    for t in range(x.shape[1]):
        if reset is not None:
            h = torch.where(reset[:, t, None, None, None], 0, h)
        decay = torch.exp(a * dt[:, t])[..., None, None]
        h = decay * h + torch.einsum("bh,bhp,bhn->bhpn", dt[:, t], x[:, t], b[:, t])
        y.append(torch.einsum("bhpn,bhn->bhp", h, c[:, t]))
    return torch.stack(y, 1), h


@pytest.mark.parametrize("steps", [1, 7, 128, 300])
@pytest.mark.parametrize("anew", [0.0, 0.1])
def test_chunks_are_the_loop(steps: int, anew: float) -> None:
    x, dt, a = torch.randn(2, steps, 4, 5), torch.rand(2, steps, 4), -torch.rand(4)
    b, c, h0 = torch.randn(2, steps, 2, 3), torch.randn(2, steps, 2, 3), torch.randn(2, 4, 5, 3)
    reset = torch.rand(2, steps) < anew if anew else None
    inputs = [t.requires_grad_() for t in (x, dt, a, b, c, h0)]
    got, expected = ssd(*inputs, reset), loop(*inputs, reset)
    torch.testing.assert_close(got, expected)
    weights = [torch.randn_like(t) for t in got]
    torch.testing.assert_close(
        torch.autograd.grad(got, inputs, weights), torch.autograd.grad(expected, inputs, weights)
    )


def test_pieces_and_steps_are_the_whole() -> None:
    model = LanguageModel(CONFIG)
    tokens = torch.randint(11, (2, 140))
    with torch.no_grad():
        expected, final = model(tokens)
        logits, state = model(tokens[:, :2])
        pieces = [logits]
        for piece in (tokens[:, 2:3], tokens[:, 3:135]):
            logits, state = model(piece, state)
            pieces.append(logits)
        for token in tokens[:, 135:].unbind(1):
            logits, state = model.step(token, state)
            pieces.append(logits.unsqueeze(1))
    torch.testing.assert_close(torch.cat(pieces, 1), expected)
    torch.testing.assert_close(state, final)


def test_documents_are_read_as_if_alone() -> None:
    model = LanguageModel(CONFIG)
    tokens = torch.randint(11, (2, 140))
    starts = [0, 1, 12, 130, 140]
    reset = torch.zeros(2, 140, dtype=torch.bool)
    reset[:, starts[1:-1]] = True
    logits, _ = model(tokens, reset=reset)
    alone = [model(tokens[:, a:b])[0] for a, b in zip(starts, starts[1:], strict=False)]
    torch.testing.assert_close(logits, torch.cat(alone, 1))


def test_every_parameter_has_a_gradient() -> None:
    mixer = Mamba2Mixer(OPTIONS, CONFIG)
    mixer(torch.randn(2, 20, 8), None, Documents())[0].square().sum().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_sizes_that_make_no_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="^mamba2.head_channels must divide mamba2.expand"):
        ModelConfig(width=8, mixer="mamba2", mamba2=Mamba2Options(head_channels=5))
    with pytest.raises(ValueError, match="^mamba2.groups must divide"):
        ModelConfig(width=8, mixer="mamba2", mamba2=Mamba2Options(head_channels=4, groups=3))
