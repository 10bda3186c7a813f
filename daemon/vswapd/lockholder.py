"""Which process works on a state: it holds a POSIX lock on the header (`vswapd.worker`)."""

from __future__ import annotations

import fcntl
import os
import struct

__all__ = ["lock_holder", "open_holder"]

_FLOCK = struct.Struct("hhqqi4x")  # type, whence, start, length, pid: struct flock of 64-bit Linux


def lock_holder(fd: int) -> int | None:
    """The process that has locked the file, which is not this one; None if nobody has."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, 0, 0, 0, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else int(pid)


def open_holder(fd: int) -> int | None:
    """A pidfd of that process; None if there is none, or it has just ended."""
    pid = lock_holder(fd)
    try:
        return None if pid is None else os.pidfd_open(pid)
    except ProcessLookupError:
        return None
