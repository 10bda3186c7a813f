"""The FUSE wire protocol, without input or output: bytes in, values out, and back.

=============  ==========================================================
`abi`          layouts and numbers of the kernel's header, nothing else
`requests`     `decode`: what the kernel asks for
`replies`      the answers of the data plane
`handshake`    INIT, for us and for the libfuse of the control plane
=============  ==========================================================

Nothing here waits, keeps state or knows a descriptor. The functions of `replies` read
best behind its name, so it is exported whole: `replies.written(unique, size)`.
"""

from __future__ import annotations

from vswap.proto import abi, replies
from vswap.proto.handshake import (
    InitReply,
    decode_init_reply,
    encode_init_reply,
    init_for_control_plane,
    negotiate,
)
from vswap.proto.replies import OutHeader, decode_out_header
from vswap.proto.requests import (
    Buffer,
    Fallocate,
    Init,
    Lseek,
    Open,
    Other,
    Read,
    Request,
    Write,
    decode,
    expects_reply,
)

__all__ = [
    "Buffer",
    "Fallocate",
    "Init",
    "InitReply",
    "Lseek",
    "Open",
    "Other",
    "OutHeader",
    "Read",
    "Request",
    "Write",
    "abi",
    "decode",
    "decode_init_reply",
    "decode_out_header",
    "encode_init_reply",
    "expects_reply",
    "init_for_control_plane",
    "negotiate",
    "replies",
]
