"""The open end of the log, as one thread sees it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from vswap.codec import STORED, Bytes
from vswap.errors import FullError
from vswap.geometry import SEGMENT_SHIFT, SEGMENT_SIZE
from vswap.store import entry
from vswap.store.log import Log
from vswap.store.unit import unit_size, write_unit

__all__ = ["Appender"]


class Appender:
    """Appends units to a segment of its own, so that appending needs no lock. One thread's."""

    def __init__(self, log: Log, memory: memoryview, take: Callable[[], int]) -> None:
        """`take` gives a segment of the log or raises `FullError`; asked when one is needed."""
        self._log = log
        self._memory = memory
        self._take = take
        self._segment: int | None = None
        self._used = SEGMENT_SIZE
        self._lost = 0  # bytes that no page could be given a share of
        self._born = self._written = 0.0
        self._pages = self._size = 0  # not yet counted by the log
        self._hot = self._huge = self._cold = 0

    def append(self, slot: int, pages: int, codec: int, payload: Bytes, flags: int = 0) -> int:
        """Write a unit; answers the entry of its first page, with `flags` and what else is due.

        The caller calls `settle` before it publishes the entry or withdraws it.
        Raises `FullError`, with nothing changed, when the open segment is full and there is
        no other.
        """
        size = unit_size(len(payload), pages)
        position = self._place(size)
        write_unit(self._memory, position, slot, pages, codec, payload)
        if codec == STORED:
            flags |= entry.HUGE
        return self._count(position, pages, size // pages, flags)

    def copy(self, unit: Bytes, live: int, flags: int) -> int:
        """Append a whole unit as it stands somewhere else; otherwise as `append`.

        `live` of its pages are to be named by entries, and share in all of it.
        """
        size = len(unit)
        position = self._place(size)
        self._memory[position : position + size] = unit
        share = min(size // live & -entry.ALIGNMENT, entry.SHARE_MAX)
        self._lost += size - share * live
        return self._count(position, live, share, flags)

    def open_at_hand(self) -> None:
        """Open a segment, if the log has one without any work being done for it."""
        with suppress(FullError):
            self._begin(self._log.take())

    def ensure(self, size: int) -> None:
        """Make sure that units of `size` bytes in all can be appended without asking for room.

        For a caller that will append under a cluster's lock, where room cannot be made.
        """
        if self._used + size > SEGMENT_SIZE:
            self._roll()

    def written_at(self, born: float) -> None:
        """What is appended from now on is so old: a segment is as old as its youngest page."""
        self._written = born

    @property
    def spare(self) -> float:
        """The part of the open segment, if there is one, that is left."""
        return 0.0 if self._segment is None else 1 - self._used / SEGMENT_SIZE

    def settle(self) -> None:
        """Count what has been appended as live, all at once: the log's lock is not free."""
        if self._pages:
            assert self._segment is not None
            self._log.add(self._segment, self._pages, self._size, self._hot, self._huge, self._cold)
            self._pages = self._size = self._hot = self._huge = self._cold = 0

    def _place(self, size: int) -> int:
        """Where a unit of `size` bytes goes, which is taken by it."""
        self.ensure(size)
        assert self._segment is not None
        position = (self._segment << SEGMENT_SHIFT) + self._used
        self._used += size
        return position

    def _count(self, position: int, pages: int, share: int, flags: int) -> int:
        self._pages += pages
        self._size += share * pages
        self._born = max(self._born, self._written)
        if not flags & entry.NOT_HOT:
            self._hot += pages
        if flags & entry.HUGE:
            self._huge += pages
        if flags & entry.COLD:
            self._cold += pages
        return entry.pack(position, share, flags)

    def _roll(self) -> None:
        """Open another segment. The full one is sealed before: it may be what is cleaned for it."""
        self.settle()
        if self._segment is not None and self._log.restart(self._segment):
            self._begin(self._segment)
            return
        if self._segment is not None:
            full, self._segment = self._segment, None
            self._log.seal(full, self._used - self._lost, self._born or None)
        self._used = SEGMENT_SIZE
        self._begin(self._take())

    def _begin(self, segment: int) -> None:
        self._segment = segment
        self._used = self._log.start_of(segment)
        self._lost = 0
        self._born = 0.0
