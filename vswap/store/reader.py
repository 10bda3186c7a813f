"""The read path: from slots to buffers that a reply is made of.

Reading a page marks its entry LOADED: whoever read it has it in memory now, which makes this
copy the coldest on the device, and the first to be moved down (vswap/store/mover.py).

Whoever reads in order (a swapoff, the kernel's own read-ahead over a large area) is read
ahead of: between two requests the units that come next are decoded, so that the next answer
needs no more than a copy.
"""

from __future__ import annotations

from contextlib import suppress

from vswap.codec import Bytes
from vswap.errors import CorruptError
from vswap.geometry import CLUSTER_SHIFT, PAGE_SHIFT, PAGE_SIZE, ZERO_PAGE
from vswap.store.cut import by_cluster
from vswap.store.decoder import Decoder
from vswap.store.entry import EMPTY, FIRST_FILL, LOADED, OF_PAGE, UNIT_SHIFT, fill_of, index_of
from vswap.store.parts import Parts
from vswap.store.streak import Streaks

__all__ = ["Reader"]

_ZEROS = memoryview(bytes(1 << 20))


def _zeros(count: int) -> Bytes:
    size = count << PAGE_SHIFT
    return _ZEROS[:size] if size <= len(_ZEROS) else bytes(size)


class Reader:
    """Reads for one thread. What it returns are copies: they stay right after the lock."""

    def __init__(self, parts: Parts, decoder: Decoder) -> None:
        """`decoder` must be this thread's own."""
        self._parts = parts
        self._locks = parts.locks
        self._table = parts.table
        self._decoder = decoder
        self._streaks = Streaks(parts.geometry.slots)
        self._in_order = False  # what is being read now

    def page(self, slot: int) -> Bytes:
        """The page at `slot`: the commonest read, so the shortest way."""
        self._in_order = self._streaks.note(slot, slot + 1)
        with self._locks[slot >> CLUSTER_SHIFT]:
            return self.page_locked(slot)

    def page_locked(self, slot: int) -> Bytes:
        """As `page`, for a caller that holds the cluster's lock."""
        entry = self._table.get(slot)
        if not entry:
            return ZERO_PAGE
        if entry >= FIRST_FILL:
            return self._filled(entry, 1)
        data, pages = self._decoder.unit(entry, slot, self._in_order)
        if entry & OF_PAGE != LOADED:
            self._table.replace(slot, entry & ~OF_PAGE | LOADED)
        if pages == 1:
            return data
        start = index_of(entry) << PAGE_SHIFT
        return memoryview(data)[start : start + PAGE_SIZE]

    def pages(self, slot: int, count: int) -> list[Bytes]:
        """Buffers that together hold `count` pages from `slot`."""
        self._in_order = self._streaks.note(slot, slot + count)
        buffers: list[Bytes] = []
        for first, pages in by_cluster(slot, count):
            with self._locks[first >> CLUSTER_SHIFT]:
                self._assemble(first, self._table.entries(first, pages), buffers)
        return buffers

    def _assemble(self, slot: int, entries: list[int], buffers: list[Bytes]) -> None:
        """Piece by piece: empty slots, fills, units, each decoded once; lock held."""
        at, count = 0, len(entries)
        while at < count:
            entry = entries[at]
            piece = entry >> UNIT_SHIFT  # of a fill word, its kind and number
            end = at + 1
            while end < count and entries[end] >> UNIT_SHIFT == piece:
                end += 1
            if not entry:
                buffers.append(_zeros(end - at))
            elif entry >= FIRST_FILL:
                buffers.append(self._filled(entry, end - at))
            else:
                buffers.append(self._part_of_unit(entry, slot + at, end - at))
                self._mark_loaded(slot + at, entries[at:end])
            at = end

    def _part_of_unit(self, entry: int, slot: int, count: int) -> Bytes:
        data, pages = self._decoder.unit(entry, slot, self._in_order)
        if count == pages:
            return data
        start = index_of(entry) << PAGE_SHIFT
        return memoryview(data)[start : start + (count << PAGE_SHIFT)]

    def _mark_loaded(self, slot: int, entries: list[int]) -> None:
        for at, entry in enumerate(entries, slot):
            if entry & OF_PAGE != LOADED:
                self._table.replace(at, entry & ~OF_PAGE | LOADED)

    def _filled(self, entry: int, pages: int) -> bytes:
        word = self._parts.words.word(fill_of(entry))
        return word * ((pages << PAGE_SHIFT) // len(word))

    def read_ahead(self) -> bool:
        """Decode one unit more of those that come next, if reads come in order.

        For the time between two requests; False when there is nothing to do. Marks nothing:
        nobody has read these pages yet.
        """
        streak = self._streaks.pending()
        if streak is None:
            return False
        slot = streak.next
        streak.next += 1  # at once: what fails below is not tried again
        with self._locks[slot >> CLUSTER_SHIFT]:
            entry = self._table.get(slot)
            if EMPTY < entry < FIRST_FILL:
                with suppress(CorruptError):  # whoever asks for it will be told
                    _, pages = self._decoder.unit(entry, slot, keep=True)
                    streak.next = slot + pages - index_of(entry)
        return True
