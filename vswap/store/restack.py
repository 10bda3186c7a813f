"""Cleaning the disk: what lives in disk segments that are mostly dead is written together anew.

Only done when free disk segments become few: as long as there are some, dead space costs
nothing, and most of it goes by itself when the last page around it dies. Writing wears a disk.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import numpy.typing as npt

from vswap.errors import CorruptError
from vswap.geometry import CLUSTER_SHIFT, PAGE_SHIFT, SEGMENT_SIZE
from vswap.store.batch import sealed_size
from vswap.store.decoder import Decoder
from vswap.store.disk_log import DiskLog
from vswap.store.entry import unit_flags
from vswap.store.parts import Parts
from vswap.store.relocate import runs_of
from vswap.store.walk import LivingUnit, Walk
from vswap.store.writeback import WriteBack

__all__ = ["Restack", "few_are_free", "sparsest"]

_FEW = 1 / 32
_AT_ONCE = 16
"""Disk segments that are emptied for one look at the table."""

_WORTH = 1 / 8
"""A disk segment of which less is dead is left alone: too much would be written for it."""

_FILLED = 0.95
"""How full disk segments are when no unit fits any more, at least."""

_STUCK_SECONDS = 60.0
"""How long a disk segment is left alone that could not be emptied: a part of it is not readable."""


def few_are_free(log: DiskLog) -> bool:
    """Whether free disk segments are so few that it is time to clean."""
    return log.room() < max(3, log.size * _FEW)


def sparsest(log: DiskLog, apart: Collection[int] = ()) -> npt.NDArray[np.int64] | None:
    """The disk segments to empty next: those of which most is dead, but for those `apart`.

    As many as leave one free when what lives in them has been written together; None if there is
    not so much dead space.
    """
    full = log.full()
    free = SEGMENT_SIZE - full.live
    at = np.argsort(free, kind="stable")[::-1]
    at = at[(free[at] >= SEGMENT_SIZE * _WORTH) & ~np.isin(full.segments[at], list(apart))]
    at = at[:_AT_ONCE]
    for count in range(2, len(at) + 1):
        if full.live[at[:count]].sum() <= (count - 1) * SEGMENT_SIZE * _FILLED:
            return full.segments[at[:count]]
    return None


class Restack:
    """Cleans the disk, for one thread at a time."""

    def __init__(self, parts: Parts, decoder: Decoder, writeback: WriteBack) -> None:
        """`decoder` must be its own; `writeback` may be shared with others under the same lock."""
        self._parts = parts
        self._log = parts.disk.log
        self._decoder = decoder
        self._writeback = writeback
        self._walk = Walk(parts)
        self._stuck: dict[int, tuple[int, float]] = {}  # the filling, and since when
        self._now = 0.0
        self.segments_cleaned = 0

    def prepare(self) -> None:
        """Take the memory for it: it is wanted when memory is short."""
        self._walk.prepare()
        self._writeback.batch.prepare()

    def choose(self, now: float) -> npt.NDArray[np.int64] | None:
        """The disk segments to empty now, if it is time to and would win something.

        Those that could not be emptied a while ago are left alone.
        """
        if not few_are_free(self._log) or not self._log.room():
            return None
        self._now = now
        self._stuck = {
            segment: (sequence, since)
            for segment, (sequence, since) in self._stuck.items()
            if now < since + _STUCK_SECONDS and self._log.sequence_of(segment) == sequence
        }
        return sparsest(self._log, self._stuck)

    def empty(self, victims: npt.NDArray[np.int64]) -> Iterator[int]:
        """Move what lives in these disk segments to others; yields pages moved.

        May raise `DiskFullError`, with nothing lost.
        """
        fillings = {int(victim): self._log.sequence_of(int(victim)) for victim in victims}
        try:
            yield from self._empty(victims)
        finally:
            still = set(self._log.full().segments.tolist())
            for segment, sequence in fillings.items():
                if segment in still and self._log.sequence_of(segment) == sequence:
                    self._stuck[segment] = sequence, self._now
                else:
                    self.segments_cleaned += 1

    def _empty(self, victims: npt.NDArray[np.int64]) -> Iterator[int]:
        found = self._walk.find(victims)
        self._writeback.batch.begin()
        for number in range(len(found.starts) - 1):
            for unit in self._walk.units(found, number):
                if unit.data is not None and not self._stage(unit, unit.data):
                    yield self._writeback.flush(kept=0)
                    self._writeback.batch.begin()
                    self._stage(unit, unit.data)
            yield 0
        yield self._writeback.flush(kept=0)

    def _stage(self, unit: LivingUnit, data: bytes) -> bool:
        """Put a unit into the batch, as it is or what is left of it; False if it does not fit."""
        with self._parts.locks[unit.slot >> CLUSTER_SHIFT]:
            entries = self._parts.still(unit.slot, unit.entries, unit.sequence)
            origin = self._parts.origin(entries)
        if not origin:
            return True  # all of it has died or moved meanwhile
        batch = self._writeback.batch
        if not all(entries):
            try:
                rests = self._rests(unit.slot, entries, data)
            except CorruptError:
                return True  # it stays where it is
            size = sum(sealed_size(len(made), len(run)) for _, run, made, _ in rests)
            if size < sealed_size(len(data), len(entries)):
                # (What fits and what does not are tried again alike: some of it has moved then.)
                return all(
                    batch.add(slot, run, origin, made, flags) for slot, run, made, flags in rests
                )
        # As it is, also if smaller pieces would take as much: so the disk never holds more after.
        flags = unit_flags(next(filter(None, entries)))
        return batch.add(unit.slot, entries, origin, data, flags)

    def _rests(
        self, first: int, entries: list[int], data: bytes
    ) -> list[tuple[int, list[int], bytes, int]]:
        """What is left of a unit, each run compressed anew: slot, entries, unit, flags."""
        alive = next(at for at, entry in enumerate(entries) if entry)
        pages = self._decoder.decode(memoryview(data), 0, first, first + alive)
        rests = []
        for at, run in runs_of(entries):
            part = bytes(memoryview(pages)[at << PAGE_SHIFT : at + len(run) << PAGE_SHIFT])
            rests.append((first + at, run, *self._writeback.pack(first + at, run, part)))
        return rests
