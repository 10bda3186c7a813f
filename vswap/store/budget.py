"""How much may be written to the disk a day.

As zram's writeback_limit (Documentation/admin-guide/blockdev/zram.rst), in units of 4 KiB, but
refilled each day. A day is one of UTC; its number is counted from 1970. A greater number than
before is a new day. A smaller one is a clock that was set back: nothing is refilled, and days
are counted on from there.

What has been used must outlive a daemon that is killed, and writing it down each time would
cost a write for each write. So the note that a backing keeps says more than was used, by an
*advance*, and is written again only when that has been used up:

    BUDGET-AHEAD: while the budget is enabled, what the saved note says was used of today is at
    least what has been written.

It holds if whoever writes does all of this in order, and stops where a step fails:

1. `allows(units)`, or no write;
2. `charge(units)`, before the write;
3. if `note_due()`: `keep(backing.save_note)`;
4. the write.

A crash then costs one advance of the day's budget at most, and never gives any back. What makes
the note due: more used than it says, another day than its own (of a day to come it says
nothing), and another limit, or enabled or not, than it has. While the budget is not enabled
what is used is counted, but only the note of a clean stop tells the next daemon.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from vswap.errors import UserError
from vswap.store.backing import NOTE_SIZE

__all__ = ["MAX_ADVANCE", "MAX_LIMIT", "UNIT_SIZE", "Budget"]

UNIT_SIZE = 4096
"""Bytes in a unit of the budget."""

MAX_ADVANCE = 16384
"""Most units that a note runs ahead: 64 MiB."""

MAX_LIMIT = (1 << 62) - 1
"""The highest limit, in units."""

_DAY = 86400  # seconds
_VERSION = 1
_NOTE = struct.Struct("<BBqQQ")  # version, enabled, day, limit, used
assert _NOTE.size <= NOTE_SIZE


class _Note(NamedTuple):
    """What a note says. `used` is of `day`; `limit` and `used` in units."""

    enabled: bool = False
    day: int = 0
    limit: int = 0
    used: int = 0

    def pack(self) -> bytes:
        return _NOTE.pack(_VERSION, *self)

    @classmethod
    def unpack(cls, note: bytes) -> _Note:
        """One that is empty, damaged or of another version says what a new one does."""
        if len(note) != _NOTE.size or note[0] != _VERSION:
            return cls()
        _, enabled, day, limit, used = _NOTE.unpack(note)
        return cls(bool(enabled), day, min(limit, MAX_LIMIT), min(used, MAX_LIMIT))


class Budget:
    """Units that may be written today, out of a limit. Any thread may call anything.

    Two locks, taken in this order: one while a note is saved, or an older one could follow a
    newer one, and one around what is counted.
    """

    def __init__(self, note: bytes = b"", now: Callable[[], float] = time.time) -> None:
        """As an earlier daemon's `note` says. `now` gives the seconds since 1970."""
        self._now = now
        self._saving = threading.Lock()
        self._lock = threading.Lock()
        self._saved = _Note.unpack(note)
        self._is = self._saved

    @property
    def limit(self) -> int:
        """Units a day."""
        return self._is.limit

    @property
    def enabled(self) -> bool:
        """Whether the limit counts."""
        return self._is.enabled

    @property
    def left(self) -> int:
        """What the limit leaves of today, in units, whether or not it is enabled."""
        with self._lock:
            self._turn_day()
            return max(0, self._is.limit - self._is.used)

    def allows(self, units: int) -> bool:
        """Whether so many more units may be written now."""
        return not self.enabled or units <= self.left

    def refill_seconds(self) -> float:
        """How long until the next day begins."""
        return _DAY - self._now() % _DAY

    def set_limit(self, units: int) -> None:
        """From now on `units` a day. What was used of today stays used.

        Raises `UserError` for what is no limit.
        """
        if not 0 <= units <= MAX_LIMIT:
            raise UserError(f"the limit must be from 0 to {MAX_LIMIT} units, not {units}")
        with self._lock:
            self._is = self._is._replace(limit=units)

    def enable(self, enabled: bool) -> None:
        """Let the limit count, or not. What was used of today stays used."""
        with self._lock:
            self._is = self._is._replace(enabled=enabled)

    def charge(self, units: int) -> None:
        """Count `units` that are about to be written."""
        assert units >= 0
        with self._lock:
            self._turn_day()
            self._is = self._is._replace(used=self._is.used + units)

    def note_due(self) -> bool:
        """Whether the note must be saved before anything may be written."""
        with self._lock:
            self._turn_day()
            now, saved = self._is, self._saved
        if (now.enabled, now.limit) != (saved.enabled, saved.limit):
            return True
        return now.enabled and (now.day != saved.day or now.used > saved.used)

    def to_note(self, *, final: bool = False) -> bytes:
        """The note to save: what was used and an advance, or exactly that at a clean stop."""
        with self._lock:
            self._turn_day()
            note = self._is
        advance = 0 if final else min(MAX_ADVANCE, max(1, note.limit // 16))
        return note._replace(used=note.used + advance).pack()

    def keep(self, save: Callable[[bytes], None], *, final: bool = False) -> None:
        """Let `save` put the note where the next daemon finds it. What it raises comes through.

        The note is as due as it was then. `final` as in `to_note`: nothing may be written after.
        """
        with self._saving:
            note = self.to_note(final=final)
            save(note)
            with self._lock:
                self._saved = _Note.unpack(note)

    def _turn_day(self) -> None:
        """Go to the clock's day. A later one refills. With the lock."""
        today = int(self._now() // _DAY)
        if today > self._is.day:
            self._is = self._is._replace(day=today, used=0)
        elif today < self._is.day:
            self._is = self._is._replace(day=today)
