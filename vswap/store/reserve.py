"""The reserve: free segments that have memory behind them before a writer wants them.

An appender that finds none ready takes a hole and pays for the page faults itself. So some are
kept ready by `maintain`, called from the background: it populates what is missing and gives back
what is too much. Populating a segment costs as much as compressing what goes into it, so a busy
log, which frees one segment for each that it takes, is let alone between half and four times the
reserve; at rest the reserve is kept, or less where that would be much beside what is stored.

The lock is the log's, and never held while memory is populated or punched: a segment is busy
meanwhile (LOG-PLACE), and so nobody else's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from vswap.geometry import SEGMENT_SHIFT, SEGMENT_SIZE
from vswap.store.places import HOLE, KEPT, READY, Places
from vswap.store.region import Region

__all__ = ["Reserve"]

_SLACK = 4
"""How many times the reserve may be ready before some is given back at once."""

_REST_SHARE = 64
"""At rest, one segment is kept ready for so many in use, and two at least."""


class Reserve:
    """Keeps about `size` segments of one region ready."""

    def __init__(
        self,
        region: Region,
        places: Places,
        lock: threading.Lock,
        size: int,
        wake: Callable[[], None],
    ) -> None:
        """`wake` asks for `maintain`, from any thread and often; it must not block."""
        self._region = region
        self._places = places
        self._lock = lock
        self._size = size
        self.wake = wake

    def is_low(self) -> bool:
        """Whether `maintain` is due, after a segment was taken. Lock held."""
        return 2 * self._places.ready < self._size

    def look_over(self) -> None:
        """Ask for `maintain` if there is too much, after a segment was freed. Lock held."""
        places = self._places
        marks = self._size + 1, _SLACK * self._size + 1
        if places.ready in marks or places.in_use > places.limit:
            self.wake()

    def maintain(self, idle: bool) -> None:
        """Bring the ready segments near the reserve, or if `idle` to it. For the background.

        Raises `OSError` when the kernel has no memory to populate a segment with; the
        segment is a hole again then, and the next call tries once more. If `idle`, segments that
        are holes and have got memory all the same are punched again: whoever keeps the mapping
        populated for a worker to come may have been late to see that they were given back.
        """
        if idle:
            self._heal()
        while (job := self._begin(idle)) is not None:
            segment, populate = job
            start = segment << SEGMENT_SHIFT
            state = READY  # it has memory, if not all of it
            try:
                if populate:
                    self._region.populate(start, SEGMENT_SIZE)
                else:
                    self._region.punch(start, SEGMENT_SIZE)
                    state = HOLE
            except OSError:
                if populate:
                    self._region.punch(start, SEGMENT_SIZE)
                    state = HOLE
                raise
            finally:
                self._settle(segment, state)

    def _begin(self, idle: bool) -> tuple[int, bool] | None:
        """Take a segment into maintenance; whether to populate or to punch it."""
        places = self._places
        with self._lock:
            least = most = self._size
            if idle:
                least = most = min(most, max(2, places.taken // _REST_SHARE))
            else:
                most *= _SLACK
            if places.ready > most or (places.ready and places.in_use > places.limit):
                return places.begin_punching(), False
            # The last one is left for an appender, which would not find it meanwhile.
            spare = places.in_use < places.limit and places.room > KEPT + 1
            if places.ready < least and spare:
                return places.begin_populating(), True
            return None

    def _heal(self) -> None:
        with self._lock:
            explained = self._places.in_use << SEGMENT_SHIFT
        if self._region.allocated() <= explained:
            return
        at: int | None = 0
        while at is not None and (at := self._region.next_data(at)) is not None:
            segment = at >> SEGMENT_SHIFT
            if self._seize(segment):
                try:
                    self._region.punch(segment << SEGMENT_SHIFT, SEGMENT_SIZE)
                finally:
                    self._settle(segment, HOLE)
            at = (segment + 1) << SEGMENT_SHIFT

    def _seize(self, segment: int) -> bool:
        with self._lock:
            return self._places.seize(segment)

    def _settle(self, segment: int, state: int) -> None:
        with self._lock:
            self._places.settle(segment, state)
