"""Extents, resolutions and positions beyond the bounds of sbnet_perception/extents.py: every operation names the
argument at once, on every device, in plain PyTorch and while tracing."""

from __future__ import annotations

import math

import pytest
import torch
from devices import moved, on_cpu

from sbnet_perception.bev import voxelize  # noqa: F401  (defines its operation, as those below)
from sbnet_perception.blocks import Pixels
from sbnet_perception.detector import boxes  # noqa: F401
from sbnet_perception.masks import computation  # noqa: F401

POINTS = torch.zeros(4, 4)
MASK = torch.ones(1, 4, 4, dtype=torch.bool)
RASTER = MASK[0]
BLOCK = {"block_size": (2, 2), "block_stride": (2, 2), "block_offset": (0, 0)}
BLOCKS = {"indices": torch.zeros(1, 3, dtype=torch.int32), **BLOCK, "block_dilation": (1, 1)}
GRID = {"range": (0.0, 4.0, 0.0, 4.0), "resolution": 1.0, "size": (4, 4)}
RIGHT = {
    "reduce_mask": {"mask": MASK, "block_count": (2, 2), **BLOCK, "tol": 0.5, "avg": False},
    "sparse_gather": {"x": torch.ones(1, 2, 4, 4), **BLOCKS, "channels_last": True},
    "sparse_scatter": {"blocks": torch.ones(1, 2, 2, 2), "base": torch.ones(1, 2, 4, 4), **BLOCKS, "add": False},
    "tile_pyramid": {"mask": MASK, "sides": [2, 2], "strides": [1]},
    "pixel_index": {"flat": torch.arange(4), "size": (1, 4, 4)},
    "dilate": {"mask": RASTER, "half_widths": [1, 0]},
    "shadow": {"mask": RASTER, "origin": (1, 1), "steps": 2},
    "sample_raster": {"raster": RASTER, "origin": (0, 0), "per_row": (1, 0), "per_column": (0, 1), "size": (4, 4)},
    "height_above_ground": {"points": POINTS, "range": (0.0, 4.0, 0.0, 4.0)},
    "occupancy": {"points": POINTS, "low": 0.0, "high": 1.0, **GRID},
    "voxelize": {"points": POINTS, **GRID, "z_min": -2.0, "bin_height": 0.2, "bins": 30},
    "detect": {"rows": torch.zeros(4, 9), "flat": torch.arange(4), "width": 4, "place": (0.0, 0.0, 1.0)}
    | {"thresholds": [0.5], "groups": [0], "iou": 0.1, "limit": 10},
}
RIGHT["sparse_scatter_"] = RIGHT["sparse_scatter"]


def vast(value, *shape):
    """A tensor of any extent that takes no memory."""
    return torch.tensor(value).expand(*shape)


FAR, FINE = (1e300, math.inf, -math.inf, math.nan), (1e-40, 5e-324, 0.0, -1.0, math.nan)
SIDES = (*FINE, 1e-9, 1e9, math.inf)
SIZES = ((2**31 - 1, 1), (1, 2**31 - 1), (2**15, 2**15), (2**23, 1))
WRONG = {
    "reduce_mask": [
        *({"mask": vast(True, 1, *size)} for size in SIZES),
        {"mask": vast(True, 2**31, 1, 1)},
        {"mask": vast(True, 2**31 - 1, 0, 1)},
        {"block_count": (2**23, 1)},
        {"mask": vast(True, 1, 1, 2**20), "block_count": (1, 2**20), "block_size": (1, 2**20)},
        {"mask": vast(True, 1, 2**20, 1), "block_count": (2**20, 1), "block_size": (2**20, 1)},
    ],
    "sparse_gather": [
        *({"x": vast(1.0, 1, 2, *size)} for size in SIZES),
        {"block_size": (2**15, 2**15)},
        {"block_size": (2**31 - 1, 1)},
    ],
    "sparse_scatter": [{"base": vast(1.0, 1, 2, *size)} for size in SIZES],
    "tile_pyramid": [
        *({"mask": vast(True, 1, *size)} for size in SIZES),
        {"sides": [2, 2] * 65, "strides": [1] * 65},
    ],
    "pixel_index": [{"size": (1, *size)} for size in SIZES] + [{"size": (1, -1, 4)}, {"size": (2**31, 2**31, 0)}],
    "dilate": [
        *({"mask": vast(True, *size)} for size in SIZES),
        {"mask": vast(True, 2**21, 64), "half_widths": [1] * 2**14},
    ],
    "shadow": [
        *({"mask": vast(True, *size)} for size in SIZES),
        {"origin": (0, 2**30)},
        {"mask": vast(True, 2**14, 2**14), "steps": 2**14},
    ],
    "sample_raster": [{"size": size} for size in SIZES] + [{"raster": vast(True, *size)} for size in SIZES],
    "height_above_ground": [{"range": (0.0, far, 0.0, 4.0)} for far in (1e300, -1e9, math.nan)],
    "occupancy": [
        *({"resolution": side} for side in SIDES),
        *({"range": (far, 4.0, 0.0, 4.0)} for far in FAR),
        *({"size": size} for size in SIZES),
        {"low": math.nan},
        {"high": 1e300},
    ],
    "detect": [
        *({"place": (0.0, 0.0, side)} for side in SIDES),
        *({"place": (0.0, far, 1.0)} for far in FAR),
        {"limit": 2**31 - 1},
        {"limit": -1},
        {"width": 2**40},
        {"width": 0},
        {"thresholds": [math.nan]},
    ],
}
WRONG["sparse_scatter_"] = WRONG["sparse_scatter"]
WRONG["voxelize"] = [row for row in WRONG["occupancy"] if not {"low", "high"} & set(row)]
WRONG["voxelize"] += [{"bin_height": side} for side in SIDES] + [{"z_min": far} for far in FAR] + [{"bins": 62}]
OWN_DEVICE = {"pixel_index"}  # of a GPU alone: the CPU's index is made in PyTorch


def refuses(operation, arguments, name):
    with pytest.raises((ValueError, RuntimeError), match=name):
        operation(**arguments)


@pytest.mark.parametrize("name", sorted(WRONG))
def test_what_is_beyond_the_bounds_is_refused_at_once_by_the_kernel_the_plain_form_and_the_tracer(device, name):
    operation, plain = (getattr(torch.ops.sbnet, f"{name}{form}") for form in ("", "_plain"))
    right = {key: moved(value, device) if torch.is_tensor(value) else value for key, value in RIGHT[name].items()}
    operation(**right)
    for changed in WRONG[name]:
        (named, value) = next(reversed(changed.items()))
        if torch.is_tensor(value):
            changed = {named: value.to(device) if device.type == "cpu" else moved(value, device)}
        wrong = right | changed
        refuses(operation, wrong, named)
        refuses(plain, wrong, named)
        with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fakes = {key: mode.from_tensor(item) if torch.is_tensor(item) else item for key, item in wrong.items()}
            if name != "sparse_gather" or "block_size" not in changed:  # how many blocks is unknown while tracing
                refuses(operation, fakes, named)


def test_extents_at_the_bounds_are_computed(device):
    tall, wide = (torch.zeros(shape, dtype=torch.bool, device=device) for shape in ((2**12, 1), (1, 2**18)))
    for mask in (tall, wide):
        lists = torch.ops.sbnet.tile_pyramid(mask[None], [2**31 - 1, 2**31 - 1], [2**31 - 1])
        assert len(lists[0]) == 0
        mask[-1, -1] = True
        assert len(torch.ops.sbnet.tile_pyramid(mask[None], [2**31 - 1, 2**31 - 1], [2**31 - 1])[0]) == 1
        assert torch.ops.sbnet.dilate(mask, [2**31 - 1] * 2**12).all()
    tall[0, 0] = True
    assert torch.ops.sbnet.shadow(tall, (-(2**29), 1), 2**31 - 1).all()


@on_cpu
@pytest.mark.parametrize("flat", [[3, 1], [1, 1], [-1, 2], [3, 16], [2**62]])
def test_pixels_out_of_order_or_beyond_their_maps_are_refused(flat):
    with pytest.raises(ValueError, match="pixel_index: flat must increase, from 0 to 15"):
        Pixels.from_flat(torch.tensor(flat), (1, 4, 4))


@on_cpu
def test_layers_refuse_maps_and_results_beyond_the_bounds():
    conv, nothing = torch.ops.sbnet.conv, Pixels.from_flat(torch.arange(0), (1, 4, 4)).lists
    norm, weight = torch.ones(2, 1), torch.ones(1, 1, 1, 1)
    for size in SIZES:
        with pytest.raises(RuntimeError, match="conv: size is too large"):
            conv(torch.ones(0, 1), nothing, (1, *size), nothing, 1, True, weight, norm)
    vast_weight = vast(1.0, 2**16, 2**16, 3, 3)
    with pytest.raises(RuntimeError, match="pack_weights: weight is too large"):
        torch.ops.sbnet.pack_weights(vast_weight, torch.ones(0))
