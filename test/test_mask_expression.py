"""Mask expressions: what they mean and what is said of those that mean nothing."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbnet_perception.bev.grid import Grid
from sbnet_perception.masks.computation import computation_mask
from sbnet_perception.masks.config import MaskConfig
from sbnet_perception.masks.dilate import dilate
from sbnet_perception.masks.expression import And, Dilate, Expression, Name, Or, names, parse
from sbnet_perception.masks.occupancy import occupancy_mask

GRID = Grid(0.0, 8.0, -3.0, 3.0, 0.5)
_RNG = np.random.default_rng(0)
POINTS = np.column_stack([_RNG.uniform((0, -3, 0), (8, 3, 2), (40, 3)), np.zeros(40)]).astype(np.float32)
ROAD, PREDICTED = (_RNG.random((2, *GRID.shape)) < 0.3)[:]

EXPRESSIONS: st.SearchStrategy[Expression] = st.recursive(
    st.sampled_from(["road", "occupancy", "predicted", "everywhere"]).map(Name),
    lambda inner: st.builds(And, inner, inner)
    | st.builds(Or, inner, inner)
    | st.builds(Dilate, inner, st.sampled_from([0.0, 0.5, 1.25])),
    max_leaves=6,
)


def _text(expression: Expression) -> str:
    if isinstance(expression, Name):
        return expression.name
    if isinstance(expression, Dilate):
        return f"dilate({_text(expression.mask)},{expression.metres})"
    word = "and" if isinstance(expression, And) else "or"
    return f"({_text(expression.left)} {word} ({_text(expression.right)}))"


def _expected(expression: Expression) -> np.ndarray:
    if isinstance(expression, Name):
        of_name = {"road": ROAD, "predicted": PREDICTED, "everywhere": np.ones(GRID.shape, np.bool_)}
        return of_name.get(expression.name, occupancy_mask(POINTS, GRID, 0.35, 3.2))
    if isinstance(expression, Dilate):
        return dilate(_expected(expression.mask), expression.metres, GRID.resolution)
    left, right = _expected(expression.left), _expected(expression.right)
    return left & right if isinstance(expression, And) else left | right


@settings(max_examples=100, deadline=None)
@given(EXPRESSIONS)
def test_an_expression_means_what_numpy_computes_of_its_parts(expression: Expression) -> None:
    text = _text(expression)
    assert parse(text) == expression
    result = computation_mask(POINTS, GRID, ROAD, MaskConfig(text), PREDICTED)
    mask = np.ones(GRID.shape, np.bool_) if result.mask is None else result.mask
    np.testing.assert_array_equal(mask, _expected(expression))
    assert set(result.used) <= names(expression)


def test_and_binds_tighter_than_or_and_spaces_mean_nothing() -> None:
    expected = Or(Name("road"), And(Name("occupancy"), Dilate(Name("predicted"), 0.5)))
    assert parse("road or occupancy and dilate(predicted, 0.5)") == expected
    assert parse(" road  or\toccupancy and dilate ( predicted,.5 )  ") == expected


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("", 1, "road, occupancy, predicted, everywhere, dilate or '(' was expected, not its end"),
        ("road and", 9, "road, occupancy, predicted, everywhere, dilate or '(' was expected, not its end"),
        ("road & occupancy", 6, "'and', 'or' or the end was expected, not '&'"),
        ("road occupancy", 6, "'and', 'or' or the end was expected, not 'occupancy'"),
        ("(road or predicted", 19, "'and', 'or' or ')' was expected, not its end"),
        ("dilate road", 8, "'(' was expected, not 'road'"),
        ("dilate(road)", 12, "'and', 'or' or ',' was expected, not ')'"),
        ("dilate(road, wide)", 14, "metres from 0 to 100 was expected, not 'wide'"),
        ("dilate(road, nan)", 14, "metres from 0 to 100 was expected, not 'nan'"),
        ("dilate(road, 101)", 14, "metres from 0 to 100 was expected, not '101'"),
        ("dilate(road, -1)", 14, "metres from 0 to 100 was expected, not '-'"),
        ("dilate(road, 1 m)", 16, "')' was expected, not 'm'"),
        ("__import__('os')", 1, "road, occupancy, "),
    ],
)
def test_what_is_no_expression_is_refused_with_the_place(text: str, position: int, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"; at character {position} {expected}")) as error:
        MaskConfig(text)
    assert str(error.value).startswith(f"expression is {text!r}; ")


def test_an_expression_that_nests_too_deeply_is_refused() -> None:
    with pytest.raises(ValueError, match="expression nests deeper than 20 levels at character 21"):
        MaskConfig("(" * 100_000 + "road")


def test_an_expression_of_too_many_operands_is_refused() -> None:
    assert MaskConfig(" and ".join(["road"] * 100)).names == {"road"}
    with pytest.raises(ValueError, match="expression has more than 100 operands at character 901"):
        MaskConfig(" and ".join(["road"] * 100_000))
