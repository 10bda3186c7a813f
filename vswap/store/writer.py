"""The write path: from the pages of one request to units, zeromap bits and entries.

A write is made in two steps, and the order is what a crash is survived by: first all of its
units are appended to the log (*staged*: in memory, but named by nothing), then, cluster by
cluster, their entries take the place of what the range held. A write that finds no room
fails in the first step, and nothing that was stored has been touched.
"""

from __future__ import annotations

from collections.abc import Callable

from vswap.codec import Codec
from vswap.geometry import CLUSTER_SHIFT, PAGE_SHIFT, PAGE_SIZE, ZERO_PAGE
from vswap.store.appender import Appender
from vswap.store.cut import ZERO_WORD, by_cluster, fill_word, runs
from vswap.store.entry import EMPTY, pack_fill
from vswap.store.fetch import Gap
from vswap.store.parts import Parts, Staged
from vswap.store.reader import Reader
from vswap.store.unit import pack_payload, unit_size

__all__ = ["Writer"]

_LARGEST_PAGE = unit_size(PAGE_SIZE, 1)

_MUCH = 16
"""Pages that take so long to compress that another thread is worth waking."""


class Writer:
    """Writes for one thread."""

    def __init__(
        self,
        parts: Parts,
        reader: Reader,
        appender: Appender,
        codec: Codec,
        unit_pages: int,
        prepare: Callable[[], None] = lambda: None,
        between: Callable[[], None] = lambda: None,
        fetch: Callable[[Gap], object] = lambda _: None,
    ) -> None:
        """All but `parts` must be this thread's own.

        `fetch` makes a page on disk one that the reader has at hand.

        `prepare` is called before many pages, `between` between their units as long as much is
        left to be done.
        """
        self._parts = parts
        self._locks = parts.locks
        self._reader = reader
        self._appender = appender
        self._codec = codec
        self._unit_pages = unit_pages
        self._prepare = prepare
        self._between = between
        self._fetch = fetch

    def page(self, slot: int, data: memoryview) -> None:
        """Write one page: the commonest write, so the shortest way."""
        staged = self._stage_page(slot, data)
        with self._locks[slot >> CLUSTER_SHIFT]:
            self._parts.put(slot, 1, [staged])

    def pages(self, slot: int, data: memoryview) -> None:
        """Write the whole pages of `data` to `slot` and on."""
        self._prepare()
        staged = self._stage(slot, data)
        done = end = 0
        try:
            for first, count in by_cluster(slot, len(data) >> PAGE_SHIFT):
                while end < len(staged) and staged[end][0] < first + count:
                    end += 1
                with self._locks[first >> CLUSTER_SHIFT]:
                    self._parts.put(first, count, staged[done:end])
                done = end
        except BaseException:
            self._parts.abandon(staged[end:])
            raise

    def part(self, slot: int, start: int, data: memoryview) -> None:
        """Overwrite the bytes from `start` on of the page at `slot`, within that page."""
        self._appender.ensure(_LARGEST_PAGE)
        while (gap := self._merge(slot, start, data)) is not None:
            self._fetch(gap)  # with no lock held: a disk is slow

    def _merge(self, slot: int, start: int, data: memoryview) -> Gap | None:
        """Write a part of a page; if the rest is on disk, answer where instead."""
        with self._locks[slot >> CLUSTER_SHIFT]:
            before = self._reader.page_locked(slot)
            if isinstance(before, Gap):
                return before
            page = bytearray(before)
            page[start : start + len(data)] = data
            self._parts.put(slot, 1, [self._stage_page(slot, memoryview(page))])
        return None

    def zero_part(self, slot: int, start: int, size: int) -> None:
        """Make `size` bytes from `start` on of the page at `slot` zeros, if they may not be."""
        with self._locks[slot >> CLUSTER_SHIFT]:
            stored = self._parts.table.get(slot) != EMPTY
        if stored:
            self.part(slot, start, memoryview(ZERO_PAGE)[:size])

    def _append(self, slot: int, data: memoryview) -> int:
        codec, payload = pack_payload(self._codec, data)
        return self._appender.append(slot, len(data) >> PAGE_SHIFT, codec, payload)

    def _entry(self, slot: int, data: memoryview, word: bytes | None) -> int:
        """The entry for pages that are all one `word`, or else for a unit of them."""
        if word == ZERO_WORD:
            return EMPTY
        if word is not None:
            number = self._parts.words.take(word, len(data) >> PAGE_SHIFT)
            if number is not None:
                return pack_fill(number)
        return self._append(slot, data)

    def _stage_page(self, slot: int, data: memoryview) -> Staged:
        entry = self._entry(slot, data, fill_word(data))
        self._appender.settle()
        return slot, 1, entry

    def _stage(self, slot: int, data: memoryview) -> list[Staged]:
        staged: list[Staged] = []
        much_left = slot + (len(data) >> PAGE_SHIFT) - _MUCH
        try:
            for first, count, word in runs(slot, data, self._unit_pages):
                at = first - slot << PAGE_SHIFT
                view = data[at : at + count * PAGE_SIZE]
                staged.append((first, count, self._entry(first, view, word)))
                if first + count <= much_left:
                    self._between()
        except BaseException:
            self._appender.settle()
            self._parts.abandon(staged)
            raise
        self._appender.settle()
        return staged
