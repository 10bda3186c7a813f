"""The log: which segments are in use, what lives in them, and when they were filled.

A segment's life:

             take               seal            last page dies
    FREE ----------->  OPEN  ---------->  SEALED  -------------> FREE
                        ^ one appender writes to it     ^ or is moved by the cleaner

Which are free, and how many may be in use, is kept by `vswap.store.places`; that some free ones
have memory already, by `vswap.store.reserve`.

A log that is built on what an earlier worker left (`take_over`) has sealed segments only, but
some were open, and have room behind the last unit that lives. Appenders are given these first,
and go on where it ends (`start_of`). They are in use already, so no limit speaks against it.

The last `KEPT` segments under the limit are the cleaner's: without room to move live pages
to, no dead space could be won back. Writers get `FullError` before that (`take`).

Invariants (each named in the tests; LOG-LIVE is the ledger's, LOG-PLACE that of the places):

LOG-REUSE   a segment is freed only when it is sealed and LOG-LIVE's count is 0. A reader
            holds the cluster lock of a page that lives in the segment, so that page cannot
            die and the segment cannot be freed while it reads.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vswap.errors import FullError
from vswap.geometry import SEGMENT_SHIFT
from vswap.store.ledger import Entries, Ledger
from vswap.store.places import KEPT, SEALED, Places
from vswap.store.plan import Sealed
from vswap.store.region import Region
from vswap.store.reserve import Reserve
from vswap.store.stats import LogStatistics
from vswap.store.tally import Tally

__all__ = ["Inherited", "Log"]


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
    """The segments, their live counts and ages. Holds no data: that is the region's."""

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
        count = region.size >> SEGMENT_SHIFT
        self._lock = threading.Lock()
        self._places = Places(count)
        self._reserve = Reserve(region, self._places, self._lock, reserve, wake)
        self.ledger = Ledger(count)
        self.sequence: npt.NDArray[np.int64] = np.zeros(count, np.int64)
        self.born: npt.NDArray[np.float64] = np.zeros(count, np.float64)
        self._used: npt.NDArray[np.int32] = np.zeros(count, np.int32)
        self._filled = 0  # how often a segment was taken or started over
        self._unfinished: dict[int, float] = {}  # when sealed; the one with most room is the last
        self._resumed: dict[int, float] = {}  # and when open
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
            self._places.take_over(sealed, inherited.ready)
            self._used[:] = inherited.ends
            self._filled = len(sealed)
            self.sequence[sealed] = np.arange(1, self._filled + 1)
            self.born[sealed] = now
            self._unfinished = dict.fromkeys(inherited.unfinished, now)

    def set_limit(self, limit: int | None) -> None:
        """Change how many segments may have memory.

        If more have it, the ceiling sinks from where it was to the limit as segments are freed;
        until then writers get none, and the cleaner has what it keeps.
        """
        with self._lock:
            self._places.set_limit(limit)
        self._reserve.wake()

    @property
    def limit(self) -> int:
        """How many segments may have memory behind them."""
        return self._places.limit

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
            if self._places.room <= kept:
                raise FullError("no segment is free")
            segment = self._places.take()
            self._stamp(segment)
            low = self._reserve.is_low()
        if low:
            self._reserve.wake()
        return segment

    def _resume(self) -> int:
        segment, born = self._unfinished.popitem()
        self._resumed[segment] = born
        self._places.reopen(segment)
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
            return self._places.room

    def room_is_coming(self) -> bool:
        """Whether a writer that found no room should look again.

        Because there is some, or there will be when maintenance is done with a segment.
        """
        with self._lock:
            return self._places.room + self._places.busy > KEPT

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
            self._places.seal(segment)
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
            if self._places.state[segment] == SEALED:
                self._free(segment)

    def _free(self, segment: int) -> None:
        """Lock held; the segment is sealed and nothing lives in it."""
        self._unfinished.pop(segment, None)
        self._places.free(segment)
        self._reserve.look_over()

    def maintain(self, idle: bool) -> None:
        """As `Reserve.maintain`: for the background."""
        self._reserve.maintain(idle)

    # --- Looking --------------------------------------------------------------------------

    def sealed(self) -> Sealed:
        """The sealed segments and what the choice between them depends on: a copy."""
        with self._lock:
            segments = self._places.in_place(SEALED)
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
            sealed = self._places.state[segment] == SEALED
            return sealed and bool(self.sequence[segment] == sequence)

    @contextmanager
    def still(self) -> Iterator[tuple[bytearray, Ledger]]:
        """Nothing of the log changes within; gives the segments' states and the ledger."""
        with self._lock:
            yield self._places.state, self.ledger

    def statistics(self) -> LogStatistics:
        """A consistent snapshot."""
        with self._lock:
            ledger, places = self.ledger, self._places
            return LogStatistics(
                pages_live=ledger.live_pages,
                bytes_live=ledger.live_bytes,
                pages_staged=ledger.staged,
                pages_cold=ledger.cold,
                huge_pages=ledger.huge,
                huge_pages_since=ledger.huge_since,
                segments_limit=places.limit,
                segments_in_use=places.in_use,
                segments_open=places.open,
                segments_sealed=places.sealed,
                segments_ready=places.ready,
                segments_busy=places.busy,
            )
