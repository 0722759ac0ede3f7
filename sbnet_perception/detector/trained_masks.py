"""Under which masks weights were trained: what they run under, and what a user should know who wants another.

Features are 0 where nothing is computed, so a network learns what its mask leaves out. One that never saw more than a
narrow mask finds half as much under a wide one (docs/masks.md).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.weights import WeightsError, read_metadata, weights_path
from sbnet_perception.masks.config import AUTO
from sbnet_perception.masks.expression import Expression, Grown, Join, Name, parse, text_of
from sbnet_perception.masks.predicted import PREDICTED
from sbnet_perception.masks.road import ROAD
from sbnet_perception.masks.sources import EVERYWHERE
from sbnet_perception.resources import shipped
from sbnet_perception.text import one_line


def with_own_mask(config: DetectorConfig) -> DetectorConfig:
    """The configuration with a mask expression: where it is ``auto`` the first that the weights were trained under.

    Raises:
        WeightsError: it is ``auto``, and the weights are missing or damaged, or name masks that are none.
    """
    if config.mask.expression != AUTO:
        return config
    trained = masks_of(weights_path(config))
    expression = trained[0] if trained else config.mask.settled
    return replace(config, mask=replace(config.mask, expression=expression))


def without_road(config: DetectorConfig) -> DetectorConfig:
    """The configuration under the mask that its own comes to where there is no map.

    Raises:
        WeightsError: as `with_own_mask`.
    """
    config = with_own_mask(config)
    left = _without(config.mask.parsed, ROAD.name) or Name(EVERYWHERE.name)
    return replace(config, mask=replace(config.mask, expression=text_of(left)))


def masks_of(path: Path) -> list[str]:
    """The expressions of the masks that weights were trained under; none where they do not say.

    Raises:
        WeightsError: the weights are damaged, or name masks that are none.
    """
    try:
        masks = list(read_metadata(path).get("masks", ()))
        for mask in masks:
            parse(mask)
    except (TypeError, ValueError) as error:
        raise WeightsError(
            f"weights: {path} was trained under masks that this version does not know ({one_line(str(error))}); "
            "get or train it again"
        ) from None
    return masks


def remark_on_mask(config: DetectorConfig) -> str:
    """A sentence where the weights were not trained under the configured mask; empty where they were or do not say.

    Raises:
        WeightsError: the weights are missing or damaged, or name masks that are none.
    """
    path = weights_path(config)
    trained = [parse(mask) for mask in masks_of(path)]
    asked = config.mask.parsed
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
    if isinstance(expression, Grown):
        inner = _without(expression.mask, name)
        return None if inner is None else replace(expression, mask=inner)
    parts = [_without(mask, name) for mask in expression.masks]
    left = tuple(part for part in parts if part is not None)
    if not left or (expression.word == "or" and len(left) < len(parts)):
        return None
    return left[0] if len(left) == 1 else Join(expression.word, left)
