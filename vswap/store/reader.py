"""The read path: from slots to buffers that a reply is made of.

Reading a page marks its entry LOADED: whoever read it has it in memory now, which makes this
copy the coldest on the device, and the first to be moved down (vswap/store/mover.py).
"""

from __future__ import annotations

from vswap.codec import Bytes
from vswap.geometry import CLUSTER_SHIFT, PAGE_SHIFT, PAGE_SIZE, ZERO_PAGE
from vswap.store.cache import Presence
from vswap.store.cut import by_cluster
from vswap.store.entry import FIRST_FILL, LOADED, OF_PAGE, UNIT_SHIFT, fill_of, index_of
from vswap.store.parts import Parts
from vswap.store.unit import Decoder

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

    def page(self, slot: int) -> Bytes:
        """The page at `slot`: the commonest read, so the shortest way."""
        with self._locks[slot >> CLUSTER_SHIFT]:
            return self.page_locked(slot)

    def page_locked(self, slot: int) -> Bytes:
        """As `page`, for a caller that holds the cluster's lock."""
        entry = self._table.get(slot)
        if not entry:
            return ZERO_PAGE
        if entry >= FIRST_FILL:
            return self._filled(entry, 1)
        data, pages = self._decoder.unit(entry, slot)
        if entry & OF_PAGE != LOADED:
            self._table.replace(slot, entry & ~OF_PAGE | LOADED)
        if pages == 1:
            return data
        start = index_of(entry) << PAGE_SHIFT
        return memoryview(data)[start : start + PAGE_SIZE]

    def pages(self, slot: int, count: int) -> list[Bytes]:
        """Buffers that together hold `count` pages from `slot`."""
        buffers: list[Bytes] = []
        for first, pages in by_cluster(slot, count):
            with self._locks[first >> CLUSTER_SHIFT]:
                self._assemble(first, pages, buffers)
        return buffers

    def _assemble(self, slot: int, count: int, buffers: list[Bytes]) -> None:
        """Run by run; lock held."""
        presence = self._parts.cache.presence
        while count:
            answer, run = presence(slot, count)
            if answer is Presence.MIXED:
                answer, _ = presence(slot, run)
            if answer is Presence.ALL:
                self._load(slot, run, buffers)
            else:
                buffers.append(_zeros(run))
            slot += run
            count -= run

    def _load(self, slot: int, count: int, buffers: list[Bytes]) -> None:
        """Pages that are all in the front cache, decoding each unit once; lock held."""
        entries = self._table.entries(slot, count)
        at = 0
        while at < count:
            entry = entries[at]
            unit = entry >> UNIT_SHIFT
            end = at + 1
            while end < count and entries[end] >> UNIT_SHIFT == unit:
                end += 1
            if entry >= FIRST_FILL:
                buffers.append(self._filled(entry, end - at))
                at = end
                continue
            data, pages = self._decoder.unit(entry, slot + at)
            if end - at < pages:
                start = index_of(entry) << PAGE_SHIFT
                data = memoryview(data)[start : start + (end - at << PAGE_SHIFT)]
            buffers.append(data)
            for one in range(at, end):
                if entries[one] & OF_PAGE != LOADED:
                    self._table.replace(slot + one, entries[one] & ~OF_PAGE | LOADED)
            at = end

    def _filled(self, entry: int, pages: int) -> bytes:
        word = self._parts.words.word(fill_of(entry))
        return word * ((pages << PAGE_SHIFT) // len(word))
