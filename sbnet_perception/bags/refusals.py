"""Why a recording cannot be read, told apart, each with what helps."""

from __future__ import annotations

from pathlib import Path

from sbnet_perception.errors import UserError

SUFFIXES = (".mcap", ".db3")


def missing(path: Path) -> UserError:
    """There is nothing under this name."""
    if path.is_symlink():
        return UserError(f"{path} is a link to {path.readlink()}, which is not there; is a disk not mounted?")
    near = path.parent if path.parent.is_dir() else Path()
    found = sorted(str(other) for other in near.iterdir() if other.suffix in SUFFIXES)[:5]
    return UserError(f"there is no bag at {path}" + (f"; beside it are {', '.join(found)}" if found else ""))


def no_file(folder: Path, reason: str) -> UserError:
    """A folder in which no single recording can be read."""
    files = sorted(str(path) for path in folder.iterdir() if path.suffix in SUFFIXES)
    packed = sorted(str(path) for path in folder.iterdir() if path.suffixes[-2:] in [[s, ".zstd"] for s in SUFFIXES])
    if files:
        return UserError(f"{folder} is no whole bag: {reason}; give one of its files alone: {', '.join(files)}")
    if packed:
        return UserError(f"{folder} is no whole bag: {reason}; {_unpack(packed[0])}")
    inside = sorted(path.name for path in folder.iterdir())[:5]
    return UserError(f"{folder} is no bag: {reason}, and it holds {', '.join(inside) or 'nothing'}")


def empty(path: Path, encodings: set[str]) -> UserError:
    """A recording without a message that ROS 2 could take."""
    if encodings == {"ros1"}:
        return UserError(f"{path} is a recording of ROS 1; {_convert('its .bag')}")
    return UserError(f"the bag {path} holds no message; was the recording stopped too early?")


def damaged(path: Path, error: Exception) -> UserError:
    """What a reader raised about an existing file or folder."""
    said = " ".join((str(error) or type(error).__name__).split())[:300]
    if isinstance(error, PermissionError):
        return UserError(f"{path} may not be read by this user: permission denied; chmod a+r gives it to all")
    if isinstance(error, OSError):
        return UserError(f"{path} cannot be read: {error.strerror or said}")
    if path.suffix == ".bag":
        return UserError(f"{path} is a ROS 1 bag; {_convert(str(path))}")
    if path.suffixes[-2:] in [[suffix, ".zstd"] for suffix in SUFFIXES]:
        return UserError(f"{path} is compressed as a file; {_unpack(str(path))}")
    if path.is_file() and path.stat().st_size == 0:
        return UserError(f"{path} is empty: its recorder ended before it wrote anything")
    if path.suffix == ".db3":
        return UserError("; ".join([f"{path} cannot be read: {_of_sqlite(said)}", *left_in_journal(path)]))
    if path.suffix == ".mcap":
        return UserError(f"{path} cannot be read as an MCAP recording: {said}; it was perhaps not copied whole")
    return UserError(f"{path} cannot be read: neither a folder of ros2 bag nor a file that ends in .mcap or .db3")


def left_in_journal(path: Path) -> tuple[str, ...]:
    """The warning that a killed recorder left messages beside its sqlite3 file, where no reader of bags looks."""
    journal = path.with_name(f"{path.name}-wal")
    if path.suffix != ".db3" or not journal.exists() or not journal.stat().st_size:
        return ()
    return (
        f"{journal} has messages that are not read; sqlite3 '{path}' 'PRAGMA wal_checkpoint' takes them into the bag",
    )


def _of_sqlite(said: str) -> str:
    if "not a database" in said:
        return "it is no SQLite file; it was perhaps not copied whole"
    if "no such table" in said or "missing tables" in said:
        return "it is a SQLite database, but has not the tables of a rosbag2"
    return said


def _unpack(path: str) -> str:
    return f"zstd -d '{path}' unpacks it, then give the unpacked file"


def _convert(source: str) -> str:
    return f"convert it first: rosbags-convert --src {source} --dst FOLDER"
