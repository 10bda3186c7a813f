"""INIT: what the kernel offers, what we take, and what a second implementation may see.

The rules, after `include/uapi/linux/fuse.h` and `process_init_reply()` in `fs/fuse/inode.c`:

* The kernel sends INIT first, once, and nothing else before the answer. It offers flags;
  the answer names those we take. A flag that was not offered must not be taken.
* Both sides then speak the smaller of the two minors. (A kernel of a newer major would
  be answered with ours and ask again. There is none: it is an error here.)
* `flags2` counts on neither side unless INIT_EXT is in `flags`.

Two implementations serve one connection. The data plane answers INIT with `negotiate`
and keeps the request. The control plane runs libfuse on a socketpair, and libfuse wants
an INIT of its own: `init_for_control_plane` makes one out of the kept request, in which
only what we took is offered. So libfuse cannot use what the kernel was not told of, and
its answer, once looked at with `decode_init_reply`, is thrown away. The same bytes serve
every later worker: the kernel will not repeat them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from vswap.errors import ProtocolError
from vswap.proto.abi import (
    IN_HEADER,
    INIT_IN_FLAGS2,
    INIT_IN_OLD,
    INIT_OUT,
    KERNEL_MAJOR,
    KERNEL_MINOR,
    MAX_PAGES,
    MAX_WRITE,
    MIN_KERNEL_MINOR,
    OUT_HEADER,
    InitFlag,
)
from vswap.proto.replies import data_header, decode_out_header
from vswap.proto.requests import Init, decode

_LOWER_HALF: Final = (1 << 32) - 1
_FLAGS2_OFFSET: Final = IN_HEADER.size + INIT_IN_OLD.size

# Asynchronous direct I/O counts as background work, and the kernel keeps no more than this
# many such requests out at a time. Its default of 12 would cap the loop device's queue depth.
MAX_BACKGROUND: Final = 128
# From here on the device is called congested: three quarters, as the kernel's own default.
CONGESTION_THRESHOLD: Final = 96

_NANOSECONDS: Final = 1  # time_gran: times are given exactly

# Not to be done without, each with what would go wrong.
_REQUIRED: Final = {
    InitFlag.ASYNC_DIO: "a write cut short would be lost in silence behind a loop device",
    InitFlag.BIG_WRITES: "buffered writes would come one page at a time",
    InitFlag.MAX_PAGES: "requests would end at 32 pages and large folios be torn apart",
    InitFlag.DO_READDIRPLUS: "pyfuse3, which lists directories in no other way, would not start",
}

_WANTED: Final = (
    InitFlag.ASYNC_DIO
    | InitFlag.BIG_WRITES
    | InitFlag.MAX_PAGES
    | InitFlag.DO_READDIRPLUS
    | InitFlag.INIT_EXT  # or nothing from bit 32 on can be taken
    | InitFlag.HAS_RESEND  # a new worker can ask for what the old one left unanswered
    | InitFlag.ASYNC_READ  # reads of one file need not wait for each other
    | InitFlag.PARALLEL_DIROPS  # nor lookups in one directory
)


@dataclass(frozen=True, slots=True)
class InitReply:
    """The terms of a connection. `flags` are `InitFlag`s, with `flags2` in the upper half.

    `max_readahead` and `max_write` are bytes, `time_gran` nanoseconds; `max_background`
    and `congestion_threshold` count requests, `max_pages` the pages of one request.
    """

    minor: int
    max_readahead: int
    flags: int
    max_background: int
    congestion_threshold: int
    max_write: int
    max_pages: int
    time_gran: int


def negotiate(init: Init) -> InitReply:
    """Take from the kernel's offer what we want.

    Raises `ProtocolError` naming what is missing if we cannot do with what it offers.
    """
    if init.major != KERNEL_MAJOR or init.minor < MIN_KERNEL_MINOR:
        raise ProtocolError(
            f"the kernel speaks FUSE {init.major}.{init.minor}, and at least "
            f"{KERNEL_MAJOR}.{MIN_KERNEL_MINOR} of major {KERNEL_MAJOR} is needed",
            unique=init.unique,
        )
    missing = [
        f"{flag.name} ({without})" for flag, without in _REQUIRED.items() if not init.flags & flag
    ]
    if missing:
        raise ProtocolError(f"the kernel does not offer {', '.join(missing)}", unique=init.unique)
    return InitReply(
        minor=min(init.minor, KERNEL_MINOR),
        max_readahead=init.max_readahead,
        flags=_meaningful(init.flags & _WANTED),
        max_background=MAX_BACKGROUND,
        congestion_threshold=CONGESTION_THRESHOLD,
        max_write=MAX_WRITE,
        max_pages=MAX_PAGES,
        time_gran=_NANOSECONDS,
    )


def encode_init_reply(unique: int, reply: InitReply) -> bytes:
    """Return the whole answer to INIT, header included: 80 bytes."""
    return data_header(unique, INIT_OUT.size) + INIT_OUT.pack(
        KERNEL_MAJOR,
        reply.minor,
        reply.max_readahead,
        reply.flags & _LOWER_HALF,
        reply.max_background,
        reply.congestion_threshold,
        reply.max_write,
        reply.time_gran,
        reply.max_pages,
        0,  # map_alignment: no DAX
        reply.flags >> 32,
        0,  # max_stack_depth: no passthrough
        0,  # request_timeout: none
    )


def decode_init_reply(raw: bytes) -> InitReply:
    """Read the answer of the control plane. Raises `ProtocolError` if it refused."""
    header = decode_out_header(raw, len(raw))
    if header.error:
        raise ProtocolError(
            f"the control plane refuses INIT: {os.strerror(-header.error)}", unique=header.unique
        )
    if len(raw) != OUT_HEADER.size + INIT_OUT.size:
        raise ProtocolError(
            f"a reply to INIT has {OUT_HEADER.size + INIT_OUT.size} bytes, not {len(raw)}",
            unique=header.unique,
        )
    major, minor, readahead, flags, background, congestion, write, gran, pages, _, flags2, _, _ = (
        INIT_OUT.unpack_from(raw, OUT_HEADER.size)
    )
    if major != KERNEL_MAJOR:
        raise ProtocolError(
            f"the control plane speaks FUSE {major}.{minor}, not {KERNEL_MAJOR}",
            unique=header.unique,
        )
    return InitReply(
        minor=minor,
        max_readahead=readahead,
        flags=_meaningful(flags | flags2 << 32),
        max_background=background,
        congestion_threshold=congestion,
        max_write=write,
        max_pages=pages,
        time_gran=gran,
    )


def init_for_control_plane(raw: bytes, reply: InitReply) -> bytes:
    """Return the kernel's INIT request `raw`, reduced to what `reply` took from it.

    Offered flags, minor and read-ahead are those of `reply`; all else, the size and the
    `unique` too, is as the kernel sent it. Raises `ProtocolError` if `raw` is no INIT.
    """
    init = decode(raw, len(raw))
    if not isinstance(init, Init):
        raise ProtocolError("the kept request is not INIT", unique=init.unique)
    flags = _meaningful(init.flags & reply.flags)
    edited = bytearray(raw)
    INIT_IN_OLD.pack_into(
        edited, IN_HEADER.size, init.major, reply.minor, reply.max_readahead, flags & _LOWER_HALF
    )
    if len(raw) >= _FLAGS2_OFFSET + INIT_IN_FLAGS2.size:
        INIT_IN_FLAGS2.pack_into(edited, _FLAGS2_OFFSET, flags >> 32)
    return bytes(edited)


def _meaningful(flags: int) -> int:
    """Drop the upper half of `flags` where INIT_EXT does not give it a meaning."""
    return int(flags if flags & InitFlag.INIT_EXT else flags & _LOWER_HALF)
