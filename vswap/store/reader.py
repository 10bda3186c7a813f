"""The read path: from slots to buffers that a reply is made of, and gaps where pages are on disk.

Reading a page marks its entry LOADED: whoever read it has it in memory now, which makes this
copy the coldest on the device, and the first to be moved down (vswap/store/mover.py).

Whoever reads in order (a swapoff, the kernel's own read-ahead over a large area) is read
ahead of: between two requests the units that come next are decoded, so that the next answer
needs no more than a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from vswap.codec import Bytes
from vswap.errors import CorruptError
from vswap.geometry import CLUSTER_SHIFT, PAGE_SHIFT, PAGE_SIZE, ZERO_PAGE, zeros
from vswap.store.cut import by_cluster
from vswap.store.decoder import Decoder
from vswap.store.entry import (
    EMPTY,
    FIRST_BACKING,
    FIRST_FILL,
    LOADED,
    OF_PAGE,
    UNIT_SHIFT,
    extent_of,
    fill_of,
    index_of,
)
from vswap.store.fetch import Fetched, Gap
from vswap.store.parts import Parts
from vswap.store.streak import Streaks

__all__ = ["Reader"]

_ZEROS = memoryview(zeros(1 << 20))


def _zeros(count: int) -> Bytes:
    size = count << PAGE_SHIFT
    return _ZEROS[:size] if size <= len(_ZEROS) else zeros(size)


class Reader:
    """Reads for one thread. What it returns are copies: they stay right after the lock."""

    def __init__(
        self,
        parts: Parts,
        decoder: Decoder,
        fetched: Fetched,
        fetch_ahead: Callable[[Gap], None] = lambda _: None,
    ) -> None:
        """`decoder` must be this thread's own.

        `fetch_ahead` is asked for units on disk that will probably be wanted; it must not block.
        """
        self._parts = parts
        self._locks = parts.locks
        self._table = parts.table
        self._decoder = decoder
        self._fetched = fetched
        self._fetch_ahead = fetch_ahead
        self._streaks = Streaks(parts.geometry.slots)
        self._in_order = False  # what is being read now

    def page(self, slot: int) -> Bytes | Gap:
        """The page at `slot`: the commonest read, so the shortest way."""
        self._in_order = self._streaks.note(slot, slot + 1)
        with self._locks[slot >> CLUSTER_SHIFT]:
            return self.page_locked(slot)

    def page_locked(self, slot: int) -> Bytes | Gap:
        """As `page`, for a caller that holds the cluster's lock."""
        entry = self._table.get(slot)
        if not entry:
            return ZERO_PAGE
        if entry >= FIRST_BACKING:
            return self._filled(entry, 1) if entry >= FIRST_FILL else self._away(0, slot, 1, entry)
        data, pages = self._decoder.unit(entry, slot, self._in_order)
        if entry & OF_PAGE != LOADED:
            self._table.replace(slot, entry & ~OF_PAGE | LOADED)
        if pages == 1:
            return data
        start = index_of(entry) << PAGE_SHIFT
        return memoryview(data)[start : start + PAGE_SIZE]

    def pages(self, slot: int, count: int) -> tuple[list[Bytes], list[Gap]]:
        """Buffers that together hold `count` pages from `slot`, when the gaps have been filled."""
        self._in_order = self._streaks.note(slot, slot + count)
        return self.look(slot, count)

    def look(self, slot: int, count: int) -> tuple[list[Bytes], list[Gap]]:
        """As `pages`, for somebody who has been here before."""
        buffers: list[Bytes] = []
        gaps: list[Gap] = []
        for first, pages in by_cluster(slot, count):
            with self._locks[first >> CLUSTER_SHIFT]:
                self._assemble(first, self._table.entries(first, pages), buffers, gaps)
        return buffers, gaps

    def _assemble(
        self, slot: int, entries: list[int], buffers: list[Bytes], gaps: list[Gap]
    ) -> None:
        """Piece by piece: empty slots, fills, units, each decoded once; lock held."""
        at, count = 0, len(entries)
        known = (0, 0)  # a unit of which more than one piece is wanted is decoded once
        unit: Bytes = b""
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
            elif entry >= FIRST_BACKING:
                found = self._away(len(buffers), slot + at, end - at, entry)
                if isinstance(found, Gap):
                    gaps.append(found)
                    found = b""
                buffers.append(found)
            else:
                start = index_of(entry) << PAGE_SHIFT
                stop = start + (end - at << PAGE_SHIFT)
                name = (piece, slot + at - index_of(entry))
                if name != known or stop > len(unit):
                    unit, _ = self._decoder.unit(entry, slot + at, self._in_order)
                    known = name
                whole = not start and stop == len(unit)
                buffers.append(unit if whole else memoryview(unit)[start:stop])
                self._mark_loaded(slot + at, entries[at:end])
            at = end

    def _away(self, at: int, slot: int, count: int, entry: int) -> Bytes | Gap:
        """Pages of a unit on disk: a gap, unless they have been read ahead; lock held."""
        sequence = self._parts.sequence_of(entry)
        unit = self._fetched.find(entry, sequence) or self._at_hand(slot, entry, sequence)
        start = index_of(entry) << PAGE_SHIFT
        end = start + (count << PAGE_SHIFT)
        if unit is None or len(unit) < end:
            return Gap(at, slot, count, entry, sequence)
        return memoryview(unit)[start:end]

    def _at_hand(self, slot: int, entry: int, sequence: int) -> Bytes | None:
        """A unit on disk, decoded, if it has been read with another one."""
        raw = self._parts.disk.unit_at_hand(entry, sequence)
        if raw is None:
            return None
        try:
            unit = self._decoder.decode(memoryview(raw), 0, slot - index_of(entry), slot)
        except CorruptError:
            return None  # who fetches it will find out why
        self._fetched.keep(entry, sequence, unit)
        return unit

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
        nobody has read these pages yet. What is on disk is left to `fetch_ahead`.
        """
        streak = self._streaks.pending()
        if streak is None:
            return False
        slot = streak.next
        streak.next += 1  # at once: what fails below is not tried again
        ahead: Bytes | Gap = b""
        with self._locks[slot >> CLUSTER_SHIFT]:
            entry = self._table.get(slot)
            if EMPTY < entry < FIRST_BACKING:
                with suppress(CorruptError):  # whoever asks for it will be told
                    _, pages = self._decoder.unit(entry, slot, keep=True)
                    streak.next = slot + pages - index_of(entry)
            elif EMPTY < entry < FIRST_FILL:
                streak.next = slot + extent_of(entry).pages - index_of(entry)
                ahead = self._away(0, slot, 1, entry)
        if isinstance(ahead, Gap):
            self._fetch_ahead(ahead)
        return True
