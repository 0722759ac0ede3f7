"""Mask expressions: ``dilate(road, 0.5) and (dilate(shadow(occupancy, 3), 0.5) or predicted)``."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import lru_cache

from sbnet_perception.masks.sources import SOURCES

MOST_METRES = 100.0
"""Largest distance by which a mask may grow."""
GROWN = ("dilate", "shadow")
"""The ways to grow: in all directions, or away from the LiDAR."""
_CALLS = " or ".join(f"{way}(mask, metres)" for way in GROWN)
# Beyond these an expression is refused before Python reads it, and before anything recurses into it.
_LONGEST, _DEEPEST, _MOST_OPERANDS = 4096, 20, 100
_WORD = {ast.And: "and", ast.Or: "or"}


@dataclass(frozen=True)
class Name:
    """One of the sources."""

    name: str


@dataclass(frozen=True)
class Grown:
    """A mask grown by metres in one of the ways of `GROWN`."""

    way: str
    mask: Expression
    metres: float


@dataclass(frozen=True)
class Join:
    """Where all of the masks are ("and"), or where any is ("or")."""

    word: str
    masks: tuple[Expression, ...]


Expression = Name | Grown | Join


@lru_cache
def parse(text: str) -> Expression:
    """The expression in a text.

    Raises:
        ValueError: it is none; the message has the position, what was expected and what was found.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"expression has {len(text)} characters, more than {_LONGEST}")
    # Python's own grammar, of which only these characters and then only three kinds of nodes are allowed.
    code = re.sub(r"\s", " ", text)
    start = len(code) - len(code.lstrip())
    if strange := re.search(r"[^\w (),.]", code, re.ASCII):
        raise _error(text, strange.start(), f"a name, 'and', 'or', {_CALLS} or '('", strange[0])
    try:
        expression = _read(ast.parse(code[start:], mode="eval").body, text, start, 1)
    except (SyntaxError, RecursionError, MemoryError) as error:
        # An expression that ends too early has no offset.
        position = start + (getattr(error, "offset", None) or len(code[start:]) + 1)
        raise ValueError(f"expression is {text!r}; at character {position}: {error.args[0]}") from None
    if len(names_in(expression)) > _MOST_OPERANDS:
        raise ValueError(f"expression has more than {_MOST_OPERANDS} operands")
    return expression


def text_of(expression: Expression) -> str:
    """What `parse` reads as this expression."""
    if isinstance(expression, Name):
        return expression.name
    if isinstance(expression, Grown):
        return f"{expression.way}({text_of(expression.mask)}, {repr(expression.metres).removesuffix('.0')})"
    parts = (f"({text_of(mask)})" if isinstance(mask, Join) else text_of(mask) for mask in expression.masks)
    return f" {expression.word} ".join(parts)


def names_in(expression: Expression) -> list[str]:
    """The names in an expression, each as often as it stands there."""
    if isinstance(expression, Name):
        return [expression.name]
    masks = (expression.mask,) if isinstance(expression, Grown) else expression.masks
    return [name for mask in masks for name in names_in(mask)]


def _read(node: ast.expr, text: str, start: int, depth: int) -> Expression:
    at, found = start + node.col_offset, ast.unparse(node)
    if depth > _DEEPEST:
        raise ValueError(f"expression nests deeper than {_DEEPEST} levels at character {at + 1}")
    if isinstance(node, ast.Name) and node.id in SOURCES:
        return Name(node.id)
    if isinstance(node, ast.BoolOp):
        return Join(_WORD[type(node.op)], tuple(_read(value, text, start, depth + 1) for value in node.values))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in GROWN:
        way = node.func.id
        if len(node.args) != 2 or node.keywords:
            raise _error(text, at, f"{way}(mask, metres)", found)
        mask, metres = _read(node.args[0], text, start, depth + 1), node.args[1]
        value = metres.value if isinstance(metres, ast.Constant) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_METRES:
            position = start + metres.col_offset
            raise _error(text, position, f"metres from 0 to {MOST_METRES:g}", ast.unparse(metres))
        return Grown(way, mask, float(value))
    raise _error(text, at, f"{', '.join(SOURCES)}, {_CALLS} or '('", found)


def _error(text: str, position: int, need: str, found: str) -> ValueError:
    return ValueError(f"expression is {text!r}; at character {position + 1} {need} was expected, not {found!r}")
