"""Writing back: pages go from memory to the disk, a disk segment at a time.

Invariants (each named in the tests):

BACK-COPY    what is written back stays in memory, and is what the slots name, until the write
             has completed. Then each slot is made to name the disk, under its cluster's lock, if
             it still names the unit that was copied (MOVE-SAME). Whatever a slot was given
             meanwhile wins. A crash at any point leaves a whole unit named.
BACK-FAILS   a write that fails changes nothing but counters. It is tried once more in another
             place; both places are left alone from then on, but for the last that is free, and
             writing rests for a while.

Units go as they are, if all of their pages live. What is left of others is compressed anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np

from vswap.codec import STORED
from vswap.errors import CorruptError, DiskFullError
from vswap.geometry import CLUSTER_SHIFT, SEGMENT_SIZE
from vswap.store.batch import Batch
from vswap.store.cleaner import Cleaner
from vswap.store.disk_log import KEPT_ON_DISK
from vswap.store.entry import (
    COLD,
    EMPTY,
    HUGE,
    UNIT_SHIFT,
    position_of,
    same_page,
    share_of,
    unit_flags,
)
from vswap.store.parts import Origin, Parts, entries_of
from vswap.store.plan import Victim
from vswap.store.relocate import Relocator, runs_of
from vswap.store.select import Selection, in_cache
from vswap.store.unit import HEADER, pack_payload, pack_unit, unit_length, unit_size

__all__ = ["WriteBack"]

_TRIES = 2

_PIECE = SEGMENT_SIZE // 4
"""Bytes that are copied in one piece of work."""


class WriteBack:
    """Writes back for one thread at a time."""

    def __init__(self, parts: Parts, relocator: Relocator, cleaner: Cleaner) -> None:
        """The others may be shared with those that run under the same lock."""
        self._parts = parts
        self._relocator = relocator
        self._cleaner = cleaner
        self._batch = Batch(parts.disk)
        self.pages_written = 0
        self.bytes_written = 0

    # --- What ---------------------------------------------------------------------------------

    def segments(self, victims: Iterable[Victim]) -> Iterator[int]:
        """Fill one disk segment with what lives in these segments of memory; yields pages moved."""
        self._batch.begin()
        pause_at = _PIECE
        for victim in victims:
            for alive in self._cleaner.living(victim):
                for slot, entries in alive:
                    if not self._stage(slot, entries):
                        yield self.flush()
                        return
                if self._batch.size >= pause_at:
                    pause_at += _PIECE
                    yield 0
        yield self.flush()

    def selected(self, selections: Sequence[Selection], now: float) -> Iterator[int]:
        """All pages of any of the selections, wherever they are; yields pages moved."""
        self._batch.begin()
        for cluster in np.flatnonzero(self._parts.table.counts).tolist():
            with self._parts.locks[cluster]:
                page = self._parts.table.page(cluster)
            chosen = np.zeros(len(page), np.bool_)
            for one in selections:
                chosen |= one.mask(page, self._parts.log.born, now, cluster << CLUSTER_SHIFT)
            units = set((page[chosen] >> np.uint64(UNIT_SHIFT)).tolist())
            if not units:
                continue
            slot = cluster << CLUSTER_SHIFT
            entries = np.where(in_cache(page), page, np.uint64(EMPTY)).tolist()
            for name, unit in groupby(entries, lambda entry: entry >> UNIT_SHIFT):
                run = list(unit)
                if name in units and not self._stage(slot, run):
                    yield self.flush()
                    self._batch.begin()
                    self._stage(slot, run)
                slot += len(run)
            yield 0
        yield self.flush()

    # --- Copying ------------------------------------------------------------------------------

    def _stage(self, slot: int, entries: list[int]) -> bool:
        """Copy the pages of one unit, EMPTY where not alive; False if they do not fit any more."""
        whole = self._whole(slot, entries)
        if whole is not None:
            unit, origin = whole
            return self._batch.add(slot, entries, origin, unit, unit_flags(entries[0]))
        for at, run in runs_of(entries):
            try:
                loaded = self._relocator.load(slot + at, run)
            except CorruptError:
                continue  # it stays where it is: reading it goes on being an error
            if loaded is None:
                continue
            data, origin = loaded
            if not self._batch.add(slot + at, run, origin, *self.pack(slot + at, run, data)):
                return False
        return True

    def _whole(self, slot: int, entries: list[int]) -> tuple[bytes, Origin] | None:
        """The unit as it is, and what tells it for ever, if these are all of its pages."""
        if not all(entries):
            return None
        position = position_of(entries[0])
        memory = self._parts.memory
        with self._parts.locks[slot >> CLUSTER_SHIFT]:
            current = self._parts.table.entries(slot, len(entries))
            if not all(map(same_page, current, entries)):
                return None
            head, _ = HEADER.unpack_from(memory, position)
            length = unit_length(memory, position)
            pages = len(entries)
            if head >> 48 & 0xFF != pages or share_of(entries[0]) * pages != unit_size(
                length - HEADER.size, pages
            ):
                return None
            return bytes(memory[position : position + length]), self._parts.origin(entries)

    def pack(self, slot: int, entries: list[int], data: bytes) -> tuple[bytes, int]:
        """A unit of pages that are compressed anew, as they were, and its flags."""
        number, payload = pack_payload(self._relocator.codec_for(entries[0]), data)
        flags = entries[0] & COLD | (HUGE if number == STORED else 0)
        return pack_unit(slot, len(entries), number, payload), flags

    @property
    def batch(self) -> Batch:
        """What is to be written next."""
        return self._batch

    # --- Writing ------------------------------------------------------------------------------

    def flush(self, kept: int = KEPT_ON_DISK) -> int:
        """Write the batch and let its pages' slots name the disk; how many do now.

        If the disk does not take it they stay where they are. Raises `DiskFullError` if no
        more than `kept` disk segments are free.
        """
        if not self._batch:
            return 0
        segment = self._write(kept)
        if segment is None:
            return 0
        filling = self._batch.filling()
        self._parts.disk.log.fill(segment, filling)
        moved = 0
        for placed in self._batch:
            entries = placed.entries
            with self._parts.locks[placed.slot >> CLUSTER_SHIFT]:
                if self._parts.origin(entries) != placed.origin:  # not the unit that was copied
                    entries = [EMPTY] * len(entries)
                made = entries_of(placed.entry(segment), len(entries))
                moved += self._parts.move(placed.slot, entries, made)
        self.pages_written += filling.pages
        self.bytes_written += filling.size
        return moved

    def _write(self, kept: int) -> int | None:
        """The disk segment that holds the batch now, or None."""
        disk, data = self._parts.disk, self._batch.blocks()
        tried = 0
        while tried < _TRIES:
            try:
                segment = disk.log.take(kept)
            except DiskFullError:
                if not tried:
                    raise
                break
            if not disk.admit(len(data)):
                disk.log.put_back(segment, bad=False)
                break
            tried += 1
            try:
                disk.write(segment, data)
                return segment
            except OSError:
                disk.log.put_back(segment, bad=True)
        if tried:
            disk.rest()
        return None
