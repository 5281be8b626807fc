"""The values that a step is traced with: they record what is done to them.

Equal operations on equal operands are one node of the record, so what a step computes twice is
computed once.
"""

from __future__ import annotations

import inspect
import math
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from numbers import Real
from types import CodeType, FrameType
from typing import Any, NoReturn, cast

from torch import Tensor

from ._source import SAME_NAME, Node, write_expression

MOST_NUMBERS = 32  # states, inputs and parameters of a cell together


class TraceError(ValueError):
    """A step that cannot be traced: says at which file and line, why, and what to write instead."""


class _TraceAttributeError(TraceError, AttributeError):
    """The same for an attribute, so that `hasattr` says no."""


# Places in the user's code.


def user_line() -> str:
    """The innermost line that is running and is of neither this package nor a library."""
    frame = sys._getframe()
    while frame.f_back is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.split(".")[0] not in (__package__, "torch", "numpy"):
            break
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def refuse(reason: str, where: str | None = None) -> NoReturn:
    raise TraceError(f"{where or user_line()}: {reason}") from None


# The record.


class Record:
    """All that was computed in one tracing."""

    def __init__(self, code: CodeType | None) -> None:
        self.nodes: list[Node] = []
        self.frame: FrameType | None = None  # of the step
        self._code = code
        self._numbers: dict[Node, int] = {}

    def add(self, operation: str, operands: tuple[int, ...] = (), text: str = "") -> int:
        """The number of that node: a new one only if there is no equal one."""
        node = Node(operation, operands, text)
        if node not in self._numbers:
            self._numbers[node] = len(self.nodes)
            self.nodes.append(node)
        return self._numbers[node]

    def operand(self, value: object, where: str | None = None) -> int:
        """The node of what stands, at that line, where a number should: one or a constant."""
        if isinstance(value, Arguments):
            refuse(f"{value.name} stands for several numbers: write {value.name}[0]", where)
        if isinstance(value, TracedMask):
            refuse("a comparison is no number: write where(a < b, 1, 0)", where)
        if isinstance(value, Traced):
            return self._own(value, where)
        return self.add("number", text=_literal(_constant(value, where)))

    def mask(self, value: object) -> int:
        """The node of what stands where a comparison should."""
        if isinstance(value, TracedMask):
            return self._own(value, None)
        refuse(f"a comparison is wanted here, such as a < b, and not {kind_of(value)}")

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

    def _own(self, value: Recorded, where: str | None) -> int:
        if value._record is not self:
            refuse(
                "a traced value that was kept from another tracing: compute it anew from the "
                "arguments of this step",
                where,
            )
        return value._node


def kind_of(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Arguments):
        return f"all of {value.name}"
    if isinstance(value, Traced):
        return "a number"
    return "None" if value is None else f"{type(value).__name__} {value!r:.40}"


def _constant(value: object, where: str | None) -> float:
    """What a number, or a tensor of no dimensions, is to a step."""
    if isinstance(value, Tensor) and value.dim() == 0 and not value.is_complex():
        if value.requires_grad:
            refuse(
                "a tensor that requires a gradient would be a constant of the cell and get none: "
                "make it a parameter, w[i], or write x.item()",
                where,
            )
        value = value.item()
    if not isinstance(value, Real):
        refuse(
            f"{kind_of(value)} cannot stand in a step: write numbers, tensors of no dimensions, "
            "or what is computed from h[i], u[i] and w[i]",
            where,
        )
    try:
        constant = float(value)
    except OverflowError:
        constant = math.inf
    if not math.isfinite(constant):
        refuse(f"the constant {constant} is not finite: write a finite one, such as 1e30", where)
    return constant


def _literal(value: float) -> str:
    whole = value.is_integer() and -(2**31) < value < 2**31
    return str(int(value)) if whole and str(value) != "-0.0" else repr(value)


# The values that a step gets.

_NO_BRANCH = (
    "a step cannot branch on a traced value, by if, while, and, or, not, a < b < c, min or max, as "
    "all channels run together: write where(a < b, x, y), &, |, ~, minimum and maximum"
)


class Recorded:
    """What traced values have in common: whatever is done to them is recorded, or refused."""

    __array_priority__ = 1000  # numbers of numpy leave operators to us

    def __init__(self, record: Record, node: int) -> None:
        self._record = record
        self._node = node

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {write_expression(self._record.nodes, self._node)}>"

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: Sequence[Any] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        return call(function.__name__, *arguments, **(options or {}))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in _FUNCTIONS and name != "where" and hasattr(Tensor, name):
            return partial(call, name, self)
        raise _TraceAttributeError(f"{user_line()}: {_cannot_trace(name)}")

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
        refuse(_cannot_trace("//"))

    def __mod__(self, other: object) -> NoReturn:
        refuse(_cannot_trace("%"))

    def __matmul__(self, other: object) -> NoReturn:
        refuse(_cannot_trace("@"))

    __rfloordiv__ = __floordiv__
    __rmod__ = __mod__
    __rmatmul__ = __matmul__

    # As with tensors, these change the value under all of its names.

    def __iadd__(self, other: object) -> Recorded:
        return self._become(self + other)

    def __isub__(self, other: object) -> Recorded:
        return self._become(self - other)

    def __imul__(self, other: object) -> Recorded:
        return self._become(self * other)

    def __itruediv__(self, other: object) -> Recorded:
        return self._become(self / other)

    def __ipow__(self, other: object) -> Recorded:
        return self._become(self**other)

    def _become(self, result: Traced) -> Recorded:
        node = self._record.nodes[self._node]
        if node.operation == "argument":
            refuse(f"this would change {node.text} itself: write x = x + y in place of x += y")
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
        refuse(_NO_BRANCH)

    def __float__(self) -> float:
        refuse(
            "float() and functions of math need a number, and a traced value has none yet: keep "
            "it, and write torch.tanh(x) in place of math.tanh(x)"
        )

    def __int__(self) -> int:
        refuse("int() needs a number, and a traced value has none yet: write floor(x)")

    def __round__(self, digits: int = 0) -> NoReturn:
        refuse("round() cannot be traced: write floor(x + 0.5)")

    def __index__(self) -> int:
        refuse("a traced value cannot be an index or a number of rounds: write a constant")

    def __len__(self) -> int:
        refuse("a traced value is one number and has no len()")

    def __iter__(self) -> Iterator[Traced]:
        refuse("a traced value is one number: there is nothing to iterate over")

    def __getitem__(self, index: object) -> Traced:
        refuse("a traced value is one number and has no parts: leave out the index")

    def __setitem__(self, index: object, value: object) -> None:
        refuse("a traced value is one number and has no parts: leave out the index")

    def __array__(self, *arguments: object, **options: object) -> NoReturn:
        refuse("numpy cannot compute with a traced value: write torch.tanh(x) for np.tanh(x)")


class Traced(Recorded):
    """A number of a step that is traced, for every channel at once."""


class TracedMask(Recorded):
    """The outcome of a comparison of traced values: for where, &, | and ~."""


class Arguments(Recorded):
    """h, u or w: an argument of the step, whose numbers have an index."""

    def __init__(self, record: Record, name: str, option: str, size: int | None) -> None:
        super().__init__(record, -1)
        self.name = name
        self.option = option  # that says its size
        self.size = size  # if it was said
        self.first_use: dict[int, str] = {}  # lines, by index

    def __repr__(self) -> str:
        return f"<the argument {self.name} of a step>"

    def __getitem__(self, index: object) -> Traced:
        if isinstance(index, slice):
            refuse(f"a slice of {self.name} cannot be traced: write {self.name}[0], ...")
        if isinstance(index, tuple | bool) or not hasattr(index, "__index__"):
            refuse(f"{self.name} takes one whole number as index: write {self.name}[0]")
        number = operator.index(cast(Any, index))
        if number < 0:
            refuse(f"{self.name}[{number}] counts from an end that is not known: count from 0")
        if self.size is not None and number >= self.size:
            refuse(f"there is no {self.name}[{number}], as {self.option} is {self.size}")
        if number >= MOST_NUMBERS:
            refuse(
                f"{self.name}[{number}] is too much: a cell has at most {MOST_NUMBERS} states, "
                "inputs and parameters together"
            )
        self.first_use.setdefault(number, user_line())
        self._record.find_frame()
        return Traced(self._record, self._record.add("argument", text=f"{self.name}[{number}]"))

    def __setitem__(self, index: object, value: object) -> None:
        refuse(f"a step cannot assign to {self.name}: return the next state in a list")

    def __delitem__(self, index: object) -> None:
        refuse(f"a step cannot delete from {self.name}: return the next state in a list")

    def __len__(self) -> int:
        return self._known_size()

    def __iter__(self) -> Iterator[Traced]:
        return (self[i] for i in range(self._known_size()))

    def _known_size(self) -> int:
        if self.size is None:
            refuse(
                f"{self.name} has no end while it is traced, as its size follows from what is "
                f"used: write {self.name}[0], ..., or give the size to @cell({self.option}=...)"
            )
        return self.size

    def used(self) -> int:
        return max(self.first_use, default=-1) + 1


def _record_of(*values: object) -> Record:
    return next(value._record for value in values if isinstance(value, Recorded))


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
        refuse(f"a power of {base} has no derivative: the base of x ** y is above 0")
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
        refuse("clamp needs a bound: write clamp(x, min=a), clamp(x, max=b) or clamp(x, a, b)")
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
        refuse("softplus is computed without overflow here: leave out its threshold")
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


#: By the names that torch gives its functions, tensors' methods and operators.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: _function(name) for name in SAME_NAME},
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


def call(name: str, *arguments: Any, **options: Any) -> Any:
    """Torch's function of that name, of traced values."""
    if name not in _FUNCTIONS:
        refuse(_cannot_trace(name))
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
        refuse(f"{name} takes ({takes}) in a step, and nothing else: {error}")
    return function(*bound.args, **bound.kwargs)
