"""The places of segments: which have memory behind them, and what each is in use for.

                take              seal              free
    HOLE or READY ----->  OPEN  ------->  SEALED  -------> READY
                           ^------ reopen ---|

Free segments are of two sorts: *ready* ones have memory behind them, faulted in, and the rest
are *holes*. On the way from one to the other a segment is *busy*: `vswap.store.reserve` populates
or punches it, with no lock held, and then settles where it is.

All but holes have memory, and at most `limit` of them may. When the limit sinks below what is
taken (neither a hole nor ready), the *ceiling* follows from above as segments are freed; who
cleans has `KEPT` segments under it all the while.

Invariant LOG-PLACE: each segment is in exactly one place: open at one appender, sealed, ready,
busy, or a hole. What is taken off a list is put to use or back.

Has no lock of its own: who calls anything here holds the log's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["BUSY", "HOLE", "KEPT", "OPEN", "READY", "SEALED", "Places"]

HOLE, READY, OPEN, SEALED, BUSY = range(5)

KEPT = 2
"""Segments that only the cleaner may take: one to go on in, one in case units grow on the way."""


class Places:
    """Where each segment is, and how many are in each place.

    `state` has one byte a segment; `in_use` counts those with memory: in every state but HOLE.
    """

    def __init__(self, count: int) -> None:
        """All of them are holes, and may have memory."""
        self.state = bytearray(count)
        self.limit = count
        self.in_use = self.open = self.sealed = self.busy = 0
        self._ceiling = count
        self._ready: deque[int] = deque()
        self._untouched = 0  # segments from here on have never been used
        self._holes: deque[int] = deque()  # those that have, and were given back

    def take_over(self, sealed: npt.NDArray[np.int64], ready: Sequence[int]) -> None:
        """Begin with these sealed and ready, on a new object. The limit is to be set again."""
        state = np.frombuffer(self.state, np.uint8)
        state[sealed], state[ready] = SEALED, READY
        self.sealed = len(sealed)
        self._ready.extend(ready)
        self.in_use = self.sealed + len(self._ready)
        self._untouched = int(np.flatnonzero(state).max(initial=-1)) + 1
        self._holes.extend(np.flatnonzero(state[: self._untouched] == HOLE).tolist())
        self._ceiling = len(self.state)

    # --- How many -------------------------------------------------------------------------

    @property
    def ready(self) -> int:
        """Free segments with memory."""
        return len(self._ready)

    @property
    def taken(self) -> int:
        """Segments that cannot be had at once."""
        return self.in_use - len(self._ready)

    @property
    def room(self) -> int:
        """Segments that can, the cleaner's included."""
        return self._ceiling - self.taken

    def set_limit(self, limit: int | None) -> None:
        """How many segments may have memory; None: all."""
        count = len(self.state)
        self.limit = count if limit is None else min(limit, count)
        self._sink()

    def _sink(self) -> None:
        """What is taken has become less, or the limit has: the ceiling follows."""
        self._ceiling = max(self.limit, min(self._ceiling, self.taken + KEPT))

    def in_place(self, place: int) -> npt.NDArray[np.int64]:
        """The segments that are there, in order."""
        state = np.frombuffer(self.state, np.uint8, self._untouched)
        return np.flatnonzero(state == place)

    # --- A segment's life -----------------------------------------------------------------

    def take(self) -> int:
        """Open a free segment, with memory if there is one. There is room."""
        segment = self._ready.pop() if self._ready else self._take_hole()
        self.state[segment] = OPEN
        self.open += 1
        return segment

    def reopen(self, segment: int) -> None:
        """A sealed segment is open again."""
        self.state[segment] = OPEN
        self.sealed -= 1
        self.open += 1

    def seal(self, segment: int) -> None:
        """An open segment is sealed."""
        self.state[segment] = SEALED
        self.open -= 1
        self.sealed += 1

    def free(self, segment: int) -> None:
        """A sealed segment is ready to be taken again."""
        self.sealed -= 1
        self.state[segment] = READY
        self._ready.append(segment)
        self._sink()

    def _take_hole(self) -> int:
        self.in_use += 1
        if self._holes:
            return self._holes.popleft()
        self._untouched += 1
        return self._untouched - 1

    # --- Maintenance ----------------------------------------------------------------------

    def begin_populating(self) -> int:
        """A hole that is busy now. There is room."""
        return self._begin(self._take_hole())

    def begin_punching(self) -> int:
        """A ready segment that is busy now. There is one."""
        return self._begin(self._ready.popleft())

    def seize(self, segment: int) -> bool:
        """Make this segment busy, if it is a hole and one can be spared; whether it is."""
        if self.state[segment] != HOLE or self.room <= 1:
            return False
        if segment < self._untouched:
            self._holes.remove(segment)
        else:
            self._holes.extend(range(self._untouched, segment))
            self._untouched = segment + 1
        self.in_use += 1
        self._begin(segment)
        return True

    def _begin(self, segment: int) -> int:
        self.state[segment] = BUSY
        self.busy += 1
        return segment

    def settle(self, segment: int, state: int) -> None:
        """A busy segment is READY or a HOLE."""
        self.state[segment] = state
        self.busy -= 1
        if state == READY:
            self._ready.append(segment)
        else:
            self._holes.appendleft(segment)
            self.in_use -= 1
            self._sink()
