"""How setup.py compiles kernels, on a small tree of sources that would show every mistake."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
WIDTHS = {"baseline": 16}
if platform.machine() == "x86_64":
    WIDTHS |= {"avx2": 32, "avx512": 64, "avx512bf16": 65, "amx": 66}

# What the linker would merge, were it let: a function and a variable that every variant and the rest define.
SHARED_H = """
template <typename T> __attribute__((noinline)) int bytes(T count) {
  static T calls = 0;
  calls += count;
#if defined(__AMX_TILE__)
  return 66 * calls;
#elif defined(__AVX512BF16__)
  return 65 * calls;
#elif defined(__AVX512F__)
  return 64 * calls;
#elif defined(__AVX2__)
  return 32 * calls;
#else
  return 16 * calls;
#endif
}
"""
KERNEL_H = """
#include "../shared.h"
namespace sbnet::SBNET_ISA { template <typename T> __attribute__((noinline)) T twice(T x) { return 2 * x; } }
"""
KERNEL_CPP = """
#include "kernel.h"
namespace sbnet::SBNET_ISA {
int NAME_bytes() { return bytes(1) + 0 * twice(1); }
int NAME_element(const int* values, int i) { return values[i]; }
int NAME_sum(int a, int b) { return a + b; }
}
"""
MAIN_CPP = """
#include "shared.h"
#define EXPORT extern "C" __attribute__((visibility("default"))) int
#define KERNEL(isa, name) \\
  namespace sbnet::isa { int name##_bytes(); int name##_element(const int*, int); int name##_sum(int, int); } \\
  EXPORT name##_bytes_##isa() { return sbnet::isa::name##_bytes(); } \\
  EXPORT name##_element_##isa(int i) { const int values[3] = {}; return sbnet::isa::name##_element(values, i); } \\
  EXPORT name##_sum_##isa(int a, int b) { return sbnet::isa::name##_sum(a, b); }
EXPORT bytes_main() { return bytes(1); }
"""


class Tree:
    """A copy of setup.py above two kernels, built into the folder `lib`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "ops" / "kernels").mkdir(parents=True)
        shutil.copy(ROOT / "setup.py", root)
        uses = "".join(f"KERNEL({isa}, {name})\n" for isa in WIDTHS for name in ("first", "second"))
        sources = {"shared.h": SHARED_H, "main.cpp": MAIN_CPP + uses, "kernels/kernel.h": KERNEL_H}
        sources |= {f"kernels/{name}.cpp": KERNEL_CPP.replace("NAME", name) for name in ("first", "second")}
        for name, text in sources.items():
            (root / "ops" / name).write_text(text)

    def build(self, *options: str, start: Path | None = None, **environment: str) -> str:
        """Builds from the folder `start` (default: the tree's own) and returns what that said."""
        command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib=lib", "--build-temp=objects", *options]
        start = start or self.root
        environment = os.environ | environment
        done = subprocess.run(command, cwd=start, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    @property
    def library(self) -> Path:
        return self.root / "lib" / "sbnet_perception" / "_ops.so"

    def rebuilt(self, **environment: str) -> set[str]:
        """Builds and returns the objects that were compiled."""
        before = {path: path.stat().st_mtime_ns for path in self.root.glob("objects/*.o")}
        self.build(**environment)
        return {path.stem for path in self.root.glob("objects/*.o") if path.stat().st_mtime_ns != before.get(path)}


def kernel_objects(*names: str) -> set[str]:
    return {f"{name}.{variant}" for name in names for variant in WIDTHS}


def test_every_variant_has_its_own_copy_of_what_headers_define(tmp_path):
    tree = Tree(tmp_path)
    tree.build()
    library = ctypes.CDLL(str(tree.library))
    for isa, width in WIDTHS.items():
        for name in ("first", "second"):
            assert library[f"{name}_bytes_{isa}"]() == width
    assert library.bytes_main() == 16


def test_only_what_a_change_concerns_is_compiled_again(tmp_path):
    tree = Tree(tmp_path)
    everything = {"main"} | kernel_objects("first", "second")
    assert tree.rebuilt() == everything
    assert tree.rebuilt() == set()
    (tmp_path / "ops" / "kernels" / "kernel.h").touch()
    assert tree.rebuilt() == kernel_objects("first", "second")
    (tmp_path / "ops" / "kernels" / "second.cpp").touch()
    assert tree.rebuilt() == kernel_objects("second")
    (tmp_path / "objects" / "main.log").unlink()  # a build that was interrupted
    assert tree.rebuilt() == {"main"}
    editor = tmp_path / "g++-while-someone-edits"
    editor.write_text('#!/bin/bash\nsleep 0.05\n[[ "$*" = *main.cpp* ]] && touch ops/main.cpp\nexec g++ "$@"\n')
    editor.chmod(0o755)
    assert tree.rebuilt(CXX=str(editor)) == everything
    assert tree.rebuilt(CXX=str(editor)) == {"main"}


def test_colcon_may_build_from_a_folder_of_links(tmp_path):
    tree, links = Tree(tmp_path / "source"), tmp_path / "links"
    links.mkdir()
    (links / "setup.py").symlink_to(tree.root / "setup.py")
    tree.build(start=links)
    assert {path.stem for path in links.glob("objects/*.o")} == {"main"} | kernel_objects("first", "second")


def test_a_warning_is_shown_at_every_build_until_its_cause_is_gone(tmp_path):
    tree = Tree(tmp_path)
    source = tmp_path / "ops" / "main.cpp"
    clean = source.read_text()
    source.write_text(clean + "static int unused;\n")
    assert ["unused" in tree.build() for _ in range(2)] == [True, True]
    source.write_text(clean)
    assert tree.build() == ""


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    """Calls a function of the library that the sanitizers watch, in a process of its own."""
    tree = Tree(tmp_path_factory.mktemp("sanitized"))
    tree.build("--sanitize")
    runtime = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    environment = os.environ | {"LD_PRELOAD": " ".join(runtime), "ASAN_OPTIONS": "detect_leaks=0"}
    environment["LD_LIBRARY_PATH"] = str(Path(torch.__file__).parent / "lib")
    code = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1])[sys.argv[2]](*map(int, sys.argv[3:])))"

    def call(function: str, *arguments: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, tree.library, function, *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return call


def test_the_sanitizers_let_right_code_run(sanitized):
    assert sanitized("first_element_baseline", 2).stdout.strip() == "0"


@pytest.mark.parametrize("variant", WIDTHS)
@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("first_element", (3,), "AddressSanitizer: stack-buffer-overflow"),
        ("first_sum", (2**31 - 1, 1), "runtime error: signed integer overflow"),
    ],
    ids=["address", "undefined behaviour"],
)
def test_the_sanitizers_stop_a_mistake_in_every_variant(sanitized, variant, function, arguments, message):
    done = sanitized(f"{function}_{variant}", *arguments)
    assert done.returncode != 0
    assert message in done.stderr
