"""The compiled ops, and the three ways to build and install the package: make, pip, colcon."""

from __future__ import annotations

import ast
import os
import platform
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import devices
import pytest
import torch

import sbnet_perception

ROOT = Path(__file__).resolve().parent.parent
OBJECTS = ROOT / "build" / "ops"
KERNELS = [path.stem for path in ROOT.glob("ops/kernels/*.cpp")]
VARIANTS = ["baseline", "avx2", "avx512", "avx512bf16", "amx"] if platform.machine() == "x86_64" else ["baseline"]


def setup_py(*arguments: str, without_torch: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs setup.py from the root of the repository, as colcon does."""
    blocked = "import sys; sys.modules['torch'] = None; sys.argv = ['setup.py', *sys.argv[1:]]; import runpy; "
    start = ["-c", blocked + "runpy.run_path('setup.py', run_name='__main__')"] if without_torch else ["setup.py"]
    command = [sys.executable, *start, *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)


# --- the build ---


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A build from the objects of `make setup`, as far as they are up to date: what it said, and the library."""
    folder = tmp_path_factory.mktemp("built")
    done = setup_py("build_ext", f"--build-lib={folder}", f"--build-temp={OBJECTS}")
    assert done.returncode == 0, done.stderr
    return done.stderr, folder / "sbnet_perception" / "_ops.so"


def symbols(*options: str | Path) -> list[tuple[str, str]]:
    """Types and names of symbols, as nm lists them."""
    if shutil.which("nm") is None:
        pytest.skip("no nm here (binutils)")
    listing = subprocess.run(["nm", "-C", *options], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^[0-9a-f ]{17}(\w) (.*)$", listing, re.MULTILINE)


def test_the_ops_build_without_warnings_and_load_into_a_fresh_process(built):
    said, library = built
    assert "warning:" not in said and "note:" not in said
    code = (
        "import torch; from sbnet_perception.blocks import reduce_mask; two = (2, 2);"
        "print(reduce_mask(torch.ones(1, 4, 4), two, two, two, mode='avg').tolist())"
    )
    environment = {**os.environ, "SBNET_OPS": str(library)}
    used = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert used.stdout.strip() == "[[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]]", used.stderr


def test_the_library_uses_the_stable_abi_only(built):
    needed = {name for _, name in symbols("-D", "--undefined-only", built[1])}
    assert "torch_parallel_for" in needed
    assert {name for name in needed if re.search(r"\b(at|c10|torch|torch::jit)::|\bPy[A-Z_]", name)} == set()


def test_an_error_is_told_where_the_compiler_brings_a_static_library_of_its_own(built, tmp_path):
    archive = subprocess.run(["g++", "-print-file-name=libstdc++.a"], capture_output=True, text=True, check=True).stdout
    if not Path(archive.strip()).is_absolute():
        pytest.skip("the compiler brings no static library here")
    sources = {path.stem for path in [*ROOT.glob("ops/*.cpp"), *ROOT.glob("ops/kernels/*.cpp")]}
    objects = sorted(str(path) for path in OBJECTS.glob("*.o") if path.name.partition(".")[0] in sources)
    library, torch_root = tmp_path / "ops.so", Path(torch.__file__).parent
    link = devices.build().link_command(["g++", "-static-libstdc++"], objects, library, torch_root, [])
    subprocess.run(link, check=True)
    code = (
        "import torch; from sbnet_perception import blocks; none = [0, 0];"
        "torch.ops.sbnet.reduce_mask(torch.ones(1, 4, 4), [2, 2], [0, 2], [2, 2], none, 0.0, False)"
    )
    environment = {**os.environ, "SBNET_OPS": str(library)}
    used = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "block_size must be in 1 .. 2147483647, got (0, 2)" in used.stderr


def test_the_best_instruction_set_is_taken_and_a_lower_one_can_be_forced(built):
    code = "import sys, torch; torch.ops.load_library(sys.argv[1]); print(torch.ops.sbnet.isa())"

    def chosen(wanted: str) -> str:
        command = [sys.executable, "-c", code, built[1]]
        done = subprocess.run(
            command, env=os.environ | {"SBNET_ISA": wanted}, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() or done.stderr

    with ThreadPoolExecutor(2) as pool:
        best, unknown, *forced = pool.map(chosen, ["", "mmx", *VARIANTS])
    runs = VARIANTS[: VARIANTS.index(best) + 1]
    assert forced[: len(runs)] == runs
    for refused in [unknown, *forced[len(runs) :]]:
        assert f"this machine runs {', '.join(reversed(runs))}" in refused


def test_the_library_has_every_kernel_for_every_instruction_set(built):
    in_library = {name for _, name in symbols("--defined-only", built[1])}
    for variant in VARIANTS:
        for kernel in KERNELS:
            own = symbols("--defined-only", OBJECTS / f"{kernel}.{variant}.o")
            entries = {name for kind, name in own if kind.isupper()}
            assert entries and all(f"sbnet::{variant}::" in name for name in entries), "shared with other variants"
            assert entries <= in_library
            assert not any("_GLOBAL__sub_I" in name for _, name in own), "runs before the machine was looked at"


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
    done = setup_py("-q", "build_py", f"--build-lib={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sbnet_perception" / "bench" / "unit_masks.npz").is_file()


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
