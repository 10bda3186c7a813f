"""Which figures of the comparison are shown, under which heading, and what is good.

The names are those that `bench.work` gives. All others are in the JSON.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GROUPS", "OURS", "SHOWN", "Group", "Shown"]

OURS = "vswap"


@dataclass(frozen=True)
class Shown:
    """A figure. `part` is one that it contains, or that comes of it, and what that is.

    What is `brief` is in the one table that has the most important figures.
    """

    figure: str
    heading: str
    unit: str
    more_is_better: bool = False
    part: str | None = None
    part_heading: str = ""
    brief: bool = False

    def advantage(self, ours: float, theirs: float) -> float | None:
        """How many times better ours is; below 1 it is worse. None if nothing can be said."""
        better, worse = (ours, theirs) if self.more_is_better else (theirs, ours)
        return better / worse if worse else None


@dataclass(frozen=True)
class Group:
    """Figures of one sort: a plot by that name, and a table."""

    name: str
    title: str
    shown: tuple[Shown, ...]


def _speed(figure: str, heading: str, unit: str, brief: bool = False) -> Shown:
    return Shown(figure, heading, unit, more_is_better=True, brief=brief)


def _hog_cpu(order: str, heading: str, brief: bool = False) -> Shown:
    return Shown(
        f"hog, {order}, CPU: s/GiB",
        heading,
        "CPU s/GiB",
        part=f"hog, {order}, CPU of the serving processes: s/GiB",
        part_heading="in the serving processes",
        brief=brief,
    )


GROUPS = (
    Group(
        "requests",
        "4 KiB requests",
        (
            Shown("4K read, depth 1: mean us", "4K random read, depth 1", "us", brief=True),
            Shown("4K write, depth 1: mean us", "4K random write, depth 1", "us"),
            _speed("4K read, depth 16: reads/s", "4K random read, depth 16", "reads/s", True),
            _speed("4K write, depth 16: writes/s", "4K random write, depth 16", "writes/s", True),
        ),
    ),
    Group(
        "throughput",
        "Large requests, two streams",
        (
            _speed("128K write, 2 streams: MB/s", "128K write, new device", "MB/s", True),
            _speed("128K overwrite, 2 streams: MB/s", "128K write, full device", "MB/s"),
            _speed("128K read, 2 streams: MB/s", "128K read", "MB/s"),
            _speed("1M write, 2 streams: MB/s", "1M write, full device", "MB/s"),
            _speed("1M read, 2 streams: MB/s", "1M read", "MB/s"),
        ),
    ),
    Group(
        "memory",
        "Memory",
        (
            Shown(
                "bytes per page",
                "memory for a page, after 128K writes",
                "bytes/page",
                part="moved down, bytes per page",
                part_heading="after moving down",
                brief=True,
            ),
            Shown(
                "swapoff, bytes per page",
                "memory for a page, of a process that is swapped out",
                "bytes/page",
            ),
            Shown("beside the pool: MiB", "memory beside the pages (PSS)", "MiB"),
        ),
    ),
    Group(
        "hog",
        "Memory hog",
        (
            _speed("hog, seq, in all: pages/s", "memory hog, sequential", "pages/s", True),
            _speed("hog, random, in all: pages/s", "memory hog, random", "pages/s", True),
            _speed("hog, seq, fill: pages/s", "filling: swapping out", "pages/s"),
            _speed("hog, random, verify 1: pages/s", "reading at random", "pages/s"),
        ),
    ),
    Group(
        "processor",
        "Processor time of the hog's swapping",
        (
            _hog_cpu("seq", "memory hog, sequential", True),
            _hog_cpu("random", "memory hog, random"),
        ),
    ),
    Group(
        "swapoff",
        "swapoff",
        (
            Shown("swapoff, s", "swapoff (ours with reading ahead)", "s", brief=True),
            Shown("swapoff alone, s", "swapoff alone, ours", "s", brief=True),
        ),
    ),
)

SHOWN = {shown.figure: shown for group in GROUPS for shown in group.shown}
