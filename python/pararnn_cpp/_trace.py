"""Cells from Python: a step function is run once on values that record what is done to them, and
the record is written as the C++ source of a cell.

Equal operations on equal operands are one node of the record, so what a step computes twice is
computed once; what its result does not depend on is not written.
"""

from __future__ import annotations

import inspect
import math
import operator
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict, TypeVar, cast, overload

import torch
from torch import Tensor

from ._cells import Cell

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "CellOptions",
    "TraceError",
    "Traced",
    "TracedMask",
    "abs",
    "cell",
    "cos",
    "erf",
    "exp",
    "floor",
    "log",
    "log_sigmoid",
    "maximum",
    "minimum",
    "pow",
    "relu",
    "sigmoid",
    "silu",
    "sin",
    "softplus",
    "sqrt",
    "square",
    "tanh",
    "trace",
    "where",
]

#: h, u and w to the numbers of the next state
StepFunction = Callable[[Any, Any, Any], Sequence[Any]]

MOST_NUMBERS = 32  # states, inputs and parameters of a cell together
LINE = 100  # columns of the source
LONGEST_PART = 80  # columns of an expression that is written inside another


class CellOptions(TypedDict, total=False):
    """What may be said about a cell beside its step."""

    name: str  #: of the cell, such as "my_cell"; the function's where it is not given
    state: int  #: sizes, where they are not those of the numbers used
    inputs: int
    params: int
    state_names: Sequence[str]  #: names say the sizes too
    input_names: Sequence[str]
    param_names: Sequence[str]
    #: the input, by name or number, that drives the memory, or -1 for none; found out by default
    memory_input: str | int
    #: 1 if a large input makes the memory long, -1 if a small one does, 0 for none
    memory_direction: int
    #: inputs, by name or number, that are given (time gaps, masks) rather than projected
    side_inputs: Sequence[str | int]


class TraceError(ValueError):
    """A step that cannot be traced: says at which file and line, why, and what to write instead."""


class _TraceAttributeError(TraceError, AttributeError):
    """The same for an attribute, so that `hasattr` says no."""


# Places in the user's code.


def _user_line() -> str:
    """The innermost line that is running and is neither of this file nor of a library."""
    frame = sys._getframe()
    while frame.f_back is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module != __name__ and module.split(".")[0] not in ("torch", "numpy"):
            break
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _refuse(reason: str, where: str | None = None) -> NoReturn:
    raise TraceError(f"{where or _user_line()}: {reason}") from None


# The record.


@dataclass(frozen=True)
class _Node:
    """One operation: an operator or function of C++, or "number", or "argument"."""

    operation: str
    operands: tuple[int, ...] = ()  # numbers of nodes
    text: str = ""  # of a number or an argument: how C++ writes it


class _Record:
    """All that was computed in one tracing."""

    def __init__(self, code: CodeType | None) -> None:
        self.nodes: list[_Node] = []
        self.frame: FrameType | None = None  # of the step
        self._code = code
        self._numbers: dict[_Node, int] = {}

    def add(self, operation: str, operands: tuple[int, ...] = (), text: str = "") -> int:
        """The number of that node: a new one only if there is no equal one."""
        node = _Node(operation, operands, text)
        if node not in self._numbers:
            self._numbers[node] = len(self.nodes)
            self.nodes.append(node)
        return self._numbers[node]

    def operand(self, value: object, where: str | None = None) -> int:
        """The node of what stands, at that line, where a number should: one or a constant."""
        if isinstance(value, _Arguments):
            _refuse(f"{value.name} stands for several numbers: write {value.name}[0]", where)
        if isinstance(value, TracedMask):
            _refuse("a comparison is no number: write where(a < b, 1, 0)", where)
        if isinstance(value, Traced):
            return self._own(value, where)
        return self.add("number", text=_literal(_constant(value, where)))

    def mask(self, value: object) -> int:
        """The node of what stands where a comparison should."""
        if isinstance(value, TracedMask):
            return self._own(value, None)
        _refuse(f"a comparison is wanted here, such as a < b, and not {_kind_of(value)}")

    def constant_at(self, number: int) -> float | None:
        """The value of a node that is a number."""
        node = self.nodes[number]
        return float(node.text) if node.operation == "number" else None

    def find_frame(self) -> None:
        """Keeps the frame of the step, which knows the names of its variables. For its callees."""
        frame: FrameType | None = sys._getframe() if self.frame is None else None
        while frame is not None and frame.f_code is not self._code:
            frame = frame.f_back
        self.frame = self.frame or frame

    def _own(self, value: _Recorded, where: str | None) -> int:
        if value._record is not self:
            _refuse(
                "a traced value that was kept from another tracing: compute it anew from the "
                "arguments of this step",
                where,
            )
        return value._node


def _kind_of(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, _Arguments):
        return f"all of {value.name}"
    if isinstance(value, Traced):
        return "a number"
    return "None" if value is None else f"{type(value).__name__} {value!r:.40}"


def _constant(value: object, where: str | None) -> float:
    """What a number, or a tensor of no dimensions, is to a step."""
    if isinstance(value, Tensor) and value.dim() == 0 and not value.is_complex():
        if value.requires_grad:
            _refuse(
                "a tensor that requires a gradient would be a constant of the cell and get none: "
                "make it a parameter, w[i], or write x.item()",
                where,
            )
        value = value.item()
    if not isinstance(value, Real):
        _refuse(
            f"{_kind_of(value)} cannot stand in a step: write numbers, tensors of no dimensions, "
            "or what is computed from h[i], u[i] and w[i]",
            where,
        )
    try:
        constant = float(value)
    except OverflowError:
        constant = math.inf
    if not math.isfinite(constant):
        _refuse(f"the constant {constant} is not finite: write a finite one, such as 1e30", where)
    return constant


def _literal(value: float) -> str:
    whole = value.is_integer() and -(2**31) < value < 2**31
    return str(int(value)) if whole and str(value) != "-0.0" else repr(value)


# The values that a step gets.

_NO_BRANCH = (
    "a step cannot branch on a traced value, by if, while, and, or, not, a < b < c, min or max, as "
    "all channels run together: write where(a < b, x, y), &, |, ~, minimum and maximum"
)


class _Recorded:
    """What traced values have in common: whatever is done to them is recorded, or refused."""

    __array_priority__ = 1000  # numbers of numpy leave operators to us

    def __init__(self, record: _Record, node: int) -> None:
        self._record = record
        self._node = node

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {_write_expression(self._record.nodes, self._node)}>"

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: Sequence[Any] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        return _call(function.__name__, *arguments, **(options or {}))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in _FUNCTIONS and name != "where" and hasattr(Tensor, name):
            return partial(_call, name, self)
        raise _TraceAttributeError(f"{_user_line()}: {_cannot_trace(name)}")

    def __add__(self, other: object) -> Traced:
        return _add(self, other)

    def __radd__(self, other: object) -> Traced:
        return _add(other, self)

    def __sub__(self, other: object) -> Traced:
        return _compute("-", self, other)

    def __rsub__(self, other: object) -> Traced:
        return _compute("-", other, self)

    def __mul__(self, other: object) -> Traced:
        return _compute("*", self, other)

    def __rmul__(self, other: object) -> Traced:
        return _compute("*", other, self)

    def __truediv__(self, other: object) -> Traced:
        return _compute("/", self, other)

    def __rtruediv__(self, other: object) -> Traced:
        return _compute("/", other, self)

    def __pow__(self, other: object) -> Traced:
        return _pow(self, other)

    def __rpow__(self, other: object) -> Traced:
        return _pow(other, self)

    def __floordiv__(self, other: object) -> NoReturn:
        _refuse(_cannot_trace("//"))

    def __mod__(self, other: object) -> NoReturn:
        _refuse(_cannot_trace("%"))

    __rfloordiv__ = __floordiv__
    __rmod__ = __mod__

    # As with tensors, these change the value under all of its names.

    def __iadd__(self, other: object) -> _Recorded:
        return self._become(self + other)

    def __isub__(self, other: object) -> _Recorded:
        return self._become(self - other)

    def __imul__(self, other: object) -> _Recorded:
        return self._become(self * other)

    def __itruediv__(self, other: object) -> _Recorded:
        return self._become(self / other)

    def __ipow__(self, other: object) -> _Recorded:
        return self._become(self**other)

    def _become(self, result: Traced) -> _Recorded:
        node = self._record.nodes[self._node]
        if node.operation == "argument":
            _refuse(f"this would change {node.text} itself: write x = x + y in place of x += y")
        self._node = result._node
        return self

    def __neg__(self) -> Traced:
        return _compute("negative", self)

    def __pos__(self) -> Traced:
        return _as_traced(self, self)

    def __abs__(self) -> Traced:
        return _compute("abs", self)

    def __lt__(self, other: object) -> TracedMask:
        return _compare("<", self, other)

    def __le__(self, other: object) -> TracedMask:
        return _compare("<=", self, other)

    def __gt__(self, other: object) -> TracedMask:
        return _compare(">", self, other)

    def __ge__(self, other: object) -> TracedMask:
        return _compare(">=", self, other)

    def __eq__(self, other: object) -> TracedMask:  # type: ignore[override]
        return _equal(self, other)

    def __ne__(self, other: object) -> TracedMask:  # type: ignore[override]
        return _not(_equal(self, other))

    __hash__ = object.__hash__

    def __and__(self, other: object) -> TracedMask:
        return _combine("&&", self, other)

    def __rand__(self, other: object) -> TracedMask:
        return _combine("&&", other, self)

    def __or__(self, other: object) -> TracedMask:
        return _combine("||", self, other)

    def __ror__(self, other: object) -> TracedMask:
        return _combine("||", other, self)

    def __invert__(self) -> TracedMask:
        return _not(self)

    def __bool__(self) -> bool:
        _refuse(_NO_BRANCH)

    def __float__(self) -> float:
        _refuse(
            "float() and functions of math need a number, and a traced value has none yet: keep "
            "it, and write torch.tanh(x) in place of math.tanh(x)"
        )

    def __int__(self) -> int:
        _refuse("int() needs a number, and a traced value has none yet: write floor(x)")

    def __round__(self, digits: int = 0) -> NoReturn:
        _refuse("round() cannot be traced: write floor(x + 0.5)")

    def __index__(self) -> int:
        _refuse("a traced value cannot be an index or a number of rounds: write a constant")

    def __len__(self) -> int:
        _refuse("a traced value is one number and has no len()")

    def __iter__(self) -> Iterator[Traced]:
        _refuse("a traced value is one number: there is nothing to iterate over")

    def __getitem__(self, index: object) -> Traced:
        _refuse("a traced value is one number and has no parts: leave out the index")

    def __setitem__(self, index: object, value: object) -> None:
        _refuse("a traced value is one number and has no parts: leave out the index")

    def __array__(self, *arguments: object, **options: object) -> NoReturn:
        _refuse("numpy cannot compute with a traced value: write torch.tanh(x) for np.tanh(x)")


class Traced(_Recorded):
    """A number of a step that is traced, for every channel at once."""


class TracedMask(_Recorded):
    """The outcome of a comparison of traced values: for where, &, | and ~."""


class _Arguments(_Recorded):
    """h, u or w: an argument of the step, whose numbers have an index."""

    def __init__(self, record: _Record, name: str, option: str, size: int | None) -> None:
        super().__init__(record, -1)
        self.name = name
        self.option = option  # that says its size
        self.size = size  # if it was said
        self.first_use: dict[int, str] = {}  # lines, by index

    def __repr__(self) -> str:
        return f"<the argument {self.name} of a step>"

    def __getitem__(self, index: object) -> Traced:
        if isinstance(index, slice):
            _refuse(f"a slice of {self.name} cannot be traced: write {self.name}[0], ...")
        if isinstance(index, tuple | bool) or not hasattr(index, "__index__"):
            _refuse(f"{self.name} takes one whole number as index: write {self.name}[0]")
        number = operator.index(cast(Any, index))
        if number < 0:
            _refuse(f"{self.name}[{number}] counts from an end that is not known: count from 0")
        if self.size is not None and number >= self.size:
            _refuse(f"there is no {self.name}[{number}], as {self.option} is {self.size}")
        if number >= MOST_NUMBERS:
            _refuse(
                f"{self.name}[{number}] is too much: a cell has at most {MOST_NUMBERS} states, "
                "inputs and parameters together"
            )
        self.first_use.setdefault(number, _user_line())
        self._record.find_frame()
        return Traced(self._record, self._record.add("argument", text=f"{self.name}[{number}]"))

    def __setitem__(self, index: object, value: object) -> None:
        _refuse(f"a step cannot assign to {self.name}: return the next state in a list")

    def __delitem__(self, index: object) -> None:
        _refuse(f"a step cannot delete from {self.name}: return the next state in a list")

    def __len__(self) -> int:
        return self._known_size()

    def __iter__(self) -> Iterator[Traced]:
        return (self[i] for i in range(self._known_size()))

    def _known_size(self) -> int:
        if self.size is None:
            _refuse(
                f"{self.name} has no end while it is traced, as its size follows from what is "
                f"used: write {self.name}[0], ..., or give the size to @cell({self.option}=...)"
            )
        return self.size

    def used(self) -> int:
        return max(self.first_use, default=-1) + 1


def _record_of(*values: object) -> _Record:
    return next(value._record for value in values if isinstance(value, _Recorded))


def _as_traced(value: object, like: object) -> Traced:
    record = _record_of(like, value)
    return Traced(record, record.operand(value))


def _compute(operation: str, *values: object) -> Traced:
    """A number from numbers."""
    record = _record_of(*values)
    return Traced(record, record.add(operation, tuple(record.operand(value) for value in values)))


def _compare(operation: str, *values: object) -> TracedMask:
    """A mask from numbers."""
    return TracedMask(_record_of(*values), _compute(operation, *values)._node)


def _combine(operation: str, *masks: object) -> TracedMask:
    """A mask from masks."""
    record = _record_of(*masks)
    return TracedMask(record, record.add(operation, tuple(record.mask(mask) for mask in masks)))


# What torch's functions are to a cell. Their arguments have torch's names.


def _add(input: object, other: object, *, alpha: object = 1) -> Traced:
    if not isinstance(alpha, int) or alpha != 1:
        other = _compute("*", alpha, _as_traced(other, input))
    result = _compute("+", input, other)
    record = result._record
    first, second = record.nodes[result._node].operands
    if record.constant_at(first) == 0:  # where sum() begins
        return Traced(record, second)
    return result


def _sub(input: object, other: object, *, alpha: object = 1) -> Traced:
    if not isinstance(alpha, int) or alpha != 1:
        other = _compute("*", alpha, _as_traced(other, input))
    return _compute("-", input, other)


def _pow(input: object, exponent: object) -> Traced:
    record = _record_of(input, exponent)
    base = record.constant_at(record.operand(input))
    power = record.constant_at(record.operand(exponent))
    if base is not None and base <= 0:
        _refuse(f"a power of {base} has no derivative: the base of x ** y is above 0")
    if power == 0:
        return Traced(record, record.operand(1))
    if power == 1:
        return _as_traced(input, input)
    if power == 2:
        return _compute("square", input)
    if power == -1:
        return _compute("/", 1, input)
    if power == 0.5:
        return _compute("sqrt", input)
    if power == -0.5:
        return _rsqrt(input)
    return _compute("pow", input, exponent)


def _rsqrt(input: object) -> Traced:
    return _compute("/", 1, _compute("sqrt", input))


def _equal(input: object, other: object) -> TracedMask:
    return _combine("&&", _compare("<=", input, other), _compare(">=", input, other))


def _not_equal(input: object, other: object) -> TracedMask:
    return _not(_equal(input, other))


def _not(input: object) -> TracedMask:
    return _combine("!", input)


def _where(condition: object, input: object, other: object) -> Traced:
    record = _record_of(condition, input, other)
    yes, no = record.operand(input), record.operand(other)
    if isinstance(condition, Tensor) and condition.dim() == 0:
        condition = bool(condition)
    if isinstance(condition, bool):
        return Traced(record, yes if condition else no)
    return Traced(record, record.add("select", (record.mask(condition), yes, no)))


def _clamp(input: object, min: object = None, max: object = None) -> Traced:
    if min is None and max is None:
        _refuse("clamp needs a bound: write clamp(x, min=a), clamp(x, max=b) or clamp(x, a, b)")
    result = _as_traced(input, max if min is None else min)
    if min is not None:
        result = _compute("max", result, min)
    if max is not None:
        result = _compute("min", result, max)
    return result


def _clamp_min(input: object, min: object) -> Traced:
    return _clamp(input, min)


def _clamp_max(input: object, max: object) -> Traced:
    return _clamp(input, None, max)


def _hardtanh(input: object, min_val: object = -1, max_val: object = 1) -> Traced:
    return _clamp(input, min_val, max_val)


def _softplus(input: object, beta: object = 1, threshold: object = 20) -> Traced:
    if threshold != 20:
        _refuse("softplus is computed without overflow here: leave out its threshold")
    if beta == 1:
        return _compute("softplus", input)
    return _compute("/", _compute("softplus", _compute("*", beta, input)), beta)


def _silu(input: object) -> Traced:
    return _compute("*", input, _compute("sigmoid", input))


def _gelu(input: object, *, approximate: str = "none") -> Traced:
    x = _as_traced(input, input)
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * _pow(x, 3))
        return 0.5 * x * (1 + _compute("tanh", inner))
    return 0.5 * x * (1 + _compute("erf", math.sqrt(0.5) * x))


def _leaky_relu(input: object, negative_slope: object = 0.01) -> Traced:
    return _where(_compare(">", input, 0), input, _compute("*", negative_slope, input))


def _lerp(input: object, end: object, weight: object) -> Traced:
    return _add(input, _compute("*", weight, _compute("-", end, input)))


def _full_like(input: object, fill_value: object) -> Traced:
    return _as_traced(fill_value, input)


def _zeros_like(input: object) -> Traced:
    return _full_like(input, 0)


def _ones_like(input: object) -> Traced:
    return _full_like(input, 1)


def _function(operation: str) -> Callable[[object], Traced]:
    def of(input: object) -> Traced:
        return _compute(operation, input)

    return of


def _operator(operation: str) -> Callable[[object, object], Traced]:
    def of(input: object, other: object) -> Traced:
        return _compute(operation, input, other)

    return of


def _comparison(operation: str) -> Callable[[object, object], TracedMask]:
    def of(input: object, other: object) -> TracedMask:
        return _compare(operation, input, other)

    return of


def _combination(operation: str) -> Callable[[object, object], TracedMask]:
    def of(input: object, other: object) -> TracedMask:
        return _combine(operation, input, other)

    return of


# Functions of one number that bear the same name in C++.
_SAME_NAME = ("abs cos erf exp floor log log_sigmoid relu sigmoid sin sqrt square tanh").split()

#: By the names that torch gives its functions, tensors' methods and operators.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: _function(name) for name in _SAME_NAME},
    "absolute": _function("abs"),
    "special_expit": _function("sigmoid"),
    "neg": _function("negative"),
    "negative": _function("negative"),
    "add": _add,
    "sub": _sub,
    "subtract": _sub,
    "mul": _operator("*"),
    "multiply": _operator("*"),
    "div": _operator("/"),
    "divide": _operator("/"),
    "true_divide": _operator("/"),
    "reciprocal": partial(_operator("/"), 1),
    "pow": _pow,
    "rsqrt": _rsqrt,
    "maximum": _operator("max"),
    "max": _operator("max"),
    "minimum": _operator("min"),
    "min": _operator("min"),
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": _clamp_min,
    "clamp_max": _clamp_max,
    "hardtanh": _hardtanh,
    "softplus": _softplus,
    "silu": _silu,
    "gelu": _gelu,
    "leaky_relu": _leaky_relu,
    "lerp": _lerp,
    "full_like": _full_like,
    "zeros_like": _zeros_like,
    "ones_like": _ones_like,
    "where": _where,
    "lt": _comparison("<"),
    "less": _comparison("<"),
    "le": _comparison("<="),
    "less_equal": _comparison("<="),
    "gt": _comparison(">"),
    "greater": _comparison(">"),
    "ge": _comparison(">="),
    "greater_equal": _comparison(">="),
    "eq": _equal,
    "ne": _not_equal,
    "not_equal": _not_equal,
    "logical_and": _combination("&&"),
    "bitwise_and": _combination("&&"),
    "__and__": _combination("&&"),
    "logical_or": _combination("||"),
    "bitwise_or": _combination("||"),
    "__or__": _combination("||"),
    "logical_not": _not,
    "bitwise_not": _not,
}

#: What to write in place of what cannot be traced, where that is not plain.
_INSTEAD = {
    "//": "floor(x / y)",
    "__floordiv__": "floor(x / y)",
    "floor_divide": "floor(x / y)",
    "%": "x - y * floor(x / y)",
    "remainder": "x - y * floor(x / y)",
    "stack": "a list, as in return [x, y]",
    "cat": "a list, as in return [x, y]",
    "sum": "x + y",
    "float": "where(a < b, 1, 0) for a comparison, and x for a number",
    "double": "where(a < b, 1, 0) for a comparison, and x for a number",
    "to": "where(a < b, 1, 0) for a comparison, and x for a number",
    "item": "x itself, as a traced value has no number yet",
    "log1p": "log(1 + x)",
    "expm1": "exp(x) - 1",
}


def _cannot_trace(name: str) -> str:
    if name in _INSTEAD:
        return f"{name} cannot be traced: write {_INSTEAD[name]}"
    known = ", ".join(sorted(name for name in _FUNCTIONS if not name.startswith("__")))
    return (
        f"{name} cannot be traced: write it with + - * / **, comparisons, and the functions of "
        f"torch that a step may use, which are {known}"
    )


def _call(name: str, *arguments: Any, **options: Any) -> Any:
    """Torch's function of that name, of traced values."""
    if name not in _FUNCTIONS:
        _refuse(_cannot_trace(name))
    function = _FUNCTIONS[name]
    says_nothing = {"inplace": False, "out": None}
    options = {
        key: value
        for key, value in options.items()
        if key not in says_nothing or value is not says_nothing[key]
    }
    signature = inspect.signature(function)
    try:
        bound = signature.bind(*arguments, **options)
    except TypeError as error:
        takes = ", ".join(signature.parameters)
        _refuse(f"{name} takes ({takes}) in a step, and nothing else: {error}")
    return function(*bound.args, **bound.kwargs)


# Functions for steps, which take tensors and numbers as well.

Value = Traced | Tensor | float
X = TypeVar("X", Traced, Tensor, float)


def _evaluate(function: Callable[..., Any], *values: object) -> Any:
    """Torch's function of traced values, tensors, and numbers among them."""
    if any(isinstance(value, _Recorded) for value in values):
        return _call(function.__name__, *values)
    tensors = [value for value in values if isinstance(value, Tensor)]
    like = tensors[0] if tensors else torch.zeros((), dtype=torch.float64)
    result = function(
        *(value if isinstance(value, Tensor) else like.new_tensor(value) for value in values)
    )
    return result if tensors else result.item()


def _evaluate_one(function: Callable[..., Any], x: X) -> X:
    return cast(X, _evaluate(function, x))


def exp(x: X) -> X:
    """The exponential, of a traced value, a tensor or a number."""
    return _evaluate_one(torch.exp, x)


def log(x: X) -> X:
    """The natural logarithm, of a traced value, a tensor or a number."""
    return _evaluate_one(torch.log, x)


def sqrt(x: X) -> X:
    """The square root, of a traced value, a tensor or a number."""
    return _evaluate_one(torch.sqrt, x)


def square(x: X) -> X:
    """x * x, of a traced value, a tensor or a number."""
    return _evaluate_one(torch.square, x)


def sin(x: X) -> X:
    """The sine, of a traced value, a tensor or a number."""
    return _evaluate_one(torch.sin, x)


def cos(x: X) -> X:
    """The cosine, of a traced value, a tensor or a number."""
    return _evaluate_one(torch.cos, x)


def erf(x: X) -> X:
    """The error function, of a traced value, a tensor or a number."""
    return _evaluate_one(torch.erf, x)


def tanh(x: X) -> X:
    """The hyperbolic tangent, of a traced value, a tensor or a number."""
    return _evaluate_one(torch.tanh, x)


def sigmoid(x: X) -> X:
    """1 / (1 + exp(-x)), of a traced value, a tensor or a number."""
    return _evaluate_one(torch.sigmoid, x)


def log_sigmoid(x: X) -> X:
    """log(sigmoid(x)) without overflow, of a traced value, a tensor or a number."""
    return _evaluate_one(torch.nn.functional.logsigmoid, x)


def softplus(x: X) -> X:
    """log(1 + exp(x)) without overflow, of a traced value, a tensor or a number."""
    return _evaluate_one(torch.nn.functional.softplus, x)


def silu(x: X) -> X:
    """x * sigmoid(x), of a traced value, a tensor or a number."""
    return _evaluate_one(torch.nn.functional.silu, x)


def relu(x: X) -> X:
    """max(x, 0), of a traced value, a tensor or a number. A cell's derivative at 0 is 1."""
    return _evaluate_one(torch.relu, x)


def abs(x: X) -> X:
    """|x|, of a traced value, a tensor or a number. A cell's derivative at 0 is 1."""
    return _evaluate_one(torch.abs, x)


def floor(x: X) -> X:
    """The largest whole number that is not above x, a traced value, a tensor or a number."""
    return _evaluate_one(torch.floor, x)


def maximum(x: Value, y: Value) -> Any:
    """The larger, of traced values, tensors and numbers; NaN if either is NaN."""
    return _evaluate(torch.maximum, x, y)


def minimum(x: Value, y: Value) -> Any:
    """The smaller, of traced values, tensors and numbers; NaN if either is NaN."""
    return _evaluate(torch.minimum, x, y)


def pow(x: Value, y: Value) -> Any:
    """x ** y, of traced values, tensors and numbers.

    In a cell x is above 0 unless y is a whole number that is a constant.
    """
    return _evaluate(torch.pow, x, y)


def where(condition: TracedMask | Tensor | bool, x: Value, y: Value) -> Any:
    """x where the condition, a comparison, is true, and y elsewhere."""
    if any(isinstance(value, _Recorded) for value in (condition, x, y)):
        return _call("where", condition, x, y)
    if isinstance(condition, Tensor):
        return torch.where(condition, cast(Any, x), cast(Any, y))
    return x if condition else y


# From the record to C++.

# How tightly an expression holds together.
_CONDITION, _COMPARISON, _SUM, _PRODUCT, _SIGNED, _WHOLE = range(6)

_OPERATORS = {
    "+": _SUM,
    "-": _SUM,
    "*": _PRODUCT,
    "/": _PRODUCT,
    "<": _COMPARISON,
    "<=": _COMPARISON,
    ">": _COMPARISON,
    ">=": _COMPARISON,
    "&&": _CONDITION,
    "||": _CONDITION,
}
_MASK_OPERATIONS = ("<", "<=", ">", ">=", "&&", "||", "!")


@dataclass(frozen=True)
class _Expression:
    text: str
    holds: int = _WHOLE

    def inside(self, least: int) -> str:
        return self.text if self.holds >= least else f"({self.text})"


def _expression(node: _Node, operands: Sequence[_Expression]) -> _Expression:
    """A node in C++, of what its operands are there."""
    operation = node.operation
    if operation in ("number", "argument"):
        return _Expression(node.text, _SIGNED if node.text.startswith("-") else _WHOLE)
    if operation in _OPERATORS:
        holds = _OPERATORS[operation]
        left_holds = holds if holds in (_SUM, _PRODUCT) else holds + 1
        left, right = operands[0].inside(left_holds), operands[1].inside(holds + 1)
        return _Expression(f"{left} {operation} {right}", holds)
    if operation in ("negative", "!"):
        sign = "-" if operation == "negative" else "!"
        return _Expression(sign + operands[0].inside(_WHOLE), _SIGNED)
    return _Expression(f"{operation}({', '.join(operand.text for operand in operands)})")


def _expressions_of_operands(
    nodes: Sequence[_Node], node: _Node, expressions: dict[int, _Expression]
) -> list[_Expression]:
    operands = [expressions[operand] for operand in node.operands]
    if operands and all(nodes[operand].operation == "number" for operand in node.operands):
        operands[0] = _Expression(f"T({operands[0].text})")  # or C++ would take it for its own
    return operands


def _live(nodes: Sequence[_Node], results: Sequence[int]) -> dict[int, int]:
    """How often each node is used, of those that the results depend on, in order."""
    uses: dict[int, int] = {}
    waiting = list(results)
    while waiting:
        number = waiting.pop()
        uses[number] = uses.get(number, 0) + 1
        if uses[number] == 1:
            waiting.extend(nodes[number].operands)
    return dict(sorted(uses.items()))


def _write_expression(nodes: Sequence[_Node], number: int) -> str:
    """A node as one expression."""
    expressions: dict[int, _Expression] = {}
    for live in _live(nodes, [number]):
        operands = _expressions_of_operands(nodes, nodes[live], expressions)
        expressions[live] = _expression(nodes[live], operands)
    return expressions[number].text


def _wrapped(statement: str, indent: int) -> str:
    """The lines of a statement, broken behind operators and commas, where little is open."""
    lines = []
    inner = indent + 4
    while len(statement) > LINE - indent:
        best = None
        depth = 0
        for at in range(1, LINE - indent + 1):
            depth += (statement[at] in "({[") - (statement[at] in ")}]")
            before = statement[at - 1]
            if statement[at] == " " and before in "+-*/<>=&|,":
                place = (depth, 0 if before == "," else 2 if before in "*/" else 1, -at)
                best = min(best or place, place)
        if best is None:
            break
        end = -best[2]
        lines.append(" " * indent + statement[:end])
        statement = statement[end + 1 :]
        indent = inner
    lines.append(" " * indent + statement)
    return "\n".join(lines) + "\n"


def _write_body(
    nodes: Sequence[_Node], results: Sequence[int], arguments: Sequence[str], names: dict[int, str]
) -> str:
    """The lines of a step between its braces. `names` are those of the user, by node."""
    uses = _live(nodes, results)
    taken = {*arguments, *names.values()}
    free = (name for name in (f"t{i}" for i in range(len(nodes))) if name not in taken)
    expressions: dict[int, _Expression] = {}
    body = ""
    for number, count in uses.items():
        node = nodes[number]
        expression = _expression(node, _expressions_of_operands(nodes, node, expressions))
        is_long = len(expression.text) > LONGEST_PART and number not in results
        if node.operands and (number in names or count > 1 or is_long):
            name = names.get(number) or next(free)
            kind = "auto" if node.operation in _MASK_OPERATIONS else "T"
            body += _wrapped(f"const {kind} {name} = {expression.text};", 4)
            expression = _Expression(name)
        expressions[number] = expression
    returned = _list([expressions[number].text for number in results])
    return body + _wrapped(f"return {returned};", 4)


# Names in C++.

_KEYWORDS = frozenset(
    """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t
    char32_t class compl concept const consteval constexpr constinit const_cast continue co_await
    co_return co_yield decltype default delete do double dynamic_cast else enum explicit export
    extern false float for friend goto if inline int long mutable namespace new noexcept not not_eq
    nullptr operator or or_eq private protected public register reinterpret_cast requires return
    short signed sizeof static static_assert static_cast struct switch template this thread_local
    throw true try typedef typeid typename typeof union unsigned using virtual void volatile wchar_t
    while xor xor_eq
    """.split()
)
# What a name in a step may not hide.
_TAKEN = _KEYWORDS | {*_SAME_NAME, "max", "min", "pow", "select", "softplus", "T", "Vec", "pararnn"}


def _is_plain_name(name: str) -> bool:
    """Whether C++ takes it, if it is not taken, and no macro is likely to bear it."""
    looks_like_macro = name.isupper() and len(name) > 1
    return re.fullmatch(r"[A-Za-z](_?[A-Za-z0-9])*_?", name) is not None and not looks_like_macro


def _struct_name(name: str) -> str:
    """ "my_cell" gives "MyCell"."""
    struct = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    if re.fullmatch("[A-Za-z][A-Za-z0-9]*", struct) is None or struct in ("T", "Vec"):
        _refuse(f"{name!r} cannot name a cell: give it another, as in cell(name='my_cell')")
    return struct


def _names_of_variables(record: _Record, arguments: Sequence[str]) -> dict[int, str]:
    """The names of the step's variables when it returned, by node, such as C++ takes."""
    names: dict[int, str] = {}
    taken = {*_TAKEN, *arguments}
    for name, value in record.frame.f_locals.items() if record.frame else ():
        if not isinstance(value, Traced | TracedMask) or value._record is not record:
            continue
        if not _is_plain_name(name) or value._node in names:
            continue
        name = f"{name}_" if name in taken else name
        if name not in taken:
            names[value._node] = name
            taken.add(name)
    return names


# A cell as a whole.


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", r"\\").replace('"', r"\"") + '"'


def _list(items: Sequence[object]) -> str:
    return "{" + ", ".join(str(item) for item in items) + "}"


def _code_of(function: object) -> CodeType | None:
    code = getattr(inspect.unwrap(cast(Any, function)), "__code__", None)
    return code if isinstance(code, CodeType) else None


def _argument_names(function: StepFunction) -> list[str]:
    """The function's own, if C++ takes them."""
    try:
        signature = inspect.signature(function)
        signature.bind(None, None, None)
    except (TypeError, ValueError):
        _refuse("a step is a function of three arguments: write def step(h, u, w)")
    names = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ][:3]
    usable = len(names) == 3 and all(_is_plain_name(n) and n not in _TAKEN for n in names)
    return names if usable else ["h", "u", "w"]


def _said_size(options: CellOptions, option: str, names_option: str) -> int | None:
    """A size as the options say it, by itself or by names."""
    given = cast("dict[str, Any]", options)
    size, names = given.get(option), given.get(names_option)
    if names is not None:
        for name in names:
            if re.fullmatch(r"\w+", str(name), re.ASCII) is None:
                _refuse(f"{names_option} holds {name!r}: use letters, digits and underscores")
        if size is not None and size != len(names):
            _refuse(f"{option} is {size}, and {names_option} holds {len(names)}: let them agree")
        return len(names)
    if size is not None and (not isinstance(size, int) or size < 0):
        _refuse(f"{option} is {size!r}: give a whole number that is not below 0")
    return size


def _input_number(wanted: str | int, option: str, inputs: int, names: Sequence[str]) -> int:
    if isinstance(wanted, int) and 0 <= wanted < inputs:
        return wanted
    if wanted in names:
        return list(names).index(str(wanted))
    there = ", ".join(names) or f"0 to {inputs - 1}"
    _refuse(f"{option} names the input {wanted!r}, which is none: the inputs are {there}")


def _memory(options: CellOptions, inputs: int, names: Sequence[str]) -> tuple[int, int] | None:
    if "memory_input" not in options and "memory_direction" not in options:
        return None
    wanted, direction = options.get("memory_input", -1), options.get("memory_direction", 0)
    if wanted == -1 and direction == 0:
        return -1, 0
    if direction not in (-1, 1) or wanted == -1:
        _refuse(
            "memory_input and memory_direction go together: give an input and 1 or -1, or -1 and "
            "0 if no input drives the memory"
        )
    return _input_number(wanted, "memory_input", inputs, names), direction


def _returned(record: _Record, result: object, where: str) -> list[int]:
    """The nodes of the next state."""
    if not isinstance(result, list | tuple) or not result:
        what = "nothing" if result is None else _kind_of(result)
        _refuse(f"the step returns {what}: return the next state in a list, as in [h0, h1]", where)
    return [record.operand(value, where) for value in result]


def _sizes(
    h: _Arguments, u: _Arguments, w: _Arguments, returned: int, at_return: str, defined: str
) -> tuple[int, int, int]:
    """States, inputs and parameters: as they were said, or as many as the step uses."""
    if h.size not in (None, returned):
        _refuse(f"the step returns {returned} numbers, and {h.option} is {h.size}", at_return)
    if h.used() > returned:
        last = h.used() - 1
        _refuse(
            f"the step uses {h.name}[{last}], and returns {returned} of the {last + 1} numbers "
            "that the state then has: return the next value of each",
            h.first_use[last],
        )
    inputs = u.used() if u.size is None else u.size
    params = w.used() if w.size is None else w.size
    if inputs == 0:
        _refuse("a cell has at least one input: use u[0], or give inputs=1", defined)
    if returned + inputs + params > MOST_NUMBERS:
        _refuse(
            f"the step has {returned} states, {inputs} inputs and {params} parameters: a cell has "
            f"at most {MOST_NUMBERS} together",
            defined,
        )
    return returned, inputs, params


def trace(function: StepFunction, **options: Unpack[CellOptions]) -> str:
    """The C++ source of a cell whose step is a Python function. Compiles nothing.

    Args:
        function: as for `cell`.
        options: `CellOptions`.

    Raises:
        TraceError: as `cell`.
    """
    return _trace(function, options)[0]


def _trace(function: StepFunction, options: CellOptions) -> tuple[str, str]:
    """The source of a cell and the name of its struct."""
    for option in options:
        if option not in CellOptions.__annotations__:
            known = ", ".join(CellOptions.__annotations__)
            raise TypeError(f"a cell has no option {option!r}; its options are {known}")
    name = str(options.get("name") or getattr(function, "__name__", ""))
    if not re.fullmatch(r"\w+", name):
        _refuse("the function has no name of its own: give one, as in cell(name='my_cell')")
    struct = _struct_name(name)
    code = _code_of(function)
    defined = f"{code.co_filename}:{code.co_firstlineno}" if code else _user_line()
    record = _Record(code)
    arguments = _argument_names(function)
    h = _Arguments(record, arguments[0], "state", _said_size(options, "state", "state_names"))
    u = _Arguments(record, arguments[1], "inputs", _said_size(options, "inputs", "input_names"))
    w = _Arguments(record, arguments[2], "params", _said_size(options, "params", "param_names"))
    try:
        result = function(h, u, w)
        frame = record.frame
        at_return = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else defined
        results = _returned(record, result, at_return)
        names = _names_of_variables(record, arguments)
    finally:
        record.frame = None
    sizes = _sizes(h, u, w, len(results), at_return, defined)
    body = _write_body(record.nodes, results, arguments, names)
    members = _write_members(function, options, sizes)
    signature = _write_signature(arguments, sizes)
    origin = f"Python function {code.co_name if code else name}"
    if code:
        origin += f",\n// {Path(code.co_filename).name}, line {code.co_firstlineno}"
    source = (
        f"// Traced from the {origin}.\n"
        "#pragma once\n\n"
        '#include "pararnn/cell.hpp"\n\n'
        "using pararnn::Vec;\n\n"
        f"struct {struct} {{\n{members}\n  template <class T>\n{signature}{body}  }}\n}};\n"
    )
    return source, struct


def _write_members(function: object, options: CellOptions, sizes: tuple[int, int, int]) -> str:
    """What the struct says about itself."""
    state, inputs, params = sizes
    members = f"  static constexpr int kState = {state}, kInputs = {inputs}, kParams = {params};\n"
    summary = next(iter((inspect.getdoc(function) or "").splitlines()), "").strip()
    if summary and _code_of(function):  # a function's own, not that of its class
        members += f"  static constexpr const char* kSummary = {_quoted(summary)};\n"
    for constant, names in (
        ("kStateNames", options.get("state_names")),
        ("kInputNames", options.get("input_names")),
        ("kParamNames", options.get("param_names")),
    ):
        if names:
            quoted = _list([_quoted(name) for name in names])
            members += _wrapped(f"static constexpr const char* {constant}[] = {quoted};", 2)
    input_names = options.get("input_names", ())
    memory = _memory(options, inputs, input_names)
    if memory:
        members += f"  static constexpr int kMemory[] = {_list(memory)};\n"
    side_inputs = [
        _input_number(wanted, "side_inputs", inputs, input_names)
        for wanted in options.get("side_inputs", ())
    ]
    if side_inputs:
        members += f"  static constexpr int kSideInputs[] = {_list(side_inputs)};\n"
    return members


def _write_signature(arguments: Sequence[str], sizes: tuple[int, int, int]) -> str:
    parameters = [
        f"const Vec<T, {size}>& {name}" for name, size in zip(arguments, sizes, strict=True)
    ]
    begin = f"  PARARNN_FN static Vec<T, {sizes[0]}> step("
    line = f"{begin}{', '.join(parameters)}) {{\n"
    if len(line) <= LINE + 1:
        return line
    return begin + (",\n" + " " * len(begin)).join(parameters) + ") {\n"


@overload
def cell(function: StepFunction, /, **options: Unpack[CellOptions]) -> Cell: ...


@overload
def cell(
    function: None = None, /, **options: Unpack[CellOptions]
) -> Callable[[StepFunction], Cell]: ...


def cell(
    function: StepFunction | None = None, /, **options: Unpack[CellOptions]
) -> Cell | Callable[[StepFunction], Cell]:
    """A cell whose step is a Python function, traced to C++ and compiled.

        @cell
        def leaky(h, u, w):
            "A leaky integrator."
            rate = sigmoid(u[0])
            return [(1 - rate) * h[0] + rate * torch.tanh(u[1] + w[0] * h[0])]

    Also `@cell(input_names=["rate", "c"])`, and `cell(function, name="leaky")`.

    Args:
        function: gets the state h, the inputs u and the parameters w of a channel, whose numbers
            are h[0], h[1], ..., and returns the next state as a list; its first number is the
            output. It may use arithmetic, comparisons, constants (numbers, tensors of no
            dimensions), helper functions, the functions of this package (`sigmoid`, `where`, ...)
            and those of torch that the error for another one lists. The sizes are those of the
            list and of the largest indices, unless the options say them. It is run once, here.
        options: `CellOptions`.

    The cell computes what the function computes on tensors, up to rounding (softplus(x) is not cut
    off at 20), with these limits: x ** y with an exponent that is no constant whole number is for
    x > 0, and the derivative at a kink is that of one side: relu and abs have 1 at 0, maximum and
    minimum of equal numbers that of the first.

    Returns:
        A `Cell`, whose `source` is the C++ text; or, without a function, a decorator.

    Raises:
        TraceError: the function cannot be traced; names the line and what to write instead.
        RuntimeError: the cell does not compile.
    """
    if function is None:
        return partial(_make_cell, options)
    return _make_cell(options, function)


def _make_cell(options: CellOptions, function: StepFunction) -> Cell:
    if not callable(function):
        raise TypeError(f"cell takes a function of h, u and w, and not {function!r:.40}")
    source, struct = _trace(function, options)
    return Cell.from_source(source, struct)
