"""Whether a process has come to its end, before its end is told.

The kernel tells that a process has ended when its memory has been unmapped, which takes 50 ms for
each GiB that was locked. Nobody need wait for that: once every thread has begun to exit, with its
last system call behind it, none touches anything any more. Each thread's flags say that it has
(PF_EXITING in the ninth field of /proc/PID/task/TID/stat, see proc(5)).

That it is time to look is told by the end of any thread but the last (pidfd_open(2) with
PIDFD_THREAD, from kernel 6.9 on).
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from vswapd.lockholder import lock_holder

__all__ = ["claim", "is_ending", "open_thread"]

_PIDFD_THREAD = os.O_EXCL
_PF_EXITING = 4
_FLAGS = 6  # of the fields behind the name
_LOOK_SECONDS = 0.0002
_PATIENCE_SECONDS = 0.02


def open_thread(tid: int) -> int | None:
    """A descriptor that is readable when this thread has ended; None if there are no such ones."""
    try:
        return os.pidfd_open(tid, _PIDFD_THREAD)
    except OSError:
        return None


def is_ending(pid: int, seconds: float = _PATIENCE_SECONDS) -> bool:
    """Whether all threads of a process are exiting, or come to that in so many seconds."""
    deadline = time.monotonic() + seconds
    while not _all_exiting(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def _all_exiting(pid: int) -> bool:
    tasks = f"/proc/{pid}/task"
    exiting: set[str] = set()
    while True:  # until no thread has come while we looked
        try:
            threads = set(os.listdir(tasks))  # noqa: PTH208 - names are enough
        except (FileNotFoundError, ProcessLookupError):
            return True
        if threads <= exiting:
            return True
        if not all(_is_exiting(f"{tasks}/{thread}/stat") for thread in threads - exiting):
            return False
        exiting |= threads


def _is_exiting(stat: str) -> bool:
    try:
        fields = Path(stat).read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return bool(int(fields[_FLAGS]) & _PF_EXITING)


def claim(fd: int, ended: int | None = None) -> None:
    """Let this process be the one that works on a state, by a lock on its header (ONE-WORKER).

    Waits until no other does. The lock of one that is ending is left to it, and had when it
    has ended. `ended` is a process that is known to be so.
    """
    with suppress(BlockingIOError):
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    holder = lock_holder(fd)
    if holder is not None and (holder == ended or is_ending(holder)):
        later = threading.Thread(target=fcntl.lockf, args=(fd, fcntl.LOCK_EX), daemon=True)
        later.name = "vswap-claim"
        later.start()
    else:
        fcntl.lockf(fd, fcntl.LOCK_EX)
