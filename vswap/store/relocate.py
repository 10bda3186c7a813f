"""Moving pages that live in the log to its open end: as they are, or compressed anew.

Invariants (each named in the tests):

MOVE-SAME    a move changes where a page is and never what it is. The entries are replaced under
             the cluster's lock, only those that still name the unit that was read (the entry
             and its segment's sequence together tell, LOG-AGE), and only after the new unit is
             complete in its segment. So at any instant, and after a crash at any instant, a
             slot names a whole unit that holds its page.
MOVE-READ    what is read is read under the cluster lock of a page that lives in it, so its
             segment is not reused meanwhile (LOG-REUSE). Compressing is done without a lock.
MOVE-KEEPS   a unit whose payload cannot be decoded is copied as it is: its pages go on being
             EIO, and the segment it was in can be freed. (A damaged header hides what follows in
             its segment, which then stays.)
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import groupby

from vswap.codec import STORED, Bytes, Codec, Stored
from vswap.errors import CorruptError
from vswap.geometry import CLUSTER_SHIFT, PAGE_SHIFT, PAGE_SIZE
from vswap.store.appender import Appender
from vswap.store.decoder import Decoder
from vswap.store.dictionary import Sampler
from vswap.store.entry import (
    COLD,
    EMPTY,
    HUGE,
    UNIT_SHIFT,
    index_of,
    same_page,
    segment_of,
    share_of,
    unit_flags,
)
from vswap.store.parts import Origin, Parts, entries_of
from vswap.store.unit import Found, pack_payload, unit_size, units_in

__all__ = ["Relocator", "runs_of"]


_LONG_AGO = 1e-3
"""What comes from the disk was there because it is old. (0 would be: unknown.)"""


def runs_of(entries: list[int]) -> Iterator[tuple[int, list[int]]]:
    """The runs of entries that are not empty, and where they begin."""
    at = 0
    for alive, group in groupby(entries, bool):
        run = list(group)
        if alive:
            yield at, run
        at += len(run)


class Relocator:
    """Moves for one thread at a time. Every method may raise `FullError`, with nothing lost."""

    def __init__(
        self, parts: Parts, decoder: Decoder, appender: Appender, hot: Codec, cold: Codec
    ) -> None:
        """All but `parts` must be this relocator's own. `cold` may be exchanged for another."""
        self._parts = parts
        self._decoder = decoder
        self._appender = appender
        self._hot = hot
        self.cold = cold
        self._stored = Stored()
        self.sampler = Sampler()

    def copy(self, unit: Found, entries: list[int]) -> int:
        """Append a unit again as it is; answers how many of its pages were moved.

        `entries` are those of its slots, EMPTY where the slot names another unit or none. The
        caller holds their cluster's lock, and has since it read them.
        """
        data = self._parts.memory[unit.position : unit.position + unit.size]
        return self.put(unit.slot, entries, data, self._born([*filter(None, entries)]))

    def put(self, slot: int, entries: list[int], unit: Bytes, born: float = _LONG_AGO) -> int:
        """Append a unit, padding included, for slots that have `entries`; otherwise as `copy`.

        Its youngest page was written at `born`.
        """
        self._appender.written_at(born)
        live = [*filter(None, entries)]
        made = self._appender.copy(unit, len(live), unit_flags(live[0]))
        self._appender.settle()
        pages = entries_of(made, len(entries))
        moved = 0
        for at, run in runs_of(entries):
            moved += self._parts.move(slot + at, run, pages[at : at + len(run)])
        return moved

    def mend(self, unit: Found, entries: list[int]) -> int:
        """Compress what is left of a unit anew, run by run, as it was compressed before.

        `entries` as for `copy`, which is what is done instead where nothing would be won, or
        where the unit cannot be decoded. Answers how many pages were moved.
        """
        try:
            made = self._without_dead(unit, entries)
        except CorruptError:
            made = None
        if made is not None:
            return made
        with self._parts.locks[unit.slot >> CLUSTER_SHIFT]:
            current = self._parts.table.entries(unit.slot, unit.pages)
            same = [
                now if same_page(now, was) else EMPTY
                for now, was in zip(current, entries, strict=True)
            ]
            # Another unit may have come to the same place, with the same entries but its own size.
            end = unit.position + unit.size
            if not any(same) or unit not in units_in(self._parts.memory, unit.position, end):
                return 0
            return self.copy(unit, same)

    def _without_dead(self, unit: Found, entries: list[int]) -> int | None:
        """The first way of `mend`; None if nothing would be won."""
        packed = []
        for at, run in runs_of(entries):
            loaded = self.load(unit.slot + at, run)
            if loaded is None:
                return 0  # overwritten just now: what is left is for another time
            codec = self.codec_for(run[0])
            packed.append((at, run, loaded[1], pack_payload(codec, loaded[0])))
        if sum(unit_size(len(made[1]), len(run)) for _, run, _, made in packed) >= unit.size:
            return None
        return sum(
            self._publish(unit.slot + at, run, origin, made, run[0] & COLD)
            for at, run, origin, made in packed
        )

    def down(self, slot: int, entries: list[int]) -> int:
        """Compress pages of consecutive slots by the cold codec, as one unit.

        Answers how many were moved. If that does not make them smaller they are marked as cold
        where they are, and so are pages that cannot be read; pages that were overwritten
        meanwhile are left alone.
        """
        try:
            loaded = self.load(slot, entries)
        except CorruptError:
            self._mark_cold(slot, entries, self._parts.origin(entries))
            return 0
        if loaded is None:
            return 0
        data, origin = loaded
        self.sampler.offer(data)
        made = pack_payload(self.cold, data)
        number, payload = made
        size = unit_size(len(payload), len(entries))
        if number == STORED or size >= sum(map(share_of, entries)):
            self._mark_cold(slot, entries, origin)
            return 0
        return self._publish(slot, entries, origin, made, COLD)

    def _mark_cold(self, slot: int, entries: list[int], origin: Origin) -> None:
        with self._parts.locks[slot >> CLUSTER_SHIFT]:
            if self._parts.origin(entries) == origin:
                self._parts.mark_cold(slot, entries)

    def _publish(
        self,
        slot: int,
        entries: list[int],
        origin: Origin,
        made: tuple[int, Bytes],
        flags: int,
    ) -> int:
        """Append a unit of these pages and let their slots name it."""
        pages = len(entries)
        self._appender.written_at(self._born(entries))
        entry = self._appender.append(slot, pages, *made, flags)
        self._appender.settle()
        with self._parts.locks[slot >> CLUSTER_SHIFT]:
            if self._parts.origin(entries) != origin:  # not the units that were read
                entries = [EMPTY] * pages
            return self._parts.move(slot, entries, entries_of(entry, pages))

    def load(self, slot: int, entries: list[int]) -> tuple[bytes, Origin] | None:
        """Pages of consecutive slots, all in memory, and what tells their units for ever.

        None if one was overwritten. Raises `CorruptError`.
        """
        with self._parts.locks[slot >> CLUSTER_SHIFT]:
            current = self._parts.table.entries(slot, len(entries))
            if not all(map(same_page, current, entries)):
                return None
            pieces: list[Bytes] = []
            at = 0
            for _, same in groupby(entries, lambda entry: entry >> UNIT_SHIFT):
                count = len(list(same))
                data, _ = self._decoder.unit(entries[at], slot + at)
                start = index_of(entries[at]) << PAGE_SHIFT
                pieces.append(memoryview(data)[start : start + count * PAGE_SIZE])
                at += count
            return b"".join(pieces), self._parts.origin(entries)

    def _born(self, entries: list[int]) -> float:
        """When the youngest of these pages was written; now, if one is in an open segment."""
        born = max(float(self._parts.log.born[segment_of(entry)]) for entry in entries)
        return min(born, time.monotonic())

    def codec_for(self, flags: int) -> Codec:
        """The codec by which pages with these flags are compressed anew, as they were before."""
        if flags & HUGE:
            return self._stored
        return self.cold if flags & COLD else self._hot
