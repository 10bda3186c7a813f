"""Windows: parts of disk segments as they lie on the disk, read ahead of who reads in order.

What was written together lies together, so who reads in some order (a swapoff, the kernel's own
read-ahead) mostly reads a disk segment from its start to its end. That is noticed here: a unit
that lies shortly after one that was just read is read with what follows it.
"""

from __future__ import annotations

import threading
from collections import deque

from vswap.store.backing import aligned
from vswap.store.entry import Extent

__all__ = ["WINDOWS", "WINDOW_SIZE", "Window", "Windows"]

WINDOWS = 8
"""How many are kept: for two who read in order, each where the order changes its segment."""

WINDOW_SIZE = 256 << 10
"""Bytes that are read ahead."""

_NEAR = 32 << 10
"""How far behind the end of another unit one may begin to count as following it."""

_REMEMBERED = 16
"""Reads that one may follow."""


class Window:
    """Memory for bytes from `start` on of one filling of a disk segment."""

    def __init__(self) -> None:
        """Empty."""
        self.memory = aligned(WINDOW_SIZE)
        self.segment = self.start = self.size = 0
        self.sequence = 0  # which no filling has
        self.busy = False  # being filled


class Windows:
    """The last few, for all who read."""

    def __init__(self) -> None:
        """None yet: their memory is taken with `prepare`."""
        self._changed = threading.Condition(threading.Lock())
        self._windows: list[Window] = []
        self._ends: deque[tuple[int, int, int]] = deque(maxlen=_REMEMBERED)

    def prepare(self) -> None:
        """Take the memory, once."""
        if not self._windows:
            self._windows = [Window() for _ in range(WINDOWS)]

    def follows(self, extent: Extent, sequence: int) -> bool:
        """A unit is about to be read: whether it lies shortly after one that has just been."""
        segment, offset, size, _ = extent
        with self._changed:
            for at, (of, filling, end) in enumerate(self._ends):
                if of == segment and filling == sequence and 0 <= offset - end <= _NEAR:
                    self._ends[at] = segment, sequence, offset + size
                    return True
            self._ends.append((segment, sequence, offset + size))
        return False

    def find(self, extent: Extent, sequence: int, *, wait: bool = True) -> bytes | None:
        """The unit's bytes, if a window holds them all; without `wait` one that is filled."""
        if not self._windows:
            return None
        with self._changed:
            while (window := self._covering(extent, sequence)) is not None:
                if not window.busy:
                    at = extent.offset - window.start
                    return bytes(window.memory[at : at + extent.size])
                if not wait:
                    break
                self._changed.wait()
        return None

    def _covering(self, extent: Extent, sequence: int) -> Window | None:
        for window in self._windows:
            if (window.segment, window.sequence) == (extent.segment, sequence):
                at = extent.offset - window.start
                if 0 <= at <= window.size - extent.size:
                    return window
        return None

    def begin(self, extent: Extent, sequence: int, start: int, size: int) -> Window | None:
        """The oldest, for the caller to fill with `size` bytes from `start` on and hand to `end`.

        None if all are being filled, or if one holds the unit, or is about to.
        """
        with self._changed:
            if self._covering(extent, sequence) is not None:
                return None
            for window in self._windows:
                if not window.busy:
                    window.busy = True
                    window.segment, window.sequence = extent.segment, sequence
                    window.start, window.size = start, size
                    self._windows.remove(window)
                    self._windows.append(window)
                    return window
        return None

    def end(self, window: Window, *, filled: bool) -> None:
        """It holds what it was to hold, or nothing."""
        with self._changed:
            window.busy = False
            if not filled:
                window.sequence = 0
            self._changed.notify_all()
