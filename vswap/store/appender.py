"""The open end of the log, as one thread sees it."""

from __future__ import annotations

from vswap.codec import STORED, Bytes
from vswap.geometry import SEGMENT_SHIFT, SEGMENT_SIZE
from vswap.store import entry
from vswap.store.log import Log
from vswap.store.unit import unit_size, write_unit

__all__ = ["Appender"]


class Appender:
    """Appends units to a segment of its own, so that appending needs no lock. One thread's."""

    def __init__(self, log: Log, memory: memoryview) -> None:
        """Takes its first segment at once: `FullError` here rather than at the first write."""
        self._log = log
        self._memory = memory
        self._segment = log.take()
        self._used = 0
        self._pages = self._size = self._huge = 0  # appended and not yet counted by the log

    def append(self, slot: int, pages: int, codec: int, payload: Bytes) -> int:
        """Write a unit; answers the entry of its first page.

        The caller calls `settle` before it publishes the entry or gives it to `Log.drop`.
        Raises `FullError`, with nothing changed, when the open segment is full and there is
        no other.
        """
        size = unit_size(len(payload), pages)
        if self._used + size > SEGMENT_SIZE:
            self._roll()
        position = (self._segment << SEGMENT_SHIFT) + self._used
        write_unit(self._memory, position, slot, pages, codec, payload)
        self._used += size
        self._pages += pages
        self._size += size
        if codec == STORED:
            self._huge += pages
            return entry.pack(position, size // pages, entry.HUGE)
        return entry.pack(position, size // pages, 0)

    def settle(self) -> None:
        """Count what has been appended as live, all at once: the log's lock is not free."""
        if self._pages:
            self._log.add(self._segment, self._pages, self._size, self._huge)
            self._pages = self._size = self._huge = 0

    def _roll(self) -> None:
        self.settle()
        if not self._log.is_vacant(self._segment):
            fresh = self._log.take()
            self._log.seal(self._segment)
            self._segment = fresh
        self._used = 0
