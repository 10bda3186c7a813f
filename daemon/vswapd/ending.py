"""Whether a process has come to its end, before its end is told.

The kernel tells that a process has ended when its memory has been unmapped, which takes 50 ms for
each GiB that was locked. Nobody need wait for that: once every thread has begun to exit, with its
last system call behind it, none touches anything any more. Each thread's flags say that it has
(PF_EXITING in the ninth field of /proc/PID/task/TID/stat, see proc(5)).

That it is time to look is told by the end of any thread but the last (pidfd_open(2) with
PIDFD_THREAD, from kernel 6.9 on).
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from vswapd.lockholder import await_release, lock, lock_holders, unlock

__all__ = ["claim", "is_ending", "open_thread", "open_worker"]

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
            return not _is_there(pid)
        except PermissionError:
            return False
        if threads <= exiting:
            return True
        if not all(_is_exiting(f"{tasks}/{thread}/stat") for thread in threads - exiting):
            return False
        exiting |= threads


def _is_there(pid: int) -> bool:
    """Whether there is such a process, although /proc may not show it (its option hidepid)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _is_exiting(stat: str) -> bool:
    try:
        fields = Path(stat).read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    except PermissionError:
        return False
    return bool(int(fields[_FLAGS]) & _PF_EXITING)


def claim(fd: int, ended: int | None = None) -> bool:
    """Let this process be the one that works on a state, by a lock on its header (ONE-WORKER).

    Waits until no other does, but for those that are ending. `ended` is a process that is known to
    be so. Answers whether it waited: the world may be another one now.

    Invariants: who returns from here has had its lock before it looked, and has then seen none
    but those of processes that are ending; so of two at once at least one sees the other. Of
    those that see each other the one with the lowest number keeps its lock and waits for the
    others; they let go of theirs first. So one of them comes to see nobody.
    """
    waited = False
    while True:
        lock(fd)
        others = [pid for pid in lock_holders(fd) if pid != ended and not is_ending(pid)]
        if not others:
            return waited
        waited = True
        first = min(others)
        if first < os.getpid():
            unlock(fd)
        await_release(fd, first)


def open_worker(fd: int) -> int | None:
    """A pidfd of a process that works on a state, and is not ending; None if there is none."""
    for pid in lock_holders(fd):
        if not is_ending(pid):
            with suppress(ProcessLookupError):
                return os.pidfd_open(pid)
    return None
