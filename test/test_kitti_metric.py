"""KITTI's metric against a slow reference that follows the benchmark's description step by step."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import affinity
from shapely.geometry import box as rectangle

from sbnet_perception.detector.boxes import Detections
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.frame import RealFrame
from sbnet_perception.learning.datasets.registry import open_data
from sbnet_perception.learning.kitti_labels import KittiFrame, kitti_frame
from sbnet_perception.learning.kitti_metric import ALL_VEHICLES, OFFICIAL, average_precisions, numbers_asked

LEVELS = {"easy": (40, 0, 0.15), "moderate": (25, 1, 0.3), "hard": (25, 2, 0.5)}


def footprint(box):
    flat = rectangle(-box[3] / 2, -box[4] / 2, box[3] / 2, box[4] / 2)
    return affinity.translate(affinity.rotate(flat, box[6], use_radians=True, origin=(0, 0)), box[0], box[1])


def overlap(a, b, kind):
    shared = footprint(a).intersection(footprint(b)).area
    if kind == "bev":
        return shared / (a[3] * a[4] + b[3] * b[4] - shared)
    shared *= max(0.0, min(a[2] + a[5] / 2, b[2] + b[5] / 2) - max(a[2] - a[5] / 2, b[2] - b[5] / 2))
    return shared / (a[3] * a[4] * a[5] + b[3] * b[4] * b[5] - shared)


def share(image_box, region):
    shared = rectangle(*image_box).intersection(rectangle(*region)).area
    return shared / rectangle(*image_box).area


def reference(frames, kind, level, rules):
    """One detection, one object and one threshold after the other."""
    height, occluded, truncated = LEVELS[level]
    prepared, number = [], 0
    for frame in frames:
        objects = []
        for i, name in enumerate(frame.types):
            image = frame.image_boxes[i]
            fits = frame.occluded[i] <= occluded and frame.truncated[i] <= truncated and image[3] - image[1] > height
            if name == "Car":
                objects.append((frame.boxes[i], fits))
            elif name in rules.neighbours:
                objects.append((frame.boxes[i], False))
        found = []
        for box, image, score in zip(frame.found_boxes, frame.found_image_boxes, frame.scores, strict=True):
            excused = rules.dont_care and any(share(image, region) > 0.7 for region in frame.dont_care)
            found.append((box, score, image[3] - image[1] < height, excused))
        number += sum(asked for _, asked in objects)
        table = [[overlap(one[0], thing[0], kind) for thing in objects] for one in found]
        prepared.append((objects, found, table))
    if number == 0:
        return math.nan
    scores = []
    for objects, found, table in prepared:
        used = set()
        for j, (_, asked) in enumerate(objects):
            best = None
            for i in range(len(found)):
                if i not in used and table[i][j] > 0.7 and (best is None or found[i][1] > found[best][1]):
                    best = i
            if best is not None:
                used.add(best)
                if asked and not found[best][2]:
                    scores.append(found[best][1])
    scores.sort(reverse=True)
    thresholds, recall = [], 0.0
    for i, score in enumerate(scores):
        last = i == len(scores) - 1
        if not last and (i + 2) / number - recall < recall - (i + 1) / number:
            continue
        thresholds.append(score)
        recall = len(thresholds) / 40
    precisions = [0.0] * 41
    for place, threshold in enumerate(thresholds):
        true = false = 0
        for objects, found, table in prepared:
            used = set()
            for j, (_, asked) in enumerate(objects):
                best, best_overlap, small = None, 0.7, None
                for i, (_, score, too_low, _) in enumerate(found):
                    if i in used or score < threshold or table[i][j] <= 0.7:
                        continue
                    if not too_low and table[i][j] > best_overlap:
                        best, best_overlap = i, table[i][j]
                    if too_low and small is None:
                        small = i
                taken = small if best is None else best
                if taken is not None:
                    used.add(taken)
                    true += asked and not found[taken][2]
            for i, (_, score, too_low, excused) in enumerate(found):
                false += i not in used and score >= threshold and not too_low and not excused
        precisions[place] = true / (true + false) if true + false else 0.0
    return 100 * sum(max(precisions[place:]) for place in range(1, 41)) / 40


def random_frame(rng: np.random.Generator) -> KittiFrame:
    """Cars in a small place, detections around them and elsewhere, several of them around one car."""
    number = int(rng.integers(0, 9))
    boxes = np.column_stack([rng.uniform(5, 25, (number, 2)), rng.normal(0, 0.1, number), *sizes(rng, number)])
    near = boxes[rng.integers(0, number, 2 * number)] if number else boxes
    near = near + rng.normal(0, 0.12, near.shape) * [1, 1, 1, 1, 0.3, 0.3, 0.5]
    away = np.column_stack([rng.uniform(5, 25, (3, 2)), np.zeros(3), *sizes(rng, 3)])
    found = np.concatenate([near, away])
    corner = rng.uniform(0, 900, (len(found) + number + 2, 2))
    image = np.column_stack([corner, corner + rng.uniform(15, 90, corner.shape)])
    # A few detections lie in a DontCare region.
    image[0, :] = (*(image[number + 2, :2] - 5), *(image[number + 2, 2:] + 5))
    return KittiFrame(
        types=rng.choice(["Car", "Car", "Car", "Van", "Truck", "Pedestrian"], number).astype(np.str_),
        truncated=rng.choice([0.0, 0.2, 0.4, 0.8], number),
        occluded=rng.integers(0, 4, number),
        image_boxes=image[2 : 2 + number],
        boxes=boxes,
        dont_care=image[:2],
        found=np.arange(len(found)),
        scores=rng.permutation(np.round(rng.random(len(found)), 1)),
        found_boxes=found,
        found_image_boxes=image[2 + number :],
    )


def sizes(rng, number):
    """Length, width, height and yaw."""
    return (rng.uniform(*limits, number) for limits in ((3, 5), (1.5, 2), (1.4, 2), (-3, 3)))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 8), rules=st.sampled_from([OFFICIAL, ALL_VEHICLES]))
def test_the_metric_is_that_of_the_slow_reference(seed, count, rules):
    rng = np.random.default_rng(seed)
    frames = [random_frame(rng) for _ in range(count)]
    for kind, levels in average_precisions(frames, rules).items():
        for level, value in levels.items():
            assert value == pytest.approx(reference(frames, kind, level, rules), nan_ok=True), (kind, level)


CALIBRATION = """P2: 700 0 600 0 0 700 180 0 0 0 1 0
R0_rect: 1 0 0 0 1 0 0 0 1
Tr_velo_to_cam: 0 -1 0 0 0 0 -1 0 1 0 0 -0.27
"""


def kitti_files(tmp_path: Path, labels: str, calibration: str = CALIBRATION) -> RealFrame:
    for name, text in (("label_2", labels), ("calib", calibration)):
        (tmp_path / "kitti_labels" / name).mkdir(parents=True)
        (tmp_path / "kitti_labels" / name / "000008.txt").write_text(text)
    nothing = np.zeros((0, 4), np.float32), None, np.zeros((0, 7), np.float32), np.zeros(0, int), np.zeros(0, int)
    return RealFrame("kitti_000008", *nothing, source="kitti", origin_height=1.73, file=tmp_path / "kitti_000008.npz")


def test_a_detection_of_the_grid_frame_lies_where_kitti_labels_it(tmp_path):
    # 20 m ahead of the velodyne, 2 m to the right, heading forward: rotation_y is -pi / 2.
    frame = kitti_files(tmp_path, "Car 0 0 0 1 2 3 4 1.5 1.8 4.0 2 1.73 19.73 -1.5707963\n")
    box = np.float32([[20, -2, 0.75, 4, 1.8, 1.5, 0], [-20, -2, 0.75, 4, 1.8, 1.5, 0]])
    made = kitti_frame(Detections(box, np.float32([0.9, 0.8]), np.zeros(2, np.int64)), frame)
    assert made.found.tolist() == [0], "what is behind the camera is no detection of the benchmark"
    np.testing.assert_allclose(made.found_boxes[0], made.boxes[0], atol=1e-4)
    left, top = 600 + 700 * 1.1 / 21.73, 180 + 700 * 0.23 / 21.73
    np.testing.assert_allclose(made.found_image_boxes[0, :2], (left, top), rtol=1e-4)


def test_a_damaged_label_or_calibration_file_is_named(tmp_path):
    nothing = Detections.empty()
    with pytest.raises(UserError, match=r"label_2.*no KITTI label file"):
        kitti_frame(nothing, kitti_files(tmp_path / "a", "Car 0 x\n"))
    with pytest.raises(UserError, match=r"calib.*no KITTI calibration file"):
        kitti_frame(nothing, kitti_files(tmp_path / "b", "", "P2: 1 2\n"))


def test_the_labels_of_real_frames_are_found_in_full_by_themselves(real_data: Path):
    made = []
    for frame in (item.read() for item in open_data(f"npz:{real_data}/real").items):
        labels = Detections(frame.boxes, np.ones(len(frame.boxes), np.float32), frame.classes)
        one = kitti_frame(labels, frame)
        assert (one is None) == (frame.source != "kitti" or frame.name == "kitti_000114")
        made += [one] if one else []
    assert numbers_asked(made) == {"easy": 33, "moderate": 84, "hard": 101}
    for levels in average_precisions(made, ALL_VEHICLES).values():
        assert levels == pytest.approx({"easy": 80.0, "moderate": 100.0, "hard": 100.0})
