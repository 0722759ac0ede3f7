"""Every data set by its name, and what a user names on the command line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.av2 import AV2
from sbnet_perception.learning.datasets.bag import BAG
from sbnet_perception.learning.datasets.frame import Item, Reader
from sbnet_perception.learning.datasets.kitti import KITTI
from sbnet_perception.learning.datasets.npz import NPZ
from sbnet_perception.learning.datasets.nuscenes import NUSCENES
from sbnet_perception.learning.datasets.pandaset import PANDASET
from sbnet_perception.learning.datasets.simulated import SIMULATED

READERS = {reader.name: reader for reader in (KITTI, NUSCENES, PANDASET, NPZ, BAG, SIMULATED, AV2)}
"""In the order in which a folder is tried."""
FORM = "[NAME:]FOLDER[:SPLIT]"
HELP = f"a data set, {FORM}: NAME is {', '.join(READERS)}, or is found by the layout (docs/datasets.md)"


@dataclass(frozen=True)
class Data:
    """Frames of a data set that are not read yet, where they are from, and of how many they were taken."""

    reader: Reader
    folder: Path
    split: str
    items: Sequence[Item]
    of: int = 0

    def evenly(self, most: int) -> Data:
        """At most so many of the frames, evenly taken."""
        chosen = np.linspace(0, len(self.items) - 1, min(most, len(self.items))).round().astype(int)
        return replace(self, items=[self.items[number] for number in chosen], of=max(self.of, len(self.items)))

    @property
    def sources(self) -> dict[str, int]:
        """How many frames there are of each source."""
        return dict(sorted(Counter(item.source for item in self.items).items()))

    def __str__(self) -> str:
        topic = self.items[0].labels_on if self.items else ""
        split = f", labels on {topic}" if topic else f", {self.split}" if self.split else ""
        taken = f", evenly taken of {self.of}" if self.of > len(self.items) else ""
        return f"{self.reader.name}: {len(self.items)} frames of {self.folder}{split}{taken}"


def open_data(text: str) -> Data:
    """The data set that a user names, as `FORM`; a folder's layout tells its name where none is given.

    Raises:
        UserError: there is no such folder, its layout is none that is known, or the reader finds something missing.
    """
    reader, place = _named(text)
    folder, split = _place(place, reader)
    reader = reader or _recognized(folder)
    if not (reader.recognizes(folder) or str(folder) in reader.places):
        raise UserError(f"{folder} does not hold {reader.layout}")
    return Data(reader, folder, split, reader.items(folder, split))


def _named(text: str) -> tuple[Reader | None, str]:
    """The reader whose name comes first, and the rest."""
    name, colon, rest = text.partition(":")
    if colon and name in READERS and not Path(text).exists():
        return READERS[name], rest
    return None, text


def _place(text: str, reader: Reader | None) -> tuple[Path, str]:
    """Folder and split; the longest beginning that is there is the folder."""
    places = reader.places if reader else ()
    if text in places or Path(text).exists():
        return Path(text), ""
    head, _, split = text.rpartition(":")
    if head and (head in places or Path(head).exists()):
        return Path(head), split
    if places:
        raise UserError(f"{reader.name if reader else ''}:{text} is not known; there is {', '.join(places)}")
    raise UserError(f"there is no {head or text}; name a data set as {FORM}, NAME one of {', '.join(READERS)}")


def _recognized(folder: Path) -> Reader:
    for reader in READERS.values():
        if reader.recognizes(folder):
            return reader
    layouts = "; ".join(f"{reader.name}: {reader.layout}" for reader in READERS.values() if not reader.places)
    raise UserError(f"{folder} holds no data set that is known here. Known are {layouts}")
