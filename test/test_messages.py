"""Results as ROS messages."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from hypothesis import given, settings
from hypothesis import strategies as st
from nav_msgs.msg import OccupancyGrid
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import Marker, MarkerArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.detector.boxes import Detections
from sbnet_perception.messages.detections import detections_message, detections_of, raised, split_invalid
from sbnet_perception.messages.markers import markers_message
from sbnet_perception.messages.occupancy_grid import computation_mask_message

HEADER = Header(stamp=Time(sec=12, nanosec=34), frame_id="base_link")


def found(*boxes: tuple[float, ...]) -> Detections:
    count = len(boxes)
    array = np.array(boxes, np.float32).reshape(count, 7)
    return Detections(array, np.linspace(0.9, 0.5, count, dtype=np.float32), np.zeros(count, np.int64))


@settings(max_examples=60, deadline=None)
@given(frame_id=st.text(max_size=9).map(lambda s: s.replace("\0", "")), label=st.text("äb c", max_size=9),
       count=st.integers(0, 4), cells=st.tuples(st.integers(1, 9), st.integers(1, 9)))  # fmt: skip
def test_the_bytes_are_as_many_as_rclpy_writes_for_the_same_message(
    frame_id: str, label: str, count: int, cells: tuple[int, int]
) -> None:
    header = Header(stamp=Time(sec=-5, nanosec=999_999_999), frame_id=frame_id)
    boxes = found(*[(10.0 * i, -1.0, 0.5, 4.0, 2.0, 1.5, i) for i in range(count)])
    grid = Grid(0.0, float(cells[1]), 0.0, float(cells[0]), 1.0)
    written = {
        Detection3DArray: detections_message(header, boxes, (label,)),
        MarkerArray: markers_message(header, boxes, (label,), 1.0),
        OccupancyGrid: computation_mask_message(header, np.ones(cells, bool), grid, 0.0),
    }
    for kind, raw in written.items():
        # Neither too short nor with anything left over, whatever the lengths of the strings do to the alignment.
        # (What rclpy leaves between two fields is not defined: the bytes themselves may differ there.)
        again = serialize_message(deserialize_message(raw, kind))
        assert len(again) == len(raw)
        used = np.frombuffer(raw, np.uint8) != 0
        np.testing.assert_array_equal(np.frombuffer(again, np.uint8)[used], np.frombuffer(raw, np.uint8)[used])


def test_a_detection_carries_box_score_and_class_and_no_identity() -> None:
    box = (10.0, -3.0, 0.8, 4.5, 1.9, 1.6, 2.5)
    message = deserialize_message(detections_message(HEADER, found(box), ("vehicle",)), Detection3DArray)
    assert message.header == HEADER
    (detection,) = message.detections
    assert detection.header == HEADER
    assert detection.id == ""
    centre, size = detection.bbox.center, detection.bbox.size
    assert (centre.position.x, centre.position.y) == (10.0, -3.0)
    assert (size.x, size.y, size.z) == pytest.approx((4.5, 1.9, 1.6), rel=1e-6)
    assert 2 * math.atan2(centre.orientation.z, centre.orientation.w) == pytest.approx(2.5)
    (result,) = detection.results
    assert result.hypothesis.class_id == "vehicle"
    assert result.hypothesis.score == pytest.approx(0.9)
    assert result.pose.pose == centre


def test_detections_read_back_are_those_that_were_written_and_new_class_names_are_added() -> None:
    written = found((10.0, -3.0, 0.8, 4.5, 1.9, 1.6, 2.5), (1.0, 2.0, 0.5, 0.8, 0.6, 1.7, -3.0))
    written.classes[:] = (1, 0)
    message = deserialize_message(detections_message(HEADER, written, ("vehicle", "tram")), Detection3DArray)
    read, classes = detections_of(message, ("vehicle",))
    assert classes == ("vehicle", "tram")
    np.testing.assert_allclose(read.boxes, written.boxes, rtol=1e-6)
    np.testing.assert_array_equal(read.scores, written.scores)
    np.testing.assert_array_equal(read.classes, written.classes)
    best, second = message.detections[0].results[0], copy.deepcopy(message.detections[0].results[0])
    second.hypothesis.class_id, second.hypothesis.score = "vehicle", 0.1
    message.detections[0].results = [second, best]
    message.detections[1].results = []
    read, classes = detections_of(message, ())
    assert [classes[label] for label in read.classes] == ["tram", ""]
    assert read.scores[1] == 1.0


def test_no_detection_is_an_empty_array_with_its_stamp() -> None:
    message = deserialize_message(detections_message(HEADER, Detections.empty(), ("vehicle",)), Detection3DArray)
    assert message.header == HEADER
    assert len(message.detections) == 0


def test_boxes_that_are_not_finite_huge_or_far_from_the_grid_are_never_published() -> None:
    grid = Grid.named("compact")
    good = (10.0, 0.0, 0.8, 4.5, 1.9, 1.6, 0.0)
    spoilt = []
    for column, value in (
        *((0, np.nan), (6, np.inf), (3, np.inf), (3, 51.0), (4, 0.0), (5, -1.0)),
        *((0, 1e30), (0, -11.0), (0, 81.0), (1, -31.0), (1, 31.0), (2, -21.0), (2, 1e30)),
    ):
        box = list(good)
        box[column] = value
        spoilt.append(tuple(box))
    kept, invalid = split_invalid(found(good, *spoilt), grid)
    assert invalid == len(spoilt)
    np.testing.assert_array_equal(kept.boxes, np.array([good], np.float32))
    reaching_in = (-3.0, 22.0, 0.8, 12.0, 2.5, 3.0, 1.0)
    assert split_invalid(found(reaching_in), grid)[1] == 0
    score = found(good)
    kept, invalid = split_invalid(Detections(score.boxes, np.array([np.nan], np.float32), score.classes), grid)
    assert (len(kept), invalid) == (0, 1)


def test_boxes_are_raised_to_the_ground_of_the_frame_without_touching_the_result() -> None:
    before = found((1.0, 2.0, 0.8, 4.0, 2.0, 1.6, 0.0))
    assert raised(before, -1.73).boxes[0, 2] == pytest.approx(-0.93)
    assert before.boxes[0, 2] == np.float32(0.8)


def test_markers_replace_those_of_the_frame_before_and_show_box_heading_and_label() -> None:
    cars = found(*[(10.0 * i, 0, 1, 4, 2, 1.5, 1.0) for i in range(3)])
    message = deserialize_message(markers_message(HEADER, cars, ("vehicle",), 2.5), MarkerArray)
    first, *rest = message.markers
    assert first.action == Marker.DELETEALL
    assert all(marker.header == HEADER for marker in message.markers)
    assert len({(marker.ns, marker.id) for marker in rest}) == 9
    assert all((marker.lifetime.sec, marker.lifetime.nanosec) == (2, 500_000_000) for marker in rest)
    kinds = {"boxes": Marker.CUBE, "heading": Marker.ARROW, "labels": Marker.TEXT_VIEW_FACING}
    assert all(marker.type == kinds[marker.ns] for marker in rest)
    assert [marker.text for marker in rest if marker.ns == "labels"] == [
        "vehicle 0.90",
        "vehicle 0.70",
        "vehicle 0.50",
    ]
    arrow = next(marker for marker in rest if marker.ns == "heading")
    # The arrow begins in the middle of the box and ends in front of it, in the box's own frame.
    assert arrow.points[0].x == 0
    assert arrow.points[1].x > 2.0
    assert arrow.points[1].y == 0


def test_the_computation_mask_lies_on_the_grid_with_100_for_computed() -> None:
    grid = Grid.named("compact")
    computed = np.zeros((50, 88), bool)
    computed[0, 0] = computed[10, 20] = True
    message = deserialize_message(computation_mask_message(HEADER, computed, grid, ground_z=-1.73), OccupancyGrid)
    assert message.header == HEADER
    assert (message.info.height, message.info.width) == (50, 88)
    assert message.info.resolution == pytest.approx(0.8)
    origin = message.info.origin
    assert (origin.position.x, origin.position.y, origin.position.z) == (0.0, -20.0, -1.73)
    assert origin.orientation.w == 1.0
    data = np.array(message.data, np.int8).reshape(50, 88)
    np.testing.assert_array_equal(data, np.where(computed, 100, 0))
