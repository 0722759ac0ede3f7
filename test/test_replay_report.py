"""What a replay counts: every cloud has a result, a reason, or costs the exit code."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sbnet_perception.desk.report import ReplayReport, make_report
from sbnet_perception.desk.results import Results

FIGURES: dict[str, Any] = {"drive_s": 1.0, "wall_s": 1.0}


def played(frames: int, answered: int, told: dict[str, str] | None, before: dict[str, str] | None = None) -> Results:
    results = Results()
    if before is not None:
        results.told(before)
    for stamp in range(frames):
        results.published("/points", stamp)
    for stamp in range(answered):
        results.detected(stamp, 1, time.monotonic())
    if told is not None:
        results.told(told)
    return results


@pytest.mark.parametrize(
    ("told", "before", "reasons", "lost"),
    [
        ({"received": "5", "dropped: newer": "2", "rejected: truncated": "1", "dropped": "2"}, None, 3, 0),
        ({"received": "3", "dropped: newer": "1"}, None, 1, 2),
        ({"received": "25", "dropped: newer": "23"}, {"received": "20", "dropped: newer": "20"}, 3, 0),
        ({"received": "5", "failed": "3", "stamp": "1.5"}, None, 3, 0),
        (None, {"received": "9", "dropped: newer": "9"}, 0, 3),
        (None, None, 0, 3),
    ],
)
def test_a_cloud_without_result_has_the_nodes_reason_or_is_lost_and_makes_the_exit_code_1(
    told: dict[str, str] | None, before: dict[str, str] | None, reasons: int, lost: int
) -> None:
    report = make_report(played(5, 2, told, before), **FIGURES)
    assert sum(report.not_processed.values()) == reasons
    assert report.unexplained == lost
    assert report.exit_code == bool(lost)
    table = dict(report.rows())
    assert table["dropped"] == "3"
    assert ("  lost on the way" in table) == bool(lost)
    for name, count in report.not_processed.items():
        assert table[f"  {name}"] == str(count)


def two_lidars(answers: list[int], told: dict[str, str]) -> ReplayReport:
    """Clouds of two LiDARs at 10 Hz, the second 10 ms later, and answers with these stamps, all in milliseconds."""
    results = Results(window_ns=50.0)
    for stamp in range(0, 500, 100):
        results.published("/front", stamp)
        results.published("/rear", stamp + 10)
    for stamp in answers:
        results.detected(stamp, 2, time.monotonic())
    results.told(told)
    return make_report(results, **FIGURES)


def test_an_answer_to_the_clouds_of_several_lidars_counts_for_all_of_them() -> None:
    report = two_lidars([0, 100, 200, 300, 400], {"processed": "10"})
    assert (report.frames_in, report.frames_processed, report.answers, report.exit_code) == (10, 10, 5, 0)
    assert ("answers", "5, of several clouds each") in report.rows()
    assert ("detections", "10 (2.0 per frame)") in report.rows()


def test_a_cloud_that_was_lost_on_the_way_is_told_though_the_others_of_its_time_were_answered() -> None:
    # The third frame went without the second LiDAR, whose cloud never came.
    report = two_lidars([0, 100, 200, 300, 400], {"processed": "9"})
    assert (report.unexplained, report.exit_code) == (1, 1)
    assert two_lidars([0, 100, 200, 300, 400], {"processed": "9", "dropped: no transform": "1"}).exit_code == 0
    # An answer with the stamp of the second LiDAR alone does not count for the first one's cloud.
    assert two_lidars([10], {}).frames_processed == 1


def test_an_incomplete_recording_makes_the_exit_code_1_and_warnings_are_in_the_table() -> None:
    results = played(2, 2, {"received": "2"})
    assert make_report(results, **FIGURES).exit_code == 0
    report: ReplayReport = make_report(results, **FIGURES, recording_complete=False, warnings=("4 x no road mask yet",))
    assert report.exit_code == 1
    assert ("warnings", "4 x no road mask yet") in report.rows()


def test_a_cloud_is_sent_again_only_when_the_node_says_that_none_has_arrived() -> None:
    results = Results()
    results.told({"received": "7"})
    results.published("/points", 1)
    assert not results.none_received  # what was told before says nothing of it
    results.told({"received": "7"})
    assert results.none_received
    results.told({"received": "8"})
    assert not results.none_received


def test_waiting_for_the_nodes_reasons_ends_when_there_is_nothing_to_explain() -> None:
    begin = time.monotonic()
    played(3, 3, None).wait_for_explanations(60.0)
    assert time.monotonic() - begin < 30.0
    results = played(3, 2, None)
    results.wait_for_explanations(0.01)
    assert results.unexplained() == 1
