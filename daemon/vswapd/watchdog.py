"""Whether a worker still answers, as one who only holds the descriptors can tell.

A request that waits for a thread lies in the connection, which is readable then. One that a thread
has taken lies in that thread's receive buffer: its first sixteen bytes, length and `unique`, are
another's when the next is there, and the length is 0 in between. So if requests wait, and no
buffer has changed for a long time, the worker hangs. Reads that wait for a disk are in no buffer:
a slow disk is no reason to replace a worker, for the next would wait for the same.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Watchdog"]

_LOOK_SECONDS = 2.0
"""The most that counts of the time between two looks, which are one second apart."""

Signs = tuple[bytes, ...]


class Watchdog:
    """Looks from time to time. Times in seconds."""

    def __init__(
        self, patience: float, signs: Callable[[], Signs], waiting: Callable[[], bool]
    ) -> None:
        """`signs` are the beginnings of all receive buffers; `waiting` is whether requests are.

        After `patience` without a change it has had enough; 0 is never.
        """
        self._patience = patience
        self._signs = signs
        self._waiting = waiting
        self._seen: Signs = ()
        self._looked = 0.0
        self._quiet: float | None = None  # for how long nothing has changed, while requests wait

    def look(self, now: float) -> bool:
        """Whether the worker hangs.

        Who looks late was suspended, or starved; so, perhaps, was the worker: most of that time
        does not count.
        """
        passed, self._looked = min(now - self._looked, _LOOK_SECONDS), now
        signs = self._signs()
        busy = any(any(sign[:4]) for sign in signs) or self._waiting()
        if not busy:
            self._quiet = None
            return False
        if signs != self._seen or self._quiet is None:
            self._seen, self._quiet = signs, 0.0
            return False
        self._quiet += passed
        return bool(self._patience) and self._quiet >= self._patience

    def forgive(self) -> None:
        """There is another worker."""
        self._quiet = None
