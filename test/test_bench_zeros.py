"""`sbnet bench zeros`: what it watches is the detector, what it counts is there, and what it times is the product."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from bench_helpers import tiny_detector, tiny_weights

from sbnet_perception.bench import zeros
from sbnet_perception.bench.zeros_copies import low_bit_inputs, low_bit_weights
from sbnet_perception.bench.zeros_header import computed_shares
from sbnet_perception.bench.zeros_network import Shape, Watch, watched
from sbnet_perception.bench.zeros_page import pays_from
from sbnet_perception.bench.zeros_product import GROUPS, Product, compiled
from sbnet_perception.bench.zeros_shares import Counts, Skip
from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.voxelize import voxels
from sbnet_perception.blocks import Pixels
from sbnet_perception.cli import main
from sbnet_perception.learning.frames import drive_frames

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")


class Names(Watch):
    """Keeps which layers it saw, and how many of their outputs were zero."""

    def __init__(self) -> None:
        self.zeros: dict[str, float] = {}

    def see(self, layer, exact, copies):
        self.zeros[layer.name] = float((exact == 0).float().mean())
        return exact


@pytest.fixture(scope="module")
def frame():
    """A voxelized cloud and the mask around its points."""
    rng, grid = np.random.default_rng(0), Grid.named("compact")
    points = rng.uniform((5, -10, 0, 0), (30, 10, 2, 1), (2000, 4)).astype(np.float32)
    mask = torch.zeros(grid.shape, dtype=torch.bool)
    mask[40:160, 20:130] = torch.from_numpy(rng.random((120, 110)) < 0.2)
    return voxels(torch.from_numpy(points), grid), mask


@torch.inference_mode()
def test_the_watched_network_is_the_detector_and_shows_every_convolution_before_a_relu(frame):
    bev, mask = frame
    network, names = tiny_detector(), Names()
    expected = network(bev, mask[None]).rows
    plain = watched(network, names)
    assert torch.allclose(plain.predict(bev, plain.tiles(mask)).rows, expected, atol=1e-4)
    units = [f"conv-{stage}.{unit}" for stage, units in zip((2, 3, 4, 5), (2, 1, 1, 1), strict=True)
             for unit in range(1, units + 1)]  # fmt: skip
    in_units = [f"{unit} {kernel}" for unit in units for kernel in ("1x1", "3x3")]
    assert list(names.zeros) == [
        "conv-1.1 3x3", "conv-1.2 3x3", *in_units, "top 1x1", "up-4", "up-3", "header.1 3x3",
    ]  # fmt: skip
    assert all(0.0 < share < 1.0 for share in names.zeros.values())


@torch.inference_mode()
def test_leaving_out_what_a_copy_takes_for_zero_is_harmless_with_many_bits_and_not_with_two(frame):
    bev, mask = frame
    network = tiny_detector()
    expected = network(bev, mask[None]).rows
    errors = []
    for bits in (16, 2):
        plain = watched(network, Skip(bits))
        errors.append(float((plain.predict(bev, plain.tiles(mask)).rows - expected).norm() / expected.norm()))
    assert errors[0] < 1e-3 < 0.05 < errors[1]


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_a_copy_has_evenly_spaced_numbers_and_no_more_than_its_bits_allow(bits):
    values = torch.randn((50, 60), generator=torch.Generator().manual_seed(0))
    levels = low_bit_inputs(values.relu(), bits).unique()
    assert 2 ** (bits - 1) < len(levels) <= 2**bits
    steps = levels.diff() / levels.diff().min()
    assert torch.allclose(steps, steps.round(), atol=1e-2)
    assert len(low_bit_inputs(values, bits).unique()) <= 2**bits - 1
    assert all(len(row.unique()) <= 2**bits - 1 for row in low_bit_weights(values, bits))


def test_zeros_are_counted_by_element_group_and_pixel_and_copies_by_what_they_miss_and_find():
    exact = torch.ones(4, 20)
    exact[0] = 0.0  # a whole pixel: groups of 8 + 8 + 4 channels
    exact[1, :16] = 0.0
    exact[2, 8:17] = 0.0
    copy = torch.full((4, 20), -1.0)
    copy[:2] = 1.0  # of the zeros it finds those of the last two pixels alone
    counts = Counts()
    counts.add(exact, {4: copy})
    assert counts.zero == {"element": 45, "group8": 6, "group16": 3, "pixel": 1}
    assert counts.total == {"element": 80, "group8": 12, "group16": 8, "pixel": 4}
    assert counts.missed_share(4) == pytest.approx(31 / 35)
    assert counts.found_share(4) == pytest.approx(9 / 45)


@needs_compiler
@pytest.mark.parametrize("shape", [Shape(3, 60, 20), Shape(1, 99, 37)])
def test_the_product_of_single_outputs_is_the_shipped_one_where_it_computes(shape, products):
    rng = np.random.default_rng(1)
    product = Product(products, shape, 150)
    expected = product.dense().copy()
    assert np.abs(expected).min(axis=0).max() > 0
    for share, group in ((0.0, GROUPS[0]), (0.6, GROUPS[0]), (0.0, GROUPS[1]), (0.6, GROUPS[2])):
        mask = rng.random((150, shape.outputs)) >= share
        found = product.some(mask, group)()
        assert np.allclose(found, np.where(mask, expected, found), rtol=1e-4, atol=1e-3)
        assert not np.shares_memory(found, expected)
    row = product.times(mask, rounds=1)
    assert row["dense_us"] > 0 and row["some_us"] > 0


@pytest.fixture(scope="module")
def products():
    return compiled()


def test_each_convolution_of_the_header_computes_what_the_next_one_reads():
    kept = torch.zeros(7 * 9, dtype=torch.bool)
    kept[3 * 9 + 4] = True
    assert computed_shares(Pixels.all((1, 7, 9)), kept, 4) == pytest.approx([1 / 63, 9 / 63, 25 / 63, 49 / 63])


def test_where_it_pays_lies_between_the_shares_that_were_measured():
    sweep = [{"zeros": zeros, "some_us": 4 * (1 - zeros), "copy_us": 1.0, "dense_us": 2.0} for zeros in (0, 0.4, 0.8)]
    assert pays_from(sweep, with_copy=False) == pytest.approx(0.5)
    assert pays_from(sweep, with_copy=True) == pytest.approx(0.75)
    assert np.isnan(pays_from(sweep[:2], with_copy=False))


@needs_compiler
def test_the_command_writes_rows_page_and_picture(tmp_path, monkeypatch, products):
    frames = list(drive_frames(8_000_001, 1.0, 1.0, "hdl32"))[:1]
    monkeypatch.setattr(zeros, "chosen_frames", lambda *_: frames)
    monkeypatch.setattr(zeros, "SWEEP", (0.0, 0.9))
    monkeypatch.setattr(zeros, "compiled", lambda: products)
    files = {name: tmp_path / f"zeros.{name}" for name in ("json", "md", "png")}
    options = ["--json", files["json"], "--page", files["md"], "--plot", files["png"], "--rounds", "1", "--frames", "1"]
    assert main(["bench", "zeros", "--weights", str(tiny_weights(tmp_path)), *map(str, options)]) == 0
    rows = json.loads(files["json"].read_text())["rows"]
    tables = {table: sum(row["table"] == table for row in rows) for table in ("layer", "sweep", "network", "header")}
    assert tables == {"layer": 16, "sweep": 2 * 13, "network": 1, "header": 4}
    accuracy = [row["zeros"] for row in rows if row["table"] == "accuracy" and row["asked"] == "all"]
    assert accuracy == ["shipped kernels", "float32", "8 bits", "4 bits", "3 bits", "2 bits"]
    page = files["md"].read_text()
    assert "What it means" in page and "(zeros.png)" in page and "nan" not in page.replace("inner", "")
    assert files["png"].read_bytes().startswith(b"\x89PNG")
