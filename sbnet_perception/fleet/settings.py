"""What a fleet detects with: the parameters of the node, given as for the node, and what identifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sbnet_perception import __version__
from sbnet_perception.desk.given import typed
from sbnet_perception.desk.session import NODE
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.mask_weights import mask_weights_path
from sbnet_perception.detector.trained_masks import with_own_mask
from sbnet_perception.detector.weights import weights_path
from sbnet_perception.errors import UserError
from sbnet_perception.masks.predicted import PREDICTED
from sbnet_perception.node.parameters import SPECIFICATIONS, NodeConfig, ParameterError, build
from sbnet_perception.node.params_file import parameters_in


@dataclass(frozen=True)
class Settings:
    """What each bag is detected with.

    Attributes:
        node, detector: the configuration of the node. An empty ``grid_frame`` is chosen for each bag, as replay does.
        points_topic, road_mask_topic, tf_namespace: names in the bags; None = found by type and name.
    """

    node: NodeConfig
    detector: DetectorConfig
    points_topic: str | None = None
    road_mask_topic: str | None = None
    tf_namespace: str | None = None

    @cached_property
    def computed(self) -> DetectorConfig:
        """The detector as every worker has it: on a GPU only where that is asked for by name, all in one dtype."""
        device = self.detector.device if self.detector.device.startswith("cuda") else "cpu"
        dtype = self.detector.dtype
        if dtype == "auto":
            dtype = "float32" if device == "cpu" else "bfloat16"
        return replace(self.detector, device=device, dtype=dtype)

    @cached_property
    def digest(self) -> str:
        """Equal for settings that give equal detections: of all but where and with how many threads it is
        computed; the dtype is the resolved one."""
        files = [weights_path(self.detector)]
        if PREDICTED.name in with_own_mask(self.detector).mask.names:
            files.append(mask_weights_path(self.detector))
        mask = replace(self.detector.mask, weights="")
        detector = replace(self.computed, weights="", mask=mask, device="cpu", threads=0)
        told = repr((__version__, self.node, detector, self.points_topic, self.road_mask_topic, self.tf_namespace))
        digest = hashlib.sha256(told.encode())
        for file in files:
            digest.update(file.read_bytes())
        return digest.hexdigest()[:16]


def configuration(given: Mapping[str, object], file: Path | None) -> tuple[NodeConfig, DetectorConfig]:
    """The configuration of a node with these parameters.

    Args:
        given: texts of values by name, as after ``-p``; they win over the file.
        file: a ROS parameter file; what it has for the node ``/sbnet`` counts.

    Raises:
        UserError: a parameter is unknown or unusable, or the file cannot be read.
    """
    values: dict[str, Any] = {name: spec.default for name, spec in SPECIFICATIONS.items()}
    of_file = {} if file is None else parameters_in(file, NODE)
    of_line = {name: typed(str(text)) for name, text in given.items()}
    try:
        for name, value in {**of_file, **of_line}.items():
            if name in SPECIFICATIONS:
                values[name] = SPECIFICATIONS[name].check(value)
            elif name != "use_sim_time":
                raise ParameterError(f"parameter {name!r} is not known; config/sbnet.yaml lists all")
        return build(NodeConfig, values), build(DetectorConfig, values)
    except ParameterError as error:
        raise UserError(str(error)) from error
