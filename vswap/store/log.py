"""The log: which segments exist, which are in use, and how much of each is alive.

A segment's life::

             take               seal                 last page dies
    FREE ----------->  OPEN  ---------->  SEALED  -------------------> FREE
                        ^ one appender writes to it

Free segments are of two sorts: *ready* ones have memory behind them, faulted in, and the
rest are holes. `maintain`, called from the background, keeps some ready: it populates what
is missing and gives back what is too much. An appender that finds none ready takes a hole
and pays for the page faults itself. Populating a segment costs as much as compressing what
goes into it, so a busy log, which frees one segment for each that it takes, is let alone
between half and four times the reserve; at rest exactly the reserve is kept.

Invariants (each named in the tests):

LOG-LIVE    `pages[s]` is the number of live pages in segment s, plus those appended to it and
            not yet published; `bytes[s]` is the sum of their shares.
LOG-REUSE   a segment is freed only when it is sealed and LOG-LIVE's count is 0. A reader
            holds the cluster lock of a page that lives in the segment, so that page cannot
            die and the segment cannot be freed while it reads.
LOG-PLACE   each segment is in exactly one place: open at one appender, sealed, ready, in
            maintenance, or a hole. What is taken off a list is put to use or back.

All methods do their own locking: one lock, innermost of all, held for a few operations on
small arrays and never while memory is populated or punched.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vswap.errors import FullError
from vswap.geometry import SEGMENT_SHIFT, SEGMENT_SIZE
from vswap.store.entry import (
    ALIGNMENT,
    HUGE,
    SHARE_MASK,
    SHARE_SHIFT,
    first_entry_after,
    segment_of,
)
from vswap.store.region import Region

__all__ = ["Log", "LogStatistics"]

_SLACK = 4
"""How many times the reserve may be ready before some is given back at once."""

_HOLE, _READY, _OPEN, _SEALED, _BUSY = range(5)


@dataclass(frozen=True)
class LogStatistics:
    """Counts of live pages and of segments. `bytes_live` is the sum of live pages' shares."""

    pages_live: int
    bytes_live: int
    huge_pages: int
    huge_pages_since: int
    segments_open: int
    segments_sealed: int
    segments_ready: int
    segments_max: int


class Log:
    """The segments' states and live counts. Holds no data: that is the region's."""

    def __init__(
        self,
        region: Region,
        reserve: int,
        limit: int | None = None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """`limit` bounds the segments with memory behind them; `wake` asks for `maintain`.

        `wake` is called from any thread, often, and must not block.
        """
        self._region = region
        count = region.size >> SEGMENT_SHIFT
        self._limit = count if limit is None else min(limit, count)
        self._reserve = min(reserve, self._limit)
        self._wake = wake
        self._lock = threading.Lock()
        self._state = bytearray(count)
        self.pages: npt.NDArray[np.int32] = np.zeros(count, np.int32)
        self.bytes: npt.NDArray[np.int32] = np.zeros(count, np.int32)
        self._pages = self.pages.data
        self._bytes = self.bytes.data
        self._ready: deque[int] = deque()
        self._untouched = 0  # segments from here on have never been used
        self._holes: deque[int] = deque()  # those that have, and were given back
        self._in_use = 0  # segments with memory behind them: every state but _HOLE
        self._in_use_max = 0
        self._open = self._sealed = 0
        self._live_pages = 0
        self._live_bytes = 0
        self._live_huge = 0
        self._huge_since = 0

    def take(self) -> int:
        """A segment for the caller to append to. Raises `FullError` if there is none."""
        with self._lock:
            segment = self._ready.pop() if self._ready else self._take_hole()
            self._state[segment] = _OPEN
            self._open += 1
            low = 2 * len(self._ready) < self._reserve
        if low:
            self._wake()
        return segment

    def _take_hole(self) -> int:
        if self._in_use >= self._limit:
            raise FullError("no segment is free")
        self._in_use += 1
        self._in_use_max = max(self._in_use_max, self._in_use)
        if self._holes:
            return self._holes.popleft()
        self._untouched += 1
        return self._untouched - 1

    def seal(self, segment: int) -> None:
        """Nothing more will be appended to this segment; it goes when its last page dies."""
        with self._lock:
            self._open -= 1
            self._sealed += 1
            self._state[segment] = _SEALED
            if not self._pages[segment]:
                self._free(segment)

    def is_vacant(self, segment: int) -> bool:
        """Whether no page lives in an open segment, so that its appender may start over."""
        with self._lock:
            return not self._pages[segment]

    def add(self, segment: int, pages: int, size: int, huge: int) -> None:
        """Count `pages` pages just appended, of `size` bytes in all, `huge` of them stored."""
        with self._lock:
            self._pages[segment] += pages
            self._bytes[segment] += size
            self._live_pages += pages
            self._live_bytes += size
            self._live_huge += huge
            self._huge_since += huge

    def drop(self, entries: list[int]) -> None:
        """The pages that these entries named are dead."""
        entries = sorted(entries)  # by segment, which is all that is above the offset
        at = 0
        with self._lock:
            while at < len(entries):
                segment = segment_of(entries[at])
                end = bisect_left(entries, first_entry_after(segment), at)
                self._drop_from(segment, entries[at:end])
                at = end

    def _drop_from(self, segment: int, entries: list[int]) -> None:
        size = sum([entry >> SHARE_SHIFT & SHARE_MASK for entry in entries]) * ALIGNMENT
        self._bytes[segment] -= size
        self._pages[segment] -= len(entries)
        self._live_bytes -= size
        self._live_pages -= len(entries)
        self._live_huge -= sum([entry & HUGE for entry in entries])
        if not self._pages[segment] and self._state[segment] == _SEALED:
            self._free(segment)

    def _free(self, segment: int) -> None:
        """Lock held; the segment is sealed and nothing lives in it."""
        self._sealed -= 1
        self._state[segment] = _READY
        self._ready.append(segment)
        if len(self._ready) == self._reserve + 1 or len(self._ready) > _SLACK * self._reserve:
            self._wake()

    def maintain(self, idle: bool) -> None:
        """Bring the ready segments near the reserve, or if `idle` to it. For the background.

        Raises `OSError` when the kernel has no memory to populate a segment with; the
        segment is a hole again then, and the next call tries once more.
        """
        most = self._reserve * (1 if idle else _SLACK)
        while (job := self._begin(most)) is not None:
            segment, populate = job
            done = False
            try:
                if populate:
                    self._region.populate(segment << SEGMENT_SHIFT, SEGMENT_SIZE)
                    done = True
            finally:
                if not done:  # not even in part
                    self._region.punch(segment << SEGMENT_SHIFT, SEGMENT_SIZE)
                self._settle(segment, _READY if done else _HOLE)

    def _begin(self, most: int) -> tuple[int, bool] | None:
        """Take a segment into maintenance; whether to populate or to punch it."""
        with self._lock:
            if len(self._ready) > most:
                segment, populate = self._ready.popleft(), False
            elif len(self._ready) < self._reserve and self._in_use < self._limit - 1:
                # The last one is left for an appender, which would not find it meanwhile.
                segment, populate = self._take_hole(), True
            else:
                return None
            self._state[segment] = _BUSY
            return segment, populate

    def _settle(self, segment: int, state: int) -> None:
        with self._lock:
            self._state[segment] = state
            if state == _READY:
                self._ready.append(segment)
            else:
                self._holes.appendleft(segment)
                self._in_use -= 1

    def statistics(self) -> LogStatistics:
        """A consistent snapshot."""
        with self._lock:
            return LogStatistics(
                pages_live=self._live_pages,
                bytes_live=self._live_bytes,
                huge_pages=self._live_huge,
                huge_pages_since=self._huge_since,
                segments_open=self._open,
                segments_sealed=self._sealed,
                segments_ready=len(self._ready),
                segments_max=self._in_use_max,
            )
