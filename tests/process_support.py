"""Children of a test that do something, and then live until they are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from vswap import libc

__all__ = ["Doing", "children", "end"]

Doing = Callable[[Callable[[], object]], int]
"""Makes one that does what it is given; its process number, when that is done."""


@contextmanager
def children() -> Iterator[Doing]:
    """Whoever is left of them in the end is killed."""
    made: list[int] = []

    def make(act: Callable[[], object]) -> int:
        pid = _forked(act)
        made.append(pid)
        return pid

    try:
        yield make
    finally:
        for pid in made:
            with suppress(ChildProcessError):
                end(pid)


def end(pid: int) -> None:
    """Kill a child, and leave nothing of it. Raises `ChildProcessError` if there is none."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _forked(act: Callable[[], object]) -> int:
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)  # also if a test fails
            act()
            os.write(theirs, b"done")
            signal.pause()
        finally:
            os._exit(1)
    os.close(theirs)
    assert os.read(ours, 10) == b"done"
    os.close(ours)
    return pid
