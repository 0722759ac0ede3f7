"""A user's own sensor: estimated from unlabelled clouds, simulated, kept in a file."""

from .estimate import SensorEstimate, estimate_sensor
from .known import KnownSensor, read_sensor

__all__ = ["KnownSensor", "SensorEstimate", "estimate_sensor", "read_sensor"]
