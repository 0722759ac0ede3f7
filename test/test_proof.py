"""A GPU is used only where it computes what the CPU does: two made frames prove it at configure.

The device ``shim`` stands for the GPU: what the CPU makes of the frames is computed before its kernels are in place.
"""

from __future__ import annotations

import re
import warnings
from functools import partial

import pytest
import torch
from devices import operations_on

from sbnet_perception.bev import voxelize
from sbnet_perception.blocks import layer_ops, tiles
from sbnet_perception.detector import frame, gpu, pipeline, proof
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.device import CPU, DeviceError
from sbnet_perception.detector.weights import load_network
from sbnet_perception.masks import dilate
from sbnet_perception.masks.config import MaskConfig

MASK = MaskConfig("dilate(road, 0.5) and (dilate(occupancy, 0.5) or external)")


def config(device="cpu", dtype="bfloat16"):
    return DetectorConfig(region=(0.0, 12.8, -6.4, 6.4), device=device, dtype=dtype, mask=MASK, score_threshold=0.2)


@pytest.fixture(scope="module")
def of_the_cpu():
    return proof.on_cpu(load_network(config()), config())


@pytest.fixture
def usable(of_the_cpu, monkeypatch):
    """A GPU that is there, and its kernels."""
    monkeypatch.setattr(pipeline, "TRUSTED", ())
    monkeypatch.setattr(pipeline, "device_of", lambda name, dtype: torch.device("cpu", 0))
    monkeypatch.setattr(proof, "on_cpu", lambda network, config: of_the_cpu)
    monkeypatch.setattr(gpu, "FEWEST_POINTS", 1024)
    with operations_on("shim"):
        yield monkeypatch


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_gpu_that_computes_what_the_cpu_does_is_used(usable, of_the_cpu, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pipeline.Pipeline(config("auto", dtype)).device != CPU
    assert min(len(computed.rows) for computed in of_the_cpu) > 50
    assert min(int(computed.found[3]) for computed in of_the_cpu) > 1


def cell_more(operation, *arguments):
    mask = operation(*arguments)
    mask[9, 9] ^= True
    return mask


def tile_more(operation, mask, *others):
    mask = mask.clone()
    mask[0, 17, 59] ^= True
    return operation(mask, *others)


def other_bit(operation, *arguments):
    flat, bits, *others = operation(*arguments)
    bits[3] ^= 1 << 8
    return [flat, bits, *others]


def row_missing(operation, *arguments):
    result = operation(*arguments)
    result[0] = 0
    return result


def a_centimetre_aside(operation, *arguments):
    boxes, *others = operation(*arguments)
    boxes[:, 1] += 0.01
    return boxes, *others


def fail(*arguments):
    raise torch.AcceleratorError("CUDA error: an illegal instruction was encountered\nadvice to programmers")


MISTAKES = [
    (dilate, "_DILATE", cell_more, r"made frame 1: the computation mask differs in \d+ of 4096 cells"),
    (tiles, "_TILE_PYRAMID", tile_more, r"made frame \d: conv-1 has \d+ pixels, \d+ on the CPU, \d+ of them the same"),
    (voxelize, "_VOXELIZE", other_bit, r"made frame 1: 1 of \d+ voxels differ"),
    (layer_ops, "_RESIDUAL_UNITS", row_missing, r"made .*: the network's outputs are up to \S+ .*, more than 0.25"),
    (frame, "detect", a_centimetre_aside, r"made frame 1: of \d boxes 0 are among the \d that the CPU makes of the .*"),
    (layer_ops, "_CONV", fail, r"AcceleratorError: CUDA error: an illegal instruction was encountered"),
]


@pytest.mark.parametrize(("module", "operation", "mistake", "says"), MISTAKES, ids=[what[1] for what in MISTAKES])
def test_one_that_computes_something_else_or_fails_is_refused(usable, module, operation, mistake, says):
    usable.setattr(module, operation, partial(mistake, getattr(module, operation)))
    sentence = f"device is 'cuda', but cpu:0 does not compute what the CPU does \\({says}\\); tools/gpu_check .*to cpu"
    with pytest.raises(DeviceError) as refused:
        pipeline.Pipeline(config("cuda"))
    assert re.fullmatch(sentence, str(refused.value)), refused.value


def test_auto_then_takes_the_cpu_with_one_warning(usable):
    usable.setattr(layer_ops, "_CONV", fail)
    with pytest.warns(RuntimeWarning) as said:
        assert pipeline.Pipeline(config("auto")).device == CPU
    (sentence,) = (str(remark.message) for remark in said)
    assert re.match(r"computing on the CPU: cpu:0 does not compute what.*\(Accelerator.*\); tools/gpu_check", sentence)
