"""The threshold of a mask network: chosen on drives that neither trained nor measure it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.mask_network import MaskNetwork, seen, stride_on
from sbnet_perception.detector.network import OUTPUT_STRIDE
from sbnet_perception.learning.frames import LabelledFrame
from sbnet_perception.learning.targets import make_targets

RECALL = 0.95
"""Share of the pixels at which objects are detected that a mask has to keep."""


@torch.inference_mode()
def chosen_threshold(network: MaskNetwork, frames: Iterable[LabelledFrame], detector: DetectorConfig) -> float:
    """The highest probability in (0, 1) above which `RECALL` of the frames' vehicle pixels lie, less a hundredth."""
    network = network.eval()
    grid, values = detector.raster, []
    for frame in frames:
        near = network(seen(torch.from_numpy(frame.points), grid))[0].sigmoid().numpy()
        label = make_targets(frame.boxes, frame.point_counts, frame.classes, detector.objects, grid).label
        rows, columns = np.nonzero(label > 0)
        step = stride_on(grid) // OUTPUT_STRIDE
        values.append(near[rows // step, columns // step])
    threshold = float(np.quantile(np.concatenate(values), 1 - RECALL, method="lower"))
    # Another machine rounds otherwise.
    return min(max(0.99 * threshold, 1e-4), 1 - 1e-4)
