"""Where the mask network expects vehicles (paper, section 4.2)."""

from __future__ import annotations

from torch import Tensor

from sbnet_perception.masks.dilate import dilate
from sbnet_perception.masks.frame import Frame, Source


def _mask(frame: Frame, dilation: float) -> Tensor:
    if frame.predicted is None:
        raise ValueError(f"predicted is missing; the mask is {frame.config.expression!r}")
    return dilate(frame.predicted, dilation, frame.grid.resolution)


PREDICTED = Source("predicted", _mask)
