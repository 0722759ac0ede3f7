"""A user's own sensor in the simulator: how it differs a little from scene to scene, and its file."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from sbnet_perception.errors import UserError
from sbnet_perception.learning.simulator.sensors import SensorModel, randomised_sensor


@dataclass(frozen=True)
class KnownSensor:
    """What `sample_scene` simulates: mostly this sensor, a little varied, sometimes any other.

    Attributes:
        model: the sensor.
        rings: its beams are these. Otherwise ``model.elevations`` are quantiles, and each scene draws as many anew.
        others: share of the scenes with `randomised_sensor`, so that what was learned of these is not lost.
    """

    model: SensorModel
    rings: bool = True
    others: float = 0.2

    def __call__(self, rng: np.random.Generator) -> SensorModel:
        if rng.random() < self.others:
            return randomised_sensor(rng)
        model, beams = self.model, len(self.model.elevations)
        elevations = model.elevations + rng.normal(0, 0.03, beams)
        if not self.rings:
            elevations = np.sort(np.interp(rng.random(beams), np.linspace(0, 1, beams), model.elevations))
        x, y, z = np.array(model.mount) + rng.normal(0, (0.2, 0.05, 0.05))
        roll, pitch = np.array(model.tilt) + rng.normal(0, 0.3, 2)
        error_roll, error_pitch = np.array(model.tilt_error) + rng.normal(0, 0.3, 2)
        return replace(
            model,
            elevations=elevations,
            mount=(float(x), float(y), float(z)),
            tilt=(float(roll), float(pitch)),
            tilt_error=(float(error_roll), float(error_pitch)),
            range_noise=model.range_noise * rng.uniform(0.7, 1.5),
            threshold=model.threshold * float(np.exp(rng.normal(0, 0.4))),
            gain=model.gain * float(np.exp(rng.normal(0, 0.15))),
            gamma=model.gamma * rng.uniform(0.85, 1.15),
            loss=min(model.loss * rng.uniform(0.5, 2.0), 0.9),
            # What the clouds do not tell.
            beam_bias=rng.uniform(0.0, 0.015),
            mixing=rng.uniform(0.0, 0.3),
            drift=rng.uniform(-1.0, 1.0) * float(rng.random() < 0.4),
        )

    def write(self, path: Path) -> None:
        """As JSON; `read_sensor` reads it back."""
        values = {item.name: getattr(self.model, item.name) for item in fields(SensorModel)}
        values |= {name: value.tolist() for name, value in values.items() if isinstance(value, np.ndarray)}
        path.write_text(json.dumps({"rings": self.rings, "others": self.others, **values}, indent=1) + "\n")


def read_sensor(path: Path) -> KnownSensor:
    """The sensor that `KnownSensor.write` wrote.

    Raises:
        UserError: it is not there, or not such a file.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        kind, others = bool(values.pop("rings")), float(values.pop("others"))
        values["elevations"] = np.array(values["elevations"], np.float64)
        values["offsets"] = np.array(values["offsets"], np.float32)
        values |= {name: _tuples(value) for name, value in values.items() if isinstance(value, list)}
        model = SensorModel(**values)
        if model.elevations.ndim != 1 or not len(model.elevations) or model.elevations.shape != model.offsets.shape:
            raise ValueError("elevations and offsets must be as many numbers, at least one")
        if not model.azimuth_step > 0:
            raise ValueError(f"azimuth_step must be positive, is {model.azimuth_step}")
    except OSError as error:
        raise UserError(f"the sensor {path} cannot be read: {error.strerror}; make one with `sbnet adapt`") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is no sensor: {error}; make one with `sbnet adapt`") from error
    return KnownSensor(model, kind, others)


def _tuples(value: object) -> object:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
