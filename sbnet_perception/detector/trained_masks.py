"""Under which masks weights were trained, and what a user should know who runs them under another.

Features are 0 where nothing is computed, so a network learns what its mask leaves out. One that never saw more than a
narrow mask finds half as much under a wide one (docs/masks.md).
"""

from __future__ import annotations

from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.weights import WeightsError, read_metadata, weights_path
from sbnet_perception.masks.expression import Dilate, Expression, Join, Name, parse
from sbnet_perception.masks.predicted import PREDICTED
from sbnet_perception.masks.road import ROAD
from sbnet_perception.masks.sources import EVERYWHERE
from sbnet_perception.resources import shipped
from sbnet_perception.text import one_line


def remark_on_mask(config: DetectorConfig) -> str:
    """A sentence where the weights were not trained under the configured mask; empty where they were or do not say.

    Raises:
        WeightsError: the weights are missing or damaged, or name masks that are none.
    """
    path = weights_path(config)
    try:
        trained = [parse(mask) for mask in read_metadata(path).get("masks", ())]
    except (TypeError, ValueError) as error:
        raise WeightsError(
            f"weights: {path} was trained under masks that this version does not know ({one_line(str(error))}); "
            "get or train it again"
        ) from None
    asked = parse(config.mask.expression)
    known = [*trained, *(_without(mask, ROAD.name) for mask in trained)]
    # What a mask network leaves out besides holds hardly a vehicle: little is missed there.
    unnarrowed = _without(asked, PREDICTED.name) or asked
    if not trained or asked in known or unnarrowed in known or Name(EVERYWHERE.name) in trained:
        return ""
    name = f"{config.grid}_any_mask"
    there = shipped(f"weights/{name}.safetensors")
    remedy = f"choose weights:={name}" if there else "train some with 'sbnet train --mask'"
    return (
        f"weights {path.name} were not trained under the mask {config.mask.expression!r} and may find half as much as "
        f"under theirs: {remedy}, or see docs/masks.md"
    )


def _without(expression: Expression, name: str) -> Expression | None:
    """What an expression comes to where the mask of this name is not there; None is everywhere."""
    if isinstance(expression, Name):
        return None if expression.name == name else expression
    if isinstance(expression, Dilate):
        inner = _without(expression.mask, name)
        return None if inner is None else Dilate(inner, expression.metres)
    parts = [_without(mask, name) for mask in expression.masks]
    left = tuple(part for part in parts if part is not None)
    if not left or (expression.word == "or" and len(left) < len(parts)):
        return None
    return left[0] if len(left) == 1 else Join(expression.word, left)
