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

    def append(self, slot: int, pages: int, codec: int, payload: Bytes) -> int:
        """Write a unit and count it as live; answers the entry of its first page.

        The caller publishes the entry or gives it to `Log.drop`. Raises `FullError`, with
        nothing changed, when the open segment is full and there is no other.
        """
        size = unit_size(len(payload), pages)
        if self._used + size > SEGMENT_SIZE:
            self._roll()
        position = (self._segment << SEGMENT_SHIFT) + self._used
        write_unit(self._memory, position, slot, pages, codec, payload)
        made = entry.pack(position, size // pages, entry.HUGE if codec == STORED else 0)
        self._log.add(self._segment, pages, made)
        self._used += size
        return made

    def _roll(self) -> None:
        full, self._segment = self._segment, self._log.take()
        self._used = 0
        self._log.seal(full)
