"""Builds and installs the package, for make, pip and colcon alike.

``build_ext`` compiles ops/ into sbnet_perception/_ops.so against the LibTorch stable ABI: one library for
every Python and every torch from 2.10 on. The sources in ops/kernels/ are compiled once per instruction set. It needs
g++ with its binutils and an installed torch, nothing else; torch is not imported. Where torch has CUDA and there is an
nvcc, ops/cuda/ goes into the same library, for all architectures or those of SBNET_CUDA_ARCHS, which may be "none"
(docs/gpu.md).
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
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
    VARIANTS["avx512bf16"] = ["-march=x86-64-v4", "-mavx512bf16", "-mavx512vnni"]
    VARIANTS["amx"] = [*VARIANTS["avx512bf16"], "-mamx-tile", "-mamx-bf16", "-mamx-int8"]

CUDA_ARCHITECTURES = ["80", "86", "87", "89", "90", "100", "110", "120"]
LOWEST_ARCHITECTURE = 80  # kernels use bfloat16
# From here on nvcc compiles to other PTX. Up to it, and from it on, PTX is the same save for the name of its target: it
# is made once for each side, by what takes most of the time, and assembled for each architecture.
NEXT_FAMILY = 100
NVCC = ["-std=c++20", "-O3", "-DNDEBUG", "-Xcompiler=-Wall,-Wextra,-fPIC,-fvisibility=hidden"]
NVCC += ["-Xptxas=-v"]  # registers and spills go to the log ...
PTXAS_INFO = re.compile(r"ptxas info|    \d+ bytes (stack frame|gmem)")  # ... and are nobody's concern at a build
NVCC_REMEDY = "install the CUDA toolkit, or set NVCC or CUDA_HOME to where it is"


class BuildOps(build_ext):
    """Compiles the sources of ops/ side by side and links them into one library without Python symbols."""

    user_options: ClassVar = [
        *build_ext.user_options,
        ("sanitize", None, "stop at wrong memory accesses and the like"),
        ("cuda", None, "compile CUDA kernels for a torch without CUDA too; without nvcc this is an error"),
    ]
    boolean_options: ClassVar = [*build_ext.boolean_options, "sanitize", "cuda"]

    def initialize_options(self) -> None:
        super().initialize_options()
        self.sanitize = self.cuda = False

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
        nvcc = self.find_nvcc(torch_root)
        sources = [Path(source) for source in ext.sources if nvcc or Path(source).parent.name != "cuda"]
        cuda = [*nvcc, *NVCC, *architectures(nvcc), *host_compiler()] if nvcc else []
        jobs = [(cuda, path, "") for path in sources if path.suffix == ".cu"]
        jobs += [(command, path, variant) for path in sources if path.parent.name == "kernels" for variant in VARIANTS]
        jobs += [(command, path, "") for path in sources if path.suffix == ".cpp" and path.parent.name != "kernels"]
        with (scratch / "lock").open("w") as lock, ThreadPoolExecutor(os.cpu_count()) as pool:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another build of the same objects goes first
            objects = list(pool.map(lambda job: compile_source(job[0], job[1], job[2], scratch), jobs))
            link = link_command([*compiler, *sanitize], objects, output, torch_root, nvcc)
            if subprocess.run(link, check=False).returncode:
                raise SystemExit(f"{NAME}: {output.name} does not link")

    def find_nvcc(self, torch_root: Path) -> list[str]:
        """The command of nvcc; empty where there are no CUDA kernels to compile, or nothing to compile them with."""
        if not self.cuda and not (torch_root / "lib" / "libtorch_cuda.so").exists():
            return []  # no tensor could lie on a GPU
        if os.environ.get("SBNET_CUDA_ARCHS") == "none":
            return []
        home = os.environ.get("CUDA_HOME")
        named = [os.environ.get("NVCC", ""), f"{home}/bin/nvcc" if home else "", "nvcc", "/usr/local/cuda/bin/nvcc"]
        found = [command for command in map(shlex.split, named) if command and shutil.which(command[0])]
        for command in found:
            if compiles_kernels(command):
                return command
        lack = f"{shlex.join(found[0])} does not compile C++20 for sm_80 or newer" if found else "there is no nvcc"
        if self.cuda:
            raise SystemExit(f"{NAME}: {lack}. Remedy: {NVCC_REMEDY}")
        self.warn(
            f"{lack}: the package is built without its CUDA kernels, on a GPU operations run in plain "
            f"PyTorch. Remedy: {NVCC_REMEDY}, then build again."
        )
        return []


def host_compiler() -> list[str]:
    """Options of nvcc: the compiler of the environment, of a launcher before it (ccache) nothing; or nvcc's own."""
    words = shlex.split(os.environ.get("CXX", ""))
    return [f"-ccbin={words[-1]}"] if words else []


def compiles_kernels(nvcc: list[str]) -> bool:
    """Whether it knows an architecture of ours, C++20, and its host compiler: an old one must not end the build."""
    listed = subprocess.run([*nvcc, "--list-gpu-code"], capture_output=True, text=True, check=False)
    if not set(able_architectures(listed.stdout)) & set(CUDA_ARCHITECTURES):
        return False
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder, "probe.cu")
        probe.write_text("#include <cuda_runtime.h>\n#include <string>\n__global__ void probe() {}\n")
        command = [*nvcc, "-std=c++20", *host_compiler(), "-c", str(probe), "-o", str(probe.with_suffix(".o"))]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def able_architectures(listed: str) -> list[str]:
    """Those of an nvcc's list that the kernels can be compiled for, from the lowest on."""
    return sorted({name for name in re.findall(r"sm_(\d+)", listed) if int(name) >= LOWEST_ARCHITECTURE}, key=int)


def architectures(nvcc: list[str]) -> list[str]:
    """Options of nvcc: machine code for each architecture, and PTX of the lowest of each family for all others."""
    able = able_architectures(subprocess.check_output([*nvcc, "--list-gpu-code"], text=True))
    wanted = re.findall(r"\w+", os.environ.get("SBNET_CUDA_ARCHS", ""))
    if not set(wanted) <= set(able):
        raise SystemExit(f"{NAME}: SBNET_CUDA_ARCHS is {' '.join(wanted)!r}. Remedy: choose some of {' '.join(able)}")
    chosen = [arch for arch in able if arch in (wanted or CUDA_ARCHITECTURES)]
    families = [[arch for arch in chosen if (int(arch) < NEXT_FAMILY) == older] for older in (True, False)]
    options = ["-DSBNET_ARCHITECTURES=" + r"\,".join(chosen)]  # to nvcc a bare comma begins another macro
    for family in filter(None, families):
        codes = ",".join([f"compute_{family[0]}", *(f"sm_{arch}" for arch in family)])
        options.append(f"-gencode=arch=compute_{family[0]},code=[{codes}]")
    return options


def link_command(
    compiler: list[str], objects: list[str], output: Path, torch_root: Path, nvcc: list[str]
) -> list[str]:
    """Nothing of a static archive, which may be the compiler's own library, is seen from outside: it would be mixed up
    with the one that torch brings, and the first error message would end the process."""
    libraries = [f"-L{torch_root / 'lib'}", "-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu"]
    libraries += cuda_runtime(nvcc) if nvcc else []
    return [*compiler, "-shared", "-o", str(output), *objects, *libraries, "-Wl,--exclude-libs,ALL"]


def cuda_runtime(nvcc: list[str]) -> list[str]:
    """Options of the linker. The runtime is linked statically: of the shared one, torch may bring another version or
    the vehicle none, and then nothing of the library would load. It looks for the driver when it is first used."""
    said = subprocess.run([*nvcc, "--dryrun", "none.o", "-o", "none"], capture_output=True, text=True, check=True)
    folders = re.findall(r'"(-L[^"]*)"', said.stderr)
    return [*folders, "-lcudart_static", "-ldl", "-lrt", "-lpthread"]


def compile_source(command: list[str], source: Path, variant: str, scratch: Path) -> str:
    """Compiles one source, for an instruction set if it is a kernel, unless its object is up to date.

    Beside the object lie the list of what it was made from (.d) and a log: the command, then the compiler's warnings,
    which appear at every build until they are gone.
    """
    name = f"cuda.{source.name}" if source.parent.name == "cuda" else source.stem  # cuda/ repeats names
    target = scratch / (f"{name}.{variant}.o" if variant else f"{name}.o")
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
    said = log.read_text().splitlines(keepends=True)[1:]
    sys.stderr.writelines(line for line in said if line.strip() and not PTXAS_INFO.match(line))
    return str(target)


def is_up_to_date(target: Path, command: str) -> bool:
    """Whether an object was made by this command from files that have not changed since."""
    try:
        log = target.with_suffix(".log")
        listed = target.with_suffix(".d").read_text().replace("\\\n", " ")
        made_from = shlex.split(listed.partition(": ")[2])  # nvcc has a space before the colon too
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
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("ops/**/*.c*") if path.suffix in (".cpp", ".cu"))


def share(*patterns: str) -> list[tuple[str, list[str]]]:
    """Entries of data_files: the files matching `patterns` go below share/sbnet_perception, folders kept."""
    installed: dict[str, list[str]] = {}
    for path in sorted(path for pattern in patterns for path in Path().glob(pattern) if path.is_file()):
        installed.setdefault(str(Path("share", NAME, path.parent)), []).append(str(path))
    return list(installed.items())


if __name__ == "__main__":
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
        extras_require={"fleet": ["ray>=2.40,<3"]},
        zip_safe=False,
        data_files=[
            ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
            *share("package.xml", "launch/*.py", "config/*", "weights/*", "interfaces/*/msg/*.msg"),
        ],
        entry_points={"console_scripts": [f"sbnet = {NAME}.cli:main", f"sbnet_node = {NAME}.node.start:main"]},
    )
