"""The Python classes of ROS message types by their name in a bag."""

from __future__ import annotations

import importlib
from typing import Any

from sbnet_perception.errors import UserError


def message_class(msgtype: str) -> Any:
    """The class of, for example, ``sensor_msgs/msg/PointCloud2``.

    Raises:
        UserError: the message package is not installed.
    """
    package, _, name = msgtype.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)
    except ImportError as error:
        raise UserError(f"message package {package} cannot be imported ({error}); run `sbnet doctor`") from error
