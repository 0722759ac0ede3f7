"""Mask expressions: ``dilate(road, 0.5) and (dilate(occupancy, 0.5) or predicted)``.

    expression = conjunction {"or" conjunction}
    conjunction = operand {"and" operand}
    operand = "road" | "occupancy" | "predicted" | "everywhere"
            | "dilate" "(" expression "," metres ")" | "(" expression ")"
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

NAMES = ("road", "occupancy", "predicted", "everywhere")
MOST_METRES = 100.0
"""Largest distance by which a mask may grow."""

_DEEPEST = 20
_MOST_OPERANDS = 100
_TOKEN = re.compile(r"\s*(?:([A-Za-z_]\w*|\d+(?:\.\d*)?|\.\d+|[(),])|$)")


@dataclass(frozen=True)
class Name:
    """One of `NAMES`."""

    name: str


@dataclass(frozen=True)
class Dilate:
    """A mask grown by metres."""

    mask: Expression
    metres: float


@dataclass(frozen=True)
class And:
    """Where both are."""

    left: Expression
    right: Expression


@dataclass(frozen=True)
class Or:
    """Where either is."""

    left: Expression
    right: Expression


Expression = Name | Dilate | And | Or


@lru_cache
def parse(text: str) -> Expression:
    """The expression in a text.

    Raises:
        ValueError: it is none; the message has the position, what was expected and what was found.
    """
    return _Parser(text).parse()


def names(expression: Expression) -> frozenset[str]:
    """Those of `NAMES` that the expression has, save ``everywhere``."""
    if isinstance(expression, Name):
        return frozenset({expression.name} - {"everywhere"})
    if isinstance(expression, Dilate):
        return names(expression.mask)
    return names(expression.left) | names(expression.right)


class _Parser:
    """Recursive descent: a method for each line of the grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._depth = self._operands = 0
        self._end = 0
        self._advance()

    def parse(self) -> Expression:
        expression = self._expression()
        if self._token:
            raise self._error("'and', 'or' or the end")
        return expression

    def _expression(self) -> Expression:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError(f"expression nests deeper than {_DEEPEST} levels at character {self._start + 1}")
        expression = self._conjunction()
        while self._accept("or"):
            expression = Or(expression, self._conjunction())
        self._depth -= 1
        return expression

    def _conjunction(self) -> Expression:
        expression = self._operand()
        while self._accept("and"):
            expression = And(expression, self._operand())
        return expression

    def _operand(self) -> Expression:
        self._operands += 1
        if self._operands > _MOST_OPERANDS:
            raise ValueError(f"expression has more than {_MOST_OPERANDS} operands at character {self._start + 1}")
        if self._accept("("):
            expression = self._expression()
            self._expect(")", "'and', 'or' or ')'")
            return expression
        if self._accept("dilate"):
            self._expect("(", "'('")
            mask = self._expression()
            self._expect(",", "'and', 'or' or ','")
            metres = self._metres()
            self._expect(")", "')'")
            return Dilate(mask, metres)
        for name in NAMES:
            if self._accept(name):
                return Name(name)
        raise self._error(f"{', '.join(NAMES)}, dilate or '('")

    def _metres(self) -> float:
        need = f"metres from 0 to {MOST_METRES:g}"
        try:
            metres = float(self._token)
        except ValueError:
            raise self._error(need) from None
        if not 0 <= metres <= MOST_METRES:
            raise self._error(need)
        self._advance()
        return metres

    def _accept(self, token: str) -> bool:
        found = self._token == token
        if found:
            self._advance()
        return found

    def _expect(self, token: str, need: str) -> None:
        if not self._accept(token):
            raise self._error(need)

    def _advance(self) -> None:
        """Move on to the next token; at the end it is empty, a character of none stands for itself."""
        match = _TOKEN.match(self._text, self._end)
        rest = self._text[self._end :].lstrip()
        self._token = (match[1] or "") if match else rest[0]
        self._start = len(self._text) - len(rest)
        self._end = self._start + len(self._token)

    def _error(self, need: str) -> ValueError:
        found = repr(self._token) if self._token else "its end"
        return ValueError(
            f"expression is {self._text!r}; at character {self._start + 1} {need} was expected, not {found}"
        )
