"""The log on disk: which disk segments are in use, and how much of each is alive.

A disk segment's life::

            take               fill            last page dies
    FREE ----------->  TAKEN ---------->  FULL -------------> FREE
      ^------------------' put_back

It is written once, as a whole, while nothing names it; then entries come to name its units, and
it is free again when the last of them has gone. One that could not be written is put aside
(BAD) until a backing is attached anew, or grows; but never the last one that is free.

Invariants (each named in the tests):

DISK-LIVE    as LOG-LIVE (vswap/store/ledger.py), for disk segments.
DISK-REUSE   a disk segment is taken only when no entry names it. A reader holds no lock while it
             reads; what it then reads may be another filling, which its sequence tells apart.
DISK-AGE     `sequence[s]` is the number of the last filling of disk segment s. It is stored
             before an entry names the filling, and no two fillings ever have the same.

All methods do their own locking: one lock, innermost of all, held for a few operations.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vswap.errors import DiskFullError
from vswap.geometry import PAGE_SIZE
from vswap.store.ledger import Entries, Ledger
from vswap.store.note_copy import NoteCopy
from vswap.store.region import Region
from vswap.store.select import ends_of_extents
from vswap.store.tally import Tally

__all__ = ["KEPT_ON_DISK", "KEY_SIZE", "DiskLog", "Filling", "Full"]

KEPT_ON_DISK = 1
"""Free disk segments that only the cleaning of the disk may take."""

_FREE, _TAKEN, FULL, _BAD = range(4)

KEY_SIZE = 32
_NUMBER = 8
_COUNTER, _EMPTYING = 4, 5
"""Places of 64-bit numbers in the region: the last sequence given out; whether the disk is being
emptied. Each is stored whole: `struct` would write its bytes one after the other, and before that
zeros, and a worker may be killed between two of them."""
_NOTE_AT = 64
assert _NOTE_AT + NoteCopy.SIZE <= PAGE_SIZE


@dataclass(frozen=True)
class Filling:
    """What a disk segment has been filled with: its sequence, bytes written, and the ledger's.

    Pages and bytes that units take, and how many of the pages are hot, huge and cold.
    """

    sequence: int
    used: int
    pages: int
    size: int
    hot: int
    huge: int
    cold: int


@dataclass(frozen=True)
class Full:
    """The disk segments that are filled: number, bytes alive, bytes written."""

    segments: npt.NDArray[np.int64]
    live: npt.NDArray[np.int32]
    used: npt.NDArray[np.int32]

    def dead_bytes(self) -> int:
        """Bytes that cleaning could win back."""
        return int((self.used - self.live).sum(dtype=np.int64))


class DiskLog:
    """Disk segments' places and live counts. Holds no data, and does no I/O."""

    def __init__(self, region: Region, most: int | None = None) -> None:
        """For `most` disk segments, or for as many as `region` has room for."""
        self._memory = region.view
        self._numbers = region.view[:PAGE_SIZE].cast("Q")
        self.most = (region.size - PAGE_SIZE) // _NUMBER if most is None else most
        """How many disk segments there can be at most."""
        self.sequence = np.frombuffer(region.view, np.uint64, self.most, PAGE_SIZE)
        self._sequence = self.sequence.data
        self._lock = threading.Lock()
        self._state = bytearray(self.most)
        self._free: list[int] = []  # a heap: the lowest first, so that a disk is filled in order
        self._used: npt.NDArray[np.int32] = np.zeros(self.most, np.int32)
        self.ledger = Ledger(self.most)
        self.size = 0
        """How many disk segments there are: 0 without a backing."""

    @staticmethod
    def region_size(segments: int) -> int:
        """Bytes for so many disk segments: a page with the key and the counter, then theirs."""
        return PAGE_SIZE + segments * _NUMBER

    # --- Key and sequences ----------------------------------------------------------------

    @property
    def key(self) -> memoryview:
        """The place of the key."""
        return self._memory[:KEY_SIZE]

    def next_sequence(self) -> int:
        """A number for a filling that no other ever had (NONCE-ONCE). One thread at a time."""
        self._numbers[_COUNTER] += 1
        return self._numbers[_COUNTER]

    @property
    def note_copy(self) -> NoteCopy:
        """The place for the budget's."""
        return NoteCopy(self._memory[_NOTE_AT : _NOTE_AT + NoteCopy.SIZE])

    @property
    def emptying(self) -> bool:
        """Whether the disk is being emptied, which a worker that is killed leaves to the next."""
        return bool(self._numbers[_EMPTYING])

    @emptying.setter
    def emptying(self, emptying: bool) -> None:
        self._numbers[_EMPTYING] = emptying

    def sequence_of(self, segment: int) -> int:
        """The number of a disk segment's filling; 0 if it has had none."""
        return self._sequence[segment]

    # --- Filling --------------------------------------------------------------------------

    def take_over(self, tally: Tally) -> None:
        """Begin with what an earlier worker left. No backing, and so none free, for now.

        A disk segment ends with its last unit that lives: nobody needs what follows.
        """
        with self._lock:
            self.ledger.take_over(tally)
            full = tally.segments
            np.frombuffer(self._state, np.uint8)[full] = FULL
            self._used[full] = ends_of_extents(tally.last[full])

    @property
    def least_size(self) -> int:
        """How many disk segments there must be for all that live to be among them."""
        return int(self.ledger.pages.nonzero()[0].max(initial=-1)) + 1

    def resize(self, size: int) -> None:
        """There are so many disk segments now, none of them bad; or none at all.

        They can become fewer only when none is in use.
        """
        size = min(size, self.most)
        with self._lock:
            assert size >= (self.size if self.ledger.live_pages else 0)
            for segment in range(self.most):
                if self._state[segment] == _BAD:
                    self._state[segment] = _FREE
            self._free = [at for at in range(size) if self._state[at] == _FREE]
            self.size = size

    def room(self) -> int:
        """How many disk segments are free."""
        return len(self._free)

    def take(self, kept: int = KEPT_ON_DISK) -> int:
        """A disk segment to be filled. Raises `DiskFullError` if no more than `kept` are free."""
        with self._lock:
            if len(self._free) <= kept:
                raise DiskFullError("no segment of the backing is free")
            segment = heapq.heappop(self._free)
            self._state[segment] = _TAKEN
            return segment

    def put_back(self, segment: int, *, bad: bool) -> None:
        """It has not been filled; if `bad` it is not to be tried again, unless it is the last.

        Without any that is free the disk could not be cleaned.
        """
        with self._lock:
            bad = bad and bool(self._free)
            self._state[segment] = _BAD if bad else _FREE
            if not bad:
                heapq.heappush(self._free, segment)

    def fill(self, segment: int, filling: Filling) -> None:
        """It has been written, and its pages are staged: each is to be published or withdrawn."""
        with self._lock:
            self._sequence[segment] = filling.sequence
            self._state[segment] = FULL
            self._used[segment] = filling.used
            self.ledger.add(
                segment, filling.pages, filling.size, filling.hot, filling.huge, filling.cold
            )

    def publish(self, pages: int, dead: Entries) -> None:
        """So many staged pages are named by entries now, in the place of `dead`."""
        with self._lock:
            self.ledger.publish(pages)
            if len(dead):
                for segment in self.ledger.drop(dead):
                    self._state[segment] = _FREE
                    if segment < self.size:  # not while a backing is still to come
                        heapq.heappush(self._free, segment)

    # --- Looking --------------------------------------------------------------------------

    def full(self) -> Full:
        """The disk segments in use: a copy."""
        with self._lock:
            segments = np.flatnonzero(np.frombuffer(self._state, np.uint8) == FULL)
            return Full(segments, self.ledger.bytes[segments], self._used[segments])

    def used_of(self, segment: int) -> int:
        """How many bytes of a disk segment were written when it was filled last."""
        return int(self._used[segment])

    @contextmanager
    def still(self) -> Iterator[tuple[bytearray, Ledger]]:
        """Nothing changes within; gives the disk segments' states and the ledger."""
        with self._lock:
            yield self._state, self.ledger
