"""ROS 2 message types for reading and writing bags without ROS."""

from __future__ import annotations

from functools import cache

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from sbnet_perception.resources import resource

PACKAGES = ("vision_msgs", "tf2_msgs")


@cache
def typestore() -> Typestore:
    """The types of ROS 2 Kilted plus those whose field definitions ship in ``interfaces/``.

    Raises:
        FileNotFoundError: the message definitions are not beside the code nor in a share folder.
    """
    store = get_typestore(Stores.ROS2_KILTED)
    found = {}
    for package in PACKAGES:
        for path in sorted((resource("interfaces") / package / "msg").glob("*.msg")):
            found.update(get_types_from_msg(path.read_text(encoding="utf-8"), f"{package}/msg/{path.stem}"))
    store.register({name: fields for name, fields in found.items() if name not in store.types})
    return store
