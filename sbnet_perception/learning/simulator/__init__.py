"""LiDAR driving simulator: independent random scenes for training, and drives with consistent tracks."""

from .drive import Drive
from .scene import sample_scene
from .types import SimulatedFrame

__all__ = ["Drive", "SimulatedFrame", "sample_scene"]
