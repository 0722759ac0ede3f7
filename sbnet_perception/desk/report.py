"""What a replay tells its user: a line per second of drive, a progress bar, the closing table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from sbnet_perception.desk.results import Interval, Results, percentile


@dataclass(frozen=True)
class ReplayReport:
    """What a replay did.

    Attributes:
        frames_in: clouds published.
        frames_processed: clouds whose detections came back.
        answers: detection arrays that came back; fewer than that where several LiDARs become one cloud.
        detections: boxes in all of them.
        sparsity: mean fraction (0-1) of the grid that was not computed; None when no mask came back.
        latency_p50_ms, latency_p95_ms: cloud published to detections received, wall clock.
        missing: the clouds (number from 0, stamp in ns) that had no result in time; every-frame mode only.
        unmatched: results that belong to no cloud that was published.
        not_processed: what the node says of clouds and masks without a result: ``dropped: reason`` and so on -> count.
        unexplained: clouds of which it says nothing; they were lost on the way.
        late_s: how far the player fell behind the bag's pace at worst, wall clock.
        recording: the file, or None; `recording_complete` is False when the disk ended it early.
        interrupted: the user stopped the replay.
        warnings: what the node complained about, each once, with how often it logged it.
    """

    frames_in: int
    frames_processed: int
    detections: int
    sparsity: float | None
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    drive_s: float
    wall_s: float
    answers: int = 0
    late_s: float = 0.0
    missing: tuple[tuple[int, int], ...] = ()
    unmatched: int = 0
    not_processed: Mapping[str, int] = field(default_factory=dict)
    unexplained: int = 0
    grid_frame: str = ""
    recording: Path | None = None
    recording_complete: bool = True
    interrupted: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def dropped(self) -> int:
        """Clouds without a result."""
        return self.frames_in - self.frames_processed

    @property
    def exit_code(self) -> int:
        """0 when clouds were processed, none is missing or unexplained, and what was to be recorded is."""
        if self.interrupted:
            return 130
        incomplete = self.missing or self.unexplained or not self.recording_complete
        return 0 if self.frames_processed and not incomplete else 1

    def rows(self) -> list[tuple[str, str]]:
        """The closing table."""
        per_frame = self.detections / self.answers if self.answers else 0.0
        rows = [
            ("drive", f"{self.drive_s:.1f} s, played in {self.wall_s:.1f} s"),
            ("frames in", str(self.frames_in)),
            ("frames processed", str(self.frames_processed)),
            *([("answers", f"{self.answers}, of several clouds each")] if self.answers < self.frames_processed else []),
            ("dropped", str(self.dropped)),
            *((f"  {name}", str(count)) for name, count in self.not_processed.items()),
            *(
                [("  lost on the way", f"{self.unexplained}, the node says nothing of them")]
                if self.unexplained
                else []
            ),
            ("detections", f"{self.detections} ({per_frame:.1f} per frame)"),
            (
                "mask sparsity",
                "unknown" if self.sparsity is None else f"{self.sparsity:.1%} of the grid not computed",
            ),
            ("latency p50 / p95", f"{_ms(self.latency_p50_ms)} / {_ms(self.latency_p95_ms)}"),
        ]
        if self.recording is not None:
            rows.append(
                (
                    "recording",
                    f"{self.recording}{'' if self.recording_complete else ' (incomplete: see above)'}",
                )
            )
        if self.warnings:
            rows.append(("warnings", "\n".join(self.warnings)))
        return rows


def make_report(results: Results, **rest: object) -> ReplayReport:
    """The report from the counts and everything else by name."""
    total = results.total
    return ReplayReport(
        frames_in=total.frames,
        frames_processed=total.processed,
        detections=total.detections,
        answers=total.answers,
        sparsity=_sparsity(total),
        latency_p50_ms=percentile(total.latencies_ms, 50),
        latency_p95_ms=percentile(total.latencies_ms, 95),
        unmatched=results.unmatched,
        not_processed=results.not_processed(),
        unexplained=results.unexplained(),
        **rest,  # type: ignore[arg-type]
    )


def show_table(console: Console, rows: list[tuple[str, str]], title: str) -> None:
    """Prints name and value, one row each."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, escape(value))
    console.print(table)


class Narrator:
    """Context manager: the progress bar and, above it, one line per second of the drive."""

    def __init__(self, console: Console, drive_ns: int) -> None:
        self._console = console
        self._second = 0
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task("replay", total=max(1, drive_ns))

    def __enter__(self) -> Narrator:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def restart(self) -> None:
        """The bag begins again."""
        self._second = 0

    def at(self, played_ns: int, results: Results, late_s: float) -> None:
        """So much of the drive is played: moves the bar, and prints the line of each second that is over."""
        self._progress.update(self._task, completed=played_ns)
        second = played_ns // 10**9
        if second > self._second:
            self._second = second
            self._line(second, results.take_second(), late_s)

    def finish(self, results: Results) -> None:
        """The drive is over: fills the bar and prints what the last line left."""
        self._progress.update(self._task, completed=self._progress.tasks[0].total)
        rest = results.take_second()
        if rest.frames or rest.processed:
            self._line(self._second + 1, rest, 0.0)

    def _line(self, second: int, counts: Interval, late_s: float) -> None:
        sparsity = _sparsity(counts)
        masked = "    -" if sparsity is None else f"{sparsity:5.1%}"
        late = f"  [yellow]the player is {late_s:.1f} s late[/]" if late_s > 0.2 else ""
        latency = _ms(percentile(counts.latencies_ms, 50))
        self._console.print(
            f"[dim]{second:4d} s[/]  {counts.frames:3d} frames  {counts.processed:3d} processed  "
            f"{counts.detections:4d} detections  {masked} sparse  {latency:>7}{late}",
            highlight=False,
            soft_wrap=True,
        )


def _sparsity(counts: Interval) -> float | None:
    return 1.0 - sum(counts.computed) / len(counts.computed) if counts.computed else None


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"
