"""Room for writers: a segment, or work done to get one, or no.

At the limit a writer does upkeep itself until a segment is free or nothing is left to win.
Then it fails, and so do those that come after it, at once, until enough has been freed: a
store that is all but full would otherwise clean for every single page. (zswap's
accept_threshold_percent does the same.)
"""

from __future__ import annotations

import time
from collections.abc import Callable

from vswap.errors import FullError
from vswap.store.log import Log
from vswap.store.places import KEPT

__all__ = ["Room"]

ACCEPT = 0.95
"""Writes are accepted again when so much is left of what lived when the store was full; or when
as much of the limit as that lacks to all has since been won by cleaning."""

_PIECES_A_SEGMENT = 32
"""Pieces of work for each segment under the limit, after which a writer that has still got none
gives up. Work that wins something ends sooner by far; but several writers that hold staged units
each could clean around them for ever."""

_PUBLISHING_SECONDS = 0.002
_PUBLISHING_TRIES = 50


class Room:
    """Gives segments to the lanes' appenders."""

    def __init__(
        self, log: Log, reclaim: Callable[[int], bool], retry: Callable[[], bool] = lambda: False
    ) -> None:
        """`reclaim` does a piece of work for more room than so much; False if there is none to do.

        `retry` answers whether there was something that could not be freed because a write had
        not published what it had appended, and makes `reclaim` try that again.
        """
        self._log = log
        self._reclaim = reclaim
        self._retry = retry
        self._accept_below: float | None = None

    def take(self, begin: Callable[[], None] = lambda: None) -> int:
        """A segment. Raises `FullError`. The caller holds no lock of the store.

        `begin` is called before work is done for it, which takes long.
        """
        accept = self._accept_below
        if accept is not None:
            plenty = KEPT + (1 - ACCEPT) * self._log.limit
            if self._log.published_bytes() > accept and self._log.room() <= plenty:
                raise FullError("the memory limit was reached, and little has been freed since")
            self._accept_below = None
        try:
            return self._log.take()
        except FullError:
            begin()
            return self._make_way()

    def prepare(self, begin: Callable[[], None] = lambda: None) -> None:
        """Make room before a write of many pages, if there is little.

        Best before it has staged anything: what is staged keeps its segments from being freed,
        and writers that all hold some would find no room for all the dead space around it.
        """
        enough = KEPT + 1
        if self._log.room() <= enough and self._accept_below is None:
            begin()
            while self._log.room() <= enough and self._reclaim(enough):
                pass

    def _make_way(self) -> int:
        tries = _PUBLISHING_TRIES
        pieces = _PIECES_A_SEGMENT * self._log.limit
        while True:
            cleaned = self._reclaim(KEPT)
            pieces -= cleaned
            won = cleaned and pieces > 0
            coming = not won and self._log.room_is_coming()
            try:
                return self._log.take()
            except FullError:
                if won:
                    continue
                if coming:  # by the hand of a thread that a real-time one must let run
                    time.sleep(_PUBLISHING_SECONDS)
                    continue
                if tries and self._retry():
                    tries -= 1
                    time.sleep(_PUBLISHING_SECONDS)
                    continue
                self._accept_below = self._log.published_bytes() * ACCEPT
                raise FullError(
                    "the memory limit is reached, and nothing is left to clean"
                ) from None

    def reopen(self) -> None:
        """The limit has changed: find out anew."""
        self._accept_below = None
