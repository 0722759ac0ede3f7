"""The compiled op, and the three ways to build and install the package: make, pip, colcon."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sbnet_perception

ROOT = Path(__file__).resolve().parent.parent
OPS = ROOT / "sbnet_perception" / "_ops.so"
DEFAULTS = {"block_count": (2, 2), "block_size": (3, 3), "block_stride": (2, 2), "block_offset": (0, 0)}


@pytest.fixture(scope="session")
def reduce_mask():
    """The compiled op, as torch sees it."""
    torch.ops.load_library(str(OPS))
    return torch.ops.sbnet.reduce_mask


def setup_py(*arguments: str, without_torch: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs setup.py from the root of the repository, as colcon does."""
    blocked = "import sys; sys.modules['torch'] = None; sys.argv = ['setup.py', *sys.argv[1:]]; import runpy; "
    start = ["-c", blocked + "runpy.run_path('setup.py', run_name='__main__')"] if without_torch else ["setup.py"]
    command = [sys.executable, *start, *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)


# --- the op ---


def by_definition(mask, block_count, block_size, block_stride, block_offset, tol, avg):
    """Active blocks (n, by, bx), one block at a time: max over the pixels inside, or mean with 0 outside."""
    active = []
    for n, by, bx in np.ndindex(len(mask), *block_count):
        top, left = (o + s * b for o, s, b in zip(block_offset, block_stride, (by, bx), strict=True))
        rows = slice(max(top, 0), max(top + block_size[0], 0))
        pixels = mask[n, rows, max(left, 0) : max(left + block_size[1], 0)].double()
        mean = pixels.sum() / np.prod(block_size)
        largest = pixels.max() if pixels.numel() else -torch.inf
        if (mean if avg else largest) > tol:
            active.append((n, by, bx))
    return torch.tensor(active, dtype=torch.int32).reshape(-1, 3)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), avg=st.booleans(), as_bool=st.booleans(), tol=st.sampled_from([-0.5, 0.0, 0.3, 0.5, 1.0]))
def test_active_blocks_are_those_of_the_definition(reduce_mask, data, avg, as_bool, tol):
    def pair(low, high):
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    seed = data.draw(st.integers(0, 2**16))
    shape = (data.draw(st.integers(0, 2)), *pair(0, 12))
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)).mul(4).round().div(4)
    mask = mask > 0.7 if as_bool else mask
    arguments = (pair(0, 5), pair(1, 6), pair(1, 6), pair(-8, 14), tol, avg)
    assert torch.equal(reduce_mask(mask, *arguments), by_definition(mask, *arguments))


def test_the_order_is_the_same_with_one_thread_and_with_four(reduce_mask):
    mask = torch.rand(3, 700, 900, generator=torch.Generator().manual_seed(1)) > 0.995
    arguments = ((88, 113), (10, 10), (8, 8), (-1, -1), 0.5, False)
    threads = torch.get_num_threads()
    results = []
    for count in (1, 4):
        torch.set_num_threads(count)
        results.append(reduce_mask(mask, *arguments))
    torch.set_num_threads(threads)
    assert torch.equal(*results)
    assert 1000 < len(results[0]) < 3 * 88 * 113
    raster = results[0].double() @ torch.tensor([88.0 * 113, 113, 1]).double()
    assert (raster.diff() > 0).all()


def test_a_mask_that_is_not_contiguous_gives_the_same_blocks(reduce_mask):
    mask = torch.rand(2, 30, 40, generator=torch.Generator().manual_seed(2))
    arguments = ((9, 5), (4, 6), (4, 6), (0, 0), 0.9, False)
    view = mask.transpose(1, 2)
    assert torch.equal(reduce_mask(view, *arguments), reduce_mask(view.contiguous(), *arguments))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"mask": torch.zeros(4, 4)}, r"mask must be \[N, H, W\], got 2"),
        ({"mask": torch.zeros(1, 4, 4, dtype=torch.float64)}, "mask must be bool or float32, got Double"),
        ({"block_size": (0, 3)}, r"block_size .* got \(0, 3\)"),
        ({"block_stride": (2, -1)}, r"block_stride .* got \(2, -1\)"),
        ({"block_count": (-1, 2)}, r"block_count .* got \(-1, 2\)"),
        ({"block_count": (1, 2, 3)}, "block_count must be 2 integers, got 3"),
        ({"block_offset": (0, 2**40)}, "block_offset"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_argument_raises_an_error_that_names_it(reduce_mask, changed, named):
    arguments = {"mask": torch.zeros(1, 4, 4), **DEFAULTS, "tol": 0.5, "avg": False} | changed
    with pytest.raises(RuntimeError, match=named):
        reduce_mask(**arguments)


# --- the build ---


def test_the_ops_build_without_warnings_and_load_into_a_fresh_process(tmp_path):
    built = setup_py("build_ext", f"--build-lib={tmp_path}", f"--build-temp={tmp_path / 'scratch'}", CXX="g++ -Werror")
    assert built.returncode == 0, built.stderr
    code = (
        "import sys, torch; torch.ops.load_library(sys.argv[1]); two = (2, 2);"
        "print(torch.ops.sbnet.reduce_mask(torch.ones(1, 4, 4), two, two, two, (0, 0), 0.5, True).tolist())"
    )
    library = tmp_path / "sbnet_perception" / "_ops.so"
    used = subprocess.run([sys.executable, "-c", code, library], capture_output=True, text=True, check=False)
    assert used.stdout.strip() == "[[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]]", used.stderr


def test_the_library_uses_the_stable_abi_only():
    if shutil.which("nm") is None:
        pytest.skip("no nm here (binutils)")
    listing = subprocess.run(["nm", "-DC", "--undefined-only", OPS], capture_output=True, text=True, check=True).stdout
    assert "torch_parallel_for" in listing
    assert not re.search(r"\b(at|c10|torch|torch::jit)::|\bPy[A-Z_]", listing)


def test_setup_py_needs_torch_only_to_compile():
    done = setup_py("--name", "--version", without_torch=True)
    assert done.stdout.split() == ["sbnet_perception", sbnet_perception.__version__], done.stderr


def test_without_torch_the_build_says_what_is_missing_and_goes_on(tmp_path):
    done = setup_py("build_ext", f"--build-lib={tmp_path}", f"--build-temp={tmp_path / 'scratch'}", without_torch=True)
    assert done.returncode == 0, done.stderr
    assert "torch is not installed" in done.stderr
    assert not list(tmp_path.rglob("*.so"))


def test_without_a_compiler_the_build_names_the_remedy(tmp_path):
    done = setup_py("build_ext", f"--build-temp={tmp_path}", CXX="no-such-compiler")
    assert done.returncode != 0
    assert "'no-such-compiler' is missing. Remedy: sudo apt install g++" in done.stderr


# --- the ROS package ---


def test_installation_puts_everything_where_ros_looks(tmp_path):
    done = setup_py("-q", "install_data", f"--install-dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    share = tmp_path / "share" / "sbnet_perception"
    shipped = ["package.xml", "launch/sbnet.launch.py", "launch/replay.launch.py", "config/fastdds.xml"]
    shipped += ["config/sbnet.yaml", "config/sbnet.rviz", "interfaces/vision_msgs/msg/Detection3DArray.msg"]
    assert [name for name in shipped if not (share / name).is_file()] == []
    for weights in (ROOT / "weights").glob("*.safetensors"):
        assert (share / "weights" / weights.name).is_file()
    assert (tmp_path / "share/ament_index/resource_index/packages/sbnet_perception").is_file()


def test_package_xml_declares_every_ros_package_that_the_code_imports():
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    declared = {tag.text for kind in ("depend", "exec_depend") for tag in manifest.iter(kind)}
    imported = set()
    for path in [*ROOT.glob("sbnet_perception/**/*.py"), *ROOT.glob("launch/*.py")]:
        for statement in ast.walk(ast.parse(path.read_text())):
            if isinstance(statement, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in statement.names}
            elif isinstance(statement, ast.ImportFrom) and statement.module:
                imported.add(statement.module.split(".")[0])
    of_ros = {name for name in imported if re.fullmatch(r"\w+_(msgs|interfaces|ros|py)|rclpy|launch", name)}
    assert {"rclpy", "sensor_msgs", "launch_ros"} < of_ros <= declared


def test_the_version_is_the_same_everywhere():
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    assert manifest.get("format") == "3"
    assert manifest.findtext("name") == "sbnet_perception"
    assert manifest.findtext("version") == sbnet_perception.__version__


# --- make ---


def make_check(tmp_path: Path, tools: dict[str, str], **variables: str) -> subprocess.CompletedProcess[str]:
    """`make check` where few programs exist; `tools` adds scripts, an empty one removes the program."""
    for name in ("bash", "dirname", "find", "g++", "make", "mkdir", "uname"):
        if name not in tools:
            (tmp_path / name).symlink_to(shutil.which(name))
    for name, script in tools.items():
        if script:
            (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
            (tmp_path / name).chmod(0o755)
    command = [shutil.which("make"), "-C", ROOT, "check", f"VENV={tmp_path / 'venv'}"]
    command += [f"{name}={value}" for name, value in variables.items()]
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("tools", "line"),
    [
        ({"uname": "echo aarch64"}, "docs/vehicle.md"),
        ({"python3": ""}, "Remedy: sudo apt install python3 python3-venv"),
        (
            {"python3": '[ "$1" = -V ] && echo Python 3.8.10; exit 1'},
            "Python 3.8.10 but 3.10 to 3.13 is needed",
        ),
        ({"python3": '[[ "$2" != *ensurepip* ]]'}, "Remedy: sudo apt install python3-venv"),
        ({"python3": "exit 0", "g++": ""}, "Remedy: sudo apt install g++"),
    ],
    ids=["machine without wheels", "no python3", "old python3", "no venv", "no g++"],
)
def test_make_says_in_one_line_what_is_missing_and_what_to_do(tmp_path, tools, line):
    done = make_check(tmp_path, tools)
    assert done.returncode != 0
    ours = [text for text in done.stderr.splitlines() if text.startswith("sbnet_perception: ")]
    assert len(ours) == 1
    assert line in ours[0]


def test_make_accepts_a_machine_that_has_what_it_needs_and_leaves_a_sourced_ros_alone(tmp_path):
    done = make_check(tmp_path, {"python3": "exit 0"}, AMENT_PREFIX_PATH="/opt/ros/jazzy", ROS_DISTRO="jazzy")
    assert done.returncode == 0, done.stderr
    assert "ROS 2 (jazzy) is sourced: make leaves it alone" in done.stdout
