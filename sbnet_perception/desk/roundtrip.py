"""A real cloud from one process to another and back over DDS, as `sbnet doctor` tries it.

``python -m sbnet_perception.desk.roundtrip`` sends clouds to a second process that answers each with its
header, and prints what came back as one line of JSON.
"""

from __future__ import annotations

import array
import json
import os
import sys
import time

import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from sbnet_perception.desk.session import ChildProcess

CLOUD_BYTES = 2 * 2**20
CLOUDS = 10
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


def echo() -> None:
    """Answers clouds until it is interrupted."""
    rclpy.init()
    node = rclpy.create_node("sbnet_doctor_echo")
    answers = node.create_publisher(Header, "doctor/answers", QoSProfile(depth=10))
    node.create_subscription(PointCloud2, "doctor/cloud", lambda cloud: answers.publish(cloud.header), BEST_EFFORT)
    rclpy.spin(node)


def send(seconds: float) -> dict[str, float]:
    """Sends clouds of 2 MiB to an `echo` process; how many came back and the median time in ms.

    Args:
        seconds: limit for finding the other process; each answer is waited for at most 1.5 s.
    """
    rclpy.init()
    node = rclpy.create_node("sbnet_doctor_send")
    clouds = node.create_publisher(PointCloud2, "doctor/cloud", BEST_EFFORT)
    answered: list[str] = []
    node.create_subscription(
        Header, "doctor/answers", lambda header: answered.append(header.frame_id), QoSProfile(depth=10)
    )
    other = ChildProcess(["-m", "sbnet_perception.desk.roundtrip", "echo"], os.environ)
    try:
        deadline = time.monotonic() + seconds
        while not (clouds.get_subscription_count() and node.count_publishers("doctor/answers")):
            if time.monotonic() > deadline or other.exit_code is not None:
                return {"found": 0, "sent": 0, "answered": 0, "p50_ms": 0.0}
            rclpy.spin_once(node, timeout_sec=0.05)
        time.sleep(0.3)
        times = []
        for number in range(CLOUDS):
            cloud = _cloud(str(number))
            begin = time.monotonic()
            clouds.publish(cloud)
            while str(number) not in answered and time.monotonic() - begin < 1.5:
                rclpy.spin_once(node, timeout_sec=0.05)
            if str(number) in answered:
                times.append(1000.0 * (time.monotonic() - begin))
        middle = sorted(times)[len(times) // 2] if times else 0.0
        return {"found": 1, "sent": CLOUDS, "answered": len(times), "p50_ms": middle}
    finally:
        other.stop(2.0)


def _cloud(frame_id: str) -> PointCloud2:
    cloud = PointCloud2(height=1, width=CLOUD_BYTES // 16, point_step=16, row_step=CLOUD_BYTES)
    cloud.header.frame_id = frame_id
    cloud.fields = [PointField(name=name, offset=4 * i, datatype=7, count=1) for i, name in enumerate("xyz")]
    cloud.data = array.array("B", bytes(CLOUD_BYTES))
    return cloud


if __name__ == "__main__":
    if sys.argv[1:] == ["echo"]:
        echo()
    else:
        print(json.dumps(send(8.0)))
