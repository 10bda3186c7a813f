"""A store out of what an earlier worker left: all counts and lists, made again from the memory.

A worker may be killed at any instruction. What it leaves is read here once, by nobody else
meanwhile, and needs no repair but for two things: where a slot has a zeromap bit and an entry,
the bit goes (ONE-STATE), and table pages without entries are given back (TABLE-HOLE).
docs/concurrency.md says why that is enough. A new state is one in which nothing is found.

Holes are not looked at, for that would allocate them: the kernel says where memory is. What is
read is one page of the zeromap at a time, with the table pages of the same clusters, which stay
in the processor's cache while they are looked at; then the header of one unit in each segment.

A segment that lives ends with its last unit that does: what follows is named by nothing. If much
follows, appending goes on from there (`Log.take`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vswap.errors import StateError
from vswap.geometry import CLUSTER_SLOTS, MAX_UNIT_PAGES, PAGE_SIZE, SEGMENT_SHIFT, SEGMENT_SIZE
from vswap.store.entry import (
    ALIGNMENT,
    EMPTY,
    FIRST_FILL,
    POSITION_MASK,
    UNIT_SHIFT,
)
from vswap.store.log import Inherited
from vswap.store.parts import Parts
from vswap.store.region import Region
from vswap.store.state import State
from vswap.store.tally import Runs, Tally, runs_in
from vswap.store.unit import HEADER
from vswap.store.words import MAX_WORDS

__all__ = ["LEAST_TAIL", "derive"]

LEAST_TAIL = 128 << 10
"""Bytes behind the last living unit for which appending to a segment goes on. More than any unit
takes, so that whoever is given the segment has room for one."""

_GROUP = PAGE_SIZE // (CLUSTER_SLOTS // 8)
"""Clusters whose bits lie in one page of the zeromap."""

_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint16)
"""How many bits of a byte are set."""

Numbers = npt.NDArray[np.int64]


def derive(state: State, parts: Parts) -> bool:
    """Let all parts count what is in the state; whether there was anything.

    `parts` are as good as new, and nobody else uses them or the state. Raises `StateError` for
    entries that name what there is not.
    """
    scan = _Scan(parts, len(parts.log.sequence))
    try:
        scan.run(state)
    except IndexError:
        raise StateError("the state's entries name places that it does not have") from None
    parts.words.take_over(scan.fills)
    parts.disk.log.take_over(scan.disk)
    inherited = _inherited(state.segments, scan.memory)
    parts.log.take_over(inherited)
    return bool(inherited.ready or scan.found)


class _Scan:
    """One pass over the table and the zeromap."""

    def __init__(self, parts: Parts, segments: int) -> None:
        self._table = parts.table
        self._zeromap = parts.zeromap
        self.memory = Tally(segments)
        self.disk = Tally(parts.disk.log.most)
        self.fills: Numbers = np.zeros(MAX_WORDS, np.int64)
        self.found = False

    def run(self, state: State) -> None:
        """Look at all that is there."""
        in_table = _pages_of(state.table)
        in_zeromap = _pages_of(state.zeromap)
        of_group = in_table // _GROUP
        groups = np.union1d(of_group, in_zeromap)
        self.found = bool(len(groups))
        ends = np.searchsorted(of_group, groups, "right").tolist()
        with_bits = np.isin(groups, in_zeromap).tolist()
        start = 0
        for group, end, has_bits in zip(groups.tolist(), ends, with_bits, strict=True):
            clusters, start = in_table[start:end], end
            first = group * _GROUP
            stored = self._look(clusters, first) if len(clusters) else None
            if has_bits:
                self._count_zeros(first, stored)

    def _look(self, clusters: Numbers, first: int) -> npt.NDArray[np.uint8]:
        """Count the entries of some of a group's clusters; the bits of the slots that have one."""
        table = self._table
        if len(clusters) == _GROUP:
            pages = table.pages[first : first + _GROUP]
        else:
            pages = table.pages[clusters]
        entries = pages.reshape(-1).view(np.int64)
        stored = np.packbits(entries != EMPTY, bitorder="little").reshape(len(clusters), -1)
        counts = _ONES[stored].sum(axis=1, dtype=np.uint16)
        table.counts[clusters] = counts
        for empty in clusters[counts == 0].tolist():
            table.release(empty)
        runs = runs_in(entries)
        others = np.flatnonzero(runs.entries < EMPTY)
        if len(others):
            self._look_at_others(runs.take(others))
            runs.entries[others] = EMPTY
        # To count what is empty as nothing is quicker than to sort it out.
        np.multiply(runs.lengths, runs.entries != EMPTY, out=runs.lengths)
        self.memory.add(runs)
        of_group = np.zeros((_GROUP, stored.shape[1]), np.uint8)
        of_group[clusters - first] = stored
        return of_group

    def _look_at_others(self, runs: Runs) -> None:
        """Count pages on disk and pages of one word."""
        filled = runs.entries >= np.uint64(FIRST_FILL).view(np.int64)
        self.disk.add(runs.take(np.flatnonzero(~filled)))
        entries, lengths = runs.take(np.flatnonzero(filled))
        np.add.at(self.fills, entries >> UNIT_SHIFT & POSITION_MASK, lengths)

    def _count_zeros(self, first: int, stored: npt.NDArray[np.uint8] | None) -> None:
        """Count a group's bits. Where a slot has an entry too, it counts, and the bit is cleared.

        A byte is stored whole, so a worker that is killed here leaves what it has found, or less.
        """
        bits = self._zeromap.pages[first : first + _GROUP]
        if stored is not None:
            both = bits & stored[: len(bits)]
            if both.any():
                bits ^= both
        self._zeromap.counts[first : first + _GROUP] = _ONES[bits].sum(axis=1, dtype=np.uint16)


def _pages_of(region: Region) -> Numbers:
    """The numbers of the pages that have memory. They are mapped, all at once."""
    spans = []
    for start, end in region.data():
        region.map(start * PAGE_SIZE, (end - start) * PAGE_SIZE)
        spans.append(np.arange(start, end))
    return np.concatenate([np.zeros(0, np.int64), *spans])


def _inherited(region: Region, tally: Tally) -> Inherited:
    living = tally.segments
    ends = np.zeros(region.size >> SEGMENT_SHIFT, np.int32)
    ends[living] = _ends_of(region, tally.last[living])
    much = living[SEGMENT_SIZE - ends[living] >= LEAST_TAIL]
    order = np.argsort(-ends[much], kind="stable")
    ready = _with_memory(region, np.flatnonzero(tally.pages == 0))
    return Inherited(tally, ends, much[order].tolist(), ready)


def _ends_of(region: Region, entries: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
    """Where in their segments the units end that these entries name, by the units' headers.

    If a header is damaged, so that nothing can be told, that is where the segment does.
    """
    at = (entries >> np.uint64(UNIT_SHIFT) & np.uint64(POSITION_MASK)).astype(np.int64)
    at *= ALIGNMENT
    heads = b"".join([region.read(position, 8) for position in at.tolist()])
    head = np.frombuffer(heads, np.int64)
    pages = head >> 48 & 0xFF
    step = np.maximum(pages, 1) * ALIGNMENT
    size = -(-(HEADER.size + (head >> 32 & 0xFFFF) + 1) // step) * step
    end = (at & ((1 << SEGMENT_SHIFT) - 1)) + size
    damaged = (pages < 1) | (pages > MAX_UNIT_PAGES) | (end > 1 << SEGMENT_SHIFT)
    return np.where(damaged, 1 << SEGMENT_SHIFT, end).astype(np.int32)


def _with_memory(region: Region, idle: Numbers) -> list[int]:
    """Those of the segments in which nothing lives that have any memory."""
    found = []
    at: int | None = 0
    place = 0
    while place < len(idle):
        at = region.next_data(int(idle[place]) << SEGMENT_SHIFT)
        if at is None:
            break
        segment = at >> SEGMENT_SHIFT
        place = int(np.searchsorted(idle, segment))
        if place < len(idle) and idle[place] == segment:
            found.append(segment)
            place += 1
    return found
