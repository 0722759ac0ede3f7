"""What an estimated sensor is like: a table beside the nearest known one, a picture beside the simulated one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.table import Table

from sbnet_perception.learning.sensor import KnownSensor, SensorEstimate
from sbnet_perception.learning.sensor.ground import ground_plane, simulated_ground
from sbnet_perception.learning.sensor.matching import LEVELS, intensity_curve, simulated_cloud
from sbnet_perception.learning.sensor.stand import Stand
from sbnet_perception.learning.simulator.sensors import SENSORS, SensorModel, rotation

SHOWN = (-20.0, 60.0, -30.0, 30.0)
"""Region of the picture, metres."""
HEIGHTS = (-0.3, 3.0)
"""That the colours span, metres above the ground."""
SEED = 7_100_001


def nearest_known(sensor: SensorModel) -> SensorModel:
    """The simulator's sensor whose beams and azimuth step are the most alike."""
    levels = np.linspace(0, 1, 33)

    def unlike(other: SensorModel) -> float:
        beams = np.abs(np.quantile(sensor.elevations, levels) - np.quantile(other.elevations, levels)).mean()
        counts = np.log(len(sensor.elevations) / len(other.elevations))
        return float(beams + abs(counts) + abs(np.log(sensor.azimuth_step / other.azimuth_step)))

    return min(SENSORS.values(), key=unlike)


def sensor_table(estimate: SensorEstimate, known: KnownSensor) -> Table:
    """The estimate beside the nearest known sensor."""
    own, other = known.model, nearest_known(known.model)
    table = Table(title=f"the sensor, of {estimate.clouds} clouds of {estimate.points} points")
    for column in ("", "estimated", f"simulator's {other.name}"):
        table.add_column(column)
    beams = str(len(own.elevations)) if known.rings else f"none found: {len(own.elevations)} random ones a scene"
    table.add_row("beams", beams, str(len(other.elevations)))
    table.add_row("points that they explain", f"{100 * estimate.share:.0f} %", "")
    for name, show in _ROWS:
        table.add_row(name, show(own), show(other))
    x, y, z = estimate.origin
    table.add_row("place in the clouds' frame", f"{x:.2f}, {y:.2f}, {z:.2f} m", "")
    if estimate.drift:
        table.add_row("clouds corrected for motion", f"{abs(estimate.drift):.2f} m a revolution", "")
    return table


def _pair(values: tuple[float, float], unit: str) -> str:
    return f"{values[0]:.1f}, {values[1]:.1f} {unit}"


_ROWS = (
    ("lowest, highest beam", lambda s: f"{s.elevations.min():.2f}, {s.elevations.max():.2f} deg"),
    ("closest beams", lambda s: f"{np.diff(np.sort(s.elevations)).min():.2f} deg"),
    ("heights of lasers", lambda s: f"{s.offsets.min():.2f} to {s.offsets.max():.2f} m"),
    ("azimuth step", lambda s: f"{s.azimuth_step:.3f} deg"),
    ("field of view", lambda s: _pair(s.field_of_view, "deg")),
    ("height over the ground", lambda s: f"{s.mount[2]:.2f} m"),
    ("roll, pitch of the axis", lambda s: _pair(s.tilt, "deg")),
    ("roll, pitch of the clouds' frame", lambda s: _pair(s.tilt_error, "deg")),
    ("reach", lambda s: f"{s.reach:.0f} m"),
    ("range noise", lambda s: f"{100 * s.range_noise:.1f} cm"),
    ("lost near by", lambda s: f"{100 * s.loss:.1f} %"),
    ("power at which half is lost", lambda s: f"{s.threshold:.1e}"),
    ("intensity: gain, gamma, floor", lambda s: f"{s.gain:.2f}, {s.gamma:.2f}, {s.floor:.0f}"),
)


def draw_comparison(
    clouds: list[NDArray[np.float32]], estimate: SensorEstimate, known: KnownSensor, path: Path
) -> None:
    """A real cloud beside a simulated one from above, and the elevations and intensities of both."""
    ground = ground_plane(clouds)
    real = clouds[len(clouds) // 2]
    simulated = simulated_cloud(known.model, SEED, SHOWN)
    turn = rotation(known.model.tilt_error)
    there = Stand(turn @ np.array(known.model.mount), turn @ rotation(known.model.tilt)[:, 2])
    figure = Figure(figsize=(14, 9), layout="constrained")
    views = figure.subplots(2, 2)
    _draw_points(views[0, 0], real, ground.height(real), "real")
    height = simulated_ground([simulated], turn[:, 2]).height(simulated)
    _draw_points(views[0, 1], simulated, height, "simulated")
    for points, stand, name in ((real, estimate.stand, "real"), (simulated, there, "simulated")):
        x_min, x_max, y_min, y_max = SHOWN
        x, y = points[:, 0], points[:, 1]
        inside = points[(x > x_min) & (x < x_max) & (y > y_min) & (y < y_max)]
        elevation = stand.elevation(inside)
        views[1, 0].hist(elevation, bins=np.arange(-30, 20, 0.05), histtype="step", label=name)
        views[1, 1].plot(LEVELS, intensity_curve([points]), label=f"{name}, this cloud")
    views[1, 1].plot(LEVELS, estimate.curve, "k:", label="real, all clouds")
    views[1, 0].set(xlabel="elevation from the sensor [degrees]", ylabel="points", yscale="log")
    views[1, 1].set(xlabel="percentile", ylabel="intensity")
    for view in views[1]:
        view.legend()
    FigureCanvasAgg(figure).print_png(str(path))


def _draw_points(view: Axes, points: NDArray[np.float32], height: NDArray, title: str) -> None:
    order = np.argsort(height, kind="stable")
    low, high = HEIGHTS
    view.scatter(points[order, 0], points[order, 1], c=height[order], s=0.4, cmap="turbo", vmin=low, vmax=high)
    view.set(xlim=SHOWN[:2], ylim=SHOWN[2:], aspect="equal", title=title, xlabel="x [m]", ylabel="y [m]")
