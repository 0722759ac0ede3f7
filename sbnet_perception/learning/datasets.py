"""Where public data sets mount their LiDAR."""

from __future__ import annotations

SENSOR_HEIGHT = {"av2": 0.33, "nuscenes": 0.0, "kitti": 1.73}
"""Data set -> metres from the ground up to the origin of its clouds; frames of nuScenes are stored with z = 0 there."""
