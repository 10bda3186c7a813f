"""From answers to bytes, and the one look we take at answers that others made.

The rules, after `include/uapi/linux/fuse.h` and `fuse_dev_do_write()` in `fs/fuse/dev.c`:

* A reply is one write: a header, and the struct (or data) that the opcode asks for. The
  header's `len` must be the number of bytes written.
* `unique` is echoed exactly, `RESEND_BIT` included.
* An error is a negative errno in the header, and such a reply has no body. Errors the
  kernel does not know (512 and up) are refused, and then the request would wait for ever.
* `unique` 0 is no reply but a notification; its `error` holds the code, a positive number.

Each function is one `pack`, header and body in one format. Only READ's data is left to
be gathered by the write: send `data_header(unique, len(data))` and `data` in one writev.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from vswap.errors import ProtocolError
from vswap.proto.abi import LSEEK_OUT, OPEN_OUT, OUT_HEADER, WRITE_OUT, NotifyCode
from vswap.proto.requests import Buffer

_MAX_ERRNO: Final = 511

# len, error, unique, and then the fields of the body
_WRITTEN: Final = Struct("<IiQ I4x")
assert _WRITTEN.size == OUT_HEADER.size + WRITE_OUT.size
_OPENED: Final = Struct("<IiQ QIi")
assert _OPENED.size == OUT_HEADER.size + OPEN_OUT.size
_FOUND: Final = Struct("<IiQ Q")
assert _FOUND.size == OUT_HEADER.size + LSEEK_OUT.size


def ok(unique: int) -> bytes:
    """Done, and there is nothing more to say (FALLOCATE, FSYNC, RELEASE, ...)."""
    return OUT_HEADER.pack(OUT_HEADER.size, 0, unique)


def error(unique: int, errno: int) -> bytes:
    """Not done, because of `errno`: a positive number, from 1 to 511."""
    assert 0 < errno <= _MAX_ERRNO
    return OUT_HEADER.pack(OUT_HEADER.size, -errno, unique)


def data_header(unique: int, size: int) -> bytes:
    """Announce the `size` bytes of data that follow it in the same writev (READ)."""
    return OUT_HEADER.pack(OUT_HEADER.size + size, 0, unique)


def written(unique: int, size: int) -> bytes:
    """All `size` bytes of a WRITE are kept. Never less than was asked: see `handshake`."""
    return _WRITTEN.pack(_WRITTEN.size, 0, unique, size)


def opened(unique: int, fh: int, open_flags: int) -> bytes:
    """The file is open as `fh`, to be treated as `open_flags` (`OpenFlag`) say."""
    return _OPENED.pack(_OPENED.size, 0, unique, fh, open_flags, 0)


def found(unique: int, offset: int) -> bytes:
    """The data or hole that LSEEK looked for begins at `offset`."""
    return _FOUND.pack(_FOUND.size, 0, unique, offset)


def resend() -> bytes:
    """Ask for every request that was read and not answered once more (HAS_RESEND)."""
    return OUT_HEADER.pack(OUT_HEADER.size, NotifyCode.RESEND, 0)


class OutHeader(NamedTuple):
    """The header of a reply, or of a notification where `unique` is 0."""

    len: int
    error: int
    unique: int


def decode_out_header(view: Buffer, length: int) -> OutHeader:
    """Check the reply of `length` bytes at the start of `view` and return its header.

    What passes will be taken by the kernel as the end of the request, if it has one by
    that name. Raises `ProtocolError` for anything else, with `unique` where it is known.
    """
    if len(view) < length:
        raise ProtocolError(f"a buffer of {len(view)} bytes cannot hold a message of {length}")
    if length < OUT_HEADER.size:
        raise ProtocolError(f"a reply begins with {OUT_HEADER.size} bytes of header, not {length}")
    header = OutHeader._make(OUT_HEADER.unpack_from(view))
    complaint = _complaint(header, length)
    if complaint:
        raise ProtocolError(complaint, unique=header.unique)
    return header


def _complaint(header: OutHeader, length: int) -> str | None:
    if header.len != length:
        return f"the reply announces {header.len} bytes and has {length}"
    if header.unique == 0:
        return None if header.error > 0 else f"{header.error} is not a notification's code"
    if not -_MAX_ERRNO <= header.error <= 0:
        return f"{header.error} is neither 0 nor a negative errno"
    if header.error and length != OUT_HEADER.size:
        return f"a reply with an error has no body, and this has {length - OUT_HEADER.size} bytes"
    return None
