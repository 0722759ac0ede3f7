"""The header that runs CUDA kernels on the CPU catches what it promises to; kernels are as exact as those of the CPU.

That the kernels compute what they should is tested where their operations are, on the device ``shim``. Under the
sanitizers they run in test_cuda_races.py.
"""

from __future__ import annotations

import shutil

import pytest
import torch
from devices import KERNELS, OBJECTS, OPTIONS, SHIM, compile_all, operations_on
from sanitized_kernels import FOLDER, MODES, run

from sbnet_perception.blocks import reduce_mask, sparse_scatter
from sbnet_perception.detector.boxes import Found

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")
@pytest.mark.parametrize(
    ("mistake", "mode", "said"),
    [
        ("with_syncwarp", "tsan", "no complaint, 31"),
        ("with_syncwarp", "portable", "no complaint, 31"),
        ("without_syncwarp", "tsan", "data race"),
        ("blocks_race", "tsan", "data race"),
        ("barrier_in_a_branch", "asan", "threads of a block wait at different barriers"),
        ("ballot_in_a_branch", "asan", "threads wait for ever"),
        ("between_arrays", "asan", "use-after-poison"),
        ("never_written", "asan", "no complaint, 0"),  # NaN is not equal to itself
    ],
)
def test_what_cuda_forbids_is_caught_whatever_the_schedule(mistake, mode, said):
    program = compile_all(FOLDER / mode, [SHIM / "mistakes.cpp"], MODES[mode], [], "mistakes")
    assert all(said in run(program, mistake, schedule) for schedule in ("1", "2", "3"))


def test_results_of_all_kernels_do_not_depend_on_the_schedule():
    program = compile_all(OBJECTS, [*KERNELS, SHIM / "kernels.cpp"], OPTIONS, [], "kernels")
    (result,) = {run(program, schedule) for schedule in ("1", "2", "3")}
    assert len(result.split()) == 2 * 7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_sums_are_those_of_the_cpu_bit_by_bit(dtype):
    generator, results = torch.Generator().manual_seed(0), []
    x = torch.randn(2, 8, 40, 50, generator=generator).to(dtype)
    # Blocks of every bit pattern of 16 bits, or as large numbers as there are; sums overflow and get denormal.
    bits = torch.randint(-(2**15), 2**15, (500, 8, 3, 4), generator=generator, dtype=torch.int16)
    blocks = bits.view(dtype).nan_to_num(0) if dtype.itemsize == 2 else bits.to(dtype).remainder(250).sub(140).exp2()
    indices = torch.randint(0, 20, (500, 3), generator=generator, dtype=torch.int32) % torch.tensor([2, 20, 20])
    for device in ("cpu", "shim"):
        with operations_on(device):
            sums = sparse_scatter(blocks, indices.int(), x, (3, 4), (2, 2), (-1, -1), (2, 3), add=True)
            results.append((sums, reduce_mask(x[:, 0], (19, 24), (3, 3), (2, 2), (-1, 0), 0.1, "avg")))
    assert torch.equal(results[0][0].nan_to_num(1, 2, 3), results[1][0].nan_to_num(1, 2, 3))
    assert torch.equal(results[0][1], results[1][1]) and 100 < len(results[0][1]) < 800


@pytest.mark.parametrize("limit", [500, 20])
def test_boxes_are_those_of_the_cpu_bit_by_bit(limit):
    # a crowd: many of each object, equal scores, outputs that are not finite, rows that are no pixels
    generator = torch.Generator().manual_seed(0)
    rows, flat = torch.randn(1500, 11, generator=generator), torch.arange(1500)
    rows[:, :3] = rows[:, :3].round()
    rows[:, 3:6] = torch.tensor([1.4, 0.6, 0.5]) + 0.1 * rows[:, 3:6]
    rows[::89, 0], rows[::97, 9], rows[::61, 4] = torch.nan, torch.nan, torch.inf
    flat[5::50] = -1

    def found(device: str) -> Found:
        with operations_on(device):
            place = (0.0, -20.0, 0.8)
            return torch.ops.sbnet.detect(rows, flat, 64, place, (0.3, 0.2, 0.5), (0, 1, 0), 0.1, limit)

    (boxes, *others), (ours, *our_others) = found("cpu"), found("shim")
    assert torch.equal(ours.nan_to_num(1, 2, 3), boxes.nan_to_num(1, 2, 3))
    assert all(map(torch.equal, our_others, others))
    assert int(others[-1]) == 20 if limit == 20 else 100 < int(others[-1]) < 500
