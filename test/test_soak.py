"""`sbnet soak`: what it sends, what it finds wrong, and some seconds of it on the real node."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest

from sbnet_perception.cli import main
from sbnet_perception.desk.soak_checks import Calm, Limits, Sample, problems
from sbnet_perception.desk.soak_phases import PHASES, Load, churn

LIMITS = Limits(latency_ms=100.0, memory_mb=20.0)
COUNTS = {"received": 10, "processed": 6, "dropped": 2, "rejected": 2, "failed": 0}
SOUND = [Sample("steady", float(at), 300.0, 20, 20, Calm(10, 10, (20.0,) * 10), COUNTS) for at in range(20)]


def changed(where: slice, **values: Any) -> list[Sample]:
    samples = list(SOUND)
    samples[where] = [dataclasses.replace(sample, **values) for sample in samples[where]]
    return samples


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (SOUND, None),
        (changed(slice(0, 4), memory_mb=100.0), None),  # pools fill at first
        (changed(slice(14, 20), memory_mb=330.0), "memory_mb grew by 30.0, 20 are allowed"),
        (changed(slice(14, 20), files=40), "files grew by 20.0"),
        (changed(slice(14, 20), threads=40), "threads grew by 20.0"),
        (changed(slice(5, 6), counts=COUNTS | {"received": 11}), "1 clouds are not accounted for after steady at 5 s"),
        (changed(slice(5, 6), counts=COUNTS | {"received": 9}), "-1 clouds are not accounted for"),
        (changed(slice(5, 6), counts=COUNTS | {"processed": 5, "failed": 1}), "1 clouds failed"),
        (changed(slice(5, 6), calm=Calm(20, 1, (20.0,))), "did not recover after steady at 5 s: 1 of 20"),
        (changed(slice(5, 8), calm=Calm(10, 10, (200.0,) * 10)), "late in 3 of 20 calms: p99 200 ms"),
        (changed(slice(5, 6), calm=Calm(10, 10, (200.0,) * 10)), None),
    ],
)
def test_growth_loss_delay_and_what_does_not_recover_are_problems(samples: list[Sample], says: str | None) -> None:
    found = problems(samples, LIMITS)
    assert found == [] if says is None else len(found) == 1 and says in found[0]


class FakePeer:
    """Counts what is sent."""

    node_rate = 30.0

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.stamps: list[int] = []

    def cloud(self, stamp_ns: int) -> bytes:
        self.stamps.append(stamp_ns)
        return b"cloud"

    def damaged(self, stamp_ns: int, chance: Any) -> bytes:
        return b"damaged"

    def send(self, raw: bytes) -> None:
        self.sent.append(raw.decode())

    def send_pose(self, stamp_ns: int) -> None:
        self.sent.append("pose")

    def send_road(self, cells: int, broken: bool = False) -> None:
        self.sent.append("broken road" if broken else "road")

    def change_state(self, name: str, check: Any) -> bool:
        self.sent.append(name)
        return name != "activate"


def test_each_phase_sends_its_own_kind_of_trouble_at_its_rate() -> None:
    seen = {}
    for name, phase in PHASES.items():
        peer = FakePeer()
        phase(Load(peer, 200.0, seed=1), 0.3, lambda: None)  # type: ignore[arg-type]
        seen[name] = peer
    assert {name for name, peer in seen.items() if "damaged" in peer.sent} == {"malformed"}
    assert {name for name, peer in seen.items() if "pose" not in peer.sent} == {"no transforms"}
    assert {name for name, peer in seen.items() if "broken road" in peer.sent} == {"masks"}
    steps = {name: [b - a for a, b in zip(p.stamps, p.stamps[1:], strict=False)] for name, p in seen.items()}
    assert {name for name, found in steps.items() if min(found, default=0) < 0} == {"time jumps"}
    assert seen["overload 10x"].sent.count("cloud") > 1.5 * seen["overload 2x"].sent.count("cloud")


def test_churn_ends_with_the_transition_that_failed() -> None:
    peer = FakePeer()
    assert churn(Load(peer, 10.0, seed=1), 5, lambda: None) == ["activate failed in cycle 0"]  # type: ignore[arg-type]
    assert [word for word in peer.sent if word not in ("cloud", "pose")] == [
        "deactivate",
        "cleanup",
        "configure",
        "activate",
    ]


def test_some_seconds_on_the_real_node_are_sound(capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    options = ["--minutes", "0.001", "--phase", "0.5", "--churn", "0", "--points", "2000", "--latency", "20000"]
    code = main(["soak", *options])
    out = capsys.readouterr().out
    assert code == 0 and "sound: nothing leaked" in out, out
    assert time.monotonic() - started < 300 and "steady" in out


def test_options_out_of_their_range_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["soak", "--minutes", "0"]) == 2 and main(["soak", "-p", "x"]) == 2
    assert capsys.readouterr().err.count("\n") == 2
