"""Columns computed from others: arithmetic on a table's columns, and nothing else.

``pandas.eval`` reaches attributes and Python variables, so expressions are parsed here and only
the nodes below are ever computed.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from tuner.errors import TableError

_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
}
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "sqrt": np.sqrt,
    "minimum": np.minimum,
    "maximum": np.maximum,
}
_QUOTED = re.compile(r"`([^`]+)`")


def derive(frame: pd.DataFrame, assignment: str) -> pd.DataFrame:
    """The table with one more column.

    Args:
        assignment: ``name=expression``, e.g. ``energy=inference_time*power_consumption``.
            A column whose name is no identifier stands in backticks.

    Raises:
        TableError: not an assignment, a missing column, or more than arithmetic.
    """
    name, equals, expression = assignment.partition("=")
    name = name.strip().strip("`")
    if not equals or not name or not expression.strip():
        raise TableError(f"--derive {assignment!r}: should read NAME=EXPRESSION")
    quoted: dict[str, str] = {}

    def placeholder(match: re.Match[str]) -> str:
        quoted[f"_quoted{len(quoted)}"] = match.group(1)
        return f"_quoted{len(quoted) - 1}"

    try:
        tree = ast.parse(_QUOTED.sub(placeholder, expression.strip()), mode="eval")
        value = _compute(tree.body, frame, quoted)
    except SyntaxError as error:
        raise TableError(f"--derive {assignment!r}: {error.msg}") from None
    except (ArithmeticError, RecursionError, TypeError, ValueError) as error:
        raise TableError(f"--derive {assignment!r}: {error}") from None
    return frame.assign(**{name: value})


def _compute(node: ast.expr, frame: pd.DataFrame, quoted: Mapping[str, str]) -> Any:
    def below(child: ast.expr) -> Any:
        return _compute(child, frame, quoted)

    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str)):
        return node.value
    if isinstance(node, ast.Name):
        column = quoted.get(node.id, node.id)
        if column not in frame:
            raise TableError(f"no column {column!r}; there are {', '.join(map(str, frame))}")
        return frame[column]
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = below(node.left), below(node.right)
        if isinstance(node.op, ast.Pow) and not isinstance(left, pd.Series):
            left = float(left)  # whole numbers would grow without end: 9**9**9
        return _BINARY[type(node.op)](left, right)
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _UNARY[type(node.op)](below(node.operand))
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
        return _COMPARE[type(node.ops[0])](below(node.left), below(node.comparators[0]))
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in _FUNCTIONS
        and not node.keywords
    ):
        return _FUNCTIONS[node.func.id](*(below(argument) for argument in node.args))
    known = ", ".join(_FUNCTIONS)
    raise TableError(
        f"{ast.unparse(node)!r} is not allowed: columns, numbers, + - * / // % **, comparisons, "
        f"& | ~ and {known} are"
    )
