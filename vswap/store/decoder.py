"""Decoding: from an entry to the pages of its unit, exact or not at all.

A decoder keeps units that it has decoded if it is told to: who reads in order reads each of them
again at once, and what comes next may have been decoded ahead. (Not the units of reads in no
order: they would be in memory that the processor's caches do not hold, and be of no use.) They are
kept by name and never wrong: an entry and its segment's sequence together name one unit for
ever (LOG-AGE, vswap/store/log.py), so what was decoded from a segment that has been filled
anew since is not found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xxhash import xxh3_64_intdigest

from vswap.codec import Bytes, Codec
from vswap.errors import CorruptError
from vswap.geometry import PAGE_SHIFT
from vswap.store.entry import (
    ALIGNMENT,
    INDEX_MASK,
    INDEX_SHIFT,
    POSITION_MASK,
    SEGMENT_MASK,
    SEGMENT_OFFSET_SHIFT,
    UNIT_SHIFT,
)
from vswap.store.streak import MOST, STREAKS
from vswap.store.unit import HEADER, LOW

__all__ = ["Decoder"]

_Kept = tuple[int, int, Bytes]
"""A decoded unit: its segment's sequence then, its first slot, its pages."""

KEPT_PAGES = 2 * STREAKS * MOST
"""Most pages that a decoder keeps decoded. For each streak that is read (vswap/store/streak.py)
there must be room for what is read ahead and for as much that has just been read: with less,
streaks push out each other's units before they are asked for."""


class Decoder:
    """Reads units back, for the use of one thread (codecs keep scratch state)."""

    def __init__(
        self,
        memory: memoryview,
        codecs: list[Codec],
        more: Callable[[], Codec | None] = lambda: None,
        sequence: Sequence[int] | None = None,
    ) -> None:
        """`memory` is the segments region; a codec's place in `codecs` is its number.

        `more` is asked for the codec of the next number when a unit has it. `sequence` is
        `Log.sequence`; without it nothing is kept.
        """
        assert [codec.number for codec in codecs] == list(range(len(codecs)))
        self._memory = memory
        self._decompress = [codec.decompress for codec in codecs]
        self._more = more
        self._sequence = sequence
        self._kept: dict[int, _Kept] = {}  # by the upper part of an entry, the oldest first
        self._pages = 0

    def unit(self, entry: int, slot: int, keep: bool = False) -> tuple[Bytes, int]:
        """The pages of the unit that `slot` has `entry` for, and how many they are.

        With `keep` they are kept, for more of them to be asked for soon. Raises `CorruptError` if
        the unit is not of that slot, or if a bit of it has changed since it was written.
        """
        name = entry >> UNIT_SHIFT
        first = slot - (entry >> INDEX_SHIFT & INDEX_MASK)
        if self._sequence is None:
            data = self.decode(self._memory, (name & POSITION_MASK) * ALIGNMENT, first, slot)
            return data, len(data) >> PAGE_SHIFT
        filled = self._sequence[entry >> SEGMENT_OFFSET_SHIFT & SEGMENT_MASK]
        kept = self._kept.get(name)
        if (
            kept is not None
            and kept[:2] == (filled, first)
            and (slot - first) << PAGE_SHIFT < len(kept[2])  # else the entry is damaged
        ):
            data = kept[2]
        else:
            data = self.decode(self._memory, (name & POSITION_MASK) * ALIGNMENT, first, slot)
            if keep:
                self._keep(name, (filled, first, data))
        return data, len(data) >> PAGE_SHIFT

    def _keep(self, name: int, unit: _Kept) -> None:
        """Keep a unit, instead of those that have been kept for longest."""
        kept = self._kept
        self._pages += len(unit[2]) >> PAGE_SHIFT
        if name in kept:
            self._pages -= len(kept.pop(name)[2]) >> PAGE_SHIFT
        kept[name] = unit
        while self._pages > KEPT_PAGES:
            self._pages -= len(kept.pop(next(iter(kept)))[2]) >> PAGE_SHIFT

    def decode(self, memory: memoryview, position: int, first: int, slot: int) -> Bytes:
        """The pages of the unit at byte `position` of `memory`, of slots from `first` on.

        `slot` is one of them. Raises `CorruptError` if it is not that unit.
        """
        head: int
        head, checksum = HEADER.unpack_from(memory, position)
        pages = head >> 48 & 0xFF
        if head & LOW != first or slot - first >= pages:
            raise CorruptError(f"slot {slot}: its entry names a unit of other slots")
        start = position + HEADER.size
        payload = memory[start : start + (head >> 32 & 0xFFFF) + 1]
        if xxh3_64_intdigest(payload, head) & LOW != checksum:
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
