"""Messages between the daemon's processes: JSON and descriptors over a Unix socket.

Each is a dict with one of the words below under ``"is"``, and what belongs to it. They go over
SOCK_SEQPACKET, so one is received whole or not at all, and the end of the other process is the
end of the messages. Nothing in them is ever the content of a page.
"""

from __future__ import annotations

import array
import json
import select
import socket
from contextlib import suppress
from typing import Any

__all__ = ["Link", "Message"]

Message = dict[str, Any]

_Received = tuple[bytes, list[tuple[int, int, bytes]], int, Any]

_MOST_BYTES = 64 << 10
_MOST_FDS = 32


class Link:
    """One end of a pair of sockets."""

    def __init__(self, end: socket.socket) -> None:
        """`end` belongs to the link from now on."""
        self._socket = end

    @classmethod
    def pair(cls) -> tuple[Link, socket.socket]:
        """A link, and the other end for somebody else."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    @classmethod
    def of(cls, fd: int) -> Link:
        """The link that was handed to this process as a descriptor."""
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        """For waiting until there is a message, or the end."""
        return self._socket.fileno()

    def send(self, word: str, fds: list[int] | None = None, **more: object) -> bool:
        """Send a message; False if nobody is at the other end any more.

        `fds` are duplicated on the way, and stay open here.
        """
        data = json.dumps({"is": word, **more}).encode()
        assert len(data) <= _MOST_BYTES
        try:
            socket.send_fds(self._socket, [data], fds or [])
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    @property
    def is_readable(self) -> bool:
        """Whether there is a message, or the end."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def receive(self) -> tuple[Message, list[int]] | None:
        """Wait for a message and the descriptors that came with it; None at the end.

        The descriptors belong to the caller, and are not inherited by programs.
        """
        space = socket.CMSG_LEN(_MOST_FDS * array.array("i").itemsize)
        try:
            data, ancillary, _, _ = self._receive(space)
        except ConnectionResetError:
            # The other process left messages of ours unread, which is said once, and first. What
            # it said before is there still.
            data, ancillary, _, _ = self._receive(space)
        if not data:
            return None
        fds = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(content[: len(content) // fds.itemsize * fds.itemsize])
        message: Message = json.loads(data)
        return message, fds.tolist()

    def _receive(self, space: int) -> _Received:
        return self._socket.recvmsg(_MOST_BYTES, space, socket.MSG_CMSG_CLOEXEC)

    def close(self) -> None:
        """The other process sees the end."""
        with suppress(OSError):
            self._socket.close()
