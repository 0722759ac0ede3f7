"""Where somebody else, such as a tracker or another detector, wants to have it computed."""

from __future__ import annotations

from sbnet_perception.masks.frame import Source
from sbnet_perception.masks.road import on_grid

EXTERNAL = Source("external", lambda frame, dilation: on_grid(frame.external, frame, dilation))
