"""Bytes and messages for every decoder: right ones, damaged."""

from __future__ import annotations

import contextlib
import math
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from draw import FLOATS, INTEGERS, Draw
from safetensors.torch import save

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.weights import WeightsError, load_network
from sbnet_perception.masks.expression import parse
from sbnet_perception.masks.road import RoadView
from sbnet_perception.messages.cdr import CdrWriter
from sbnet_perception.messages.occupancy_grid import MaskError, road_from_occupancy_grid
from sbnet_perception.messages.pointcloud2 import read_points
from sbnet_perception.messages.raw_cloud import CloudError
from sbnet_perception.text import one_line, quoted

FIELDS = ("x", "y", "z", "intensity", "ring", "time", "", "\x1b[2J", "x\n[FATAL]")
GRID = Grid(0.0, 16.0, -8.0, 8.0, 0.5)


def _cloud(d: Draw) -> bytearray:
    """CDR of a cloud: mostly x, y, z, intensity; any datatype, offset and step."""
    count, step = d.random.randint(0, 30), d.random.choice((12, 16, 22, 32))
    out = CdrWriter()
    out.numbers(struct.Struct("<iI"), 4, d.random.randint(0, 2**31 - 1), d.random.randint(0, 2**32 - 1))
    out.string(d.one_of((b"lidar", b"", b"\xff", b"a" * 254)))
    names = FIELDS[:4] if d.chance(0.6) else d.random.sample(FIELDS, d.random.randint(0, len(FIELDS)))
    height = d.one_of((1, 1, 2, 3))
    out.numbers(struct.Struct("<3I"), 4, height, count, len(names))
    for place, name in enumerate(names):
        out.string(name.encode())
        out.numbers(struct.Struct("<I"), 4, 4 * place if d.chance(0.9) else d.random.randint(0, 40))
        out.numbers(struct.Struct("<B"), 1, 7 if d.chance(0.8) else d.random.randint(0, 9))
        out.numbers(struct.Struct("<I"), 4, 1)
    out.numbers(struct.Struct("<?"), 1, d.chance(0.2))
    row = step * count + (d.random.randint(0, 9) if d.chance(0.2) else 0)
    out.numbers(struct.Struct("<2I"), 4, step, row)
    out.data(d.random.randbytes(row * height))
    out.numbers(struct.Struct("<?"), 1, True)
    return bytearray(out.message())


def damaged(d: Draw, raw: bytearray) -> bytes:
    """A few bytes are changed, cut out or put in; a number somewhere is a hostile one."""
    for _ in range(d.random.randint(0, 4)):
        at = d.random.randrange(len(raw) + 1)
        kind = d.random.randrange(6)
        if kind == 0:
            raw[at : at + 1] = d.random.randbytes(1)
        elif kind == 1:
            raw[at & ~3 : (at & ~3) + 4] = struct.pack("<I", d.one_of(INTEGERS) & 0xFFFFFFFF)
        elif kind == 2:
            raw[at & ~3 : (at & ~3) + 4] = struct.pack("<f", np.float32(d.one_of(FLOATS[3:6] + FLOATS[9:])))
        elif kind == 3:
            del raw[at:]
        elif kind == 4:
            del raw[at : at + d.random.randint(1, 8)]
        else:
            raw[at:at] = d.random.randbytes(d.random.randint(1, 8))
        if not raw:
            break
    return bytes(raw)


def _printable(error: Exception) -> None:
    assert str(error).isprintable(), f"a message that forges lines: {error!r}"
    assert len(str(error)) < 3000, f"a message of {len(str(error))} characters"


def cloud(d: Draw) -> None:
    """PointCloud2 from bytes to points."""
    raw = damaged(d, _cloud(d))
    scale = d.one_of((None, 1.0, 255.0))
    try:
        found = read_points(raw, d.one_of(("zero", "reject")), scale, d.random.randint(1, 40))
    except CloudError as error:
        _printable(error)
        return
    assert found.points.dtype == np.float32 and found.points.shape[1:] == (4,) and np.isfinite(found.points).all()
    assert all(map(str.isprintable, found.warnings))


def road_mask(d: Draw) -> None:
    """OccupancyGrid to road, laid beneath a grid anywhere."""
    height, width = d.random.randint(0, 9), d.random.randint(0, 9)
    x, y, z = (d.number(-9, 9) for _ in "xyz")
    turn = d.number(-4, 4)
    about_z = (0.0, 0.0, math.sin(turn / 2), math.cos(turn / 2)) if math.isfinite(turn) else (0.0, 0.0, 0.0, turn)
    quaternion = about_z if d.chance(0.8) else (*d.numbers(4, -1, 1), 0.0)[:4]
    pose = SimpleNamespace(
        position=SimpleNamespace(x=x, y=y, z=z),
        orientation=SimpleNamespace(**dict(zip("xyzw", quaternion, strict=False))),
    )
    if len(vars(pose.orientation)) < 4:
        return
    info = SimpleNamespace(width=width, height=height, resolution=d.number(0.05, 3.0), origin=pose)
    if d.chance(0.1):
        info.width = d.one_of(INTEGERS) & 0xFFFFFFFF
    data = np.frombuffer(d.random.randbytes(height * width), np.int8)
    header = SimpleNamespace(frame_id=d.one_of(("map", "", "m" * 300, "\x1b[2J")))
    try:
        road = road_from_occupancy_grid(SimpleNamespace(header=header, info=info, data=data), d.chance(0.5))
    except MaskError as error:
        _printable(error)
        return
    with contextlib.suppress(ValueError):
        view = RoadView(road, SE2(d.number(-30, 30), d.number(-30, 30), d.number(-4, 4)))
        assert 0 <= view.coverage(GRID) <= 1
        view.has_road(GRID)


_FOLDER = tempfile.TemporaryDirectory(prefix="sbnet-fuzz-")


def weights(d: Draw) -> None:
    """A weights file whose bytes are damaged."""
    path = Path(_FOLDER.name) / "weights.safetensors"
    about = d.one_of(
        ('{"network":{},"notes":{},"cell_size":0.2,"classes":[{"name":"vehicle"}]}', "[" * 5000, "null", "{}")
    )
    path.write_bytes(damaged(d, bytearray(save({"x": torch.ones(2)}, metadata={"sbnet_perception": about}))))
    try:
        load_network(DetectorConfig(weights=str(path)))
    except WeightsError as error:
        _printable(error)


def expression(d: Draw) -> None:
    """A mask expression of any words."""
    words = (
        "road",
        "occupancy",
        "and",
        "or",
        "(",
        ")",
        "dilate",
        "shadow",
        ",",
        "0.5",
        "-1",
        "1e999",
        "nan",
        "not",
        "\n",
        "everywhere",
        "x" * 40,
    )
    with contextlib.suppress(ValueError):
        parse(" ".join(d.one_of(words) for _ in range(d.random.randint(0, 12))))


def text(d: Draw) -> None:
    """Any text, shown."""
    found = "".join(
        chr(d.random.randrange(0x110000)) if d.chance(0.5) else "\x1b" for _ in range(d.random.randint(0, 200))
    )
    assert quoted(found).isprintable() and one_line(found).isprintable()


TARGETS: dict[str, Callable[[Draw], None]] = {
    "cloud": cloud, "road mask": road_mask, "weights": weights, "expression": expression, "text": text,
}  # fmt: skip
