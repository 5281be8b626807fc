"""The C++ source of what was recorded of a step: expressions, names, and how lines are broken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

LINE = 100  # columns of the source
LONGEST_PART = 80  # columns of an expression that is written inside another

# Functions of one number that bear the same name in C++.
SAME_NAME = ("abs cos erf exp floor log log_sigmoid relu sigmoid sin sqrt square tanh").split()


@dataclass(frozen=True)
class Node:
    """One operation: an operator or function of C++, or "number", or "argument"."""

    operation: str
    operands: tuple[int, ...] = ()  # numbers of nodes
    text: str = ""  # of a number or an argument: how C++ writes it


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


def _expression(node: Node, operands: Sequence[_Expression]) -> _Expression:
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
    nodes: Sequence[Node], node: Node, expressions: dict[int, _Expression]
) -> list[_Expression]:
    operands = [expressions[operand] for operand in node.operands]
    if operands and all(nodes[operand].operation == "number" for operand in node.operands):
        operands[0] = _Expression(f"T({operands[0].text})")  # or C++ would take it for its own
    return operands


def _live(nodes: Sequence[Node], results: Sequence[int]) -> dict[int, int]:
    """How often each node is used, of those that the results depend on, in order."""
    uses: dict[int, int] = {}
    waiting = list(results)
    while waiting:
        number = waiting.pop()
        uses[number] = uses.get(number, 0) + 1
        if uses[number] == 1:
            waiting.extend(nodes[number].operands)
    return dict(sorted(uses.items()))


def write_expression(nodes: Sequence[Node], number: int) -> str:
    """A node as one expression."""
    expressions: dict[int, _Expression] = {}
    for live in _live(nodes, [number]):
        operands = _expressions_of_operands(nodes, nodes[live], expressions)
        expressions[live] = _expression(nodes[live], operands)
    return expressions[number].text


def wrapped(statement: str, indent: int) -> str:
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


def write_body(
    nodes: Sequence[Node], results: Sequence[int], arguments: Sequence[str], names: dict[int, str]
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
            body += wrapped(f"const {kind} {name} = {expression.text};", 4)
            expression = _Expression(name)
        expressions[number] = expression
    returned = list_of([expressions[number].text for number in results])
    return body + wrapped(f"return {returned};", 4)


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
TAKEN = _KEYWORDS | {*SAME_NAME, "max", "min", "pow", "select", "softplus", "T", "Vec", "pararnn"}


def is_plain_name(name: str) -> bool:
    """Whether C++ takes it, if it is not taken, and no macro is likely to bear it."""
    looks_like_macro = name.isupper() and len(name) > 1
    return re.fullmatch(r"[A-Za-z](_?[A-Za-z0-9])*_?", name) is not None and not looks_like_macro


def quoted(text: str) -> str:
    return '"' + text.replace("\\", r"\\").replace('"', r"\"") + '"'


def list_of(items: Sequence[object]) -> str:
    return "{" + ", ".join(str(item) for item in items) + "}"
