"""Filters such as `label == 3 and site != "north"`: comparisons over facts, evaluated without `eval`."""

from __future__ import annotations

import ast
import difflib
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from unlearned.data.samples import Samples
from unlearned.errors import Fault, InputError, raise_faults

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_PARTS = (ast.BoolOp, ast.boolop, ast.UnaryOp, ast.unaryop, ast.Compare, *_COMPARE, ast.Name, ast.expr_context, ast.Constant, ast.List, ast.Tuple, ast.Set)
_REMEDY = 'Write comparisons of columns with values, joined by and, or, not: label == 3, name in ["a", "b"].'


def select(samples: Samples, where: str, field: str) -> list[int]:
    """Positions of the samples for which the filter holds.

    Args:
        samples: the set to choose from; its `facts` and `id` are the columns.
        where: the filter.
        field: where it was given, for messages.

    Raises:
        InputError: if the filter cannot be read, names an unknown column, or compares values that have no order.
    """
    try:
        tree = _parse(where)
    except ValueError as error:
        raise InputError(Fault(field, "the filter is not a valid expression.", _REMEDY)) from error
    if not all(isinstance(node, _PARTS) for node in ast.walk(tree)):
        raise InputError(Fault(field, "the filter uses something other than comparisons of columns with values.", _REMEDY))
    columns = {name: samples.fact(name) for name in samples.facts} | {"id": samples.ids}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    unknown = sorted(names - set(columns))
    if unknown:
        # The name is not shown: it may be a value that lacks its quotes, and values may name a person.
        near = difflib.get_close_matches(unknown[0], columns, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "Put quotes around text."
        known = ", ".join(sorted(columns))
        names_unknown = "a name that is no column" if len(unknown) == 1 else f"{len(unknown)} names that are no columns"
        raise InputError(Fault(field, f"the filter uses {names_unknown}.", f"{hint} Columns of this data: {known}."))
    used = {name: columns[name] for name in names}
    try:
        chosen = [i for i in range(len(samples)) if _holds(tree, {name: column[i] for name, column in used.items()}, field)]
    except TypeError as error:
        raise InputError(Fault(field, f"the filter compares values of different kinds ({error}).", _REMEDY)) from error
    except RecursionError as error:
        raise InputError(Fault(field, "the filter is nested too deeply.", 'Use a list: name in ["a", "b"].')) from error
    if not chosen:
        raise_faults(_never_equal(tree, columns, field))
    return chosen


def _never_equal(tree: ast.expr, columns: Mapping[str, Sequence[Any]], field: str) -> Iterator[Fault]:
    """Comparisons of text with numbers: Python calls them unequal without a word, and a slip with quotes chooses nothing."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare):
            continue
        for op, left, right in zip(node.ops, [node.left, *node.comparators], node.comparators, strict=False):
            name, value = (left, right) if isinstance(left, ast.Name) else (right, left)
            if not isinstance(op, ast.Eq | ast.In) or not isinstance(name, ast.Name) or isinstance(value, ast.Name):
                continue
            given = ast.literal_eval(value)
            wanted = {isinstance(each, str) for each in (given if isinstance(given, list | tuple | set) else [given]) if each is not None}
            held = {isinstance(each, str) for each in columns[name.id] if each is not None}
            if wanted == {True} and held == {False}:
                named = f"{name.id}_name"
                remedy = f'The names are in {named!r}: {named} == "a".' if named in columns else f"Leave the quotes out: {name.id} == 3."
                yield Fault(field, f"the filter compares {name.id!r}, which holds no text, with text.", remedy)
            elif wanted == {False} and held == {True}:
                yield Fault(field, f"the filter compares {name.id!r}, which holds text, with something else.", f'Put quotes around text: {name.id} == "3".')


def column_names(where: str) -> list[str]:
    """The columns that a filter uses; empty if it cannot be read. The values, which may name a person, are left out."""
    try:
        return sorted({node.id for node in ast.walk(_parse(where)) if isinstance(node, ast.Name)})
    except ValueError:
        return []


def _parse(where: str) -> ast.expr:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns of doubtful escapes by showing them
            return ast.parse(where.strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as error:  # the latter two for thousands of brackets
        raise ValueError("not an expression") from error


def _holds(node: ast.expr, row: Mapping[str, Any], field: str) -> bool:
    match node:
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_holds(part, row, field) for part in parts)
        case ast.BoolOp(op=ast.Or(), values=parts):
            return any(_holds(part, row, field) for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=part):
            return not _holds(part, row, field)
        case ast.Compare(left=left, ops=ops, comparators=rights) if all(type(op) in _COMPARE for op in ops):
            values = [_value(part, row, field) for part in [left, *rights]]
            return all(_COMPARE[type(op)](a, b) for op, a, b in zip(ops, values, values[1:], strict=False))
    raise InputError(Fault(field, "the filter uses something other than comparisons.", _REMEDY))


def _value(node: ast.expr, row: Mapping[str, Any], field: str) -> Any:
    if isinstance(node, ast.Name):
        return row[node.id]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        raise InputError(Fault(field, "the filter uses something other than columns and plain values.", _REMEDY)) from error
