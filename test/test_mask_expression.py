"""Mask expressions: what they mean and what is said of those that mean nothing."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sbnet_perception.bev.grid import Grid
from sbnet_perception.masks.computation import computation_mask
from sbnet_perception.masks.config import MaskConfig
from sbnet_perception.masks.dilate import dilate
from sbnet_perception.masks.expression import GROWN, Expression, Grown, Join, Name, names_in, parse, text_of
from sbnet_perception.masks.frame import Frame
from sbnet_perception.masks.occupancy import occupancy_mask
from sbnet_perception.masks.shadow import shadow

GRID = Grid(0.0, 8.0, -3.0, 3.0, 0.5)
_RNG = np.random.default_rng(0)
POINTS = torch.from_numpy(_RNG.uniform((0, -3, 0, 0), (8, 3, 2, 1), (40, 4)).astype(np.float32))
ROAD, EXTERNAL, PREDICTED = torch.from_numpy(_RNG.random((3, *GRID.shape)) < 0.3)

EXPRESSIONS: st.SearchStrategy[Expression] = st.recursive(
    st.sampled_from(["road", "occupancy", "predicted", "external", "everywhere"]).map(Name),
    lambda inner: st.builds(Join, st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3).map(tuple))
    | st.builds(Grown, st.sampled_from(GROWN), inner, st.sampled_from([0.0, 0.5, 1.25])),
    max_leaves=6,
)


def _text(expression: Expression) -> str:
    if isinstance(expression, Name):
        return expression.name
    if isinstance(expression, Grown):
        return f"{expression.way}({_text(expression.mask)},{expression.metres})"
    return f" {expression.word} ".join(f"({_text(mask)})" for mask in expression.masks)


def _expected(expression: Expression) -> torch.Tensor:
    if isinstance(expression, Name):
        of_name = {"road": ROAD, "predicted": PREDICTED, "external": EXTERNAL, "everywhere": torch.ones_like(ROAD)}
        return of_name.get(expression.name, occupancy_mask(POINTS, GRID, 0.35, 3.2))
    if isinstance(expression, Grown) and expression.way == "shadow":
        return shadow(_expected(expression.mask), expression.metres, GRID)
    if isinstance(expression, Grown):
        return dilate(_expected(expression.mask), expression.metres, GRID.resolution)
    masks = torch.stack([_expected(mask) for mask in expression.masks])
    return masks.all(0) if expression.word == "and" else masks.any(0)


@settings(max_examples=100, deadline=None)
@given(EXPRESSIONS)
def test_an_expression_means_what_is_computed_of_its_parts(expression: Expression) -> None:
    text = _text(expression)
    assert parse(text) == parse(text_of(expression)) == expression
    result = computation_mask(Frame(POINTS, GRID, MaskConfig(text), ROAD, EXTERNAL, PREDICTED))
    assert torch.equal(torch.ones(GRID.shape).bool() if result.mask is None else result.mask, _expected(expression))
    assert set(result.used) <= set(names_in(expression))


def test_and_binds_tighter_than_or_and_spaces_mean_nothing() -> None:
    expected = Join("or", (Name("road"), Join("and", (Name("occupancy"), Grown("dilate", Name("predicted"), 0.5)))))
    assert parse("road or occupancy and dilate(predicted, 0.5)") == expected
    assert parse(" road  or\toccupancy and dilate ( predicted,.5 )  ") == expected


CALLS = "dilate(mask, metres) or shadow(mask, metres) or '(' was expected, not "
NAMES = f"road, occupancy, predicted, external, everywhere, {CALLS}"


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("", 1, ": "),
        ("road and", 9, ": invalid syntax"),
        ("road & occupancy", 6, f" a name, 'and', 'or', {CALLS}'&'"),
        ("road occupancy", 6, ": invalid syntax"),
        ("(road or predicted", 1, ": '(' was never closed"),
        ("  roads and road", 3, f" {NAMES}'roads'"),
        ("road and not predicted", 10, f" {NAMES}'not predicted'"),
        ("road if road else road", 1, f" {NAMES}'road if road else road'"),
        ("(lambda road, predicted), 1", 24, ": invalid syntax"),
        ("road.mask", 1, f" {NAMES}'road.mask'"),
        ("road(occupancy, 1)", 1, f" {NAMES}'road(occupancy, 1)'"),
        ("dilate(road)", 1, " dilate(mask, metres) was expected, not 'dilate(road)'"),
        ("shadow(road)", 1, " shadow(mask, metres) was expected, not 'shadow(road)'"),
        ("dilate(road, wide)", 14, " metres from 0 to 100 was expected, not 'wide'"),
        ("dilate(road, nan)", 14, " metres from 0 to 100 was expected, not 'nan'"),
        ("dilate(road, True)", 14, " metres from 0 to 100 was expected, not 'True'"),
        ("dilate(road, 1j)", 14, " metres from 0 to 100 was expected, not '1j'"),
        ("dilate(road, 101)", 14, " metres from 0 to 100 was expected, not '101'"),
        ("dilate(road, -1)", 14, f" a name, 'and', 'or', {CALLS}'-'"),
        ("dilate(road, 1 m)", 14, ": invalid syntax"),
        ("__import__('os')", 12, ' a name'),
        ("\uff52oad", 1, " a name"),
    ],
)
def test_what_is_no_expression_is_refused_with_the_place(text: str, position: int, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"; at character {position}{expected}")) as error:
        MaskConfig(text)
    assert str(error.value).startswith(f"expression is {text!r}; ")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(" * 100_000 + "road", "expression has 100004 characters, more than 4096"),
        ("(" * 1000 + "road", "too many nested parentheses"),
        ("not " * 1000 + "road", "expression is '"),
        ("road" + ".x" * 2000, "expression is '"),
        ("dilate(" * 21 + "road" + ", 1)" * 21, "expression nests deeper than 20 levels at character 141"),
        (" and ".join(["road"] * 101), "expression has more than 100 operands"),
    ],
)
def test_an_expression_beyond_the_limits_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        MaskConfig(text)


def test_an_expression_up_to_the_limits_is_one() -> None:
    assert MaskConfig(" and ".join(["road"] * 100)).names == {"road"}
    assert MaskConfig("dilate(" * 19 + "road" + ", 1)" * 19).names == {"road"}
