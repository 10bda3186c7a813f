"""The parts of a store that its lanes share, and the functions that change what is where."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from vswap.codec import by_number
from vswap.geometry import CLUSTER_SHIFT, Geometry
from vswap.store.cache import FrontCache
from vswap.store.decoder import Decoder
from vswap.store.dictionary import Dictionary
from vswap.store.disk import Disk
from vswap.store.entry import (
    COLD,
    EMPTY,
    FIRST_BACKING,
    FIRST_FILL,
    INDEX_SHIFT,
    OF_PAGE,
    SEGMENT_OFFSET_SHIFT,
    fill_of,
    same_page,
    segment_of,
)
from vswap.store.locks import ClusterLocks
from vswap.store.log import Log
from vswap.store.table import SwapTable
from vswap.store.words import FillWords
from vswap.store.zeromap import Zeromap

__all__ = ["Origin", "Parts", "Staged", "entries_of"]


Staged = tuple[int, int, int]
"""What a run of slots is to hold: first slot, count, and the entry of the first page, or EMPTY
for pages of zeros."""

Origin = set[tuple[int, int]]
"""Where units are, by the upper part of their entries, and the sequences that those places have."""

_MANY = 32
"""Ranges from here on are freed by numpy, whose calls cost more than a few Python loops."""


def entries_of(entry: int, pages: int) -> list[int]:
    """The entries of a unit's `pages`, or of a run of pages filled with one word."""
    if entry >= FIRST_FILL:
        return [entry] * pages
    return [entry + (i << INDEX_SHIFT) for i in range(pages)]


def _spread(slot: int, count: int, staged: list[Staged]) -> tuple[list[int], int, int]:
    """An entry for each slot of a range, and how many are of units and of fill words."""
    entries = [EMPTY] * count
    units = fills = 0
    for first, pages, entry in staged:
        if entry:
            entries[first - slot : first - slot + pages] = entries_of(entry, pages)
            if entry < FIRST_FILL:
                units += pages
            else:
                fills += pages
    return entries, units, fills


@dataclass(frozen=True)
class Parts:
    """What all lanes of one store work on.

    Invariant ONE-STATE: under its cluster's lock a slot is in exactly one state: empty, zero
    (its zeromap bit set), or stored (its table entry not empty). A crash may leave both a bit
    and an entry; the entry counts.
    """

    geometry: Geometry
    memory: memoryview
    locks: ClusterLocks
    zeromap: Zeromap
    table: SwapTable
    words: FillWords
    dictionary: Dictionary
    cache: FrontCache
    log: Log
    disk: Disk

    def decoder(self) -> Decoder:
        """A decoder for the use of one thread."""
        level = 1  # which decompressing does not depend on
        return Decoder(
            self.memory,
            by_number(),
            lambda: self.dictionary.codec(level),
            self.log.sequence.data,
        )

    def put(self, slot: int, count: int, staged: list[Staged]) -> int:
        """Make a range hold what is staged for it and be empty elsewhere.

        Answers how many pages that freed. The only place where zeromap bits, table entries
        and live counts are cleared, for overwrites, discards and drains alike. The range lies
        in one cluster, whose lock the caller holds; `staged` is in the order of slots and has
        been counted by the log or the fill words.

        At any instant each slot reads as it did before or as it will: bits for zeros are set
        before their entries go, and other bits are cleared after entries have come. Should it
        fail, nothing has been put and what was staged is abandoned.
        """
        zeros = [(first, pages) for first, pages, entry in staged if not entry]
        try:
            entries, units, fills = _spread(slot, count, staged)
            for first, pages in zeros:
                self.zeromap.set(first, pages)
            old = self.table.exchange(slot, entries)
        except BaseException:
            for first, pages in zeros:
                self.zeromap.clear(first, pages)
            self.abandon(staged)
            raise
        freed = len(old) + self._clear_around(zeros, slot, count)
        emptied = bool(old)
        if fills or (old and max(old) >= FIRST_BACKING):
            old = self._bury_others(old, fills)
        if old or units:
            self.log.publish(units, old)
        if emptied:
            self.table.release(slot >> CLUSTER_SHIFT)
        return freed

    def free(self, slot: int, count: int) -> int:
        """Make a range empty; answers how many pages that freed."""
        if count < _MANY:
            return self.put(slot, count, [])
        old = self.table.empty(slot, count)
        if len(old):
            others = old >= np.uint64(FIRST_BACKING)
            if others.any():
                self._bury_others(old[others].tolist(), 0)
            self.log.publish(0, old[~others])
            self.table.release(slot >> CLUSTER_SHIFT)
        return len(old) + self.zeromap.clear(slot, count)

    def move(self, slot: int, old: Sequence[int], new: Sequence[int]) -> int:
        """Let slots that still have their `old` entries have the `new` ones; how many did.

        For the same pages at another place, in memory or on disk: `new`, all of one kind, has
        been counted there, and what finds its page overwritten meanwhile, or an EMPTY old entry,
        is withdrawn. Flags that are of the page stay. The range lies in one cluster, whose lock
        the caller holds.
        """
        dead = []
        moved = 0
        current = self.table.entries(slot, len(old))
        for at, (now, before, after) in enumerate(zip(current, old, new, strict=True)):
            if same_page(now, before):
                self.table.replace(slot + at, after & ~OF_PAGE | now & OF_PAGE)
                dead.append(now)
                moved += 1
            else:
                dead.append(after)
        dead.sort()
        at = bisect_left(dead, FIRST_BACKING)
        to_disk = new[0] >= FIRST_BACKING
        if at or not to_disk:
            self.log.publish(0 if to_disk else len(new), dead[:at])
        if to_disk or at < len(dead):
            self.disk.log.publish(len(new) if to_disk else 0, dead[at:])
        return moved

    def still(self, slot: int, entries: Sequence[int], sequence: int) -> list[int]:
        """The entries of consecutive slots now, EMPTY where it is another page than `entries` say.

        These are of one unit, in a segment whose filling was `sequence`. The slots lie in one
        cluster, whose lock the caller holds.
        """
        return [
            now if same_page(now, was) and self.sequence_of(now) == sequence else EMPTY
            for now, was in zip(self.table.entries(slot, len(entries)), entries, strict=True)
        ]

    def origin(self, entries: Iterable[int]) -> Origin:
        """What tells the units of these entries for ever (LOG-AGE, DISK-AGE).

        The caller holds the lock of their cluster, and has found them in the table.
        """
        places = {entry >> SEGMENT_OFFSET_SHIFT: entry for entry in entries if entry}
        return {(place, self.sequence_of(entry)) for place, entry in places.items()}

    def sequence_of(self, entry: int) -> int:
        """The sequence that the segment of a page has, in memory or on disk."""
        if entry >= FIRST_BACKING:
            return self.disk.log.sequence_of(segment_of(entry))
        return int(self.log.sequence[segment_of(entry)])

    def mark_cold(self, slot: int, old: Sequence[int]) -> None:
        """Mark as cold the slots that still have their `old` entries; otherwise as `move`."""
        current = self.table.entries(slot, len(old))
        marked = []
        for at, (now, before) in enumerate(zip(current, old, strict=True)):
            if same_page(now, before) and not now & COLD:
                self.table.replace(slot + at, now | COLD)
                marked.append(now)
        self.log.mark_cold(marked)

    def abandon(self, staged: list[Staged]) -> None:
        """What was staged will not be put anywhere."""
        for _, pages, entry in staged:
            if entry >= FIRST_FILL:
                self.words.withdraw([fill_of(entry)] * pages)
            elif entry:
                self.log.withdraw(entries_of(entry, pages))

    def _bury_others(self, old: list[int], fills: int) -> list[int]:
        """Count the entries that came and went and are not of memory's segments; answers the rest.

        Those are entries of fill words, of which so many came, and of the disk, of which none did.
        """
        old.sort()
        end = bisect_left(old, FIRST_FILL)
        if fills or end < len(old):
            self.words.publish(fills, [fill_of(entry) for entry in old[end:]])
        at = bisect_left(old, FIRST_BACKING, 0, end)
        if at < end:
            self.disk.log.publish(0, old[at:end])
        return old[:at]

    def _clear_around(self, zeros: list[tuple[int, int]], slot: int, count: int) -> int:
        """Clear the range's zeromap bits except those of the runs `zeros`."""
        cleared = 0
        end = slot + count
        for first, pages in [*zeros, (end, 0)]:
            if slot < first:
                cleared += self.zeromap.clear(slot, first - slot)
            slot = first + pages
        return cleared

    def clusters_in_use(self, first: int, last: int) -> list[int]:
        """The clusters from `first` to `last` that hold anything. Takes no lock: a snapshot."""
        window = slice(first, last + 1)
        used = self.table.counts[window] | self.zeromap.counts[window]
        clusters: list[int] = (np.flatnonzero(used) + first).tolist()
        return clusters
