"""Waiting for several things at once in one thread: descriptors, signals, and the time."""

from __future__ import annotations

import os
import selectors
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

__all__ = ["Loop"]


class Loop:
    """What is waited for, and what is done then."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._selector = selectors.DefaultSelector()
        self._signals, self._signalled = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lock = threading.Lock()  # between waking and closing
        self._closed = False

    def watch(self, fd: FileDescriptorLike, heard: Callable[[], None]) -> None:
        """Call `heard` whenever there is something to read."""
        self._selector.register(fd, selectors.EVENT_READ, heard)

    def ignore(self, fd: FileDescriptorLike) -> None:
        """Do so no longer."""
        with suppress(KeyError, ValueError):
            self._selector.unregister(fd)

    def watch_signals(
        self, numbers: Iterable[signal.Signals], came: Callable[[bytes], None]
    ) -> None:
        """Take these signals over; `came` is called with the numbers of those that came."""
        for number in numbers:
            signal.signal(number, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._signalled, warn_on_full_buffer=False)
        self.watch(self._signals, lambda: came(os.read(self._signals, 64)))

    def wake(self) -> None:
        """Let `wait` return. From any thread, also when it is closed."""
        with self._lock, suppress(BlockingIOError):  # it will anyway
            if not self._closed:
                os.write(self._signalled, b"\0")

    def wait(self, until: float) -> None:
        """Wait for something, until a time (`time.monotonic`), and do what is to be done.

        For all that has come, so that what always comes keeps nothing waiting. What is done may
        close the others, and their numbers be given to new ones: those are left alone. Raises
        the first error of several, after all have been done.
        """
        seconds = max(0.0, until - time.monotonic())
        watched = self._selector.get_map()
        failure: Exception | None = None
        for key, _ in self._selector.select(seconds):
            if watched.get(key.fd) is key:
                try:
                    key.data()
                except Exception as error:
                    failure = failure or error
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Signals are taken over, and do nothing, from now on."""
        signal.set_wakeup_fd(-1)
        with self._lock:
            self._closed = True
            self._selector.close()
            os.close(self._signals)
            os.close(self._signalled)
