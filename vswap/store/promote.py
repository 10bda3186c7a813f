"""Promotion: what is read from the disk again goes back to memory.

The first read of a page on disk only marks it LOADED: its reader has it now, and this copy is
colder than ever. A second read shows that the reader had to let it go, unchanged, and wanted it
back: a page that comes and goes. Its unit is copied to memory as it is, in the place of whatever
is colder there. docs/codecs.md has what that gains.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from vswap.errors import FullError
from vswap.geometry import CLUSTER_SHIFT
from vswap.store.entry import INDEX_SHIFT, LOADED, UNIT_SHIFT, extent_of, index_of
from vswap.store.fetch import Gap
from vswap.store.jobs import Job, Jobs
from vswap.store.parts import Parts, entries_of
from vswap.store.places import KEPT
from vswap.store.unit import padded, unit_length

__all__ = ["Promoter"]

_LEFT = KEPT + 2
"""Segments of memory that are left for writers."""


class Promoter:
    """Told of reads from the disk by any thread."""

    def __init__(self, parts: Parts, jobs: Jobs, lock: threading.Lock) -> None:
        """`lock` is `Upkeep.lock`, for `jobs`."""
        self._parts = parts
        self._jobs = jobs
        self._lock = lock
        self.pages = 0
        """How many have been promoted."""

    def read(self, gap: Gap, unit: bytes) -> None:
        """These pages have been read, with their whole unit; no lock is held."""
        if not gap.entry & LOADED:
            self._mark(gap)
        elif self._lock.acquire(blocking=False):  # else there is something more urgent
            try:
                self._jobs.do_piece(Job(self._promote(gap, unit), _LEFT))
            except FullError:
                pass  # it is readable where it is
            finally:
                self._lock.release()

    def _mark(self, gap: Gap) -> None:
        with self._parts.locks[gap.slot >> CLUSTER_SHIFT]:
            current = self._parts.table.entries(gap.slot, gap.pages)
            if self._parts.sequence_of(gap.entry) == gap.sequence:
                for slot, entry in enumerate(current, gap.slot):
                    if entry >> UNIT_SHIFT == gap.entry >> UNIT_SHIFT:
                        self._parts.table.replace(slot, entry | LOADED)

    def _promote(self, gap: Gap, unit: bytes) -> Iterator[int]:
        """Append the unit to memory's log for those of its slots that still name it."""
        index, pages = index_of(gap.entry), extent_of(gap.entry).pages
        first = gap.slot - index
        data = padded(unit[: unit_length(memoryview(unit), 0)], pages)
        of_unit = entries_of(gap.entry - (index << INDEX_SHIFT), pages)
        with self._parts.locks[first >> CLUSTER_SHIFT]:
            entries = self._parts.still(first, of_unit, gap.sequence)
            if not entries[index]:
                return
            for slot, entry in enumerate(entries, first):
                if entry & LOADED:  # it begins anew, as something that is wanted
                    self._parts.table.replace(slot, entry & ~LOADED)
            moved = self._jobs.relocator.put(first, entries, data, time.monotonic())
        self.pages += moved
        yield moved
