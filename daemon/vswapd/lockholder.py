"""Which processes work on a state: each holds a POSIX lock on its header (`vswapd.ending.claim`).

On a byte of its own, which its process number names, so that a lock is had at once and seen by all,
also while that of a predecessor that is ending is still there. The kernel takes it away when
the process has ended altogether.
"""

from __future__ import annotations

import fcntl
import os
import struct

__all__ = ["await_release", "lock", "lock_holders", "unlock"]

_FLOCK = struct.Struct("hhqqi4x")  # type, whence, start, length, pid: struct flock of 64-bit Linux
_TO_THE_END = 0
_END = (1 << 63) - 1


def lock(fd: int) -> None:
    """Hold a lock on the file, as one of those who do.

    Who waits for our release may have it for a moment; so may a worker of an earlier version, which
    locks all of the file, until it has ended.
    """
    fcntl.lockf(fd, fcntl.LOCK_EX, 1, os.getpid())


def unlock(fd: int) -> None:
    """Hold it no longer."""
    fcntl.lockf(fd, fcntl.LOCK_UN, 1, os.getpid())


def await_release(fd: int, pid: int) -> None:
    """Wait until another process does not hold its lock any more."""
    fcntl.lockf(fd, fcntl.LOCK_EX, 1, pid)
    fcntl.lockf(fd, fcntl.LOCK_UN, 1, pid)


def lock_holders(fd: int) -> list[int]:
    """The other processes that hold a lock on the file."""
    found: list[int] = []
    ranges = [(0, _END)]
    while ranges:
        first, end = ranges.pop()
        length = _TO_THE_END if end == _END else end - first
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, first, length, 0)
        kind, _, start, length, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
        if kind == fcntl.F_UNLCK:
            continue
        if pid not in found:
            found.append(pid)
        stop = _END if length == _TO_THE_END else start + length
        ranges += [(a, b) for a, b in ((first, start), (stop, end)) if a < b]
    return found
