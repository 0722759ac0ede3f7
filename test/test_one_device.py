"""The detector is one graph on one device: traced, compiled and exported for any mask, without a look from the host."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.voxelize import voxels
from sbnet_perception.cli import main
from sbnet_perception.detector import device
from sbnet_perception.detector.boxes import detect
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.device import DeviceError, device_of
from sbnet_perception.detector.network import Detector, NetworkConfig, initialize
from sbnet_perception.learning import scenes
from sbnet_perception.masks.computation import computation_mask
from sbnet_perception.masks.config import MaskConfig
from sbnet_perception.masks.frame import Frame

GRID = Grid.named("compact")
SMALL = NetworkConfig(8, (8, 8, 12, 16), (2, 2, 2, 2), 12, (8, 8), 2)
MASK = MaskConfig("dilate(occupancy, 0.5) and dilate(road, 0.5)")


@pytest.fixture(scope="module")
def network():
    return initialize(Detector(config=SMALL), 0).eval().requires_grad_(False)


def cloud(seed=0, count=3000):
    points = np.random.default_rng(seed).uniform([0, -20, 0, 0], [70, 20, 2, 1], (count, 4))
    return torch.from_numpy(points.astype(np.float32))


def frame(prepared, points, road):
    """From points to boxes, as the pipeline does it."""
    mask = computation_mask(Frame(points, GRID, MASK, road)).mask
    prediction = prepared.predict(voxels(points, GRID), prepared.tiles(mask))
    return detect(prediction, GRID, (0.0,), (0,), 0.1, 50)


def test_from_points_to_boxes_everything_stays_on_the_device(network):
    with torch.no_grad(), FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True):
        prepared = network.prepare(torch.float32, "meta")
        road = torch.ones(GRID.shape, dtype=torch.bool, device="meta")
        found = frame(prepared, torch.empty((3000, 4), device="meta"), road)
    assert [(tuple(t.shape), t.device.type) for t in found] == [(s, "meta") for s in ((50, 7), (50,), (50,), ())]


def test_what_a_training_step_is_given_goes_to_its_device_whole():
    given = voxels(cloud(), GRID)
    with FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True):
        moved = given.to(torch.device("meta"))
    tensors = [moved.bits, moved.last, moved.points, *moved.pixels.lists]
    assert {tensor.device.type for tensor in tensors} == {"meta"} and moved.pixels.size == (1, *GRID.shape)


def test_from_points_to_boxes_nothing_is_asked_of_the_host(network, monkeypatch):
    prepared = network.prepare(torch.float32)
    points, road = cloud(), torch.ones(GRID.shape, dtype=torch.bool)

    def refuse(self, *_arguments):
        raise AssertionError("a number was taken from the device")

    for name in ("item", "numpy", "cpu", "tolist", "__bool__", "__int__", "__float__", "__index__", "__array__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    with torch.inference_mode():
        *_, count = frame(prepared, points, road)
    monkeypatch.undo()
    assert int(count) > 0


def predict(network, points, mask):
    """A function of a cloud and a mask, of whatever sizes."""
    return network.predict(voxels(points, GRID), network.tiles(mask)).rows


def masks():
    for seed, share in enumerate((0.01, 0.3, 0.0, 1.0)):
        yield torch.from_numpy(np.random.default_rng(seed).random(GRID.shape) < share)


@pytest.mark.parametrize("prepare", [False, True], ids=["module", "prepared"])
def test_the_whole_detector_compiles_to_one_graph_for_any_mask(network, prepare):
    layers = network.prepare(torch.float32) if prepare else network
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    compiled = torch.compile(lambda points, mask: predict(layers, points, mask), fullgraph=True, backend=counter)
    with torch.no_grad():
        for seed, mask in enumerate(masks()):
            points = cloud(seed)
            torch.testing.assert_close(compiled(points, mask), predict(layers, points, mask))
    assert counter.frame_count == 1


class Whole(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, points, mask):
        return predict(self.network, points, mask)


def test_the_whole_detector_exports_for_any_mask_each_layer_a_node(network):
    with torch.no_grad():
        exported = torch.export.export(Whole(network), (cloud(), next(masks())), strict=False)
        nodes = [str(node.target) for node in exported.graph.nodes if str(node.target).startswith("sbnet.")]
        assert nodes.count("sbnet.residual_units.default") == 4 and nodes.count("sbnet.voxel_conv.default") == 1
        for seed, mask in enumerate(masks()):
            points = cloud(seed)
            torch.testing.assert_close(exported.module()(points, mask), predict(network, points, mask))


def test_a_device_that_is_not_there_is_refused_with_the_remedy(monkeypatch):
    assert device_of("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == torch.device("cpu")
    with pytest.raises(DeviceError, match=r"device is 'cuda', but .*; set device to cpu, or to auto"):
        device_of("cuda")
    with pytest.raises(DeviceError, match="device is 'gpu'; use cpu, cuda, cuda:N"):
        device_of("gpu")
    assert DetectorConfig().device == "auto"


@pytest.fixture
def gpu(monkeypatch):
    """A machine with one GPU, which answers PyTorch; a function that says what CUDA says against our kernels."""

    def says(said, capability=(8, 7)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
        monkeypatch.setattr(torch.ops.sbnet, "cuda_problem", lambda index: said, raising=False)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Some GPU")
    monkeypatch.setattr(torch, "ones", lambda *shape, device: torch.zeros(shape))
    monkeypatch.setattr(device, "CUDA_KERNELS", True)
    says("")
    return says


def test_a_gpu_that_runs_the_kernels_is_taken_and_one_for_which_they_are_not_compiled_refused(gpu):
    assert device_of("auto") == device_of("cuda") == torch.device("cuda")
    with pytest.raises(DeviceError, match=r"device is 'cuda:1', but it has 1 GPU\(s\); set device to cpu"):
        device_of("cuda:1")
    no_image = "no kernel image is available for execution on the device (cudaErrorNoKernelImageForDevice; ...)"
    for said, capability, remedy in (
        (no_image, (8, 7), "SBNET_CUDA_ARCHS=87"),
        (no_image, (7, 5), "SBNET_CUDA_ARCHS=none"),
        ("driver version is insufficient (cudaErrorInsufficientDriver; ...)", (9, 0), "update the NVIDIA driver"),
        ("devices are busy (cudaErrorDevicesUnavailable; ...)", (9, 0), "nvidia-smi"),
    ):
        gpu(said, capability)
        name = f"Some GPU (sm_{capability[0]}{capability[1]})"
        sentence = re.escape(f"the compiled ops do not run on {name}: {said}; ") + f".*{remedy}"
        with pytest.raises(DeviceError, match=f"device is 'cuda', but {sentence}.*, or set device to cpu"):
            device_of("cuda")
        with pytest.warns(RuntimeWarning, match=f"computing on the CPU: {sentence}"):
            assert device_of("auto") == torch.device("cpu")


def test_a_gpu_that_pytorch_cannot_use_is_refused_and_one_without_kernels_of_ours_warned_of(gpu, monkeypatch):
    monkeypatch.setattr(device, "CUDA_KERNELS", False)
    with pytest.warns(RuntimeWarning, match="have no CUDA kernels.*slower.*; for a GPU of sm_80 or newer install the"):
        assert device_of("cuda") == torch.device("cuda")

    def ones(*_shape, **_options):
        raise torch.AcceleratorError("CUDA error: no kernel image available\nadvice to programmers")

    monkeypatch.setattr(torch, "ones", ones)
    with pytest.raises(DeviceError, match=r"PyTorch .* does not run on GPU 0: CUDA error: no kernel image available; "):
        device_of("cuda:0")


def test_a_gpu_that_is_lost_says_why_and_one_that_works_nothing(monkeypatch):
    def lost(_device):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nadvice to programmers")

    assert device.failure_of(torch.device("cpu")) == ""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _device: None)
    assert device.failure_of(torch.device("cuda")) == ""
    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    assert device.failure_of(torch.device("cuda")) == "CUDA error: an illegal memory access was encountered"


def test_a_training_on_a_device_that_is_not_there_is_refused_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(scenes, "sample_scene", None)
    assert main(["train", str(tmp_path / "w.safetensors"), "--device", "cuda", "--work", str(tmp_path)]) == 2
    assert "device is 'cuda', but" in capsys.readouterr().err
