"""The time of a product that leaves out single outputs, beside the shipped dense one, on this machine.

zeros_product.cpp is compiled when it is wanted; it is a measurement and no part of the detector's operations. Times are
those of the thread's CPU, so that other programs disturb them less. The lists of outputs to compute are made before:
the zeros cost nothing. Products run one output at a time over the pixels that want it, in groups of pixels whose inputs
stay in the cache, or one pixel at a time over its outputs; the fastest of these counts.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.bench.measure import Row, Run, alternate
from sbnet_perception.bench.zeros_network import Shape
from sbnet_perception.errors import UserError

COLUMNS = 56
"""Pixels of a row of the map that products are timed on."""
GROUPS = (0, 24, 48, 112)
"""Pixels of a group; 0 is one pixel at a time over its outputs."""
BITS = 4
"""Of the copy that is timed."""
_KERNELS = Path("ops", "kernels")
_FLAGS = ["-std=c++20", "-O3", "-DNDEBUG", "-fno-trapping-math", "-fno-math-errno", "-fPIC", "-shared"]


def compiled() -> ctypes.CDLL:
    """The products for this machine.

    Raises:
        UserError: there is no source of the shipped product beside this package, or no compiler.
    """
    source = Path(__file__).resolve().with_suffix(".cpp")
    kernels = source.parents[2] / _KERNELS
    if not kernels.is_dir():
        raise UserError(f"bench zeros compiles {_KERNELS}/gemm.h, which is not installed; run it in the source folder")
    native = "-mcpu=native" if platform.machine() == "aarch64" else "-march=native"
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "products.so"
        compiler = shlex.split(os.environ.get("CXX", "g++"))
        command = [*compiler, *_FLAGS, native, "-DSBNET_ISA=measured", f"-I{kernels}", str(source), "-o", str(library)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise UserError(f"bench zeros needs the compiler {compiler[0]!r}: sudo apt install g++") from None
        except subprocess.CalledProcessError as error:
            first = error.stderr.partition("\n")[0]
            raise UserError(f"{source.name} does not compile with {compiler[0]}: {first}") from None
        return ctypes.CDLL(str(library))


class Product:
    """A layer's product with random numbers, on a map of as many pixels as the mask has."""

    def __init__(self, library: ctypes.CDLL, shape: Shape, pixels: int) -> None:
        self._library, self._shape, self._pixels = library, shape, pixels
        rng, lanes = np.random.default_rng(0), library.zeros_lanes()
        terms, outputs = shape.terms, shape.outputs
        self._depth = -(-shape.depth // lanes) * lanes
        offsets, size = _offsets(shape, pixels)
        x = rng.standard_normal(size + lanes, dtype=np.float32)
        weights = np.zeros((terms, outputs, self._depth), np.float32)
        weights[:, :, : shape.depth] = rng.standard_normal((terms, outputs, shape.depth))
        self._rows = _pointers(x, offsets)
        each = np.arange(terms) * outputs + np.arange(outputs)[:, None]
        self._weights = _pointers(weights, each * self._depth)
        self._stride = library.zeros_padded(outputs)
        self._packed = np.zeros(terms * library.zeros_room(outputs, self._depth), np.float32)
        library.zeros_pack(*_places(weights), terms, outputs, self._depth, *_places(self._packed))
        self._all, self._some = (np.zeros((pixels + lanes, self._stride), np.float32) for _ in range(2))
        self._low = self._low_product(x.shape, offsets, rng) if library.zeros_has_low() else None
        self._held = (x, weights)

    def _low_product(self, size: Any, offsets: NDArray[np.int64], rng: np.random.Generator) -> Run:
        library, shape, most = self._library, self._shape, 2 ** (BITS - 1) - 1
        x = rng.integers(0, 2**BITS, size, np.uint8)
        weights = np.zeros((shape.terms, shape.outputs, self._depth), np.int16)
        weights[:, :, : shape.depth] = rng.integers(-most, most + 1, (shape.terms, shape.outputs, shape.depth))
        stride = library.zeros_low_padded(shape.outputs)
        packed = np.zeros(shape.terms * library.zeros_low_room(shape.outputs, self._depth), np.uint8)
        sizes = shape.terms, self._depth, shape.outputs
        library.zeros_low_pack(*_places(weights), shape.terms, shape.outputs, self._depth, *_places(packed))
        rows, sums = _pointers(x, offsets), np.zeros((self._pixels + 64, stride), np.int16)

        def run(held: object = (x, weights)) -> None:
            library.zeros_low(*_places(rows, packed), self._pixels, *sizes, *_places(sums), stride)

        return run

    def dense(self) -> NDArray[np.float32]:
        """All outputs [P, N], by the shipped inner loop."""
        sizes = self._pixels, self._shape.terms, self._depth, self._shape.outputs
        self._library.zeros_dense(*_places(self._rows, self._packed), *sizes, *_places(self._all), self._stride)
        return self._all[: self._pixels, : self._shape.outputs]

    def some(self, mask: NDArray[np.bool_], group: int) -> Callable[[], NDArray[np.float32]]:
        """Computes the outputs of mask [P, N] alone; the others stay what they are."""
        pixels, outputs = mask.shape
        # Lists of what each output, or each pixel, is multiplied with; the last group may be short.
        if group == 0:
            key, others = np.nonzero(mask)
            ones, sides, steps = np.arange(pixels), (self._rows, self._weights), (self._stride, 1)
        else:
            number = -(-pixels // group)
            padded = np.pad(mask, ((0, number * group - pixels), (0, 0))).reshape(number, group, outputs)
            part, output, place = np.nonzero(padded.transpose(0, 2, 1))
            key, others = part * outputs + output, part * group + place
            ones, sides, steps = np.tile(np.arange(outputs), number), (self._weights, self._rows), (1, self._stride)
        start = np.searchsorted(key, np.arange(len(ones) + 1))
        lists = [np.ascontiguousarray(numbers, np.int32) for numbers in (ones, start, others)]

        def run() -> NDArray[np.float32]:
            sizes = len(lists[0]), self._shape.terms, self._depth
            self._library.zeros_some(*_places(*sides, *lists), *sizes, *_places(self._some), *steps)
            return self._some[:pixels, :outputs]

        return run

    def times(self, mask: NDArray[np.bool_], rounds: int) -> Row:
        """Microseconds for each pixel: dense, what the mask leaves by the fastest way, and the low-bit copy.

        All but dense are medians of the ratios to the dense product of the same round, times its median.
        """
        ways = {f"some {group}": self.some(mask, group) for group in GROUPS}
        candidates: dict[str, Run] = {"dense": self.dense, **ways}
        if self._low is not None:
            candidates["copy"] = self._low
        found = alternate(candidates, rounds, ms_of=_cpu_ms)
        dense = 1e3 * found["dense"].median / self._pixels
        each = {name: dense * float(np.median(times.ms / found["dense"].ms)) for name, times in found.items()}
        best = min(ways, key=lambda way: each[way])
        return {
            "dense_us": each["dense"],
            "some_us": each[best],
            "group": float(best.split()[1]),
            "copy_us": each.get("copy"),
            "other_programs": found["dense"].others,
        }


def _offsets(shape: Shape, pixels: int) -> tuple[NDArray[np.int64], int]:
    """Where each pixel's rows begin [P, terms], and how many numbers there are."""
    number = np.arange(pixels)
    if shape.terms == 1:
        return number[:, None] * shape.depth, pixels * shape.depth
    # Windows on a map with a border, each of their rows as many neighbouring pixels.
    channels, width = shape.depth // shape.terms, COLUMNS + shape.terms - 1
    row = number[:, None] // COLUMNS + np.arange(shape.terms)
    size = (pixels // COLUMNS + shape.terms) * width * channels
    return (row * width + number[:, None] % COLUMNS) * channels, size


def _pointers(numbers: NDArray[Any], offsets: NDArray[np.int64]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(numbers.ctypes.data + offsets * numbers.itemsize, np.uint64)


def _places(*arrays: NDArray[Any]) -> list[ctypes.c_void_p]:
    return [ctypes.c_void_p(array.ctypes.data) for array in arrays]


def _cpu_ms(run: Run) -> float:
    start = time.thread_time()
    run()
    return (time.thread_time() - start) * 1e3
