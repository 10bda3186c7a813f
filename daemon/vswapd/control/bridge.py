"""The bridge between the data plane and pyfuse3.

pyfuse3 believes that one end of a SOCK_SEQPACKET pair is /dev/fuse (libfuse takes a
descriptor for a mount point: "/dev/fd/N"). Requests are put in at the other end by the
data threads, and what comes out there are replies, written to the real device by a task.

Data threads must never wait for the control plane, so their end does not block, and a
request that finds the socket full is refused.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable

import pyfuse3
import trio

from vswap.proto import abi, decode_init_reply, init_for_control_plane
from vswapd.channel import CLOSED, Handshake

__all__ = ["Bridge"]

_BUFFER = 4 << 20
_INIT_SECONDS = 10

_log = logging.getLogger(__name__)


class Bridge:
    """Both ends of the pair."""

    def __init__(self, fd: int, answered: Callable[[int], None]) -> None:
        """`fd` is the connection that replies go to; `answered` is told their `unique`s."""
        self._answered = answered
        self._fd = fd
        self._near, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._near, self._far):
            _enlarge(end)
        self._near.setblocking(False)
        self._reply = memoryview(bytearray(abi.READ_BUFFER_SIZE))

    def forward(self, request: memoryview) -> bool:
        """Pass a request to pyfuse3; False if that cannot be done now. From any thread."""
        try:
            self._near.send(request)
        except OSError as error:
            _log.warning("the control plane takes no request: %s", error.strerror)
            return False
        return True

    def start(self, operations: pyfuse3.Operations) -> None:
        """Set up pyfuse3 at the far end, which is then its own. Needs a running trio loop."""
        pyfuse3.init(operations, f"/dev/fd/{self._far.detach()}", {"default_permissions"})

    def offer(self, agreed: Handshake) -> None:
        """Put in the kernel's INIT, which must be the first request that pyfuse3 gets."""
        self._near.send(init_for_control_plane(agreed.raw, agreed.reply))

    async def greet(self) -> None:
        """Wait for the answer to INIT, which ends here, since the kernel has ours.

        `pyfuse3.main` must be running. Raises `ProtocolError` if it refuses.
        """
        with trio.fail_after(_INIT_SECONDS):
            await trio.lowlevel.wait_readable(self._near)
        decode_init_reply(bytes(self._receive()))

    async def relay(self) -> None:
        """Write pyfuse3's replies to the connection, until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._near)
            reply = self._receive()
            try:
                os.write(self._fd, reply)
            except OSError as error:
                # ENOENT: nobody waits for this reply any more. The others: unmounted.
                if error.errno not in (errno.ENOENT, *CLOSED):
                    _log.error("the kernel refuses a reply of the control plane: %s", error)
            if len(reply) >= abi.OUT_HEADER.size:
                self._answered(abi.OUT_HEADER.unpack_from(reply)[2])

    def _receive(self) -> memoryview:
        return self._reply[: self._near.recv_into(self._reply)]

    def close(self) -> None:
        """End pyfuse3, and close both ends."""
        self._near.close()
        if self._far.fileno() == -1:
            pyfuse3.close(unmount=False)
        self._far.close()


def _enlarge(end: socket.socket) -> None:
    """Room for the largest message; past the system's limit where root may go past it."""
    try:
        end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER)
    except PermissionError:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)


_SO_SNDBUFFORCE = 32  # asm-generic/socket.h; Python has no name for it
