"""The masks that an expression can name; each is made in a file of its own."""

from __future__ import annotations

from sbnet_perception.masks.external import EXTERNAL
from sbnet_perception.masks.frame import Source
from sbnet_perception.masks.occupancy import OCCUPANCY
from sbnet_perception.masks.predicted import PREDICTED
from sbnet_perception.masks.road import ROAD

EVERYWHERE = Source("everywhere", lambda frame, dilation: None)
SOURCES = {source.name: source for source in (ROAD, OCCUPANCY, PREDICTED, EXTERNAL, EVERYWHERE)}
