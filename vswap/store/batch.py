"""A batch: the units that are to fill one disk segment, encrypted, in memory until it is written.

On disk a unit is what it is in memory, header and payload, padded to a multiple of 64 bytes and of
4 times its page count, the tag included. So its entry tells what to read before anything of it is
known (vswap/store/entry.py), and there is nothing between one unit and the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import lcm
from typing import NamedTuple

from vswap.codec import Bytes
from vswap.geometry import SEGMENT_SIZE
from vswap.store.backing import aligned, whole_blocks
from vswap.store.cipher import TAG_SIZE
from vswap.store.disk import Disk
from vswap.store.disk_log import Filling
from vswap.store.entry import ALIGNMENT, BACKING_ALIGNMENT, COLD, HUGE, NOT_HOT, pack_backing
from vswap.store.parts import Origin
from vswap.store.unit import HEADER

__all__ = ["Batch", "Placed", "sealed_size"]


class Placed(NamedTuple):
    """Pages of a batch: slots from `slot` on that have had `entries`, in units of `origin`.

    `offset` and `share` are in bytes, as `pack_backing` takes them.
    """

    slot: int
    entries: Sequence[int]
    origin: Origin
    offset: int
    share: int
    flags: int

    def entry(self, segment: int) -> int:
        """The first page's, in that disk segment."""
        return pack_backing(segment, self.offset, len(self.entries), self.share, self.flags)


def sealed_size(length: int, pages: int) -> int:
    """Bytes that a unit of `pages` takes on disk, header and payload being `length` bytes."""
    step = lcm(BACKING_ALIGNMENT, ALIGNMENT * pages)
    return -(-(length + TAG_SIZE) // step) * step


class Batch:
    """One disk segment's content in the making. For one thread at a time."""

    def __init__(self, disk: Disk) -> None:
        """Nothing in it. Its memory is taken with `prepare`, or when it is first used."""
        self._disk = disk
        self._memory: memoryview | None = None
        self._sequence = 0
        self._used = 0
        self._placed: list[Placed] = []

    def __bool__(self) -> bool:
        """Whether anything is in it."""
        return bool(self._placed)

    def __iter__(self) -> Iterator[Placed]:
        """What is in it."""
        return iter(self._placed)

    def prepare(self) -> None:
        """Take the memory, once."""
        if self._memory is None:
            self._memory = aligned(SEGMENT_SIZE)

    def begin(self) -> None:
        """Forget what is in it."""
        self.prepare()
        self._sequence = 0  # taken with the first unit
        self._used = 0
        self._placed = []

    def add(
        self, slot: int, entries: Sequence[int], origin: Origin, unit: Bytes, flags: int
    ) -> bool:
        """Encrypt a unit of these pages into it; False, and nothing done, if it does not fit.

        `unit` is header and payload. The entries and the origin are kept for who publishes it.
        """
        assert self._memory is not None
        pages = len(entries)
        size = sealed_size(len(unit), pages)
        offset = self._used
        if offset + size > SEGMENT_SIZE:
            return False
        if not self._placed:
            self._sequence = self._disk.log.next_sequence()
        plain = bytes(unit) + bytes(size - TAG_SIZE - len(unit))
        self._memory[offset : offset + size] = self._disk.seal(self._sequence, offset, plain)
        self._used = offset + size
        self._placed.append(Placed(slot, entries, origin, offset, size // pages, flags))
        return True

    def blocks(self) -> memoryview:
        """What is to be written: whole blocks."""
        assert self._memory is not None
        end = whole_blocks(self._used)
        self._memory[self._used : end] = bytes(end - self._used)
        return self._memory[:end]

    @property
    def size(self) -> int:
        """Bytes in it, without what pads it to whole blocks."""
        return self._used

    def filling(self) -> Filling:
        """What the disk segment holds that it is written to."""
        pages = size = hot = huge = cold = 0
        for placed in self._placed:
            count = len(placed.entries)
            pages += count
            size += placed.share * count
            hot += 0 if placed.flags & NOT_HOT else count
            huge += count if placed.flags & HUGE else 0
            cold += count if placed.flags & COLD else 0
        return Filling(self._sequence, self._used, pages, size, hot, huge, cold)


assert HEADER.size % ALIGNMENT == 0
