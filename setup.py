"""Builds and installs the package, for make, pip and colcon alike.

``build_ext`` compiles ops/ into sbnet_perception/_ops.so against the LibTorch stable ABI: one library for
every Python and every torch from 2.10 on. It needs g++ and an installed torch, nothing else; only there is
torch imported.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

NAME = "sbnet_perception"
ROOT = Path(__file__).resolve().parent
STABLE_ABI = ["-DTORCH_TARGET_VERSION=0x020a000000000000", "-DTORCH_STABLE_ONLY"]
COMPILE = ["-std=c++20", "-O3", "-DNDEBUG", "-Wall", "-Wextra", "-fPIC", "-fvisibility=hidden", *STABLE_ABI]


class BuildOps(build_ext):
    """Compiles the sources of ops/ side by side and links them into one library without Python symbols."""

    def get_ext_filename(self, ext_name: str) -> str:
        """No Python version in the file name: torch loads it, not the import system."""
        return ext_name.replace(".", "/") + ".so"

    def build_extension(self, ext: Extension) -> None:
        if find_spec("torch") is None:
            self.warn(
                "torch is not installed: the package is built without its compiled ops and runs their slower "
                "Python form. Remedy: install torch for this Python (docs/vehicle.md), then build again."
            )
            ext.optional = True
            return
        compiler = shlex.split(os.environ.get("CXX", "g++"))
        if shutil.which(compiler[0]) is None:
            raise SystemExit(f"{NAME}: the compiler {compiler[0]!r} is missing. Remedy: sudo apt install g++")

        import torch

        torch_root = Path(torch.__file__).parent
        scratch = Path(self.build_temp)
        scratch.mkdir(parents=True, exist_ok=True)
        output = Path(self.get_ext_fullpath(ext.name))
        output.parent.mkdir(parents=True, exist_ok=True)

        def compile_one(source: str) -> str:
            target = str(scratch / f"{Path(source).name}.o")
            command = [*compiler, *COMPILE, "-isystem", str(torch_root / "include"), "-c", str(ROOT / source)]
            subprocess.run([*command, "-o", target], check=True)
            return target

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, ext.sources))
        libraries = [f"-L{torch_root / 'lib'}", "-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu"]
        subprocess.run([*compiler, "-shared", "-o", str(output), *objects, *libraries], check=True)


def share(*patterns: str) -> list[tuple[str, list[str]]]:
    """Entries of data_files: the files matching `patterns` go below share/sbnet_perception, folders kept."""
    installed: dict[str, list[str]] = {}
    for path in sorted(path for pattern in patterns for path in Path().glob(pattern) if path.is_file()):
        installed.setdefault(str(Path("share", NAME, path.parent)), []).append(str(path))
    return list(installed.items())


setup(
    name=NAME,
    version="0.1.0",
    description="Vehicle detection in LiDAR in real time, computing only where the road is (ROS 2).",
    maintainer="sbnet_perception developers",
    maintainer_email="sbnet_perception@example.org",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    ext_modules=[Extension(f"{NAME}._ops", [f"ops/{path.name}" for path in sorted(ROOT.glob("ops/*.cpp"))])],
    cmdclass={"build_ext": BuildOps},
    install_requires=["setuptools"],
    zip_safe=False,
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        *share("package.xml", "launch/*.py", "config/*", "weights/*", "interfaces/*/msg/*.msg"),
    ],
    entry_points={"console_scripts": [f"sbnet = {NAME}.cli:main", f"sbnet_node = {NAME}.ros.start:main"]},
)
