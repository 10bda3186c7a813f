"""A log to test with, on a region that can be told to fail, and units to count in it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable

from model.audit import holes
from model.memory import data_extents

from vswap.geometry import SEGMENT_SIZE
from vswap.store import entry
from vswap.store.log import Log
from vswap.store.places import READY
from vswap.store.region import Region

__all__ = ["Harness", "Segments", "each_page", "freed", "unit", "woken_by"]

_MOST_POPULATES = 200
"""More than any log of these tests can want in one go: it would go on for ever."""


class Segments(Region):
    """A region that can be told to fail.

    `refuse` is how many of the next populates do; `refused_after` the bytes that they have
    populated by then, as MADV_POPULATE_WRITE stops where memory ends. `refuse_punch` is how
    many of the next punches do.
    """

    refuse = 0
    refused_after = 0
    refuse_punch = 0
    populates = 0

    def populate(self, offset: int, length: int) -> None:
        self.populates += 1
        assert self.populates <= _MOST_POPULATES, "maintenance does not come to an end"
        if self.refuse:
            self.refuse -= 1
            if self.refused_after:
                super().populate(offset, self.refused_after)
            raise OSError(errno.ENOMEM, "no memory")
        super().populate(offset, length)

    def punch(self, offset: int, length: int) -> None:
        if self.refuse_punch:
            self.refuse_punch -= 1
            raise OSError(errno.EINTR, "interrupted")
        super().punch(offset, length)

    def with_memory(self) -> set[int]:
        """The segments that have any memory behind them."""
        return {
            segment
            for start, stop in data_extents(self)
            for segment in range(start // SEGMENT_SIZE, -(-stop // SEGMENT_SIZE))
        }


class Harness:
    """A log and what it is made of."""

    def __init__(self, segments: int, reserve: int = 0, limit: int | None = None) -> None:
        region = Segments.create("segments", segments * SEGMENT_SIZE)
        assert isinstance(region, Segments)
        self.region = region
        self.wakes = 0
        self.log = Log(region, reserve, limit, self._wake)

    def _wake(self) -> None:
        self.wakes += 1

    def take(self) -> int:
        """Any segment that is left, the cleaner's included."""
        return self.log.take(0)

    def seal(self, segment: int) -> None:
        self.log.seal(segment, SEGMENT_SIZE)

    def stage(self, first: int, pages: int) -> None:
        """Count a unit appended where `first`, the entry of its first page, says."""
        segment, size = entry.segment_of(first), entry.share_of(first) * pages
        hot = 0 if first & entry.NOT_HOT else pages
        huge = pages if first & entry.HUGE else 0
        cold = pages if first & entry.COLD else 0
        self.log.add(segment, pages, size, hot, huge, cold)

    def add(self, first: int, pages: int) -> None:
        """Count a unit that is appended and published."""
        self.stage(first, pages)
        self.log.publish(pages, [])

    def drop(self, entries: list[int]) -> None:
        self.log.publish(0, entries)

    def maintain(self, idle: bool) -> None:
        self.region.populates = 0
        self.log.maintain(idle)

    def ready(self) -> set[int]:
        return {segment for segment, state in enumerate(self.states()) if state == READY}

    def states(self) -> list[int]:
        return list(self.log._places.state)

    def snapshot(self) -> object:
        """All that a call which fails must leave as it was."""
        log = self.log
        return (
            bytes(log._places.state),
            sorted(log._places._ready),
            sorted(holes(log)),
            log.ledger.pages.tolist(),
            log.ledger.bytes.tolist(),
            log.ledger.hot.tolist(),
            log.statistics(),
            log._places._ceiling,
        )


def unit(segment: int, share: int = 400, flags: int = 0, offset: int = 0) -> int:
    """The first entry of a unit in `segment`."""
    return entry.pack(segment * SEGMENT_SIZE + offset, share, flags)


def each_page(first: int, pages: int) -> list[int]:
    """The entries of a unit's pages."""
    return [first + (i << entry.INDEX_SHIFT) for i in range(pages)]


def freed(harness: Harness, count: int) -> None:
    """Make `count` segments ready, with memory behind them, by using them up."""
    for segment in [harness.take() for _ in range(count)]:
        harness.region.view[segment * SEGMENT_SIZE] = 1
        harness.seal(segment)


def woken_by(harness: Harness, calls: Iterable[Callable[[], object]]) -> list[int]:
    """How often each call woke the background."""
    counts = []
    for call in calls:
        before = harness.wakes
        call()
        counts.append(harness.wakes - before)
    return counts
