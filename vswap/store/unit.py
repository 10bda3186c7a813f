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

from xxhash import xxh3_64_intdigest

from vswap.codec import STORED, Bytes, Codec
from vswap.errors import CorruptError
from vswap.geometry import MAX_UNIT_PAGES, PAGE_SHIFT, PAGE_SIZE
from vswap.store.entry import ALIGNMENT, INDEX_MASK, INDEX_SHIFT, POSITION_MASK, UNIT_SHIFT

__all__ = ["HEADER", "MAX_UNIT_SIZE", "Decoder", "pack_payload", "unit_size", "write_unit"]

HEADER = struct.Struct("<QI")
assert HEADER.size == 12

_LOW = (1 << 32) - 1

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
    HEADER.pack_into(memory, position, head, xxh3_64_intdigest(payload, head) & _LOW)


class Decoder:
    """Reads units back, for the use of one thread (codecs keep scratch state)."""

    def __init__(self, memory: memoryview, codecs: list[Codec]) -> None:
        """`memory` is the segments region; a codec's place in `codecs` is its number."""
        assert [codec.number for codec in codecs] == list(range(len(codecs)))
        self._memory = memory
        self._decompress = [codec.decompress for codec in codecs]

    def unit(self, entry: int, slot: int) -> tuple[Bytes, int]:
        """The pages of the unit that `slot` has `entry` for, and how many they are.

        Raises `CorruptError` if the unit is not of that slot, or if a bit of it has changed
        since it was written.
        """
        position = (entry >> UNIT_SHIFT & POSITION_MASK) * ALIGNMENT
        head, checksum = HEADER.unpack_from(self._memory, position)
        pages = head >> 48 & 0xFF
        index = entry >> INDEX_SHIFT & INDEX_MASK
        if (head & _LOW) + index != slot or index >= pages:
            raise CorruptError(f"slot {slot}: its entry names a unit of other slots")
        start = position + HEADER.size
        payload = self._memory[start : start + (head >> 32 & 0xFFFF) + 1]
        if xxh3_64_intdigest(payload, head) & _LOW != checksum:
            raise CorruptError(f"slot {slot}: its unit's checksum does not match")
        number = head >> 56
        if number >= len(self._decompress):
            raise CorruptError(f"slot {slot}: its unit has an unknown codec, {number}")
        return self._decompress[number](payload, pages << PAGE_SHIFT), pages
