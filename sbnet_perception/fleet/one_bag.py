"""One bag from clouds to detections without DDS: the node's own steps, fed by the file.

The same as ``sbnet replay --every-frame`` records, bit for bit: the node's `Gate`, `Processor` and transforms get the
messages in the order of the bag, and each cloud all transforms that come before the next one. There is no DDS, so that
nothing is lost or late, and no clock to wait by: a transform that the bag does not have in time is not waited for.
"""

from __future__ import annotations

import collections
import glob
import hashlib
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from rclpy.node import Node

from sbnet_perception.bags.reader import BagMessage, BagReader, deserialize
from sbnet_perception.bags.refusals import SUFFIXES
from sbnet_perception.bags.writer import BagWriter, read_metadata, whole_bag
from sbnet_perception.desk.grid_frame import choose_grid_frame
from sbnet_perception.desk.timeline import Timeline
from sbnet_perception.desk.topics import DETECTIONS, GRID, TRANSFORMS, Played, choose_topics
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.errors import UserError
from sbnet_perception.fleet.settings import Settings
from sbnet_perception.messages.cdr import Header
from sbnet_perception.messages.detections import detections_message
from sbnet_perception.messages.occupancy_grid import computation_mask_message
from sbnet_perception.node.frame_names import frame_name
from sbnet_perception.node.gate import Gate
from sbnet_perception.node.mask_layer import mask_layers
from sbnet_perception.node.merge import Arrived, Frame
from sbnet_perception.node.parameters import NodeConfig
from sbnet_perception.node.processor import Processed, Processor, read
from sbnet_perception.node.status import NotProcessed, Rejected
from sbnet_perception.node.transforms import TopicTransforms

METADATA = "sbnet_fleet"


@dataclass(frozen=True)
class BagFacts:
    """What came of one bag.

    Attributes:
        clouds: in the bag.
        frames: of them those with an answer.
        detections: in all of these.
        seconds: from opening the bag to the whole file.
        refused: why clouds have no answer, and how many.
        digest: of the settings.
        bag: which one it is, see `identity`.
    """

    clouds: int
    frames: int
    detections: int
    seconds: float
    refused: str
    digest: str
    bag: str


class BagDetector:
    """Detects in one bag after the other with a network that is loaded once."""

    def __init__(self, settings: Settings, digest: str) -> None:
        """``digest`` is that of the settings where they were given.

        Raises:
            WeightsError, DeviceError: as `Pipeline`.
            UserError: the settings mean something else on this machine.
        """
        if settings.digest != digest:
            raise UserError("this machine has another version of sbnet, or other weights: install the same on all")
        self._settings = settings
        self._pipeline = Pipeline(settings.computed)

    def __call__(self, job: tuple[Path, Path]) -> BagFacts:
        """Detects in a bag and writes /detections and /computation_mask; (bag, MCAP file to write).

        A file that is there is replaced, whatever it is, unless it is finished and was made of the same bag with the
        same settings: a worker that died may have come so far.

        Raises:
            UserError: the bag cannot be read, has no cloud that can be used, or the file cannot be written.
        """
        bag, out = job
        begin = time.monotonic()
        with BagReader(bag) as reader:
            this, done = identity(reader), finished(out)
            if done is not None and (done.digest, done.bag) == (self._settings.digest, this):
                return done
            facts = self._detect(reader, this, out, begin)
        # What workers have left that died at this bag: the names are those of `whole_bag`.
        for partial in out.parent.glob(f"{glob.escape(out.name)}.{'[0-9a-f]' * 8}.partial"):
            partial.unlink(missing_ok=True)
        return facts

    def _detect(self, reader: BagReader, this: str, out: Path, begin: float) -> BagFacts:
        with whole_bag(out, overwrite=True) as writer:
            points = () if self._settings.points_topic is None else (self._settings.points_topic,)
            asked = self._settings.road_mask_topic, self._settings.tf_namespace
            played = choose_topics(reader.topics, points, *asked)
            config = self._settings.node
            if not config.grid_frame:
                config = replace(config, grid_frame=choose_grid_frame(reader, played)[0])
            offline = _Offline(config, self._pipeline)
            clouds = frames = detections = 0
            for message, processed in offline.process(reader, played):
                clouds += 1
                if processed is not None:
                    frames, detections = frames + 1, detections + len(processed.detections)
                    self._write(writer, processed, message.stamp_ns)
            refused = ", ".join(f"{reason} ({number})" for reason, number in sorted(offline.refused.items()))
            if not frames:
                raise UserError(f"{reader.path}: none of {clouds} clouds can be used: {refused}")
            seconds, digest = time.monotonic() - begin, self._settings.digest
            facts = BagFacts(clouds, frames, detections, seconds, refused, digest, this)
            writer.add_metadata(METADATA, {name: str(value) for name, value in asdict(facts).items()})
        return facts

    def _write(self, writer: BagWriter, processed: Processed, stamp_ns: int) -> None:
        header = Header(processed.stamp, processed.frame_id)
        found = detections_message(header, processed.detections, self._settings.detector.classes)
        computed = processed.result.computed.cpu().numpy()
        mask = computation_mask_message(header, computed, self._pipeline.grid, processed.ground_z)
        writer.write("/detections", found, stamp_ns, DETECTIONS)
        writer.write("/computation_mask", mask, stamp_ns, GRID)


def finished(out: Path) -> BagFacts | None:
    """What came of a bag whose file is there already; None without one, and where no fleet made it or it is damaged."""
    try:
        told = read_metadata(out, METADATA)
        return BagFacts(
            **{name: int(told[name]) for name in ("clouds", "frames", "detections")},
            seconds=float(told["seconds"]),
            refused=told["refused"],
            digest=told["digest"],
            bag=told["bag"],
        )
    except (KeyError, ValueError, struct.error):
        return None


def identity(bag: BagReader) -> str:
    """Which recording it is, wherever it lies: by the size of its files, its first and last stamp, and its topics."""
    files = [file for suffix in SUFFIXES for file in bag.path.glob(f"*{suffix}")] if bag.path.is_dir() else [bag.path]
    sizes = sorted(file.stat().st_size for file in files)
    topics = sorted((name, topic.msgtype, topic.count) for name, topic in bag.topics.items())
    return hashlib.sha256(repr((sizes, bag.start_ns, bag.end_ns, topics)).encode()).hexdigest()[:16]


class _Offline:
    """The node's steps for the messages of one bag.

    Attributes:
        refused: clouds and masks without an answer, by reason.
    """

    def __init__(self, config: NodeConfig, pipeline: Pipeline) -> None:
        # Whatever the bag has is there at once.
        config = replace(config, tf_timeout=0.0)
        self.refused = collections.Counter[str]()
        self._ear = _Ear()
        self._now_ns = 0
        self._gate = Gate()
        layers = mask_layers(config, pipeline)
        self._masks = {f"/{layer.kind.topic}": layer for layer in layers.values()}
        transforms = TopicTransforms(cast(Node, self._ear))
        self._process = Processor(config, pipeline, transforms, layers, lambda: self._now_ns, self._refuse)

    def process(self, reader: BagReader, played: Played) -> Iterator[tuple[BagMessage, Processed | None]]:
        """Each cloud, as soon as the transforms up to the next one are known, and what came of it."""
        waiting: BagMessage | None = None
        masks: list[BagMessage] = []
        for message in Timeline(reader.messages(played.wire), played.points, lambda _: None):
            if message.topic in played.points:
                if waiting is not None:
                    yield waiting, self._cloud(waiting)
                self._take(masks, played)
                waiting = message
            elif message.topic in played.masks:
                # It counts for the clouds that come after it.
                masks.append(message)
            else:
                self._ear.hear(*played.wire[message.topic][:2], message.raw)
        if waiting is not None:
            yield waiting, self._cloud(waiting)

    def _cloud(self, message: BagMessage) -> Processed | None:
        self._now_ns, name = message.stamp_ns, ""
        try:
            cloud = read(message.raw)
            name = frame_name(cloud.header.frame_id)
            cloud = replace(cloud, header=cloud.header._replace(frame_id=name))
            arrived = Arrived(cloud, time.monotonic(), message.topic)
            self._gate.check(cloud.header, arrived.source)
        except NotProcessed as error:
            self._refuse(error, name)
            return None
        return self._process(Frame((arrived,), {}, self._gate.era), threading.Event())

    def _take(self, masks: list[BagMessage], played: Played) -> None:
        """The masks in their order; of each topic the last one that can be used counts."""
        for message in masks:
            layer = self._masks[played.wire[message.topic][0]]
            try:
                layer.receive(deserialize(message.raw, GRID), message.stamp_ns)
            except (Rejected, UserError):
                self.refused[f"{layer.kind.name} malformed"] += 1
        masks.clear()

    def _refuse(self, error: NotProcessed, frame_id: str) -> None:
        self.refused[error.reason] += 1


class _Ear:
    """As much of a node as the node's transforms need to hear: subscriptions, and a log that nobody reads."""

    def __init__(self) -> None:
        self._callbacks: dict[str, Callable[[Any], None]] = {}

    def create_subscription(self, kind: type, topic: str, callback: Callable[[Any], None], qos: object) -> None:
        self._callbacks[topic] = callback

    def get_logger(self) -> _Ear:
        return self

    def warning(self, text: str, throttle_duration_sec: float) -> None:
        """The count of clouds without a transform tells it."""

    def hear(self, topic: str, msgtype: str, raw: bytes) -> None:
        """A message of the bag; one that cannot be read nobody would have received."""
        assert msgtype == TRANSFORMS
        try:
            message = deserialize(raw, msgtype)
        except UserError:
            return
        self._callbacks[topic](message)


def outputs(bags: list[Path], folder: Path) -> Mapping[Path, Path]:
    """The file of each bag in the folder, named after it.

    Raises:
        UserError: two bags would have the same.
    """
    found: dict[Path, Path] = {}
    for bag in bags:
        out = folder / f"{bag.resolve().stem}.mcap"
        if out in found:
            raise UserError(f"{found[out]} and {bag} would both become {out}: give them to two runs with two folders")
        if out.exists() and bag.exists() and out.samefile(bag):
            raise UserError(f"{bag} lies in the --out folder itself and would be replaced: choose another --out")
        found[out] = bag
    return {bag: out for out, bag in found.items()}
