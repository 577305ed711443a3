"""Covariates as a user writes them: a column, or a sum of columns with + - * /, numbers, log() and abs().

An expression is read as Python's grammar has it, and is never run: what else it holds is refused.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kilter.errors import DataError
from kilter.ranking.reading.columns import check_column

OPERATIONS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
FUNCTIONS = ("log", "abs")
EXPECTED = "a column, or columns and numbers with + - * / ( ), log() and abs(); put odd names in `backquotes`"


@dataclass(frozen=True)
class Expression:
    """A covariate: how it was written, and the columns that it is of."""

    text: str
    tree: ast.expr
    names: Mapping[str, str]  # in the tree, and in the table

    @property
    def columns(self) -> tuple[str, ...]:
        """The table's columns that it is of, each once."""
        return tuple(self.names.values())

    @property
    def of_levels(self) -> bool:
        """Whether it can be of texts: a column by itself, or one less another."""
        match self.tree:
            case ast.Name():
                return True
            case ast.BinOp(left=ast.Name(id=one), op=ast.Sub(), right=ast.Name(id=other)):
                return one != other
        return False

    @property
    def always_defined(self) -> bool:
        """Whether it is a number for all numbers: without logarithms and quotients."""
        return not any(isinstance(node, ast.Div | ast.Call) for node in ast.walk(self.tree))

    def __call__(self, columns: Mapping[str, Any], functions: Mapping[str, Callable[[Any], Any]]) -> Any:
        """Its value for columns of numbers: arrays, or expressions of an engine."""
        return _value(self.tree, {name: columns[column] for name, column in self.names.items()}, functions)


def parse(text: str, columns: Sequence[str]) -> Expression:
    """Read an expression of some of a table's columns; a text that is a column's whole name is that column.

    Raises DataError for what is no such expression, or no such column.
    """
    if text in columns:
        return Expression(text, ast.Name("column"), {"column": text})
    quoted: dict[str, str] = {}

    def named(found: re.Match[str]) -> str:
        return quoted.setdefault(found[1], f"quoted_{len(quoted)}")

    try:
        tree = ast.parse(re.sub(r"`([^`]+)`", named, text.strip()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise DataError(f"the covariate {text!r} is no expression; expected {EXPECTED}") from None
    _check(tree, text)
    odd = {short: name for name, short in quoted.items()}
    calls = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    found = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in calls]
    names = {name: odd.get(name, name) for name in dict.fromkeys(found)}
    if not names:
        raise DataError(f"the covariate {text!r} names no column; expected {EXPECTED}")
    for name in names.values():
        check_column(name, columns, f"for the covariate {text!r}")
    return Expression(text, tree, names)


def _check(tree: ast.expr, text: str) -> None:
    match tree:
        case ast.Name():
            parts: list[ast.expr] = []
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            parts = []
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            parts = [operand]
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in OPERATIONS:
            parts = [left, right]
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
            parts = [argument]
        case _:
            raise DataError(f"the covariate {text!r} has {ast.unparse(tree)!r} in it; expected {EXPECTED}")
    for part in parts:
        _check(part, text)


def _value(tree: ast.expr, columns: Mapping[str, Any], functions: Mapping[str, Callable[[Any], Any]]) -> Any:
    match tree:
        case ast.Name(id=name):
            return columns[name]
        case ast.Constant(value=value):
            return float(value)  # type: ignore[arg-type]
        case ast.UnaryOp(op=operation, operand=operand):
            value = _value(operand, columns, functions)
            return value if isinstance(operation, ast.UAdd) else value * -1.0
        case ast.BinOp(left=left, op=operation, right=right):
            return OPERATIONS[type(operation)](_value(left, columns, functions), _value(right, columns, functions))
        case ast.Call(func=ast.Name(id=name), args=[argument]):
            return functions[name](_value(argument, columns, functions))
    raise AssertionError(ast.dump(tree))
