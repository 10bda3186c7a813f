"""Work that nobody waits for, done in threads that let all others go first.

Cleaning and moving down are mostly compression, which runs beside the data threads on a
processor of its own if there is one. If there is none, what is woken must not wait until the
compressor's time is up: its threads ask the scheduler for long time slices, which makes
every thread that wakes up preempt them. They keep their share of the time, unlike threads of
low priority, which might hold a lock for as long as the machine is busy.

The rest of it is Python, for which a data thread has to wait several times in each request. So
while such work is done, the interpreter changes threads sooner than it otherwise does.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import trio

from vswap import libc
from vswapd.memory import give_precedence
from vswapd.ownpages import own_stack

__all__ = ["in_background"]

_LONGEST_SLICE_NS = 100_000_000
_SHORT_SWITCH_SECONDS = 20e-6

T = TypeVar("T")


class _ShortTurns:
    """The interpreter's switch interval, shorter while anybody works in the background."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers = 0
        self._usual = 0.0

    @contextmanager
    def taken(self) -> Iterator[None]:
        with self._lock:
            self._workers += 1
            if self._workers == 1:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(_SHORT_SWITCH_SECONDS)
        try:
            yield
        finally:
            with self._lock:
                self._workers -= 1
                if not self._workers:
                    sys.setswitchinterval(self._usual)


_short_turns = _ShortTurns()
_prepared = threading.local()


async def in_background(work: Callable[[], T], *, abandon: bool = False) -> T:
    """What `work` answers or raises, from another thread.

    If the caller is cancelled it waits for the end of the work, or with `abandon` does not.
    """
    return await trio.to_thread.run_sync(_stand_back, work, abandon_on_cancel=abandon)


def _stand_back(work: Callable[[], T]) -> T:
    if not getattr(_prepared, "done", False):
        _prepared.done = True
        own_stack()
        give_precedence()  # the thread that started this one has it
        with suppress(OSError):  # it is only politeness
            libc.set_slice(_LONGEST_SLICE_NS)
    with _short_turns.taken():
        return work()
