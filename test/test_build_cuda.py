"""The CUDA kernels compile within stated limits into a library that loads without a GPU.

`make test` compiles them for the lowest architecture, `make cuda` for all; where PyTorch has CUDA, both take what
`make setup` has compiled.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from devices import ALL_OF_CUDA, ROOT, build
from test_build import OBJECTS, setup_py, symbols

SETUP = build()
ARCHITECTURES = "" if ALL_OF_CUDA or torch.version.cuda else str(SETUP.LOWEST_ARCHITECTURE)
REGISTERS = 65536  # of a multiprocessor, for all threads of the blocks that it has at a time
# Bytes of a thread's stack, where arrays lie whose places only the run tells.
MOST_STACK = {"detect.cu": 656}


def builder(cuda: bool = True) -> tuple[SimpleNamespace, list[str]]:
    """Stands for the command build_ext; with the list of what it warns of."""
    said: list[str] = []
    return SimpleNamespace(cuda=cuda, warn=said.append), said


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A build with CUDA kernels from the objects that are up to date: what it said, and the library."""
    try:
        SETUP.BuildOps.find_nvcc(builder()[0], Path())
    except SystemExit:
        pytest.skip("no nvcc here, or one that is too old")
    folder = tmp_path_factory.mktemp("cuda")
    to = (f"--build-lib={folder}", f"--build-temp={OBJECTS}")
    done = setup_py("-q", "build_ext", "--cuda", *to, SBNET_CUDA_ARCHS=ARCHITECTURES)
    assert done.returncode == 0, done.stderr
    return done.stderr, folder / "sbnet_perception" / "_ops.so"


def test_all_kernels_compile_without_warnings(built):
    assert built[0] == ""


def limits_of(source: Path) -> dict[str, int]:
    """The registers that each kernel of a source may have, as its launch bounds say."""
    text, headers = source.read_text(), sorted(ROOT.glob("ops/cuda/*.h"))
    known = dict(re.findall(r"(k\w+) = (\d+)", "".join(map(Path.read_text, headers)) + text))
    stated = re.findall(r"__global__ void __launch_bounds__\((\w+), (\w+)\)\s+(\w+)\(", text)
    assert len(stated) == text.count("__global__"), f"a kernel in {source.name} states no launch bounds"
    return {name: REGISTERS // (int(known[threads]) * int(known[blocks])) for threads, blocks, name in stated}


def test_every_kernel_keeps_to_its_registers_and_spills_none(built):
    for source in ROOT.glob("ops/cuda/*.cu"):
        limits, log = limits_of(source), (OBJECTS / f"cuda.{source.name}.log").read_text()
        kernels = re.findall(
            r"Compiling entry function '(\w+)' for 'sm_(\d+)'.*?"
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers",
            log,
            re.DOTALL,
        )
        command = log.partition("\n")[0] if "__global__" in source.read_text() else ""
        assert {architecture for _, architecture, *_ in kernels} == set(re.findall(r"sm_(\d+)", command))
        for name, architecture, stack, stores, loads, registers in kernels:
            where = f"{name} on sm_{architecture}"
            (limit,) = (limits[kernel] for kernel in limits if f"{len(kernel)}{kernel}" in name)
            assert (stores, loads) == ("0", "0"), f"{where} spills"
            assert int(stack) <= MOST_STACK.get(source.name, 0), where
            assert int(registers) <= limit, where


def test_the_library_loads_without_a_driver_and_hides_the_cuda_runtime(built):
    code = (
        "import sys, torch; from sbnet_perception.blocks import reduce_mask; two = (2, 2);"
        "print(len(reduce_mask(torch.ones(1, 4, 4), two, two, two)),"
        " torch._C._dispatch_has_kernel_for_dispatch_key('sbnet::reduce_mask', 'CUDA'),"
        " bool(torch.ops.sbnet.cuda_problem(99)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"SBNET_OPS": str(built[1]), "PATH": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["4", "True", "True"], done.stderr
    assert [name for _, name in symbols("-D", "--defined-only", built[1]) if name.startswith(("cuda", "cu_"))] == []


def test_what_a_driver_says_against_the_kernels_is_told_and_the_cpu_works_all_the_same(built, tmp_path):
    driver = [ROOT / "test" / "fake_driver.c", "-o", tmp_path / "libcuda.so.1"]
    subprocess.run(["gcc", "-Wall", "-Wextra", "-shared", "-fPIC", *driver], check=True)
    code = (
        "import os, sys, torch; from sbnet_perception.blocks import reduce_mask; two = (2, 2)\n"
        "for error in sys.argv[1:]:\n"
        "    if os.fork() == 0:\n"
        "        os.environ['FAKE_DRIVER'] = error\n"
        "        said = torch.ops.sbnet.cuda_problem(0)\n"
        "        print(len(reduce_mask(torch.ones(1, 4, 4), two, two, two)), said, flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    errors = {  # of cuda.h
        "2": r"out of memory \(cudaErrorMemoryAllocation; compiled for sm_80.*\)",
        "100": r"no CUDA-capable device is detected \(cudaErrorNoDevice; .*\)",
        "209": r"no kernel image is available for .* \(cudaErrorNoKernelImageForDevice; compiled for sm_80( sm_\d+)*\)",
        "214": r"uncorrectable ECC error encountered \(cudaErrorECCUncorrectable; .*\)",
    }
    environment = {"SBNET_OPS": str(built[1]), "PATH": "", "LD_LIBRARY_PATH": str(tmp_path)}
    command = [sys.executable, "-c", code, *errors]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    for pattern, line in zip(errors.values(), done.stdout.splitlines(), strict=True):
        assert re.fullmatch(f"4 {pattern}", line), done.stderr


def test_what_nvcc_has_compiled_is_compiled_again_only_where_something_changed(built, tmp_path):
    source, header = tmp_path / "kernel.cu", tmp_path / "kernel.h"
    header.write_text("struct Empty {};\n")
    source.write_text('#include "kernel.h"\n__global__ void nothing() {}\n')
    nvcc = SETUP.BuildOps.find_nvcc(builder()[0], Path())

    def compiled() -> int:
        return Path(SETUP.compile_source(nvcc, source, "", tmp_path)).stat().st_mtime_ns

    first = compiled()
    assert compiled() == first
    header.write_text("struct Other {};\n")
    assert compiled() > first


@pytest.fixture
def nvcc(tmp_path, monkeypatch):
    """A compiler that knows some architectures of ours, one that is too old and one that is not asked for."""
    monkeypatch.delenv("SBNET_CUDA_ARCHS", raising=False)
    script = tmp_path / "nvcc"
    script.write_text("#!/bin/sh\nprintf 'sm_75\\nsm_87\\nsm_90\\nsm_103\\nsm_100\\n'\n")
    script.chmod(0o755)
    return [str(script)]


def test_architectures_are_those_that_the_toolkit_knows_or_some_of_them(nvcc, monkeypatch):
    def codes():
        return [option.rpartition("code=")[2] for option in SETUP.architectures(nvcc) if "code" in option]

    assert codes() == ["[compute_87,sm_87,sm_90]", "[compute_100,sm_100]"]
    for wanted in ("87", "103"):
        monkeypatch.setenv("SBNET_CUDA_ARCHS", wanted)
        assert codes() == [f"[compute_{wanted},sm_{wanted}]"]
    for wrong in ("120", "75", "87 sm_90"):
        monkeypatch.setenv("SBNET_CUDA_ARCHS", wrong)
        with pytest.raises(SystemExit, match=f"SBNET_CUDA_ARCHS is '{wrong}'. Remedy: choose some of 87 90 100 103"):
            SETUP.architectures(nvcc)


def test_an_nvcc_that_does_not_compile_ends_no_build(nvcc, tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libtorch_cuda.so").touch()
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\ncase $* in *--list-gpu-code*) echo sm_86;; *) exit 1;; esac\n")
    old.chmod(0o755)
    monkeypatch.setenv("NVCC", str(old))
    monkeypatch.setattr(SETUP.shutil, "which", lambda program: program if program.startswith(str(tmp_path)) else None)
    asks, said = builder(cuda=False)
    assert SETUP.BuildOps.find_nvcc(asks, tmp_path) == [] and "old does not compile C++20" in said[0]
    # One that does is taken instead.
    (tmp_path / "bin").mkdir()
    Path(nvcc[0]).rename(tmp_path / "bin" / "nvcc")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert SETUP.BuildOps.find_nvcc(asks, tmp_path) == [str(tmp_path / "bin" / "nvcc")]


def test_the_host_compiler_is_that_of_the_environment_behind_any_launcher(monkeypatch):
    monkeypatch.setenv("CXX", "ccache g++-12")
    assert SETUP.host_compiler() == ["-ccbin=g++-12"]
    monkeypatch.delenv("CXX")
    assert SETUP.host_compiler() == []


def test_nvcc_is_looked_for_only_where_torch_has_cuda_and_its_absence_is_said_in_one_line(nvcc, tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    asks, said = builder(cuda=False)
    assert SETUP.BuildOps.find_nvcc(asks, tmp_path) == [] and said == []
    (tmp_path / "lib" / "libtorch_cuda.so").touch()
    monkeypatch.setenv("NVCC", f"{nvcc[0]} --some-option")
    assert SETUP.BuildOps.find_nvcc(asks, tmp_path) == [*nvcc, "--some-option"] and said == []
    monkeypatch.setenv("SBNET_CUDA_ARCHS", "none")
    assert SETUP.BuildOps.find_nvcc(asks, tmp_path) == [] and said == []
    monkeypatch.delenv("SBNET_CUDA_ARCHS")
    monkeypatch.setattr(SETUP.shutil, "which", lambda program: None)
    assert SETUP.BuildOps.find_nvcc(asks, tmp_path) == []
    assert len(said) == 1 and "\n" not in said[0] and "Remedy: install the CUDA toolkit, or set NVCC" in said[0]
    with pytest.raises(SystemExit, match="there is no nvcc"):
        SETUP.BuildOps.find_nvcc(builder()[0], tmp_path)
