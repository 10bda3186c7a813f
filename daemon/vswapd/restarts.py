"""Where a supervisor is asked to be replaced: an abstract Unix socket that its pid names.

Who connects is a process of the same user, or root's, and is told in one line how it went: ``ok``,
or ``error`` and the reason. Nothing of it is on a disk, and it goes with the supervisor.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Desk", "address_of", "peer_of"]

_WAITING = 8
_MOST_WAITING = 64
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred


def address_of(supervisor: int) -> str:
    """The address at which the supervisor with this process number listens."""
    return f"\0vswap-supervisor-{supervisor}"


def peer_of(end: socket.socket) -> tuple[int, int]:
    """Process and user at the other end, as they were when it connected, or began to listen."""
    credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _gid = _CREDENTIALS.unpack(credentials)
    return pid, uid


class Desk:
    """The supervisor's end."""

    def __init__(self, asked: Callable[[], None]) -> None:
        """`asked` is called when somebody wants a restart."""
        self._asked = asked
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._socket.bind(address_of(os.getpid()))
        self._socket.listen(_WAITING)
        self._waiting: list[socket.socket] = []

    def fileno(self) -> int:
        """For waiting until somebody comes."""
        return self._socket.fileno()

    def on_visitor(self) -> None:
        """Somebody has come."""
        try:
            visitor, _ = self._socket.accept()
        except OSError:  # and gone
            return
        _, uid = peer_of(visitor)
        if uid not in (0, os.geteuid()) or len(self._waiting) == _MOST_WAITING:
            visitor.close()
            return
        visitor.setblocking(False)
        self._waiting.append(visitor)
        self._asked()

    def tell(self, line: str) -> None:
        """Tell all who wait how it went."""
        waiting, self._waiting = self._waiting, []
        for visitor in waiting:
            with visitor, suppress(OSError):  # it has gone
                visitor.send(line.encode(errors="surrogateescape") + b"\n")

    def close(self) -> None:
        """Whoever still waits sees the end."""
        self._socket.close()
        for visitor in self._waiting:
            visitor.close()
