"""Replying: one writev on the connection, and what its failure means."""

from __future__ import annotations

import errno
import logging
import os

from vswap.codec import Bytes
from vswapd.channel.receiver import CLOSED

__all__ = ["Replier"]

# A reply to a request that is no more: interrupted, or answered by a worker before us.
_LATE = errno.ENOENT

_log = logging.getLogger(__name__)


class Replier:
    """Sends replies for one thread, and counts those that the kernel did not want."""

    def __init__(self, fd: int) -> None:
        """`fd` is the connection."""
        self._fd = fd
        self.late = self.failed = 0

    def send(self, header: bytes, *buffers: Bytes) -> None:
        """A reply, whole. Never raises: the next receive will notice what is wrong."""
        try:
            os.writev(self._fd, (header, *buffers))
        except OSError as error:
            if error.errno == _LATE:
                self.late += 1
            elif error.errno not in CLOSED:
                self.failed += 1
                _log.error("the kernel refuses a reply: %s", error)
