"""Units: what a few consecutive slots of one write become in a segment.

A unit's header, at a multiple of 4 bytes, little-endian (the codes are `struct`'s):

======  ====  ==============================================================
offset  code  field
======  ====  ==============================================================
0       I     first slot
4       I     checksum: low 32 bits of XXH3-64 of the payload, seeded with the
              other fields, so that a damaged header is noticed too
8       H     payload length less one, in bytes
10      B     pages, 1 to 16
11      B     codec number
12            payload, then padding to a multiple of 4 times the page count
======  ====  ==============================================================
"""

from __future__ import annotations

import struct

from xxhash import xxh3_64_intdigest

from vswap.codec import STORED, Bytes, Codec
from vswap.errors import CorruptError
from vswap.geometry import MAX_UNIT_PAGES, PAGE_SIZE
from vswap.store.entry import ALIGNMENT

__all__ = ["HEADER", "MAX_UNIT_SIZE", "Decoder", "pack_payload", "unit_size", "write_unit"]

HEADER = struct.Struct("<IIHBB")
assert HEADER.size == 12

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


def _checksum(payload: Bytes, slot: int, length: int, pages: int, codec: int) -> int:
    seed = slot << 32 | length << 12 | pages << 6 | codec
    return xxh3_64_intdigest(payload, seed) & 0xFFFFFFFF


def write_unit(
    memory: memoryview, position: int, slot: int, pages: int, codec: int, payload: Bytes
) -> None:
    """Write header and payload at `position` of `memory`. The caller made sure of the room."""
    length = len(payload)
    checksum = _checksum(payload, slot, length, pages, codec)
    start = position + HEADER.size
    memory[start : start + length] = payload
    HEADER.pack_into(memory, position, slot, checksum, length - 1, pages, codec)


class Decoder:
    """Reads units back, for the use of one thread (codecs keep scratch state)."""

    def __init__(self, memory: memoryview, codecs: dict[int, Codec]) -> None:
        """`memory` is the segments region; `codecs` maps numbers to codecs."""
        self._memory = memory
        self._codecs = codecs

    def unit(self, position: int, slot: int, index: int) -> tuple[Bytes, int]:
        """The pages of the unit at `position`, and how many they are.

        `slot` and `index` are what the caller's entry says: the unit must agree. Raises
        `CorruptError` if it does not, or if a bit of it has changed since it was written.
        """
        first, checksum, less_one, pages, number = HEADER.unpack_from(self._memory, position)
        length = less_one + 1
        start = position + HEADER.size
        payload = self._memory[start : start + length]
        if first + index != slot or index >= pages:
            raise CorruptError(f"slot {slot}: its entry names a unit of other slots")
        if _checksum(payload, first, length, pages, number) != checksum:
            raise CorruptError(f"slot {slot}: its unit's checksum does not match")
        codec = self._codecs.get(number)
        if codec is None:
            raise CorruptError(f"slot {slot}: its unit has an unknown codec, {number}")
        return codec.decompress(payload, pages * PAGE_SIZE), pages
