"""All CUDA kernels on the CPU under the sanitizers, as they are and with mistakes put into them: `make cuda`."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from devices import ALL_OF_CUDA, KERNELS, ROOT, SHIM, compile_all
from sanitized_kernels import FOLDER, MODES, run

of_make_cuda = pytest.mark.skipif(not ALL_OF_CUDA, reason="make cuda has the sanitizers watch the kernels")


@of_make_cuda
def test_no_kernel_races_or_touches_what_is_not_its_own_and_results_do_not_depend_on_the_schedule():
    def results(mode: str) -> set[str]:
        program = compile_all(FOLDER / mode, [*KERNELS, SHIM / "kernels.cpp"], MODES[mode], [], "kernels")
        return {run(program, schedule) for schedule in (("1", "2", "3") if mode == "asan" else ("1",))}

    with ThreadPoolExecutor(2) as pool:
        found = set().union(*pool.map(results, ("asan", "tsan")))
    assert len(found) == 1 and len(found.pop().split()) == 2 * 7


MUTANTS = {
    "sums_read_too_early": (
        *("reduce_mask.cu", "__syncthreads();\n    // and that", "// and that"),
        *("tsan", "data race"),
    ),
    "sums_overwritten": (
        *("reduce_mask.cu", "__syncthreads();  // the next", "// the next"),
        *("tsan", "data race"),
    ),
    "too_little_shared_memory": (
        *("reduce_mask.cu", "warp_sum = arena.take<int>(kThreads / kWarp)", "warp_sum = arena.take<int>(4)"),
        *("asan", "use-after-poison"),
    ),
    "right_border": ("gather.cu", "column < placed.width", "column <= placed.width", "asan", "heap-buffer-overflow"),
    "votes_read_too_early": ("detect.cu", "__syncwarp();  // votes are", "// votes are", "tsan", "data race"),
    "owners_without_atomics": (
        *("detect.cu", "atomicMin(round.owners + pair.candidate, pair", "(round.owners[pair.candidate] = pair"),
        *("tsan", "data race"),
    ),
    "numbers_read_too_early": (
        *("scan.cu", "  __syncthreads();\n  Sums", "  Sums"),
        *("tsan", "data race"),
    ),
    "products_before_their_rows_are_found": (
        *("products.cu", "count, rows);\n      __syncwarp();", "count, rows);"),
        *("tsan", "data race"),
    ),
    "partial_sums_read_too_early": (
        *("unit.cu", "__syncthreads();  // partial sums", "// partial sums"),
        *("tsan", "data race"),
    ),
    "wide_channels_read_too_early": (
        *("unit.cu", "__syncthreads();  // and so are", "// and so are"),
        *("tsan", "data race"),
    ),
    "unit_without_an_end": ("unit.cu", "pixel >= 0 && pixel < count", "pixel >= 0", "asan", "heap-buffer-overflow"),
    "bits_read_too_early": ("dilate.cu", "__syncthreads();  // other", "// other", "tsan", "data race"),
    "shadows_that_meet_unordered": (
        *("shadow.cu", "store_relaxed(result + ray.row() * lines.columns + ray.column(), 1)"),
        *("result[ray.row() * lines.columns + ray.column()] = 1", "tsan", "data race"),
    ),
    "linked_without_atomics": (
        *("scatter.cu", "next[pixel] = atomicExch(first + ", "Link& head = *(first + "),
        *("tsan", "data race"),
    ),
}


def test_each_mistake_has_one_place_in_its_kernel():
    sources = {name: (ROOT / "ops" / "cuda" / source).read_text() for name, (source, *_) in MUTANTS.items()}
    assert [name for name, text in sources.items() if text.count(MUTANTS[name][1]) != 1] == []


@of_make_cuda
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_put_into_a_kernel_is_caught(name):
    source, right, wrong, mode, said = MUTANTS[name]
    text = (ROOT / "ops" / "cuda" / source).read_text()
    text = text.replace(right, wrong)
    if name == "linked_without_atomics":
        text = text.replace("+ x, static_cast<Link>(pixel + 1));", "+ x); next[pixel] = head; head = pixel + 1;")
    mutant = FOLDER / "mutants" / f"{name}.cu"
    mutant.parent.mkdir(parents=True, exist_ok=True)
    if not mutant.exists() or mutant.read_text() != text:
        fresh = mutant.with_suffix(f".{os.getpid()}")
        fresh.write_text(text)
        fresh.replace(mutant)
    others = [path for path in KERNELS if path.name != source]
    program = compile_all(FOLDER / mode, [mutant, *others, SHIM / "kernels.cpp"], MODES[mode], [], name)
    assert said in run(program, "1")
