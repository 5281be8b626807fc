"""Recurrent layers with the conventions of torch.nn.GRU and torch.nn.LSTM, over any cell.

    import torch
    from pararnn_cpp.nn import Scan

    layers = Scan(64, 128, cell="gru", num_layers=2, batch_first=True)
    output, h_n = layers(torch.randn(8, 2048, 64))          # (8,2048,128), (2,8,128)

`GRU` and `LSTM` are `Scan` of one cell, with the order of arguments that torch.nn's have.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module, Parameter, functional, init
from torch.nn.utils.rnn import PackedSequence

from ._cells import Cell, as_cell
from ._operators import arithmetic_of
from ._scan import scan, step

__all__ = ["GRU", "LSTM", "Scan", "State"]

#: The state of all layers: a tensor for cells of one state, a tuple of S tensors for cells of S.
State: TypeAlias = Tensor | tuple[Tensor, ...]

#: How a layer runs one direction: (u, w, h0, reverse) -> (y, final state (B,S,D)).
_Run: TypeAlias = Callable[[Tensor, Tensor, Tensor | None, bool], tuple[Tensor, Tensor]]

#: Numbers that a matrix product likes to have a multiple of in a row.
_ALIGNMENT = 8

#: The longest memory given to a channel at first, in steps.
_LONGEST_MEMORY = 128.0


class _Rows(NamedTuple):
    """The N steps of B packed sequences as one row, the longest sequence first."""

    packed_of_row: Tensor  # (N): for each step of the row, where it is packed
    row_of_packed: Tensor  # (N): the other way round
    offsets: Tensor  # (B+1), int32: where each sequence begins in the row


def _rows_of(batch_sizes: Tensor, device: torch.device, *, reverse: bool) -> _Rows:
    """The row of a PackedSequence; if `reverse`, each sequence from its last step to its first.

    The number of sequences that run at step t is batch_sizes[t]; they are packed step by step.
    """
    steps, total = len(batch_sizes), int(batch_sizes.sum())
    sequences = torch.arange(int(batch_sizes[0]))
    lengths = steps - torch.searchsorted(batch_sizes.flip(0), sequences, right=True)
    offsets = functional.pad(lengths.cumsum(0), (1, 0)).to(device)
    lengths, sizes = lengths.to(device), batch_sizes.to(device)
    step = torch.arange(steps, device=device).repeat_interleave(sizes, output_size=total)
    place = torch.arange(total, device=device)
    sequence = place - (sizes.cumsum(0) - sizes)[step]
    if reverse:
        step = lengths[sequence] - 1 - step
    row_of_packed = offsets[sequence] + step
    packed_of_row = torch.empty_like(place).scatter_(0, row_of_packed, place)
    return _Rows(packed_of_row, row_of_packed, offsets.int())


class Scan(Module):
    """Layers of a recurrent cell, run in parallel along the sequence.

    Each layer and direction projects its input x to the cell's inputs, u = x W^T + b, and runs the
    cell over them. Shapes, arguments and parameter names are those of torch.nn.GRU (cells of one
    state) and torch.nn.LSTM (cells of more), with these differences:

    - The recurrent weights are diagonal, so `weight_hh_l0` is (P,D): P numbers a channel. There is
      no `bias_hh`: the input's bias does its work.
    - `h_n` is in the cell's arithmetic: float32 for layers of float16, bfloat16 and float32, so
      that a sequence cut in two gives what the whole gives; float64 for float64.
    - A cell's inputs stand in its own order, such as z, r, c for "gru": weights of torch.nn.GRU
      cannot be loaded.

    T is the number of steps, B of sequences, C = input_size, D = hidden_size, H = heads, L =
    num_layers; S, U and P are the cell's numbers of states, inputs and parameters a channel, and K
    of its U inputs are side inputs (time gaps, masks), which are given rather than projected.

    Args:
        input_size: C.
        hidden_size: D, a multiple of heads.
        cell: a name ("gru"), a file ("./leaky.hpp") or a `Cell`.
        num_layers: L; each layer after the first takes the output of the one before.
        bias: whether the projections have biases.
        batch_first: whether input and output are (B,T,...) rather than (T,B,...).
        dropout: the probability with which an output between two layers is dropped in training.
        bidirectional: whether each layer also runs from the last step to the first.
        heads: H; head h projects its own C/H channels to its own D/H channels, so C is a multiple
            of H too. In layers above a bidirectional one it takes its channels of both directions.
        plan: as in `pararnn_cpp.scan`.
        tolerance: as in `pararnn_cpp.scan`.
        device: of the parameters.
        dtype: of the parameters.

    Parameters, for layer 0; those of the reverse direction end in `_reverse`:
        weight_ih_l0: ((U-K)·D, C/H), rows in the order head, input, channel; C is the width of what
            comes in: input_size, or 2·D above a bidirectional layer.
        bias_ih_l0: ((U-K)·D), in the same order.
        weight_hh_l0: (P,D).

    Raises:
        ValueError: one sentence that names the argument that is wrong, and what it should be.
        RuntimeError: if there is no such cell.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        cell: str | Cell = "gru",
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        heads: int = 1,
        plan: str = "auto",
        tolerance: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, size in (
            ("input_size", input_size),
            ("hidden_size", hidden_size),
            ("num_layers", num_layers),
            ("heads", heads),
        ):
            if size < 1:
                raise ValueError(f"{name} is {size}, but should be 1 or more")
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            if size % heads != 0:
                raise ValueError(f"{name} is {size}, but should be a multiple of heads = {heads}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout is {dropout}, but should be from 0 to 1")
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                f"dropout = {dropout} stands between layers, and has no effect with num_layers = 1",
                stacklevel=2,
            )
        self.cell = as_cell(cell)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.heads = heads
        self.plan = plan
        self.tolerance = tolerance
        rows = len(self._learned_inputs()) * hidden_size
        for layer in range(num_layers):
            width = input_size if layer == 0 else self._directions() * hidden_size
            for place in self._places(layer):
                for name, shape in (
                    ("weight_ih", (rows, width // heads)),
                    ("bias_ih", (rows,) if bias else None),
                    ("weight_hh", (self.cell.params, hidden_size)),
                ):
                    if shape is None:
                        self.register_parameter(f"{name}_{place}", None)
                    else:
                        values = torch.empty(shape, device=device, dtype=dtype)
                        self.register_parameter(f"{name}_{place}", Parameter(values))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws all parameters anew.

        Projections and biases are uniform within ±1/sqrt(D/H), recurrent weights within ±1/2. The
        biases of the input that drives the cell's memory are drawn such that channels forget over
        2 to 128 steps, spread evenly on a logarithmic scale: a forget gate sigmoid(b) = 1 - 1/m
        has b = log(m - 1) (Tallec and Ollivier, "Can recurrent neural networks warp time?", 2018).
        """
        bound = 1 / math.sqrt(self.hidden_size / self.heads)
        learned = self._learned_inputs()
        for layer in range(self.num_layers):
            for place in self._places(layer):
                init.uniform_(getattr(self, f"weight_ih_{place}"), -bound, bound)
                init.uniform_(getattr(self, f"weight_hh_{place}"), -0.5, 0.5)
                bias = getattr(self, f"bias_ih_{place}")
                if bias is None:
                    continue
                init.uniform_(bias, -bound, bound)
                if self.cell.memory_input in learned:
                    row = learned.index(self.cell.memory_input)
                    gate = bias.view(self.heads, len(learned), -1)[:, row]
                    memory = 2 * (_LONGEST_MEMORY / 2) ** torch.rand_like(gate)
                    gate.copy_(self.cell.memory_direction * torch.log(memory - 1))

    def forward(
        self,
        input: Tensor | PackedSequence,
        h_0: State | None = None,
        *,
        side: Tensor | PackedSequence | None = None,
    ) -> tuple[Tensor | PackedSequence, State]:
        """Runs the layers over sequences.

        Args:
            input: (T,B,C), (B,T,C) with batch_first, (T,C) for one sequence, or a PackedSequence
                of sequences of different lengths, which run as one packed row.
            h_0: (L,B,D), 2·L if bidirectional, or a tuple of S of these for a cell of S states;
                (L,D) for one sequence. None: zeros. Of layer l it is row l, or rows 2·l (forward)
                and 2·l + 1 (reverse).
            side: the cell's side inputs: like input, with K or (K,D) in the place of C, in the
                order of `Cell.side_inputs`, the same for every layer; packed if input is. None: 1.

        Returns:
            output, like input, with D, or 2·D if bidirectional, in the place of C: component 0 of
            the last layer's states. And h_n, like h_0: each sequence's state after its last step,
            or after its first in the reverse direction.

        Raises:
            ValueError: one sentence that names the argument that is wrong, and what it should be.
            RuntimeError: as `pararnn_cpp.scan`, for plan and tolerance.
        """
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, h_0, side)
        layout = "(B,T,C)" if self.batch_first else "(T,B,C)"
        if input.dim() not in (2, 3):
            raise ValueError(
                f"input has shape {_text(input.shape)}, but should be {layout}, or (T,C) unbatched"
            )
        self._check_values(input)
        batched = input.dim() == 3
        given = self._side_values(side, input)

        def batch_first(values: Tensor) -> Tensor:
            if not batched:
                return values.unsqueeze(0)
            return values if self.batch_first else values.transpose(0, 1)

        x = batch_first(input)
        states = self._split_states(h_0, x.shape[0], batched)
        y, finals = self._run_layers(
            x, states, None if given is None else batch_first(given), self._run_whole
        )
        h_n = self._join_states(finals, batched)
        if not batched:
            return y.squeeze(0), h_n
        return y if self.batch_first else y.transpose(0, 1), h_n

    @torch.no_grad()
    def step(
        self, input: Tensor, h: State | None = None, *, side: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """One step of all layers, for decoding. No gradient.

        Args:
            input: (B,C).
            h: the state before the step, as `forward` takes and gives it. None: zeros.
            side: (B,K) or (B,K,D), as in `forward`.

        Returns:
            output (B,D), and the state after the step.

        Raises:
            ValueError: as `forward`, and if the layers are bidirectional.
        """
        if self.bidirectional:
            raise ValueError(
                "bidirectional is True, but step needs False: the reverse direction starts at the "
                "end; use forward"
            )
        if input.dim() != 2:
            raise ValueError(f"input has shape {_text(input.shape)}, but step takes (B,C)")
        self._check_values(input)
        given = self._side_values(side, input)
        states = self._split_states(h, input.shape[0], name="h")
        y, finals = self._run_layers(input, states, given, self._run_step)
        return y, self._join_states(finals)

    def flatten_parameters(self) -> None:
        """Does nothing: there is no buffer to flatten into. For code written for torch.nn.GRU."""

    def extra_repr(self) -> str:
        """The arguments, without those that have their default."""
        text = f"{self.input_size}, {self.hidden_size}, cell={self.cell.name}"
        for name, default in (
            ("num_layers", 1),
            ("bias", True),
            ("batch_first", False),
            ("dropout", 0.0),
            ("bidirectional", False),
            ("heads", 1),
            ("plan", "auto"),
            ("tolerance", 0.0),
        ):
            value = getattr(self, name)
            if value != default:
                text += f", {name}={value}"
        return text

    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _places(self, layer: int) -> list[str]:
        """How the names of a layer's parameters end, for each direction."""
        return [f"l{layer}", f"l{layer}_reverse"][: self._directions()]

    def _learned_inputs(self) -> list[int]:
        """The cell's inputs that are projected."""
        return [i for i in range(self.cell.inputs) if i not in self.cell.side_inputs]

    def _forward_packed(
        self, input: PackedSequence, h_0: State | None, side: Tensor | PackedSequence | None
    ) -> tuple[PackedSequence, State]:
        """`forward` for a PackedSequence, whose data (N,C) holds all steps of all sequences."""
        if input.data.dim() != 2:
            raise ValueError(
                f"input packs data of shape {_text(input.data.shape)}, but should pack (N,C)"
            )
        self._check_values(input.data)
        if side is None:
            given = None
        elif isinstance(side, PackedSequence) and _are_packed_alike(side, input):
            given = self._side_values(side.data, input.data)
        else:
            raise ValueError(
                "side should be a PackedSequence of the same lengths and order as input; pack both "
                "alike"
            )
        states = self._split_states(h_0, int(input.batch_sizes[0]))
        if input.sorted_indices is not None:
            order = input.sorted_indices
            states = [None if state is None else state.index_select(0, order) for state in states]

        rows = [
            _rows_of(input.batch_sizes, input.data.device, reverse=direction == 1)
            for direction in range(self._directions())
        ]

        def run(u: Tensor, w: Tensor, h0: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
            return self._run_packed(u, w, h0, rows[reverse])

        y, finals = self._run_layers(input.data, states, given, run)
        if input.unsorted_indices is not None:
            order = input.unsorted_indices
            finals = [final.index_select(0, order) for final in finals]
        output = PackedSequence(y, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
        return output, self._join_states(finals)

    def _run_layers(
        self, x: Tensor, states: Sequence[Tensor | None], side: Tensor | None, run: _Run
    ) -> tuple[Tensor, list[Tensor]]:
        """All layers, one after another.

        x is (...,C), side (...,K,D), and `run` does the steps. Returns the last layer's output
        (...,D) or (...,2·D), and the final state (B,S,D) of each layer and direction.
        """
        finals: list[Tensor] = []
        for layer in range(self.num_layers):
            if layer > 0:
                x = functional.dropout(x, self.dropout, self.training)
            outputs = []
            for direction, place in enumerate(self._places(layer)):
                u = self._with_side_inputs(self._project(x, layer, place), side)
                w = getattr(self, f"weight_hh_{place}")
                y, final = run(u, w, states[len(finals)], direction == 1)
                outputs.append(y)
                finals.append(final)
            x = torch.cat(outputs, -1) if self.bidirectional else outputs[0]
        return x, finals

    def _project(self, x: Tensor, layer: int, place: str) -> Tensor:
        """x (...,C) -> u (...,U-K,D), or (...,H,U-K,D/H) for more than one head."""
        weight = getattr(self, f"weight_ih_{place}")
        bias = getattr(self, f"bias_ih_{place}")
        learned = len(self._learned_inputs())
        if self.heads == 1:
            return torch.unflatten(
                functional.linear(x, weight, bias), -1, (learned, self.hidden_size)
            )
        # A head takes its channels of each direction of the layer below.
        parts = self._directions() if layer > 0 else 1
        by_head = torch.unflatten(x, -1, (parts, self.heads, -1)).transpose(-3, -2).flatten(-2)
        blocks = torch.unflatten(weight, 0, (self.heads, -1)).transpose(1, 2)  # (H,C/H,(U-K)·D/H)
        if bias is not None:
            # The weights of an input that is always one: a product of matrices adds them for
            # nothing, where a sum would read and write all of u once more. Rows stay aligned.
            by_head = functional.pad(by_head, (0, _ALIGNMENT), value=1.0)
            row = torch.unflatten(bias, 0, (self.heads, 1, -1))
            blocks = torch.cat((blocks, functional.pad(row, (0, 0, 0, _ALIGNMENT - 1))), 1)
        products = torch.bmm(by_head.flatten(0, -3).transpose(0, 1), blocks)
        rows = torch.unflatten(products.transpose(0, 1), 0, x.shape[:-1])
        return torch.unflatten(rows, -1, (learned, -1))

    def _with_side_inputs(self, u: Tensor, side: Tensor | None) -> Tensor:
        """u with a row for each input of the cell that is given: of side (...,K,D), or of ones."""
        given = self.cell.side_inputs
        if not given:
            return u
        if side is None:
            values = u.new_ones(()).expand(*u.shape[:-2], len(given), u.shape[-1])
        elif self.heads == 1:
            values = side.to(u.dtype)
        else:
            by_head = torch.unflatten(side.to(u.dtype), -1, (self.heads, -1))
            values = by_head.transpose(-3, -2)
        learned = self._learned_inputs()
        rows = [
            values.narrow(-2, given.index(i), 1)
            if i in given
            else u.narrow(-2, learned.index(i), 1)
            for i in range(self.cell.inputs)
        ]
        return torch.cat(rows, -2)

    def _scan(
        self, u: Tensor, w: Tensor, h0: Tensor | None, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return scan(
            u,
            w,
            h0,
            cell=self.cell,
            cu_seqlens=cu_seqlens,
            plan=self.plan,
            tolerance=self.tolerance,
        )

    def _run_whole(
        self, u: Tensor, w: Tensor, h0: Tensor | None, reverse: bool
    ) -> tuple[Tensor, Tensor]:
        """One direction over sequences of one length: u (B,T,...) -> (B,T,D), (B,S,D)."""
        if not reverse:
            return self._scan(u, w, h0)
        y, final = self._scan(u.flip(1), w, h0)
        return y.flip(1), final

    def _run_step(
        self, u: Tensor, w: Tensor, h0: Tensor | None, reverse: bool
    ) -> tuple[Tensor, Tensor]:
        """One step: u (B,...) -> (B,D), (B,S,D)."""
        if h0 is None:
            h0 = self._zeros_like_state_of(u, u.shape[0])
        return step(u, w, h0, cell=self.cell)

    def _run_packed(
        self, u: Tensor, w: Tensor, h0: Tensor | None, rows: _Rows
    ) -> tuple[Tensor, Tensor]:
        """One direction over packed sequences: u (N,...) -> (N,D), (B,S,D)."""
        row = u.index_select(0, rows.packed_of_row).unsqueeze(0)
        y, final = self._scan(row, w, h0, rows.offsets)
        return y.squeeze(0).index_select(0, rows.row_of_packed), final

    def _zeros_like_state_of(self, u: Tensor, sequences: int) -> Tensor:
        """The zero state (B,S,D), in the arithmetic of u's dtype."""
        shape = (sequences, self.cell.state, self.hidden_size)
        return torch.zeros(shape, dtype=arithmetic_of(u), device=u.device)

    def _check_values(self, input: Tensor) -> None:
        """Width and dtype of an input (...,C)."""
        if input.shape[-1] != self.input_size:
            raise ValueError(
                f"input has shape {_text(input.shape)}, but its last size should be input_size = "
                f"{self.input_size}"
            )
        dtype = self.weight_hh_l0.dtype
        if input.dtype != dtype and not torch.is_autocast_enabled(input.device.type):
            raise ValueError(
                f"input has dtype {input.dtype}, but the parameters have {dtype}; convert one of "
                "them"
            )

    def _side_values(self, side: Tensor | PackedSequence | None, input: Tensor) -> Tensor | None:
        """Checks side for an input (...,C), and gives it as (...,K,D)."""
        if side is None:
            return None
        count = len(self.cell.side_inputs)
        if count == 0:
            raise ValueError(
                f"side is given, but the cell {self.cell.name} has no side inputs; leave it out"
            )
        if isinstance(side, PackedSequence):
            raise ValueError("side is packed, but input is not; pack both or none")
        of_step = (*input.shape[:-1], count)
        of_channel = (*of_step, self.hidden_size)
        if tuple(side.shape) not in (of_step, of_channel):
            raise ValueError(
                f"side has shape {_text(side.shape)}, but for input of shape {_text(input.shape)} "
                f"it should be {_text(of_step)} or {_text(of_channel)}"
            )
        return side.unsqueeze(-1).expand(of_channel) if side.dim() == len(of_step) else side

    def _split_states(
        self, h: State | None, sequences: int, batched: bool = True, name: str = "h_0"
    ) -> list[Tensor | None]:
        """The state of all layers, as `forward` takes it, as (B,S,D) a layer and direction."""
        rows = self.num_layers * self._directions()
        if h is None:
            return [None] * rows
        count = self.cell.state
        if isinstance(h, Tensor) != (count == 1) or (count > 1 and len(h) != count):
            found = "a tensor" if isinstance(h, Tensor) else f"a tuple of length {len(h)}"
            wanted = "a tensor" if count == 1 else f"a tuple of {count} tensors"
            raise ValueError(
                f"{name} is {found}, but for the cell {self.cell.name} it should be {wanted}"
            )
        components = (h,) if isinstance(h, Tensor) else tuple(h)
        expected = (rows, sequences, self.hidden_size) if batched else (rows, self.hidden_size)
        for component in components:
            if tuple(component.shape) != expected:
                raise ValueError(
                    f"{name} has shape {_text(component.shape)}, but should be {_text(expected)}"
                )
        together = torch.stack(components, -2)  # (rows,B,S,D), or (rows,S,D)
        return list((together if batched else together.unsqueeze(1)).unbind(0))

    def _join_states(self, finals: Sequence[Tensor], batched: bool = True) -> State:
        """The reverse of `_split_states`."""
        together = torch.stack(tuple(finals))  # (rows,B,S,D)
        components = (together if batched else together.squeeze(1)).unbind(-2)
        return components[0] if self.cell.state == 1 else tuple(components)


class _OfOneCell(Scan):
    """`Scan` of a cell that is fixed, with its arguments in the order that torch.nn.GRU has."""

    _cell: ClassVar[str]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        heads: int = 1,
        plan: str = "auto",
        tolerance: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            cell=self._cell,
            num_layers=num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            heads=heads,
            plan=plan,
            tolerance=tolerance,
            device=device,
            dtype=dtype,
        )


class GRU(_OfOneCell):
    """`Scan` of the cell "gru": used as torch.nn.GRU is, with diagonal recurrent weights.

    Arguments, shapes and errors as in `Scan`; h_0 and h_n are tensors (L,B,D).
    """

    _cell = "gru"


class LSTM(_OfOneCell):
    """`Scan` of the cell "lstm": used as torch.nn.LSTM is, with diagonal recurrent weights.

    Arguments, shapes and errors as in `Scan`; h_0 and h_n are pairs (h, c) of tensors (L,B,D).
    """

    _cell = "lstm"


def _text(shape: Sequence[int]) -> str:
    return f"({','.join(str(size) for size in shape)})"


def _are_packed_alike(a: PackedSequence, b: PackedSequence) -> bool:
    """Whether both hold sequences of the same lengths in the same order."""
    if not torch.equal(a.batch_sizes, b.batch_sizes):
        return False
    if a.sorted_indices is None or b.sorted_indices is None:
        return a.sorted_indices is b.sorted_indices
    return torch.equal(a.sorted_indices, b.sorted_indices)
