#!/usr/bin/env python3
"""Writes docs/api.md, the reference of the Python package, from the package's own text.

python3 scripts/api_reference.py [--check]

It reads the sources, so nothing need be installed. What is public is what stands in the `__all__`
of a module; comments `#:` describe fields and types, docstrings all else.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "pararnn_cpp"
PAGE = ROOT / "docs" / "api.md"
MODULES = ("__init__", "nn", "lm")
LISTED = ("_functions",)  # modules of many small functions
LINE = 100

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef | ast.AnnAssign


class Source:
    """A module of the package."""

    def __init__(self, name: str) -> None:
        self.name = name
        text = (PACKAGE / f"{name.replace('.', '/')}.py").read_text()
        self.lines = text.splitlines()
        self.tree = ast.parse(text)

    def public_names(self) -> list[str]:
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names: list[str] = ast.literal_eval(node.value)
                return names
        raise SystemExit("a public module needs __all__")

    def find(self, name: str) -> tuple[Source, Definition] | None:
        """Where a name is defined, here or in the module that it is imported from; None for a
        module."""
        found: Definition | None = None
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
                found = node  # the last of several is not an overload
            elif isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name:
                found = node
            elif isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
                return Source(node.module).find(name) if node.module else None
        if found is None:
            raise SystemExit(f"{name} is public, and defined nowhere")
        return self, found

    def find_init(self, name: str) -> ast.FunctionDef | None:
        """How a class of this module is made."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ClassDef) and node.name == name:
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                        return method
        return None

    def comment(self, node: ast.AnnAssign) -> str:
        """What `#:` says above a field or behind it."""
        above: list[str] = []
        at = node.lineno - 2
        while re.match(r"\s*#:", self.lines[at]):
            above.insert(0, self.lines[at].split("#:", 1)[1].strip())
            at -= 1
        behind = self.lines[(node.end_lineno or node.lineno) - 1].partition("#:")[2].strip()
        return " ".join(above) or behind


def documentation(node: Function | ast.ClassDef | ast.Module, name: str) -> str:
    text = ast.get_docstring(node)
    if not text:
        raise SystemExit(f"{name} is public and has no docstring")
    return inspect.cleandoc(text)


def markdown(text: str) -> str:
    """A docstring: sections become lists, what is indented below a blank line stays code."""
    result: list[str] = []
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        block = [lines[at]]
        while at + len(block) < len(lines) and re.match(r"\s", lines[at + len(block)] or " "):
            block.append(lines[at + len(block)])
        while not block[-1].strip() and len(block) > 1:
            block.pop()
        at += len(block)
        head, body = block[0], block[1:]
        if not body:
            result.append(head)
        elif head.endswith(":") and body[0].strip():
            result += [f"**{head[:-1]}**", "", *section(textwrap.dedent("\n".join(body)))]
        else:  # a list, or lines of code
            result += [head, *body]
    return "\n".join(result)


def section(body: str) -> list[str]:
    """The lines below "Args:" and its like: a list where they begin with names."""
    entries = re.split(r"\n(?=\S)", body)
    if not all(re.match(r"[\w*]+: ", entry) for entry in entries):
        return body.splitlines()
    result = []
    for entry in entries:
        name, text = entry.split(": ", 1)
        result += textwrap.wrap(
            f"- `{name}`: {' '.join(text.split())}", LINE, subsequent_indent="  "
        )
    return result


def signature(name: str, node: Function, is_method: bool) -> str:
    """As it is called: without self."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    parts = [parameter(*pair) for pair in zip(positional, defaults, strict=True)]
    if arguments.posonlyargs:
        parts.insert(len(arguments.posonlyargs), "/")
    if is_method and not any(ast.unparse(d) == "staticmethod" for d in node.decorator_list):
        parts = parts[1:]
    if arguments.vararg:
        parts.append("*" + parameter(arguments.vararg, None))
    elif arguments.kwonlyargs:
        parts.append("*")
    parts += [
        parameter(*pair) for pair in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    if arguments.kwarg:
        parts.append("**" + parameter(arguments.kwarg, None))
    returns = ast.unparse(node.returns) if node.returns else "None"
    end = "" if node.name == "__init__" else f" -> {returns}"
    line = f"{name}({', '.join(parts)}){end}"
    if len(line) <= LINE:
        return line
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){end}"


def parameter(argument: ast.arg, default: ast.expr | None) -> str:
    text = argument.arg
    if argument.annotation:
        text += f": {ast.unparse(argument.annotation)}"
    if default is None:
        return text
    value = ast.unparse(default).replace("'", '"')
    return f"{text}{' = ' if argument.annotation else '='}{value}"


def code(text: str) -> list[str]:
    return ["```python", text, "```", ""]


def describe_class(source: Source, node: ast.ClassDef) -> list[str]:
    methods = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    private = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id[0] == "_"]
    made_by = methods.get("__init__") or next(map(source.find_init, private), None)
    if made_by:
        head = signature(node.name, made_by, is_method=True)
    else:
        head = node.name + (f"({bases})" if bases else "")
    result = [*code(f"class {head}"), markdown(documentation(node, node.name)), ""]
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign)]
    for field in fields:
        name = ast.unparse(field.target)
        if name.startswith("_"):
            continue
        value = f" = {ast.unparse(field.value)}".replace("'", '"') if field.value else ""
        if value.startswith(" = field("):
            value = ""
        said = source.comment(field)
        text = f"- `{name}: {ast.unparse(field.annotation)}{value}`" + (f": {said}" if said else "")
        result += textwrap.wrap(text, LINE, subsequent_indent="  ", break_on_hyphens=False)
    if fields:
        result.append("")
    for name, method in methods.items():
        if name.startswith("_"):
            continue
        full = f"{node.name}.{name}"
        if any(ast.unparse(d) == "property" for d in method.decorator_list):
            returns = ast.unparse(method.returns) if method.returns else ""
            result += [f"#### {full}", "", *code(f"{full}: {returns}")]
        else:
            result += [f"#### {full}", "", *code(signature(full, method, is_method=True))]
        result += [markdown(documentation(method, full)), ""]
    return result


def describe(source: Source, name: str, node: Definition) -> list[str]:
    result = [f"### {name}", ""]
    if isinstance(node, ast.AnnAssign):
        said = source.comment(node)
        if not said:
            raise SystemExit(f"{name} is public and has no comment #:")
        value = ast.unparse(node.value) if node.value else ""
        return [*result, *code(f"{name} = {value}"), *textwrap.wrap(said, LINE), ""]
    if isinstance(node, ast.ClassDef):
        return result + describe_class(source, node)
    head = signature(name, node, is_method=False)
    return [*result, *code(head), markdown(documentation(node, name)), ""]


def list_entry(name: str, node: ast.FunctionDef) -> list[str]:
    said = " ".join(documentation(node, name).split())
    arguments = ", ".join(argument.arg for argument in node.args.args)
    return textwrap.wrap(f"- `{name}({arguments})`: {said}", LINE, subsequent_indent="  ")


def page() -> str:
    result = [
        "# The Python package, name by name",
        "",
        "Made by `make docs` from the package's own text. [python.md](python.md) is the way in.",
        "",
    ]
    for module in MODULES:
        source = Source(module)
        title = "pararnn_cpp" if module == "__init__" else f"pararnn_cpp.{module}"
        result += [f"## {title}", "", markdown(documentation(source.tree, title)), ""]
        lists: dict[str, list[str]] = {}
        for name in source.public_names():
            found = source.find(name)
            if found is None:
                continue
            where, node = found
            if where.name in LISTED and isinstance(node, ast.FunctionDef):
                lists.setdefault(where.name, []).extend(list_entry(name, node))
            else:
                result += describe(where, name, node)
        for listed, entries in lists.items():
            heading = documentation(Source(listed).tree, listed)
            result += [f"### {heading.splitlines()[0].rstrip('.')}", "", *entries, ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(result)).rstrip("\n") + "\n"


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        if not PAGE.is_file() or PAGE.read_text() != page():
            raise SystemExit("docs/api.md is not what the package says now: run make docs")
    else:
        PAGE.write_text(page())


if __name__ == "__main__":
    main()
