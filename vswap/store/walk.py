"""Walking over what lives on disk: found by one look at each used cluster, read in disk order.

For emptying disk segments, because they are mostly dead (vswap/store/restack.py) or because the
backing is to go (vswap/store/drain.py). Its cost is linear, and counted: clusters looked at,
disk segments read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vswap.geometry import CLUSTER_SHIFT, SEGMENT_SIZE
from vswap.store.backing import BLOCK, UNIT_BLOCKS, aligned, whole_blocks
from vswap.store.entry import (
    EMPTY,
    KIND_BACKING,
    KIND_SHIFT,
    SEGMENT_OFFSET_SHIFT,
    UNIT_SHIFT,
    extent_of,
    index_of,
)
from vswap.store.parts import Parts
from vswap.store.select import segments_of
from vswap.store.unit import unit_length

__all__ = ["LivingUnit", "OnDisk", "Walk"]

Array = npt.NDArray[np.uint64]


class LivingUnit(NamedTuple):
    """A unit on disk of which something lives: its first slot, an entry for each page.

    An entry is EMPTY where the page is dead. `data` is header and payload, None if the disk does
    not give it, of the filling of its disk segment with that `sequence`: whoever uses it looks
    whether the entries are still of that one.
    """

    slot: int
    entries: list[int]
    sequence: int
    data: bytes | None


@dataclass(frozen=True)
class OnDisk:
    """Pages on disk: slots and entries, in the order of the disk.

    `starts` has where each disk segment's pages begin among them, and the end of all.
    """

    slots: npt.NDArray[np.uint32]
    entries: Array
    starts: list[int]


class Walk:
    """Looks for pages on disk and reads them. For one thread at a time."""

    def __init__(self, parts: Parts) -> None:
        """Takes the memory for a disk segment with `prepare`, or when one is read."""
        self._parts = parts
        self._memory: memoryview | None = None
        self._scratch: memoryview | None = None
        self.clusters_visited = 0
        self.segments_read = 0

    def prepare(self) -> None:
        """Take the memory, once."""
        if self._memory is None:
            self._memory = aligned(SEGMENT_SIZE)
            self._scratch = aligned(UNIT_BLOCKS)

    def find(self, wanted: npt.NDArray[np.int64] | None = None) -> OnDisk:
        """The pages in the disk segments `wanted`, or in all: each used cluster is visited once.

        Takes one cluster lock after the other: a page may have moved when this returns.
        """
        slots, entries = [], []
        chosen = np.zeros(self._parts.disk.log.most, np.bool_)
        chosen[slice(None) if wanted is None else wanted] = True
        for cluster in np.flatnonzero(self._parts.table.counts).tolist():
            self.clusters_visited += 1
            with self._parts.locks[cluster]:
                page = self._parts.table.page(cluster)
            away = page >> np.uint64(KIND_SHIFT) == KIND_BACKING
            at = np.flatnonzero(away & chosen[np.where(away, segments_of(page), 0)])
            if at.size:
                slots.append((at + (cluster << CLUSTER_SHIFT)).astype(np.uint32))
                entries.append(page[at])
        return _in_disk_order(slots, entries)

    def units(self, found: OnDisk, number: int) -> Iterator[LivingUnit]:
        """The units of the disk segment that comes at place `number`, read all at once."""
        span = slice(found.starts[number], found.starts[number + 1])
        slots, entries = found.slots[span].tolist(), found.entries[span].tolist()
        first, last = extent_of(entries[0]), extent_of(entries[-1])
        start = first.offset // BLOCK * BLOCK
        sequence = self._parts.disk.log.sequence_of(first.segment)
        memory = self._read(first.segment, start, last.offset + last.size)
        at = 0
        while at < len(entries):
            end = at + 1
            while end < len(entries) and entries[end] >> UNIT_SHIFT == entries[at] >> UNIT_SHIFT:
                end += 1
            yield self._unit(slots[at], entries[at:end], sequence, memory, start)
            at = end

    def _read(self, segment: int, start: int, end: int) -> memoryview | None:
        self.prepare()
        assert self._memory is not None
        self.segments_read += 1
        view = self._memory[: whole_blocks(end - start)]
        try:
            return view if self._parts.disk.read(segment, start, view) else None
        except OSError:
            return None

    def _unit(
        self, slot: int, entries: list[int], sequence: int, memory: memoryview | None, start: int
    ) -> LivingUnit:
        extent = extent_of(entries[0])
        of_pages = [EMPTY] * extent.pages
        for entry in entries:
            of_pages[index_of(entry)] = entry
        data = None
        if memory is not None:
            at = extent.offset - start
            sealed = memory[at : at + extent.size]
            data = self._parts.disk.open(sequence, extent.offset, sealed)
        if data is None:  # also what was read wrong once: the disk may give it now
            data = self._alone(entries[0], sequence)
        if data is not None:
            data = data[: unit_length(memoryview(data), 0)]
        return LivingUnit(slot - index_of(entries[0]), of_pages, sequence, data)

    def _alone(self, entry: int, sequence: int) -> bytes | None:
        """A unit by itself: not all of a disk segment need be lost because a part of it is."""
        assert self._scratch is not None
        try:
            return self._parts.disk.unit(entry, sequence, self._scratch)
        except OSError:
            return None


def _in_disk_order(slots: list[npt.NDArray[np.uint32]], entries: list[Array]) -> OnDisk:
    if not entries:
        return OnDisk(np.zeros(0, np.uint32), np.zeros(0, np.uint64), [0])
    all_slots, all_entries = np.concatenate(slots), np.concatenate(entries)
    order = np.argsort(all_entries, kind="stable")
    all_entries = all_entries[order]
    segments = all_entries >> np.uint64(SEGMENT_OFFSET_SHIFT)
    starts = np.flatnonzero(np.diff(segments, prepend=np.uint64(0)))
    return OnDisk(all_slots[order], all_entries, [*starts.tolist(), len(all_entries)])
