"""How the points of a sensor_msgs/PointCloud2 lie in its data, by what the message says where that can be true."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sbnet_perception.messages.raw_cloud import CloudError


@dataclass(frozen=True)
class Layout:
    """Rows of points: numbers of points and of bytes."""

    height: int
    width: int
    point_step: int
    row_step: int

    @property
    def count(self) -> int:
        return self.height * self.width


def layout_of(msg: Any, size: int) -> tuple[Layout, list[str]]:
    """The layout of `size` bytes of data, and a warning where the message contradicts itself.

    Some drivers leave row_step or height at 0, or fill in a wrong row_step. Where the data are as long as the points
    alone, the other numbers tell it all, and RViz and PCL show such a cloud.

    Raises:
        CloudError: truncated data, or numbers that contradict each other and leave open what is meant.
    """
    height, width = int(msg.height), int(msg.width)
    point_step, row_step = int(msg.point_step), int(msg.row_step)
    if not size and not height * width:
        return Layout(height, width, point_step, row_step), []
    if not height * width:
        points = height + width
        if points and point_step > 0 and size == points * point_step:
            warning = f"width {width} x height {height} is no point; the data are {points} points, taken as one row"
            return Layout(1, points, point_step, size), [warning]
        raise CloudError(f"width {width} x height {height} is no point, but data holds {size} bytes")
    if point_step <= 0:
        raise CloudError(f"point_step is {point_step} for {width * height} points")
    packed = width * point_step
    if size == height * packed and row_step != packed:
        warning = f"row_step {row_step} is wrong: the data are {height} rows of {packed} bytes, and so they are read"
        return Layout(height, width, point_step, packed), [warning]
    if row_step < packed:
        raise CloudError(f"row_step {row_step} is less than width {width} x point_step {point_step} = {packed}")
    if size < height * row_step:
        raise CloudError(
            f"truncated: data holds {size} bytes, height {height} x row_step {row_step} = {height * row_step}"
        )
    return Layout(height, width, point_step, row_step), []
