"""Fetching: pages on disk, for reads that found some of theirs there.

A read looks at its slots under their clusters' locks, one cluster at a time. What is in memory
it takes at once; for pages on disk it notes a *gap*: their entry, and the sequence of their disk
segment. The gaps are filled later, with no lock held, by any thread.

Invariant GAP-EXACT (named in the tests): what fills a gap is what the slots held when the gap was
noted. The unit is authenticated for the place and the sequence that were noted, so nothing else
passes for it. If it cannot be had, the slots are looked at again: unless they are what they were,
the pages have moved or died meanwhile, and what the slots hold now is as good; else the disk has
lost the unit, and the read fails.

Units are kept decoded for a while: what reads come next will want more of them, and what is
decoded ahead is put there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from vswap.codec import Bytes
from vswap.errors import CorruptError, MediumError
from vswap.geometry import CLUSTER_SHIFT, PAGE_SHIFT
from vswap.store.backing import UNIT_BLOCKS, aligned
from vswap.store.decoder import Decoder
from vswap.store.entry import UNIT_SHIFT, extent_of, index_of, same_page
from vswap.store.parts import Parts

__all__ = ["KEPT_UNITS", "Fetched", "Fetcher", "Gap", "Parked"]

KEPT_UNITS = 64
"""Most units that are kept decoded, of up to 64 KiB each."""


class Gap(NamedTuple):
    """Pages of one unit on disk that a read wants.

    `at` is the place for them among the read's buffers; the slots from `slot` on, `pages` of them,
    have `entry` and the following ones, of a disk segment with `sequence`.
    """

    at: int
    slot: int
    pages: int
    entry: int
    sequence: int


@dataclass(frozen=True)
class Parked:
    """A read that waits for the disk: its buffers, some empty, and the gaps to be filled.

    What was asked for are the `size` bytes from byte `start` on of what the buffers hold then.
    """

    buffers: list[Bytes]
    gaps: list[Gap]
    start: int
    size: int


class Fetched:
    """Units of the disk that have been decoded, for all threads. Small, and never wrong.

    They are found by their entries' upper part and the sequence of their disk segment, which
    together name one unit for ever.
    """

    def __init__(self) -> None:
        """None."""
        self._lock = threading.Lock()
        self._units: dict[tuple[int, int], Bytes] = {}

    def find(self, entry: int, sequence: int) -> Bytes | None:
        """The pages of the unit that `entry` names, if they are here."""
        return self._units.get((entry >> UNIT_SHIFT, sequence))

    def keep(self, entry: int, sequence: int, pages: Bytes) -> None:
        """Keep a unit, instead of the one that has been kept for longest."""
        with self._lock:
            self._units[entry >> UNIT_SHIFT, sequence] = pages
            if len(self._units) > KEPT_UNITS:
                del self._units[next(iter(self._units))]


class Fetcher:
    """Fills gaps, for one thread at a time."""

    def __init__(
        self,
        parts: Parts,
        decoder: Decoder,
        fetched: Fetched,
        look: Callable[[int, int], tuple[list[Bytes], list[Gap]]],
        on_read: Callable[[Gap, bytes], None] = lambda _gap, _unit: None,
    ) -> None:
        """`decoder` must be its own; `look` is `Reader.look`, of a reader of its own.

        `on_read` is told of each gap that was filled from the disk, and the unit as it is there.
        """
        self._parts = parts
        self._decoder = decoder
        self._fetched = fetched
        self._look = look
        self._on_read = on_read
        self._scratch: memoryview | None = None

    def finish(self, read: Parked) -> list[Bytes]:
        """Fill a read's gaps; buffers that together hold what was asked for.

        Raises `CorruptError` or `MediumError` if the disk does not give a page as it was.
        """
        buffers = read.buffers
        for gap in read.gaps:
            buffers[gap.at] = self.fill(gap)
        start, size = read.start, read.size
        if not start and sum(map(len, buffers)) == size:
            return buffers
        return [memoryview(b"".join(buffers))[start : start + size]]

    def fill(self, gap: Gap) -> Bytes:
        """The pages of a gap. Raises as `finish`."""
        while True:
            error: Exception
            try:
                pages, raw = self._pages(gap)
            except CorruptError as corrupt:
                error = corrupt
            except OSError as failed:
                error = MediumError(f"slot {gap.slot}: the backing cannot be read: {failed}")
            else:
                if raw is not None:
                    self._on_read(gap, raw)
                return pages
            if self._is_still(gap):
                if isinstance(error, CorruptError):
                    self._parts.disk.note_corrupt()
                raise error
            buffers, gaps = self._look(gap.slot, gap.pages)
            if not gaps:
                return b"".join(buffers)
            if len(gaps) == len(buffers) == 1:
                gap = gaps[0]
                continue
            return b"".join(self.finish(Parked(buffers, gaps, 0, gap.pages << PAGE_SHIFT)))

    def _pages(self, gap: Gap) -> tuple[Bytes, bytes | None]:
        """A gap's pages; and their whole unit as it is on disk, if it was not at hand."""
        unit, raw = self._unit(gap.slot, gap.entry, gap.sequence)
        start = index_of(gap.entry) << PAGE_SHIFT
        end = start + (gap.pages << PAGE_SHIFT)
        if end > len(unit):
            raise CorruptError(f"slot {gap.slot}: its entry is not of the unit it names")
        return memoryview(unit)[start:end], raw

    def unit(self, slot: int, entry: int, sequence: int) -> Bytes:
        """All pages of the unit on disk that `slot` has `entry` for, and keep them.

        Raises `CorruptError` if it is not there, `OSError` if that cannot be told.
        """
        return self._unit(slot, entry, sequence)[0]

    def _unit(self, slot: int, entry: int, sequence: int) -> tuple[Bytes, bytes | None]:
        """As `unit`; and as it is on disk, if it was not at hand."""
        raw = None
        pages = self._fetched.find(entry, sequence)
        if pages is None:
            raw = self.raw(entry, sequence)
            if raw is None:
                raise CorruptError(f"slot {slot}: its unit on disk is not what was written")
            pages = self._decoder.decode(memoryview(raw), 0, slot - index_of(entry), slot)
            if len(pages) != extent_of(entry).pages << PAGE_SHIFT:
                raise CorruptError(f"slot {slot}: its entry names a unit of another size")
            self._fetched.keep(entry, sequence, pages)
        return pages, raw

    def raw(self, entry: int, sequence: int) -> bytes | None:
        """A unit as `Disk.unit` gives it."""
        if self._scratch is None:
            self._scratch = aligned(UNIT_BLOCKS)
        return self._parts.disk.unit(entry, sequence, self._scratch)

    def _is_still(self, gap: Gap) -> bool:
        """Whether the slots hold what they held when the gap was noted."""
        with self._parts.locks[gap.slot >> CLUSTER_SHIFT]:
            now = self._parts.table.get(gap.slot)
            return same_page(now, gap.entry) and self._parts.sequence_of(now) == gap.sequence
