"""Receiving: how a data thread waits for the next request.

A thread that sleeps in the kernel takes about 10 us to be woken and to get the GIL back,
as long as serving a page takes. So for a short time after a request it asks again and
again before it sleeps. How long is adapted as KVM does for idle processors (halt_poll_ns,
virt/kvm/kvm_main.c): a wait that ended soon after we stopped asking shows that asking on
would have paid, so the time grows; a long wait shows that it was burnt, so it shrinks to
nothing. An idle device costs no processor time.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import time
from dataclasses import dataclass
from time import perf_counter_ns

from vswap.errors import VswapError

__all__ = ["CLOSED", "ConnectionClosedError", "Receiver", "ReceiverStatistics"]

_GROW_FROM_NS = 10_000
_EMPTY = bytes(4)
_AFTER_FAILURE_SECONDS = 0.01

_log = logging.getLogger(__name__)

# ENOENT: the request was interrupted before we got it. EAGAIN and EINTR: nothing there yet.
_AGAIN = (errno.ENOENT, errno.EAGAIN, errno.EINTR)
# The request could not be copied to us and has been failed; the next one need not be.
_LOST = (errno.EIO, errno.EFAULT, errno.ENOMEM)
# ENODEV: unmounted. ECONNABORTED: aborted while we were reading.
CLOSED = (errno.ENODEV, errno.ECONNABORTED)


class ConnectionClosedError(VswapError):
    """The file system is unmounted; there will be no further request."""


@dataclass(frozen=True)
class ReceiverStatistics:
    """How requests were met: `at_once`, after some `spinning`, or by `sleeping`."""

    at_once: int
    spinning: int
    sleeping: int


class Receiver:
    """Receives requests into one buffer, for one thread."""

    def __init__(self, fd: int, buffer: memoryview, spin_us: int) -> None:
        """`fd` must not block. `spin_us` bounds the time spent asking before sleeping."""
        self._fd = fd
        self._buffer = buffer
        self._buffers = (buffer,)
        self._spin_max_ns = spin_us * 1000
        self._spin_ns = 0
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._at_once = self._spinning = self._sleeping = 0

    def receive(self, alone: bool = True) -> int:
        """Wait for a request; answers its length.

        Unless `alone`, other threads are serving: asking again and again would take the GIL
        from them, so this thread sleeps at once.

        The first four bytes of the buffer (the request's own length) are zero until it comes:
        who finds the buffer after this process has died can tell whether a request is in it.
        Raises `ConnectionClosedError`.
        """
        length = self._read()
        if length:
            self._at_once += 1
            return length
        if alone and self._spin_ns and (length := self._spin()):
            self._spinning += 1
            return length
        self._sleeping += 1
        return self._sleep()

    def forget(self) -> None:
        """The request in the buffer has been dealt with.

        To be called at once, and before `receive`: a successor of this process serves what it
        finds in the buffer, and must not serve a write again after others have been served.
        """
        self._buffer[:4] = _EMPTY

    def pending(self) -> bool:
        """Whether another request waits to be received."""
        return bool(self._poll.poll(0))

    def _read(self) -> int:
        try:
            return os.readv(self._fd, self._buffers)
        except OSError as error:
            if error.errno in _AGAIN:
                return 0
            if error.errno in CLOSED:
                raise ConnectionClosedError from None
            if error.errno not in _LOST:
                raise
            _log.error("a request could not be received: %s", error)
            time.sleep(_AFTER_FAILURE_SECONDS)
            return 0

    def _spin(self) -> int:
        end = perf_counter_ns() + self._spin_ns
        while perf_counter_ns() < end:
            if length := self._read():
                return length
        return 0

    def _sleep(self) -> int:
        began = perf_counter_ns()
        length = 0
        while not length:
            self._poll.poll()
            length = self._read()
        self._adapt(perf_counter_ns() - began)
        return length

    def _adapt(self, slept_ns: int) -> None:
        if slept_ns > 2 * self._spin_max_ns:
            self._spin_ns = 0
        else:
            grown = max(self._spin_ns * 2, _GROW_FROM_NS)
            self._spin_ns = min(grown, self._spin_max_ns)

    def statistics(self) -> ReceiverStatistics:
        """Counts since the start."""
        return ReceiverStatistics(self._at_once, self._spinning, self._sleeping)
