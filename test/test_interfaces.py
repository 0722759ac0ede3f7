"""The message packages that interfaces/generate.py makes."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import rclpy
from rclpy.serialization import deserialize_message, serialize_message
from ros_process import own_domain
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3D, Detection3DArray, ObjectHypothesisWithPose

from sbnet_perception.bags.types import typestore
from sbnet_perception.resources import resource

ROOT = Path(__file__).resolve().parent.parent
HASHES = {
    Detection3DArray: "RIHS01_793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018",
    TFMessage: "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087",
}


@pytest.fixture(scope="module")
def generate():
    """The generator program as a module."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "interfaces" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["generate"]


@pytest.fixture
def node():
    """A node of its own DDS domain."""
    with own_domain() as context:
        node = rclpy.create_node("interfaces", context=context)
        yield node
        node.destroy_node()


def detections() -> Detection3DArray:
    """Two detections, one of them with an id outside ASCII and two hypotheses."""
    array = Detection3DArray()
    array.header.frame_id, array.header.stamp.sec, array.header.stamp.nanosec = "base_link", 7, 999_999_999
    first, second = Detection3D(id="Lkw-ü"), Detection3D()
    first.bbox.center.position.x, first.bbox.size.z = 12.5, 1.75
    for name, score in (("vehicle", 0.75), ("truck", 0.25)):
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = name, score
        result.pose.covariance[35] = 3.0
        first.results.append(result)
    array.detections = [first, second]
    return array


@pytest.mark.parametrize("message", HASHES, ids=lambda message: message.__name__)
def test_the_type_hash_on_the_wire_is_that_of_a_ros_installation(message, node):
    publisher = node.create_publisher(message, "hashed", 1)
    (endpoint,) = node.get_publishers_info_by_topic("hashed")
    node.destroy_publisher(publisher)
    assert str(endpoint.topic_type_hash) == HASHES[message]


def test_a_message_with_nested_lists_text_and_arrays_survives_the_wire():
    assert deserialize_message(serialize_message(detections()), Detection3DArray) == detections()


def test_an_independent_reader_of_the_wire_format_sees_the_same_values():
    read = typestore().deserialize_cdr(serialize_message(detections()), "vision_msgs/msg/Detection3DArray")
    first, second = read.detections
    assert read.header.frame_id == "base_link"
    assert read.header.stamp.nanosec == 999_999_999
    assert (first.id, first.bbox.center.position.x, first.bbox.size.z) == ("Lkw-ü", 12.5, 1.75)
    assert [r.hypothesis.class_id for r in first.results] == ["vehicle", "truck"]
    assert first.results[1].pose.covariance[35] == 3.0
    assert not second.results


@pytest.mark.parametrize("field", [{"id": 7}, {"results": [3]}], ids=str)
def test_a_field_of_the_wrong_type_raises_and_does_not_end_the_process(field):
    with pytest.raises((TypeError, AttributeError)):
        serialize_message(Detection3D(**field))


def test_the_message_files_are_fields_only():
    files = [
        *resource("interfaces/vision_msgs/msg").iterdir(),
        *resource("interfaces/tf2_msgs/msg").iterdir(),
    ]
    assert len(files) == 9
    for path in files:
        for line in path.read_text().splitlines():
            assert re.fullmatch(r"[A-Za-z0-9_/]+(\[\])? +[a-z_]+", line), f"{path.name}: {line}"


def test_packages_from_elsewhere_are_left_alone(generate):
    assert generate.made_elsewhere("geometry_msgs")
    assert generate.made_elsewhere("no_such_package") is None


def test_a_package_whose_dependency_is_missing_says_which_and_what_to_do(generate, tmp_path):
    (tmp_path / "msg").mkdir()
    (tmp_path / "msg" / "Thing.msg").write_text("absent_msgs/Part part\n")
    (tmp_path / "package.xml").write_text("<package><depend>absent_msgs</depend></package>")
    with pytest.raises(generate.GenerateError, match=r"needs absent_msgs.*requirements\.txt"):
        generate.read_package(tmp_path, tmp_path)


def test_a_folder_without_messages_is_named(generate, tmp_path):
    with pytest.raises(generate.GenerateError, match=re.escape(str(tmp_path))):
        generate.read_package(tmp_path, tmp_path)
