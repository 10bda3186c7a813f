"""The log: which segments exist, which are in use, and when they were filled.

A segment's life::

             take               seal            last page dies
    FREE ----------->  OPEN  ---------->  SEALED  -------------> FREE
                        ^ one appender writes to it     ^ or is moved by the cleaner

Free segments are of two sorts: *ready* ones have memory behind them, faulted in, and the
rest are holes. `maintain`, called from the background, keeps some ready: it populates what
is missing and gives back what is too much. An appender that finds none ready takes a hole
and pays for the page faults itself. Populating a segment costs as much as compressing what
goes into it, so a busy log, which frees one segment for each that it takes, is let alone
between half and four times the reserve; at rest the reserve is kept, or less where that
would be much beside what is stored.

A log that is built on what an earlier worker left (`take_over`) has sealed segments only, but
some were open, and have room behind the last unit that lives. Appenders are given these first,
and go on where it ends (`start_of`). They are in use already, so no limit speaks against it.

The last `KEPT` segments under the limit are the cleaner's: without room to move live pages
to, no dead space could be won back. Writers get `FullError` before that (`take`).

Invariants (each named in the tests; LOG-LIVE is the ledger's):

LOG-REUSE   a segment is freed only when it is sealed and LOG-LIVE's count is 0. A reader
            holds the cluster lock of a page that lives in the segment, so that page cannot
            die and the segment cannot be freed while it reads.
LOG-PLACE   each segment is in exactly one place: open at one appender, sealed, ready, in
            maintenance, or a hole. What is taken off a list is put to use or back.
LOG-AGE     `born[s]` is when the youngest page of sealed segment s was written
            (`time.monotonic`; infinite while it is open). `sequence[s]` is another number each
            time segment s is filled anew, so an entry and its segment's sequence together name
            one unit for ever. (Who goes on in a segment does not fill it anew.)

All methods do their own locking: one lock, innermost of all, held for a few operations on
small arrays and never while memory is populated or punched.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vswap.errors import FullError
from vswap.geometry import SEGMENT_SHIFT, SEGMENT_SIZE
from vswap.store.ledger import Entries, Ledger
from vswap.store.plan import Sealed
from vswap.store.region import Region
from vswap.store.stats import LogStatistics
from vswap.store.tally import Tally

__all__ = ["KEPT", "Inherited", "Log"]

KEPT = 2
"""Segments that only the cleaner may take: one to go on in, one in case units grow on the way."""

_SLACK = 4
"""How many times the reserve may be ready before some is given back at once."""

_REST_SHARE = 64
"""At rest, one segment is kept ready for so many in use, and two at least."""

HOLE, READY, OPEN, SEALED, BUSY = range(5)


@dataclass(frozen=True)
class Inherited:
    """What an earlier worker left: what lives where, and `ends`, of the last unit by segment.

    `unfinished` are segments with room behind it that is worth using, the most last; `ready`
    those with memory in which nothing lives.
    """

    tally: Tally
    ends: npt.NDArray[np.int32]
    unfinished: list[int]
    ready: list[int]


class Log:
    """The segments' places, their live counts and ages. Holds no data: that is the region's."""

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
        self._reserve = reserve
        self._wake = wake
        self._lock = threading.Lock()
        self._state = bytearray(count)
        self.ledger = Ledger(count)
        self.sequence: npt.NDArray[np.int64] = np.zeros(count, np.int64)
        self.born: npt.NDArray[np.float64] = np.zeros(count, np.float64)
        self._used: npt.NDArray[np.int32] = np.zeros(count, np.int32)
        self._filled = 0  # how often a segment was taken or started over
        self._ready: deque[int] = deque()
        self._untouched = 0  # segments from here on have never been used
        self._holes: deque[int] = deque()  # those that have, and were given back
        self._in_use = 0  # segments with memory behind them: every state but HOLE
        self._busy = 0
        self._unfinished: dict[int, float] = {}  # when sealed; the one with most room is the last
        self._resumed: dict[int, float] = {}  # and when open
        self._open = self._sealed = 0
        self._ceiling = count
        self.set_limit(limit)

    def take_over(self, inherited: Inherited) -> None:
        """Begin with what an earlier worker left. The log is new, and nobody uses it yet.

        Sequences are given anew: nobody remembers the old ones. The limit is to be set again.
        """
        now = time.monotonic()
        tally = inherited.tally
        with self._lock:
            self.ledger.take_over(tally)
            sealed = tally.segments
            state = np.frombuffer(self._state, np.uint8)
            state[sealed], state[inherited.ready] = SEALED, READY
            self._sealed = len(sealed)
            self._ready.extend(inherited.ready)
            self._in_use = self._sealed + len(self._ready)
            self._untouched = int(np.flatnonzero(state).max(initial=-1)) + 1
            self._holes.extend(np.flatnonzero(state[: self._untouched] == HOLE).tolist())
            self._used[:] = inherited.ends
            self.sequence[sealed] = np.arange(1, self._sealed + 1)
            self._filled = self._sealed
            self.born[sealed] = now
            self._unfinished = dict.fromkeys(inherited.unfinished, now)
            self._ceiling = len(self._state)

    def set_limit(self, limit: int | None) -> None:
        """Change how many segments may have memory.

        If more have it, the ceiling sinks from where it was to the limit as segments are freed;
        until then writers get none, and the cleaner has what it keeps.
        """
        count = len(self._state)
        with self._lock:
            self.limit = count if limit is None else min(limit, count)
            self._sink()
        self._wake()

    def _taken(self) -> int:
        """Segments that cannot be had at once; lock held."""
        return self._in_use - len(self._ready)

    # --- Appending ------------------------------------------------------------------------

    def take(self, kept: int = KEPT) -> int:
        """A segment for the caller to append to, from byte `start_of` on.

        It is one that an earlier worker left unfinished, or else a free one if more than `kept` are
        left under the limit. Raises `FullError` if not. Only the cleaner calls it with another
        `kept`.
        """
        with self._lock:
            if self._unfinished:
                return self._resume()
            if self._room() <= kept:
                raise FullError("no segment is free")
            segment = self._ready.pop() if self._ready else self._take_hole()
            self._state[segment] = OPEN
            self._open += 1
            self._stamp(segment)
            low = 2 * len(self._ready) < self._reserve
        if low:
            self._wake()
        return segment

    def _resume(self) -> int:
        segment, born = self._unfinished.popitem()
        self._resumed[segment] = born
        self._state[segment] = OPEN
        self._sealed -= 1
        self._open += 1
        self.born[segment] = np.inf
        return segment

    def start_of(self, segment: int) -> int:
        """From which byte of a segment on who has just taken it may append."""
        return int(self._used[segment])

    def finish(self, segment: int) -> None:
        """Nobody is to go on in this segment: it is to be emptied."""
        with self._lock:
            self._unfinished.pop(segment, None)

    def published_bytes(self) -> float:
        """What the pages that entries name cost, in bytes, nearly: without what is staged."""
        with self._lock:
            ledger = self.ledger
            published = 1 - ledger.staged / max(ledger.live_pages, 1)
            return ledger.live_bytes * published

    def room(self) -> int:
        """How many segments could be taken, the cleaner's included."""
        with self._lock:
            return self._room()

    def room_is_coming(self) -> bool:
        """Whether a writer that found no room should look again.

        Because there is some, or there will be when maintenance is done with a segment.
        """
        with self._lock:
            return self._room() + self._busy > KEPT

    def _room(self) -> int:
        return self._ceiling - self._taken()

    def _sink(self) -> None:
        """What is taken has become less, or the limit has: the ceiling follows."""
        self._ceiling = max(self.limit, min(self._ceiling, self._taken() + KEPT))

    def _take_hole(self) -> int:
        """Lock held; there is one under the limit."""
        self._in_use += 1
        if self._holes:
            return self._holes.popleft()
        self._untouched += 1
        return self._untouched - 1

    def _stamp(self, segment: int) -> None:
        self._filled += 1
        self.sequence[segment] = self._filled
        self.born[segment] = np.inf
        self._used[segment] = 0
        self._resumed.pop(segment, None)

    def restart(self, segment: int) -> bool:
        """Whether nothing lives in an open segment, so that its appender starts over in it."""
        with self._lock:
            empty = self.ledger.is_empty(segment)
            if empty:
                self._stamp(segment)
            return empty

    def seal(self, segment: int, used: int, born: float | None = None) -> None:
        """Nothing more will be appended to this segment; it goes when its last page dies.

        `used` bytes of it are of units, and pages share in them. `born` is when its youngest
        page was written (`time.monotonic`); None is now.
        """
        with self._lock:
            self._open -= 1
            self._sealed += 1
            self._state[segment] = SEALED
            self._used[segment] = used
            born = time.monotonic() if born is None else born
            self.born[segment] = max(born, self._resumed.pop(segment, 0.0))
            if self.ledger.is_empty(segment):
                self._free(segment)

    # --- Live counts ----------------------------------------------------------------------

    def add(self, segment: int, pages: int, size: int, hot: int, huge: int, cold: int) -> None:
        """Count what has just been appended, so that its segment is not thought empty.

        As `Ledger.add`.
        """
        with self._lock:
            self.ledger.add(segment, pages, size, hot, huge, cold)

    def publish(self, pages: int, dead: Entries) -> None:
        """So many appended pages are named by entries now, in the place of `dead`."""
        with self._lock:
            self.ledger.publish(pages)
            if len(dead):
                self._drop(dead)

    def withdraw(self, entries: list[int]) -> None:
        """These pages have been appended and will not be published."""
        if entries:
            self.publish(len(entries), entries)

    def mark_cold(self, entries: list[int]) -> None:
        """The pages that these entries name have become cold where they are."""
        with self._lock:
            self.ledger.mark_cold(entries)

    def _drop(self, dead: Entries) -> None:
        for segment in self.ledger.drop(dead):
            if self._state[segment] == SEALED:
                self._free(segment)

    def _free(self, segment: int) -> None:
        """Lock held; the segment is sealed and nothing lives in it."""
        self._sealed -= 1
        self._state[segment] = READY
        self._unfinished.pop(segment, None)
        self._ready.append(segment)
        self._sink()
        ready = len(self._ready)
        if ready in (self._reserve + 1, _SLACK * self._reserve + 1) or self._in_use > self.limit:
            self._wake()

    # --- Maintenance ----------------------------------------------------------------------

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
        with self._lock:
            ready = len(self._ready)
            least = most = self._reserve
            if idle:
                least = most = min(most, max(2, self._taken() // _REST_SHARE))
            else:
                most *= _SLACK
            if ready > most or (ready and self._in_use > self.limit):
                segment, populate = self._ready.popleft(), False
            elif ready < least and self._in_use < self.limit and self._room() > KEPT + 1:
                # The last one is left for an appender, which would not find it meanwhile.
                segment, populate = self._take_hole(), True
            else:
                return None
            self._state[segment] = BUSY
            self._busy += 1
            return segment, populate

    def _heal(self) -> None:
        with self._lock:
            explained = self._in_use << SEGMENT_SHIFT
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
        """Take a hole into maintenance, where one more can be spared; whether it is one."""
        with self._lock:
            if self._state[segment] != HOLE or self._room() <= 1:
                return False
            if segment < self._untouched:
                self._holes.remove(segment)
            else:
                self._holes.extend(range(self._untouched, segment))
                self._untouched = segment + 1
            self._in_use += 1
            self._state[segment] = BUSY
            self._busy += 1
            return True

    def _settle(self, segment: int, state: int) -> None:
        with self._lock:
            self._state[segment] = state
            self._busy -= 1
            if state == READY:
                self._ready.append(segment)
            else:
                self._holes.appendleft(segment)
                self._in_use -= 1
                self._sink()

    # --- Looking --------------------------------------------------------------------------

    def sealed(self) -> Sealed:
        """The sealed segments and what the choice between them depends on: a copy."""
        with self._lock:
            state = np.frombuffer(self._state, np.uint8, self._untouched)
            segments = np.flatnonzero(state == SEALED)
            return Sealed(
                segments,
                self.sequence[segments],
                self.ledger.bytes[segments],
                self._used[segments],
                self.ledger.hot[segments],
                self.born[segments],
            )

    def is_sealed(self, segment: int, sequence: int) -> bool:
        """Whether a segment is what it was when it had that sequence, and is sealed."""
        with self._lock:
            return self._state[segment] == SEALED and self.sequence[segment] == sequence

    @contextmanager
    def still(self) -> Iterator[tuple[bytearray, Ledger]]:
        """Nothing of the log changes within; gives the segments' states and the ledger."""
        with self._lock:
            yield self._state, self.ledger

    def statistics(self) -> LogStatistics:
        """A consistent snapshot."""
        with self._lock:
            ledger = self.ledger
            return LogStatistics(
                pages_live=ledger.live_pages,
                bytes_live=ledger.live_bytes,
                pages_staged=ledger.staged,
                pages_cold=ledger.cold,
                huge_pages=ledger.huge,
                huge_pages_since=ledger.huge_since,
                segments_limit=self.limit,
                segments_in_use=self._in_use,
                segments_open=self._open,
                segments_sealed=self._sealed,
                segments_ready=len(self._ready),
                segments_busy=self._busy,
            )
