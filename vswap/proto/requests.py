"""From bytes to requests: what the kernel asks for.

`decode` turns one message into one `Request`, or raises `ProtocolError`. No other outcome
exists, whatever the bytes are; a property test holds this. It keeps no state, touches no
descriptor and copies no data: the payload of a WRITE stays where it was received, at
`view[WRITE_PAYLOAD : WRITE_PAYLOAD + size]`.

The rules, after `include/uapi/linux/fuse.h`:

* One read of the device gives one whole message. Its `len` is the number of bytes read;
  any other is damage, not a fragment to be completed.
* Extensions (since 7.38) lie at the end of a message, `total_extlen` units of 8 bytes of
  them. The kernel adds them to requests that create files and to no request that is
  decoded here, so they are measured and otherwise left alone: the body ends before them.
* A body may be longer than the struct we know: structs grow at their tail. It may not be
  shorter. The data of a WRITE is the exception, being counted: its size is exact.
* Ranges, modes and handles are numbers here. Whether they make sense on a device is for
  the store to say, with an errno.
* Requests are told apart by their type. Being tuples, a Read and a Write can be equal.

Theory of operation. One unpack reads the three words that decide everything (length,
opcode, extensions); a table names the decoder of the opcode; a second unpack, with a
format that spans header and body and skips what nobody asks for, yields exactly the
fields of the request in their order. The tuple it returns becomes the request without a
call of Python code, as `NamedTuple._make` would do it. Measured: 0.45 us for a READ or a
WRITE on CPython 3.11, where calling the class instead of `tuple.__new__` adds 0.1 us.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple, TypeAlias

from vswap.errors import ProtocolError
from vswap.proto.abi import (
    FALLOCATE_IN,
    IN_HEADER,
    INIT_IN_FLAGS2,
    INIT_IN_OLD,
    LSEEK_IN,
    OPEN_IN,
    READ_IN,
    WRITE_PAYLOAD,
    InitFlag,
    Opcode,
)

Buffer: TypeAlias = bytes | bytearray | memoryview
"""What messages are read from. A memoryview must be one of bytes (format `B`)."""


class Init(NamedTuple):
    """The kernel's offer. `flags` are `InitFlag`s, with `flags2` in the upper half."""

    unique: int
    major: int
    minor: int
    max_readahead: int
    flags: int


class Read(NamedTuple):
    """`size` bytes at `offset` are wanted."""

    unique: int
    nodeid: int
    fh: int
    offset: int
    size: int


class Write(NamedTuple):
    """`size` bytes for `offset` lie in the receive buffer, from `WRITE_PAYLOAD` on."""

    unique: int
    nodeid: int
    fh: int
    offset: int
    size: int


class Fallocate(NamedTuple):
    """`length` bytes at `offset` are to be treated as `mode` (`FALLOC_FL_...`) says."""

    unique: int
    nodeid: int
    fh: int
    offset: int
    length: int
    mode: int


class Lseek(NamedTuple):
    """The next data or hole from `offset` on is wanted (`whence` as in lseek(2))."""

    unique: int
    nodeid: int
    fh: int
    offset: int
    whence: int


class Open(NamedTuple):
    """A file is opened with the `flags` of open(2)."""

    unique: int
    nodeid: int
    flags: int


class Other(NamedTuple):
    """Any other request, known by its header alone and handed on as it came."""

    unique: int
    nodeid: int
    opcode: int


Request: TypeAlias = Init | Read | Write | Fallocate | Lseek | Open | Other

# Header and body in one: first the header's len and opcode (8x) and its ids and
# extensions (16x) are skipped, then what follows the last wanted field of the body.
_HEAD: Final = Struct("<II 28x H 2x")
assert _HEAD.size == IN_HEADER.size
_READ: Final = Struct("<8x QQ 16x QQI 20x")
assert _READ.size == IN_HEADER.size + READ_IN.size
_WRITE: Final = _READ
assert _WRITE.size == WRITE_PAYLOAD
_FALLOCATE: Final = Struct("<8x QQ 16x QQQI 4x")
assert _FALLOCATE.size == IN_HEADER.size + FALLOCATE_IN.size
_LSEEK: Final = Struct("<8x QQ 16x QQI 4x")
assert _LSEEK.size == IN_HEADER.size + LSEEK_IN.size
_OPEN: Final = Struct("<8x QQ 16x I 4x")
assert _OPEN.size == IN_HEADER.size + OPEN_IN.size
_INIT: Final = Struct("<8x Q 24x IIII")
assert _INIT.size == IN_HEADER.size + INIT_IN_OLD.size
_INIT_EXT_SIZE: Final = _INIT.size + INIT_IN_FLAGS2.size
_OTHER: Final = Struct("<4x I QQ 16x")
assert _OTHER.size == IN_HEADER.size


def decode(view: Buffer, length: int) -> Request:
    """Decode the message of `length` bytes at the start of `view`.

    Raises `ProtocolError`, with the `unique` of the request where there is one to read.
    """
    if length < _HEAD.size or len(view) < length:
        raise _incomplete(len(view), length)
    announced, opcode, units = _HEAD.unpack_from(view)
    if announced != length or units:
        length = _length_before_extensions(view, length, announced, units)
    return _DECODERS.get(opcode, _other)(view, length)


def expects_reply(opcode: int) -> bool:
    """Whether the kernel waits for an answer to `opcode`.

    INTERRUPT may be answered, to have it sent again or never, but nothing waits for it.
    """
    return opcode not in _UNANSWERED


_UNANSWERED: Final = frozenset(
    {Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT, Opcode.NOTIFY_REPLY}
)

# --- One decoder for each opcode: `length` ends at the extensions -----------------------


def _read(view: Buffer, length: int) -> Read:
    if length < _READ.size:
        raise _short(view, length, _READ.size)
    return tuple.__new__(Read, _READ.unpack_from(view))


def _write(view: Buffer, length: int) -> Write:
    if length < _WRITE.size:
        raise _short(view, length, _WRITE.size)
    request = tuple.__new__(Write, _WRITE.unpack_from(view))
    if request.size != length - WRITE_PAYLOAD:
        raise ProtocolError(
            f"WRITE announces {request.size} bytes of data and has {length - WRITE_PAYLOAD}",
            unique=request.unique,
        )
    return request


def _fallocate(view: Buffer, length: int) -> Fallocate:
    if length < _FALLOCATE.size:
        raise _short(view, length, _FALLOCATE.size)
    return tuple.__new__(Fallocate, _FALLOCATE.unpack_from(view))


def _lseek(view: Buffer, length: int) -> Lseek:
    if length < _LSEEK.size:
        raise _short(view, length, _LSEEK.size)
    return tuple.__new__(Lseek, _LSEEK.unpack_from(view))


def _open(view: Buffer, length: int) -> Open:
    if length < _OPEN.size:
        raise _short(view, length, _OPEN.size)
    return tuple.__new__(Open, _OPEN.unpack_from(view))


def _init(view: Buffer, length: int) -> Init:
    """Accept the 16 bytes of kernels before 7.36 too, which have no `flags2` to announce."""
    if length < _INIT.size:
        raise _short(view, length, _INIT.size)
    unique, major, minor, max_readahead, flags = _INIT.unpack_from(view)
    if flags & InitFlag.INIT_EXT:
        if length < _INIT_EXT_SIZE:
            raise _short(view, length, _INIT_EXT_SIZE)
        flags |= INIT_IN_FLAGS2.unpack_from(view, _INIT.size)[0] << 32
    return Init(unique, major, minor, max_readahead, flags)


def _other(view: Buffer, _length: int) -> Other:
    opcode, unique, nodeid = _OTHER.unpack_from(view)
    return Other(unique, nodeid, opcode)


# Keyed by bare integers: a small one is found by identity, a member only by comparing.
_DECODERS: Final[dict[int, Callable[[Buffer, int], Request]]] = {
    Opcode.READ.value: _read,
    Opcode.WRITE.value: _write,
    Opcode.FALLOCATE.value: _fallocate,
    Opcode.LSEEK.value: _lseek,
    Opcode.OPEN.value: _open,
    Opcode.INIT.value: _init,
}

# --- What is wrong ----------------------------------------------------------------------


def _incomplete(held: int, length: int) -> ProtocolError:
    if held < length:
        return ProtocolError(f"a buffer of {held} bytes cannot hold a message of {length}")
    return ProtocolError(f"a request begins with {_HEAD.size} bytes of header, not {length}")


def _length_before_extensions(view: Buffer, length: int, announced: int, units: int) -> int:
    before = length - units * 8
    if announced != length:
        complaint = f"the header announces {announced} bytes and {length} were received"
    elif before < IN_HEADER.size:
        complaint = f"{units * 8} bytes of extensions do not fit in a request of {length}"
    else:
        return before
    raise ProtocolError(complaint, unique=_OTHER.unpack_from(view)[1])


def _short(view: Buffer, length: int, least: int) -> ProtocolError:
    opcode, unique, _ = _OTHER.unpack_from(view)
    have, need = length - IN_HEADER.size, least - IN_HEADER.size
    return ProtocolError(
        f"{Opcode(opcode).name} needs a body of {need} bytes and has {have}", unique=unique
    )
