"""Streaks: whether reads follow one another, and how far to read ahead of them.

The kernel reads swap ahead in windows around a fault (mm/swap_state.c), and a fault a little
behind the last window starts the next one. So a read that begins at most `NEAR` slots after
another one's end goes on with its streak; any other begins a new one. A streak is read ahead
as far as it has come, up to `MOST` slots: one that ends soon has cost little.

Several are told apart: of memory that has been written again in part, neighbours lie in as
many places of the device as there were times of writing, and who goes through it reads in
each place in turn.
"""

from __future__ import annotations

__all__ = ["MOST", "NEAR", "STREAKS", "Streak", "Streaks"]

NEAR = 16
MOST = 64
STREAKS = 2


class Streak:
    """Reads of which each begins near the end of the one before."""

    def __init__(self) -> None:
        """One that nothing goes on with, until it begins."""
        self.begin(-NEAR - 1)

    def begin(self, end: int) -> None:
        """Begin anew with a read up to the slot `end`."""
        self.end = end
        self.next = end
        """The slot to go on with, when some are to be read ahead."""
        self.until = end
        """Where reading ahead ends."""
        self._length = 0  # slots from the streak's second read on

    def go_on(self, end: int) -> None:
        """The next read is up to the slot `end`."""
        self._length += end - self.end
        self.end = end
        self.next = max(self.next, end)
        self.until = max(end + min(self._length, MOST), self.next)


class Streaks:
    """The reads of one thread."""

    def __init__(self, slots: int) -> None:
        """For a device of so many slots."""
        self._slots = slots
        self._streaks = [Streak() for _ in range(STREAKS)]  # that was read last at the end

    def note(self, slot: int, end: int) -> bool:
        """The slots from `slot` up to `end` are being read; whether that goes on with a streak."""
        streaks = self._streaks
        for streak in streaks:
            if 0 <= slot - streak.end <= NEAR:
                streak.go_on(end)
                if streak is not streaks[-1]:
                    streaks.remove(streak)
                    streaks.append(streak)
                return True
        streak = streaks.pop(0)
        streak.begin(end)
        streaks.append(streak)
        return False

    def pending(self) -> Streak | None:
        """The streak that was read last, if something is to be read ahead of it."""
        streak = self._streaks[-1]
        return streak if streak.next < streak.until and streak.next < self._slots else None
