"""The cluster locks, striped.

A cluster's lock protects its entries, its zeromap bits, and the data that its entries name.
docs/concurrency.md has the order: at most one cluster lock at a time, and nothing but the
log's lock inside it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["STRIPES", "ClusterLocks"]

STRIPES = 256
"""Enough that a few threads seldom meet on one by chance; a power of two."""


class ClusterLocks:
    """`locks[cluster]` is the lock to hold; clusters STRIPES apart share one."""

    def __init__(self) -> None:
        """All unlocked."""
        self._locks = tuple(threading.Lock() for _ in range(STRIPES))

    @contextmanager
    def all(self) -> Iterator[None]:
        """Every cluster's lock. The one case in which a thread holds more than one of them.

        Taken in a fixed order; no other thread waits for a cluster lock while it has one.
        """
        with ExitStack() as stack:
            for lock in self._locks:
                stack.enter_context(lock)
            yield

    def __getitem__(self, cluster: int) -> threading.Lock:
        """The lock of `cluster`."""
        return self._locks[cluster & (STRIPES - 1)]
