"""Memory that is kept only to be thrown off when nobody gets on without it.

Reclaim waits for the loop device, and the loop device for its thread in the kernel. That thread
needs a little memory for each request, and the kernel gives it none of what it keeps back for
those who reclaim. When all else is used up it waits for reclaim, and reclaim for it.

What shows that: requests are in the loop device, and not one of them ends from one look to the
next. Then a part of the ballast goes to whoever asks for memory first, the thread among them.
What it needs for one request is less than what the end of that request gives back, so all goes on.
The ballast is taken in again in small pieces, when the device works and there is that much to
spare. A device that waits for something else (a slow disk, the next worker) throws it off for
nothing, and no more comes of that.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vswap import libc
from vswapd.memory import has_spare

__all__ = ["Ballast"]

_PIECE = 256 << 10
_PIECES = 16
_AT_ONCE = 4
"""As many are thrown off at a look."""

_AGAIN = 30
"""After so many looks it is asked again which loop device it is. That takes memory."""

# Of /sys/block/*/stat (Documentation/block/stat.rst): what has ended, by kind, and what has not.
_ENDED = (0, 4, 11)
_IN_FLIGHT = 8
_STAT_BYTES = 512

_log = logging.getLogger(__name__)


class Ballast:
    """Of one supervisor, whose memory is locked and who takes precedence."""

    def __init__(
        self,
        find_loop: Callable[[], str | None],
        spare: Callable[[], bool] | None = None,
        sys_block: Path = Path("/sys/block"),
    ) -> None:
        """`find_loop` gives the loop device's name (`loopN`) once there is one.

        `spare` is whether there is memory for all of it.
        """
        self._find_loop = find_loop
        self._spare = spare or has_spare(_PIECES * _PIECE)
        self._sys_block = sys_block
        self._stat: int | None = None
        self._looks = 0
        self._ended = -1
        self._pieces: list[mmap.mmap] = []

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self._pieces) * _PIECE

    def look(self) -> None:
        """To be called every second or so."""
        try:
            stuck = self._is_stuck()
        except OSError:  # it is being detached, or removed
            self._forget_loop()
            return
        if stuck:
            self._throw_off()
        elif self._stat is not None and len(self._pieces) < _PIECES and self._spare():
            self._take_in()

    def close(self) -> None:
        """Give all of it back."""
        while self._pieces:
            self._pieces.pop().close()
        self._forget_loop()

    def _is_stuck(self) -> bool:
        """Whether there are requests, and none of them has ended since the last look."""
        if self._stat is None or self._looks >= _AGAIN:
            self._open_stat()
        if self._stat is None:
            return False
        counts = os.pread(self._stat, _STAT_BYTES, 0).split()  # takes no memory of the kernel's
        ended = sum(int(counts[field]) for field in _ENDED)
        before, self._ended = self._ended, ended
        stuck = int(counts[_IN_FLIGHT]) > 0 and ended == before
        self._looks = 0 if stuck else self._looks + 1
        return stuck

    def _open_stat(self) -> None:
        self._forget_loop()
        self._looks = 0
        loop = self._find_loop()
        if loop is not None:
            self._stat = os.open(self._sys_block / loop / "stat", os.O_RDONLY | os.O_CLOEXEC)

    def _forget_loop(self) -> None:
        if self._stat is not None:
            os.close(self._stat)
            self._stat = None

    def _throw_off(self) -> None:
        thrown = min(_AT_ONCE, len(self._pieces))
        for _ in range(thrown):
            self._pieces.pop().close()  # from the end: they may be one mapping by now
        if thrown:
            _log.warning(
                "requests wait in the loop device and none ends: %d KiB are given to the kernel, "
                "%d KiB are left",
                thrown * _PIECE >> 10,
                self.size >> 10,
            )

    def _take_in(self) -> None:
        """One piece, each page of it the kernel's own."""
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        with suppress(OSError):
            piece = mmap.mmap(-1, _PIECE, flags=flags)
            libc.madvise(libc.address_of(piece), _PIECE, libc.MADV_POPULATE_WRITE)
            self._pieces.append(piece)
