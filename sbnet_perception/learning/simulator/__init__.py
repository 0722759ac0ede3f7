"""LiDAR driving simulator: independent random scenes for training, and drives with consistent tracks."""

from .scene import sample_scene
from .types import SimulatedFrame

__all__ = ["SimulatedFrame", "sample_scene"]
