"""The first block of a backing: whose it is, and a note that outlives the daemon.

4096 bytes, little-endian (the codes are `struct`'s):

======  ====  ==============================================================
offset  code  field
======  ====  ==============================================================
0       8s    `vswapbak`
8       I     version, 1
12      I     length of the note, up to 512
16            the note, then zeros
4088    Q     checksum: XXH3-64 of the 4088 bytes before it
======  ====  ==============================================================

A block of zeros is a label too, with an empty note: a file that was only allocated so far.
"""

from __future__ import annotations

import struct

from xxhash import xxh3_64_intdigest

from vswap.store.backing import BLOCK, NOTE_SIZE

__all__ = ["pack", "unpack"]

_MAGIC = b"vswapbak"
_VERSION = 1
_HEADER = struct.Struct("<8sII")
_CHECKSUM = struct.Struct("<Q")
_BODY = BLOCK - _CHECKSUM.size
assert _HEADER.size == 16
assert _HEADER.size + NOTE_SIZE <= _BODY

_ZEROS = bytes(BLOCK)


def pack(note: bytes) -> bytes:
    """The block that holds `note`, of `NOTE_SIZE` bytes at most."""
    assert len(note) <= NOTE_SIZE
    body = (_HEADER.pack(_MAGIC, _VERSION, len(note)) + note).ljust(_BODY, b"\0")
    return body + _CHECKSUM.pack(xxh3_64_intdigest(body))


def unpack(block: bytes) -> bytes | None:
    """The note in `block`, of `BLOCK` bytes; None if that is no label, but something else's data.

    The note of a label that is damaged, or of another version, is lost: it is empty then.
    """
    assert len(block) == BLOCK
    if block == _ZEROS:
        return b""
    magic, version, length = _HEADER.unpack_from(block)
    if magic != _MAGIC:
        return None
    (checksum,) = _CHECKSUM.unpack_from(block, _BODY)
    if checksum != xxh3_64_intdigest(block[:_BODY]) or version != _VERSION or length > NOTE_SIZE:
        return b""
    return block[_HEADER.size : _HEADER.size + length]
