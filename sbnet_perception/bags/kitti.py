"""KITTI point clouds to a bag: the object benchmark's folder, or one raw drive.

Sources: the layouts of the KITTI development kits. A cloud is float32 x, y, z, reflectance (0-1) in the
velodyne frame, which is above the ground.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.progress import track

from sbnet_perception.bags.messages import point_cloud2, shift, tf_message, transform
from sbnet_perception.bags.writer import BagWriter
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets import DATA_SETS

PERIOD_NS = 100_000_000
# The object benchmark has no stamps: its frames are laid out at 10 Hz from the day of its first drive.
START_NS = int(datetime(2011, 9, 26, 10, tzinfo=timezone.utc).timestamp()) * 10**9


def convert(root: Path, writer: BagWriter) -> list[str]:
    """Writes /points in the frame velodyne and /tf_static base_link -> velodyne.

    Returns:
        What the bag lacks, one sentence each.

    Raises:
        UserError: the folder has no cloud in a known layout, or a file is damaged.
    """
    clouds = _find_clouds(root)
    start = clouds[0][0]
    static = transform("base_link", "velodyne", shift(DATA_SETS["kitti"].height), start)
    writer.write("/tf_static", tf_message([static]), start)
    for stamp, path in track(clouds, f"KITTI {root.name}"):
        writer.write("/points", point_cloud2(_read_cloud(path), "velodyne", stamp), stamp)
    return ["KITTI has no map: the bag has no /road_mask"]


def _find_clouds(root: Path) -> list[tuple[int, Path]]:
    """(stamp in ns, file), ascending."""
    benchmark = sorted((root / "training" / "velodyne").glob("*.bin"))
    if benchmark:
        return [(START_NS + i * PERIOD_NS, path) for i, path in enumerate(benchmark)]
    drive = sorted((root / "velodyne_points" / "data").glob("*.bin"))
    if drive:
        return sorted(zip(_drive_stamps(root / "velodyne_points" / "timestamps.txt", drive), drive, strict=True))
    raise UserError(
        f"{root} has no KITTI cloud: neither training/velodyne/*.bin nor velodyne_points/data/*.bin is there"
    )


def _drive_stamps(path: Path, clouds: list[Path]) -> list[int]:
    """One stamp for each cloud; the number in a cloud's name is its line in the file."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [_nanoseconds(lines[int(cloud.stem)]) for cloud in clouds]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; a raw drive needs it") from error
    except (ValueError, IndexError) as error:
        raise UserError(f"{path} has no stamp for every cloud in data/: {error}") from error


def _nanoseconds(text: str) -> int:
    """'2011-09-26 13:02:25.594360375' as nanoseconds, taken as UTC."""
    whole, _, fraction = text.strip().partition(".")
    seconds = datetime.strptime(whole, "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
    return int(seconds) * 10**9 + int(fraction.ljust(9, "0")[:9])


def _read_cloud(path: Path) -> npt.NDArray[np.float32]:
    """float32 [P, 4] x, y, z, intensity 0-1."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if not data or len(data) % 16:
        raise UserError(f"{path} is no KITTI cloud: {len(data)} bytes are not a number of 16-byte points")
    return np.frombuffer(data, dtype="<f4").reshape(-1, 4)
