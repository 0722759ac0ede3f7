"""The decoder of clouds under atheris, which keeps the bytes that reach new lines: tools/fuzz/guided.py [-runs=N].

For a machine where atheris is installed (`pip install atheris`; the project does not need it). Arguments are
libFuzzer's: -seed=S, -runs=N, a folder of inputs to begin with. A crash leaves its input in crash-*.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["sbnet_perception.messages"]):
    from sbnet_perception.messages.pointcloud2 import read_points
    from sbnet_perception.messages.raw_cloud import CloudError


def one_input(data: bytes) -> None:
    """Points or a refusal that fits a line; nothing else."""
    said = ""
    try:
        assert read_points(b"\x00\x01\x00\x00" + data, "zero", max_points=1000).points.shape[1:] == (4,)
    except CloudError as error:
        said = str(error)
    assert said.isprintable() and len(said) < 3000, said


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
