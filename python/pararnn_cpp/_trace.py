"""Cells from Python: a step function is run once on values that record what is done to them, and
the record is written as the C++ source of a cell.

What the result does not depend on is not written.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, TypedDict, cast, overload

from ._cells import Cell
from ._source import LINE, TAKEN, is_plain_name, list_of, quoted, wrapped, write_body
from ._traced import (
    MOST_NUMBERS,
    Arguments,
    Record,
    Traced,
    TracedMask,
    TraceError,
    kind_of,
    refuse,
    user_line,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["CellOptions", "StepFunction", "TraceError", "cell", "trace"]

#: h, u and w to the numbers of the next state
StepFunction = Callable[[Any, Any, Any], Sequence[Any]]


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


def _struct_name(name: str) -> str:
    """ "my_cell" gives "MyCell"."""
    struct = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    if re.fullmatch("[A-Za-z][A-Za-z0-9]*", struct) is None or struct in ("T", "Vec"):
        refuse(f"{name!r} cannot name a cell: give it another, as in cell(name='my_cell')")
    return struct


def _names_of_variables(record: Record, arguments: Sequence[str]) -> dict[int, str]:
    """The names of the step's variables when it returned, by node, such as C++ takes."""
    names: dict[int, str] = {}
    taken = {*TAKEN, *arguments}
    for name, value in record.frame.f_locals.items() if record.frame else ():
        if not isinstance(value, Traced | TracedMask) or value._record is not record:
            continue
        if not is_plain_name(name) or value._node in names:
            continue
        name = f"{name}_" if name in taken else name
        if name not in taken:
            names[value._node] = name
            taken.add(name)
    return names


def _code_of(function: object) -> CodeType | None:
    code = getattr(inspect.unwrap(cast(Any, function)), "__code__", None)
    return code if isinstance(code, CodeType) else None


def _argument_names(function: StepFunction) -> list[str]:
    """The function's own, if C++ takes them."""
    try:
        signature = inspect.signature(function)
        signature.bind(None, None, None)
    except (TypeError, ValueError):
        refuse("a step is a function of three arguments: write def step(h, u, w)")
    names = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ][:3]
    usable = len(names) == 3 and all(is_plain_name(n) and n not in TAKEN for n in names)
    return names if usable else ["h", "u", "w"]


def _said_size(options: CellOptions, option: str, names_option: str) -> int | None:
    """A size as the options say it, by itself or by names."""
    given = cast("dict[str, Any]", options)
    size, names = given.get(option), given.get(names_option)
    if names is not None:
        for name in names:
            if re.fullmatch(r"\w+", str(name), re.ASCII) is None:
                refuse(f"{names_option} holds {name!r}: use letters, digits and underscores")
        if size is not None and size != len(names):
            refuse(f"{option} is {size}, and {names_option} holds {len(names)}: let them agree")
        return len(names)
    if size is not None and (not isinstance(size, int) or size < 0):
        refuse(f"{option} is {size!r}: give a whole number that is not below 0")
    return size


def _input_number(wanted: str | int, option: str, inputs: int, names: Sequence[str]) -> int:
    if isinstance(wanted, int) and 0 <= wanted < inputs:
        return wanted
    if wanted in names:
        return list(names).index(str(wanted))
    there = ", ".join(names) or f"0 to {inputs - 1}"
    refuse(f"{option} names the input {wanted!r}, which is none: the inputs are {there}")


def _memory(options: CellOptions, inputs: int, names: Sequence[str]) -> tuple[int, int] | None:
    if "memory_input" not in options and "memory_direction" not in options:
        return None
    wanted, direction = options.get("memory_input", -1), options.get("memory_direction", 0)
    if wanted == -1 and direction == 0:
        return -1, 0
    if direction not in (-1, 1) or wanted == -1:
        refuse(
            "memory_input and memory_direction go together: give an input and 1 or -1, or -1 and "
            "0 if no input drives the memory"
        )
    return _input_number(wanted, "memory_input", inputs, names), direction


def _returned(record: Record, result: object, where: str) -> list[int]:
    """The nodes of the next state."""
    if not isinstance(result, list | tuple) or not result:
        what = "nothing" if result is None else kind_of(result)
        refuse(f"the step returns {what}: return the next state in a list, as in [h0, h1]", where)
    return [record.operand(value, where) for value in result]


def _sizes(
    h: Arguments, u: Arguments, w: Arguments, returned: int, at_return: str, defined: str
) -> tuple[int, int, int]:
    """States, inputs and parameters: as they were said, or as many as the step uses."""
    if h.size not in (None, returned):
        refuse(f"the step returns {returned} numbers, and {h.option} is {h.size}", at_return)
    if h.used() > returned:
        last = h.used() - 1
        refuse(
            f"the step uses {h.name}[{last}], and returns {returned} of the {last + 1} numbers "
            "that the state then has: return the next value of each",
            h.first_use[last],
        )
    inputs = u.used() if u.size is None else u.size
    params = w.used() if w.size is None else w.size
    if inputs == 0:
        refuse("a cell has at least one input: use u[0], or give inputs=1", defined)
    if returned + inputs + params > MOST_NUMBERS:
        refuse(
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
        refuse("the function has no name of its own: give one, as in cell(name='my_cell')")
    struct = _struct_name(name)
    code = _code_of(function)
    defined = f"{code.co_filename}:{code.co_firstlineno}" if code else user_line()
    record = Record(code)
    arguments = _argument_names(function)
    h = Arguments(record, arguments[0], "state", _said_size(options, "state", "state_names"))
    u = Arguments(record, arguments[1], "inputs", _said_size(options, "inputs", "input_names"))
    w = Arguments(record, arguments[2], "params", _said_size(options, "params", "param_names"))
    try:
        result = function(h, u, w)
        frame = record.frame
        at_return = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else defined
        results = _returned(record, result, at_return)
        names = _names_of_variables(record, arguments)
    finally:
        record.frame = None
    sizes = _sizes(h, u, w, len(results), at_return, defined)
    body = write_body(record.nodes, results, arguments, names)
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
        members += f"  static constexpr const char* kSummary = {quoted(summary)};\n"
    for constant, names in (
        ("kStateNames", options.get("state_names")),
        ("kInputNames", options.get("input_names")),
        ("kParamNames", options.get("param_names")),
    ):
        if names:
            texts = list_of([quoted(name) for name in names])
            members += wrapped(f"static constexpr const char* {constant}[] = {texts};", 2)
    input_names = options.get("input_names", ())
    memory = _memory(options, inputs, input_names)
    if memory:
        members += f"  static constexpr int kMemory[] = {list_of(memory)};\n"
    side_inputs = [
        _input_number(wanted, "side_inputs", inputs, input_names)
        for wanted in options.get("side_inputs", ())
    ]
    if side_inputs:
        members += f"  static constexpr int kSideInputs[] = {list_of(side_inputs)};\n"
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
