"""Functions for steps, which take tensors and numbers as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from ._traced import Recorded, Traced, TracedMask, call

Value = Traced | Tensor | float
X = TypeVar("X", Traced, Tensor, float)


def _evaluate(function: Callable[..., Any], *values: object) -> Any:
    """Torch's function of traced values, tensors, and numbers among them."""
    if any(isinstance(value, Recorded) for value in values):
        return call(function.__name__, *values)
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
    if any(isinstance(value, Recorded) for value in (condition, x, y)):
        return call("where", condition, x, y)
    if isinstance(condition, Tensor):
        return torch.where(condition, cast(Any, x), cast(Any, y))
    return x if condition else y
