"""Text that came with a message or a file, as it may be shown: it forges no log line and steers no terminal."""

from __future__ import annotations

LONGEST_NAME = 255
"""Bytes of the names in messages: frames, fields. ROS names are no longer."""
_LONGEST_LINE = 1000


def quoted(text: str, longest: int = 80) -> str:
    """The text in quotation marks; what does not print is escaped, and what is long is shortened."""
    if len(text) <= longest:
        return repr(text)
    return f"{text[:longest]!r}... ({len(text)} characters)"


def one_line(text: str, longest: int = _LONGEST_LINE) -> str:
    """The text where quotation marks would disturb: one line, what does not print escaped, what is long shortened."""
    left_out = f"... ({len(text)} characters)" if len(text) > longest else ""
    text = text[:longest]
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return text + left_out


def printable(text: str) -> str:
    """A message of some lines for a terminal, each as `one_line` has it."""
    return "\n".join(one_line(line) for line in text.split("\n"))
