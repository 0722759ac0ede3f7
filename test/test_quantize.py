"""`sbnet quantize` and dtype int8: weights files with scales, and what the detector makes of them."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from layer_helpers import needs_ops

from sbnet_perception import cli
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.device import DeviceError, device_of
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.detector.quantized import step_of
from sbnet_perception.detector.quantized_weights import load_steps, save_steps
from sbnet_perception.detector.weights import WeightsError, load_network, read_metadata, weights_path
from sbnet_perception.learning import quantize

SHIPPED = weights_path(DetectorConfig())


@functools.cache
def scene(number):
    """A simulated scene; the first two are those that the tests quantize on."""
    return quantize.scene(quantize.FIRST_SEED + number, DetectorConfig())


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """What `sbnet quantize` makes of the shipped weights, of two scenes."""
    path = tmp_path_factory.mktemp("weights") / "new" / "quantized.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "SCENES", 2)
        simulated = [scene(0), scene(1)]
        patch.setattr(quantize, "scene", lambda seed, config: simulated[seed - quantize.FIRST_SEED])
        assert cli.main(["quantize", str(SHIPPED), str(path)]) == 0
    return path


@needs_ops
def test_int8_finds_the_boxes_that_float32_finds(quantized):
    config = DetectorConfig(weights=str(quantized), dtype="int8")
    frame = scene(77)
    pipelines = [Pipeline(replace(config, dtype=dtype)) for dtype in ("float32", "int8")]
    floats, levels = (pipeline(frame.points, frame.road).detections for pipeline in pipelines)
    assert pipelines[1].network.dtype == torch.int8 and len(levels) == len(floats) > 2
    order = [int(np.argmin(np.linalg.norm(levels.boxes[:, :2] - box[:2], axis=1))) for box in floats.boxes]
    apart = np.abs(levels.boxes[order, :6] - floats.boxes[:, :6])
    assert np.median(apart) < 0.05 and np.quantile(apart, 0.9) < 0.3
    assert np.abs(levels.scores[order] - floats.scores).max() < 0.1
    assert not np.array_equal(levels.scores, floats.scores)


def test_the_weights_of_a_quantized_file_are_those_it_was_made_from(quantized):
    states = [load_network(DetectorConfig(weights=str(path))).state_dict() for path in (SHIPPED, quantized)]
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in states), strict=True))
    about = read_metadata(quantized)
    assert about.pop("int8") == {"version": 1, "scenes": 2, "first_seed": quantize.FIRST_SEED}
    assert about == read_metadata(SHIPPED)


def test_quantizing_again_gives_the_same_file_whatever_scales_there_were(quantized, tmp_path):
    config, again = quantize.config_for(quantized), tmp_path / "again.safetensors"
    steps = quantize.steps_on(config, [scene(0), scene(1)])
    save_steps(quantized, again, steps, {"scenes": 2, "first_seed": quantize.FIRST_SEED})
    assert again.read_bytes() == quantized.read_bytes()


def test_steps_cover_what_was_seen_and_no_channel_is_forgotten():
    steps = step_of("up4", torch.tensor([8.0, 2.0, 0.0]))
    assert torch.allclose(steps * 255, torch.tensor([8.0, 4.0, 8 * 1e-3**0.5]))
    assert float(step_of("up4.skip", torch.tensor([8.0]))[0]) == pytest.approx(8 / 127)
    assert bool((step_of("up4", torch.zeros(3)) > 0).all())


def test_without_scales_the_remedy_is_the_command_that_makes_them(quantized, tmp_path):
    with pytest.raises(WeightsError, match=rf"no scales for dtype int8; make a file .*'sbnet quantize {SHIPPED} OUT"):
        Pipeline(DetectorConfig(dtype="int8"))
    network, broken = load_network(DetectorConfig()), tmp_path / "broken.safetensors"
    config = DetectorConfig(weights=str(broken), dtype="int8")
    steps = load_steps(replace(config, weights=str(quantized)), network)
    for name, step in (("up4", steps["up4"][:-1]), ("up3.skip", -steps["up3.skip"]), ("top", steps["top"].double())):
        save_steps(SHIPPED, broken, {**steps, name: step}, {})
        with pytest.raises(WeightsError, match=f"no scales of .* of {name}; make a file"):
            load_steps(config, network)
    save_steps(SHIPPED, broken, steps, {"version": 2})
    with pytest.raises(WeightsError, match="scales of another version"):
        load_steps(config, network)


def test_int8_is_for_the_cpu_alone():
    assert device_of("auto", "int8") == device_of("cpu", "int8") == torch.device("cpu")
    with pytest.raises(DeviceError, match="'int8', but device is 'cuda:0'; set device to cpu, or another dtype"):
        device_of("cuda:0", "int8")


def test_no_weights_at_all_are_an_error_of_one_line(capsys, tmp_path):
    assert cli.main(["quantize", str(tmp_path / "none.safetensors"), str(tmp_path / "out.safetensors")]) == 2
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, other)
    assert cli.main(["quantize", str(other), str(tmp_path / "out.safetensors")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "there is no file" in lines[0] and "does not say which cells" in lines[1]
    assert not Path(tmp_path / "out.safetensors").exists()
