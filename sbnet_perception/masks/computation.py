"""The computation mask: the one raster that says where the detector computes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import and_, or_

from torch import Tensor

from sbnet_perception.masks.dilate import dilate
from sbnet_perception.masks.expression import Expression, Grown, Name
from sbnet_perception.masks.frame import GIVEN, Frame
from sbnet_perception.masks.shadow import shadow
from sbnet_perception.masks.sources import SOURCES


@dataclass(frozen=True, eq=False)
class ComputationMask:
    """Where to compute.

    Attributes:
        mask: bool [H, W] on the device of the points, or None to compute everywhere; not to be written to.
        used: names of the masks that it is made of.
        missing: the masks that the configuration asks for and that were not given.
    """

    mask: Tensor | None
    used: tuple[str, ...]
    missing: tuple[str, ...]


def computation_mask(frame: Frame) -> ComputationMask:
    """Combine the masks that the configuration names.

    A mask that is asked for and not given counts as everywhere: ``and`` falls back to the other masks, and
    without another one the detector computes densely.

    Raises:
        ValueError: predicted is asked for and missing.
    """
    mask, used = _evaluate(frame.config.parsed, frame)
    missing = tuple(name for name in GIVEN if name in frame.config.names and getattr(frame, name) is None)
    return ComputationMask(mask, tuple(dict.fromkeys(used)), missing)


# A mask, None for everywhere, and the names of those it is made of.
_Value = tuple[Tensor | None, tuple[str, ...]]


def _evaluate(expression: Expression, frame: Frame) -> _Value:
    if isinstance(expression, Name):
        return _named(expression, 0.0, frame)
    if isinstance(expression, Grown):
        return _grown(expression, frame)
    values = [_evaluate(part, frame) for part in expression.masks]
    limited = [(mask, used) for mask, used in values if mask is not None]
    # Where any mask is everywhere, so is "or", and "and" is what the others say.
    if not limited or (expression.word == "or" and len(limited) < len(values)):
        return None, ()
    joined = reduce(and_ if expression.word == "and" else or_, [mask for mask, _ in limited])
    return joined, tuple(name for _, used in limited for name in used)


def _grown(expression: Grown, frame: Frame) -> _Value:
    # A source dilates itself: a map at its own resolution.
    if expression.way == "dilate" and isinstance(expression.mask, Name):
        return _named(expression.mask, expression.metres, frame)
    mask, used = _evaluate(expression.mask, frame)
    if mask is None:
        return None, used
    if expression.way == "shadow":
        return shadow(mask, expression.metres, frame.grid), used
    return dilate(mask, expression.metres, frame.grid.resolution), used


def _named(name: Name, dilation: float, frame: Frame) -> _Value:
    mask = SOURCES[name.name].mask(frame, dilation)
    return mask, () if mask is None else (name.name,)
