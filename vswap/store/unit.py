"""Units: what a few consecutive slots of one write become in a segment.

A unit's header, at a multiple of 4 bytes, little-endian (the codes are `struct`'s):

======  ====  ==============================================================
offset  code  field
======  ====  ==============================================================
0       I     first slot
4       H     payload length less one, in bytes
6       B     pages, 1 to 16
7       B     codec number
8       I     checksum: low 32 bits of XXH3-64 of the payload, seeded with the
              eight bytes before it, so that a damaged header is noticed too
12            payload, then padding to a multiple of 4 times the page count
======  ====  ==============================================================

The first four fields are handled as one 64-bit word, the *head*.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from vswap.codec import STORED, Bytes, Codec
from vswap.geometry import CLUSTER_SLOTS, MAX_UNIT_PAGES, PAGE_SIZE
from vswap.store.entry import ALIGNMENT

__all__ = [
    "HEADER",
    "LOW",
    "MAX_UNIT_SIZE",
    "Found",
    "pack_payload",
    "pack_unit",
    "padded",
    "unit_length",
    "unit_size",
    "units_in",
    "write_unit",
]

HEADER = struct.Struct("<QI")
assert HEADER.size == 12

LOW = (1 << 32) - 1
"""The part of a head that is the first slot, and the part of a hash that is the checksum."""

_IN_CLUSTER = CLUSTER_SLOTS - 1

_POOR = 7 / 8
"""A payload above this share of its pages is not worth decompressing later: stored as it is."""


def unit_size(length: int, pages: int) -> int:
    """Bytes that a unit with a payload of `length` bytes takes in its segment."""
    step = ALIGNMENT * pages
    return -(-(HEADER.size + length) // step) * step


MAX_UNIT_SIZE = unit_size(MAX_UNIT_PAGES * PAGE_SIZE, MAX_UNIT_PAGES)


def pack_payload(codec: Codec, data: Bytes) -> tuple[int, Bytes]:
    """Codec number and payload for the pages `data`; `data` itself if it compresses poorly."""
    payload = codec.compress(data)
    if len(payload) > len(data) * _POOR:
        return STORED, data
    return codec.number, payload


def write_unit(
    memory: memoryview, position: int, slot: int, pages: int, codec: int, payload: Bytes
) -> None:
    """Write header and payload at `position` of `memory`. The caller made sure of the room."""
    length = len(payload)
    head = slot | (length - 1) << 32 | pages << 48 | codec << 56
    start = position + HEADER.size
    memory[start : start + length] = payload
    HEADER.pack_into(memory, position, head, xxh3_64_intdigest(payload, head) & LOW)


def pack_unit(slot: int, pages: int, codec: int, payload: Bytes) -> bytes:
    """Header and payload, without padding."""
    unit = bytearray(HEADER.size + len(payload))
    write_unit(memoryview(unit), 0, slot, pages, codec, payload)
    return bytes(unit)


def padded(unit: bytes, pages: int) -> bytes:
    """A unit, header and payload, with the padding that it has in a segment."""
    return unit.ljust(unit_size(len(unit) - HEADER.size, pages), b"\0")


def unit_length(memory: memoryview, position: int) -> int:
    """Bytes of the unit at `position`, header and payload, without padding, as its header says."""
    head: int
    head, _ = HEADER.unpack_from(memory, position)
    return HEADER.size + (head >> 32 & 0xFFFF) + 1


class Found(NamedTuple):
    """What a unit's header says: first slot, pages, byte position, and bytes with padding."""

    slot: int
    pages: int
    position: int
    size: int


def units_in(memory: memoryview, start: int, end: int) -> Iterator[Found]:
    """The units that have been appended from byte `start` on, up to `end` or the first non-unit.

    These are hints: nothing tells where a segment's content ends, and what follows may be left
    of an earlier life of the segment. Only what an entry names is a unit.
    """
    while start + HEADER.size < end:
        head, _ = HEADER.unpack_from(memory, start)
        slot, pages = head & LOW, head >> 48 & 0xFF
        if not 1 <= pages <= MAX_UNIT_PAGES:
            return
        size = unit_size((head >> 32 & 0xFFFF) + 1, pages)
        if start + size > end or (slot & _IN_CLUSTER) + pages > CLUSTER_SLOTS:
            return
        yield Found(slot, pages, start, size)
        start += size
