"""YAML that a user gives, read event by event: nothing in it is built, so nothing in it can multiply."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

LARGEST_BYTES = 2**20
DEEPEST = 32
"""Levels of tables and lists; a node's parameters need five, a recording's metadata seven."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser where PyYAML was built with it, as rcl's: about ten times as fast."""


class YamlError(ValueError):
    """A file that is not read as YAML, and why, in one line."""


def events(path: Path) -> Iterator[yaml.Event]:
    """The events of a file, one by one.

    Raises:
        OSError: it cannot be read.
        YamlError: it is no YAML, is larger than `LARGEST_BYTES`, deeper than `DEEPEST`, or has an alias. A few hundred
            bytes of aliases stand for billions of values; neither rcl nor rosbag2 writes or takes them.
    """
    if path.stat().st_size > LARGEST_BYTES:
        raise YamlError(f"it is larger than {LARGEST_BYTES >> 10} KiB")
    depth = 0
    try:
        for event in yaml.parse(path.read_text(encoding="utf-8"), Loader=_LOADER):
            if isinstance(event, yaml.AliasEvent):
                raise YamlError(f"line {_line(event)} has the alias *{event.anchor}; write its value there")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise YamlError(f"line {_line(event)} is nested more than {DEEPEST} levels deep")
            yield event
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise YamlError(" ".join(str(error).split())) from error


def _line(event: yaml.Event) -> int:
    return int(event.start_mark.line) + 1
