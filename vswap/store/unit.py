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
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from vswap.codec import STORED, Bytes, Codec
from vswap.errors import CorruptError
from vswap.geometry import CLUSTER_SLOTS, MAX_UNIT_PAGES, PAGE_SHIFT, PAGE_SIZE
from vswap.store.entry import (
    ALIGNMENT,
    INDEX_MASK,
    INDEX_SHIFT,
    POSITION_MASK,
    SEGMENT_MASK,
    SEGMENT_OFFSET_SHIFT,
    UNIT_SHIFT,
)

__all__ = [
    "HEADER",
    "MAX_UNIT_SIZE",
    "Decoder",
    "Found",
    "pack_payload",
    "unit_size",
    "units_in",
    "write_unit",
]

HEADER = struct.Struct("<QI")
assert HEADER.size == 12

_LOW = (1 << 32) - 1
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
    HEADER.pack_into(memory, position, head, xxh3_64_intdigest(payload, head) & _LOW)


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
        slot, pages = head & _LOW, head >> 48 & 0xFF
        if not 1 <= pages <= MAX_UNIT_PAGES:
            return
        size = unit_size((head >> 32 & 0xFFFF) + 1, pages)
        if start + size > end or (slot & _IN_CLUSTER) + pages > CLUSTER_SLOTS:
            return
        yield Found(slot, pages, start, size)
        start += size


class Decoder:
    """Reads units back, for the use of one thread (codecs keep scratch state).

    The last unit is kept decoded: whoever reads in order reads it again at once.
    """

    def __init__(
        self,
        memory: memoryview,
        codecs: list[Codec],
        more: Callable[[], Codec | None] = lambda: None,
        sequence: Sequence[int] | None = None,
    ) -> None:
        """`memory` is the segments region; a codec's place in `codecs` is its number.

        `more` is asked for the codec of the next number when a unit has it. `sequence` is
        `Log.sequence`: with the entry it tells whether a unit is the last one (LOG-AGE). Without
        it nothing is kept.
        """
        assert [codec.number for codec in codecs] == list(range(len(codecs)))
        self._memory = memory
        self._decompress = [codec.decompress for codec in codecs]
        self._more = more
        self._sequence = sequence
        self._name = -1  # of the last unit: its entry's upper part
        self._filled = -1  # its segment's sequence then
        self._slot = 0  # its first slot
        self._data: Bytes = b""

    def unit(self, entry: int, slot: int) -> tuple[Bytes, int]:
        """The pages of the unit that `slot` has `entry` for, and how many they are.

        Raises `CorruptError` if the unit is not of that slot, or if a bit of it has changed
        since it was written.
        """
        name = entry >> UNIT_SHIFT
        index = entry >> INDEX_SHIFT & INDEX_MASK
        sequence = self._sequence
        if sequence is not None:
            filled = sequence[entry >> SEGMENT_OFFSET_SHIFT & SEGMENT_MASK]
            if name == self._name and filled == self._filled and self._slot + index == slot:
                return self._data, len(self._data) >> PAGE_SHIFT
            self._name = -1
        data = self._decode(name & POSITION_MASK, slot, index)
        if sequence is not None:
            self._name, self._filled, self._slot, self._data = name, filled, slot - index, data
        return data, len(data) >> PAGE_SHIFT

    def _decode(self, place: int, slot: int, index: int) -> Bytes:
        position = place * ALIGNMENT
        head: int
        head, checksum = HEADER.unpack_from(self._memory, position)
        pages = head >> 48 & 0xFF
        if (head & _LOW) + index != slot or index >= pages:
            raise CorruptError(f"slot {slot}: its entry names a unit of other slots")
        start = position + HEADER.size
        payload = self._memory[start : start + (head >> 32 & 0xFFFF) + 1]
        if xxh3_64_intdigest(payload, head) & _LOW != checksum:
            raise CorruptError(f"slot {slot}: its unit's checksum does not match")
        number = head >> 56
        if number >= len(self._decompress):
            self._learn(number, slot)
        return self._decompress[number](payload, pages << PAGE_SHIFT)

    def _learn(self, number: int, slot: int) -> None:
        codec = self._more() if number == len(self._decompress) else None
        if codec is None:
            raise CorruptError(f"slot {slot}: its unit has an unknown codec, {number}")
        assert codec.number == number
        self._decompress.append(codec.decompress)
