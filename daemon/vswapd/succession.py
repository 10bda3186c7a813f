"""Who worked on the state before: nobody may serve until all of them have ended.

A worker of another supervisor's may still run, of which one hears by its pidfd, or finds by the
lock that it has on the state. It is killed when somebody stands ready to follow. One that is ending
counts as ended: what it still has to do is to have its memory unmapped. While that goes on it has
its lock, beside which another one may hold the next; so each end means looking once more.
"""

from __future__ import annotations

from vswapd.ending import is_ending, open_worker
from vswapd.estate import Estate
from vswapd.loop import Loop
from vswapd.offspring import Predecessor

__all__ = ["Succession"]


class Succession:
    """Of one device's workers."""

    def __init__(self, loop: Loop, estate: Estate) -> None:
        """Nobody is known of."""
        self._loop = loop
        self._estate = estate
        self._before: Predecessor | None = None
        self._unseen = False  # whether somebody may be there of whom nobody has told
        self.ended: int | None = None
        """The process number of the last worker that has ended."""

    @property
    def waits(self) -> bool:
        """Whether one is known of who has not ended."""
        return self._before is not None

    def follow(self, pidfd: int) -> None:
        """This one must end first. The descriptor is ours now."""
        self._before = Predecessor(pidfd)
        self._loop.watch(pidfd, self._on_end)

    def look_around(self) -> None:
        """Others may have worked on it meanwhile: see, when that is next asked."""
        self._unseen = True

    def find(self) -> None:
        """Know of who works on the state, if anybody may do so unseen."""
        held = self._estate.held
        if self._unseen and self._before is None and held is not None:
            self._unseen = False
            pidfd = open_worker(held.state[0])
            if pidfd is not None:
                self.follow(pidfd)

    def is_over(self) -> bool:
        """Whether nobody works on the state any more. Who does is killed, and its end is told."""
        while True:
            self.find()
            if self._before is None:
                return True
            self._before.kill()
            if not is_ending(self._before.pid):
                return False
            self._on_end()

    def forget(self) -> None:
        """Leave whoever is there to itself."""
        if self._before is not None:
            self._loop.ignore(self._before.pidfd)
            self._before.close()
            self._before = None

    def _on_end(self) -> None:
        assert self._before is not None
        self.ended = self._before.pid
        self.forget()
        self._unseen = True
