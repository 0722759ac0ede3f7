"""Weights files that lie about themselves are refused in one line, before they cost memory or time."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ros_process import TINY, tiny_weights
from safetensors.torch import load_file, save_file

from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.weights import KEY, WeightsError, load_network, read_metadata


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights") / "right.safetensors")


def spoilt(path: Path, to: Path, about=None, tensors=None) -> Path:  # type: ignore[no-untyped-def]
    """The file with other metadata or tensors."""
    metadata, state = read_metadata(path), load_file(path)
    save_file((tensors or (lambda s: s))(state), to, metadata={KEY: json.dumps((about or (lambda a: a))(metadata))})
    return to


def network(**fields: object):  # type: ignore[no-untyped-def]
    return lambda about: about | {"network": about["network"] | fields}


def converted(dtype: torch.dtype):  # type: ignore[no-untyped-def]
    return lambda state: {name: tensor.to(dtype) for name, tensor in state.items()}


def without(name: str):  # type: ignore[no-untyped-def]
    return lambda state: {key: tensor for key, tensor in state.items() if key != name}


CASES = {
    "widths of 4096": ((network(widths=[4096] * 4, top_width=4096), None), "is floating point .*, expected"),
    "4096 units": ((network(units=[4096] * 4), None), "tensors for 16385 layers"),
    "4096 header convolutions": ((network(header_convolutions=4096), None), "tensors for 4100 layers"),
    "widths of 10^9": ((network(widths=[10**9] * 4), None), r"whole numbers in \[1, 4096\]"),
    "widths that are no numbers": ((network(widths="abcd"), None), "whole numbers"),
    "a field nobody knows": ((network(**{"x\n[FATAL]": 1}), None), "does not know"),
    "cells of no size": ((lambda a: a | {"cell_size": float("inf")}, None), "which cells and classes"),
    "int64": ((None, converted(torch.int64)), "is whole numbers .* expected floating point"),
    "bool": ((None, converted(torch.bool)), "is BOOL"),
    "a tensor more": ((None, lambda s: s | {"x\x1b[2J\n": torch.ones(1)}), r"'x\\x1b\[2J\\n' is floating .* no such"),
    "a class with a long name": ((lambda a: a | {"classes": [{"name": "v" * 10**5}]}, None), "is for classes"),
}


@pytest.mark.fault(21, 30)
@pytest.mark.parametrize("case", CASES)
def test_a_file_that_does_not_hold_what_it_says_is_refused_in_one_short_line(
    right: Path, tmp_path: Path, case: str
) -> None:
    (about, tensors), reason = CASES[case]
    path = spoilt(right, tmp_path / "w.safetensors", about, tensors)
    started = time.thread_time()
    with pytest.raises(WeightsError, match=reason) as refused:
        load_network(DetectorConfig(weights=str(path)))
    assert str(refused.value).isprintable() and len(str(refused.value)) < 2000
    assert time.thread_time() - started < 2


@pytest.mark.parametrize("about", ["[" * 100_000, '{"a":' * 50_000, '"' + "x" * (2 << 20) + '"', "{", "null", "\ud83d"])
def test_metadata_that_is_nested_long_or_no_json_is_refused(right: Path, tmp_path: Path, about: str) -> None:
    path = tmp_path / "w.safetensors"
    save_file(load_file(right), path, metadata={KEY: about.encode(errors="replace").decode()})
    with pytest.raises(WeightsError, match=r"weights: .*(not a readable|does not say)") as refused:
        read_metadata(path)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 1500


def test_a_header_that_announces_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    path, header = (
        tmp_path / "w.safetensors",
        b'{"x":{"dtype":"F32","shape":[4000000000],"data_offsets":[0,16000000000]}}',
    )
    for content in (struct.pack("<Q", len(header)) + header, struct.pack("<Q", 2**63) + b"{}", b"", b"\0" * 7):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="not a readable safetensors file"):
            load_network(DetectorConfig(weights=str(path)))


def test_half_precision_weights_are_loaded(right: Path, tmp_path: Path) -> None:
    halves = lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()}  # noqa: E731
    loaded = load_network(DetectorConfig(weights=str(spoilt(right, tmp_path / "w.safetensors", None, halves))))
    assert loaded.config == TINY


def test_the_node_refuses_an_instruction_set_that_is_not_there_in_one_line() -> None:
    program = "import os, sys; os.environ['SBNET_ISA'] = 'sse9'; from sbnet_perception.node import start"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; sys.exit(start.main())"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "SBNET_ISA is 'sse9'" in done.stderr and "unset SBNET_ISA" in done.stderr
