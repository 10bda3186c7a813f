"""The handshake with the kernel, which comes before everything else."""

from __future__ import annotations

import errno
import os
import select
from dataclasses import dataclass

from vswap.errors import ProtocolError, UserError
from vswap.proto import (
    Init,
    InitReply,
    abi,
    decode,
    encode_init_reply,
    negotiate,
    replies,
)

__all__ = ["Handshake", "handshake"]

_INIT_SECONDS = 10


@dataclass(frozen=True)
class Handshake:
    """What was agreed with the kernel: its INIT request as it came, and our answer."""

    raw: bytes
    reply: InitReply

    @property
    def resends(self) -> bool:
        """Whether the kernel sends again, when asked, what has not been answered."""
        return bool(self.reply.flags & abi.InitFlag.HAS_RESEND)


def handshake(fd: int, buffer: memoryview) -> Handshake:
    """Wait for INIT, the kernel's first request, and answer it.

    Raises `UserError` when the kernel cannot do what is needed or sends nothing.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if not poll.poll(_INIT_SECONDS * 1000):
        raise UserError("the kernel sent no FUSE handshake")
    try:
        length = os.readv(fd, (buffer,))
    except OSError as error:
        raise UserError(f"the FUSE connection ended too soon: {error.strerror}") from None
    raw = bytes(buffer[:length])
    buffer[:4] = bytes(4)  # nobody is to take it for a request that waits for an answer
    try:
        request = decode(raw, length)
        if not isinstance(request, Init):
            raise ProtocolError("the first request is not INIT", unique=request.unique)
        reply = negotiate(request)
    except ProtocolError as error:
        os.write(fd, replies.error(error.unique, errno.EPROTO))
        raise UserError(str(error)) from None
    os.write(fd, encode_init_reply(request.unique, reply))
    return Handshake(raw, reply)
