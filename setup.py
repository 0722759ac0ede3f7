"""Builds and installs the package, for make, pip and colcon alike.

``build_ext`` compiles ops/ into sbnet_perception/_ops.so against the LibTorch stable ABI: one library for
every Python and every torch from 2.10 on. The sources in ops/kernels/ are compiled once per instruction set. It needs
g++ with its binutils and an installed torch, nothing else; torch is not imported.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

NAME = "sbnet_perception"
ROOT = Path(__file__).resolve().parent
STABLE_ABI = ["-DTORCH_TARGET_VERSION=0x020a000000000000", "-DTORCH_STABLE_ONLY"]
COMPILE = ["-std=c++20", "-O3", "-DNDEBUG", "-Wall", "-Wextra", "-fPIC", "-fvisibility=hidden", *STABLE_ABI]
COMPILE += ["-fno-trapping-math"]  # nobody reads floating point flags: comparisons need no branches
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover", "-O1", "-g", "-fno-omit-frame-pointer"]
SANITIZE += ["-D_GLIBCXX_ASSERTIONS"]
KERNELS = ["-fno-math-errno", "-fno-gnu-unique"]
VARIANTS: dict[str, list[str]] = {"baseline": []}
if platform.machine() == "x86_64":
    VARIANTS["avx2"] = ["-march=x86-64-v3"]
    VARIANTS["avx512"] = ["-march=x86-64-v4"]
    VARIANTS["avx512bf16"] = ["-march=x86-64-v4", "-mavx512bf16"]


class BuildOps(build_ext):
    """Compiles the sources of ops/ side by side and links them into one library without Python symbols."""

    user_options: ClassVar = [*build_ext.user_options, ("sanitize", None, "stop at wrong memory accesses and the like")]
    boolean_options: ClassVar = [*build_ext.boolean_options, "sanitize"]

    def initialize_options(self) -> None:
        super().initialize_options()
        self.sanitize = False

    def finalize_options(self) -> None:
        """Builds in place share their objects: `pip install -e` would compile all anew in a folder of its own."""
        super().finalize_options()
        if self.inplace:
            self.build_temp = str(ROOT / "build" / "ops")

    def get_ext_filename(self, ext_name: str) -> str:
        """No Python version in the file name: torch loads it, not the import system."""
        return ext_name.replace(".", "/") + ".so"

    def build_extension(self, ext: Extension) -> None:
        torch = find_spec("torch")
        if torch is None or torch.origin is None:
            self.warn(
                "torch is not installed: the package is built without its compiled ops and runs their slower "
                "Python form. Remedy: install torch for this Python (docs/vehicle.md), then build again."
            )
            ext.optional = True
            return
        compiler = shlex.split(os.environ.get("CXX", "g++"))
        if shutil.which(compiler[0]) is None:
            raise SystemExit(f"{NAME}: the compiler {compiler[0]!r} is missing. Remedy: sudo apt install g++")

        torch_root = Path(torch.origin).parent
        scratch = Path(self.build_temp)
        scratch.mkdir(parents=True, exist_ok=True)
        output = Path(self.get_ext_fullpath(ext.name))
        output.parent.mkdir(parents=True, exist_ok=True)
        sanitize = SANITIZE if self.sanitize else []
        command = [*compiler, *COMPILE, *sanitize, "-isystem", str(torch_root / "include")]

        # kernels first: they take longest
        sources = [Path(source) for source in ext.sources]
        jobs = [(path, variant) for path in sources if path.parent.name == "kernels" for variant in VARIANTS]
        jobs += [(path, "") for path in sources if path.parent.name != "kernels"]
        with (scratch / "lock").open("w") as lock, ThreadPoolExecutor(os.cpu_count()) as pool:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another build of the same objects goes first
            objects = list(pool.map(lambda job: compile_source(command, job[0], job[1], scratch), jobs))
            libraries = [f"-L{torch_root / 'lib'}", "-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu"]
            link = [*compiler, *sanitize, "-shared", "-o", str(output), *objects, *libraries]
            if subprocess.run(link, check=False).returncode:
                raise SystemExit(f"{NAME}: {output.name} does not link")


def compile_source(command: list[str], source: Path, variant: str, scratch: Path) -> str:
    """Compiles one source, for an instruction set if it is a kernel, unless its object is up to date.

    Beside the object lie the list of what it was made from (.d) and a log: the command, then the compiler's warnings,
    which appear at every build until they are gone.
    """
    target = scratch / (f"{source.stem}.{variant}.o" if variant else f"{source.stem}.o")
    log, made_from = target.with_suffix(".log"), target.with_suffix(".d")
    if variant:
        command = [*command, *KERNELS, *VARIANTS[variant], f"-DSBNET_ISA={variant}"]
    command = [*command, "-MD", "-MF", str(made_from), "-c", str(ROOT / source), "-o", str(target)]
    if not is_up_to_date(target, shlex.join(command)):
        log.unlink(missing_ok=True)
        start = time.time()
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{done.stderr}{NAME}: {source} does not compile")
        if variant:
            keep_to_itself(target, variant)
        log.write_text(f"{shlex.join(command)}\n{done.stderr}")
        os.utime(log, (start, start))  # what changes while the compiler runs is newer
    sys.stderr.write(log.read_text().partition("\n")[2])
    return str(target)


def is_up_to_date(target: Path, command: str) -> bool:
    """Whether an object was made by this command from files that have not changed since."""
    try:
        log = target.with_suffix(".log")
        made_from = shlex.split(target.with_suffix(".d").read_text().replace("\\\n", " "))[1:]
        made_at = log.stat().st_mtime
        unchanged = all(os.stat(name).st_mtime < made_at for name in made_from)
        return unchanged and target.exists() and log.read_text().partition("\n")[0] == command
    except FileNotFoundError:
        return False


def keep_to_itself(target: Path, variant: str) -> None:
    """Makes every symbol of a kernel's object local, save those of its variant's namespace.

    The linker keeps one copy of an inline function or template that several objects define, from whichever object it
    meets first: compiled for AVX-512, it would crash or return another variant's constants elsewhere. Local symbols
    are not shared; without their groups (COMDAT) the linker does not look for copies to drop, and -fno-gnu-unique
    keeps the variables in them from being global for good.
    """
    own = f"*5sbnet{len(variant)}{variant}*"  # as C++ writes sbnet::<variant>:: into a symbol
    options = ["--wildcard", f"--keep-global-symbol={own}", "--remove-section=.group"]
    subprocess.run([os.environ.get("OBJCOPY", "objcopy"), *options, str(target)], check=True)


def op_sources() -> list[str]:
    """What ops/ holds beside this file: colcon may run it through a link, from a folder without ops/."""
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("ops/**/*.cpp"))


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
    package_data={NAME: ["bench/*.npz"]},
    ext_modules=[Extension(f"{NAME}._ops", op_sources())],
    cmdclass={"build_ext": BuildOps},
    install_requires=["setuptools"],
    zip_safe=False,
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        *share("package.xml", "launch/*.py", "config/*", "weights/*", "interfaces/*/msg/*.msg"),
    ],
    entry_points={"console_scripts": [f"sbnet = {NAME}.cli:main", f"sbnet_node = {NAME}.node.start:main"]},
)
