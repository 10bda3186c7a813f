"""Cleaning a segment: what lives in it is moved, until nothing holds it back.

A unit all of whose pages live is copied as it is. One that has lost some is compressed anew
without them, so that what comes out of cleaning is dense. The segment is freed by the death
of its last page, as any other is; a write that has appended to it and not published yet keeps
it for the next time.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, islice

from vswap.geometry import CLUSTER_SHIFT, MAX_UNIT_PAGES, SEGMENT_SHIFT, SEGMENT_SIZE
from vswap.store.entry import ALIGNMENT, EMPTY, KIND_CACHE, KIND_SHIFT, NOT_HOT, UNIT_SHIFT
from vswap.store.parts import Parts
from vswap.store.plan import Victim
from vswap.store.relocate import Relocator
from vswap.store.unit import Found, units_in

__all__ = ["Cleaner"]

_PIECE = 16
"""Units that are looked at under one hold of their cluster's lock."""


class Cleaner:
    """Cleans for one thread at a time."""

    def __init__(self, parts: Parts, relocator: Relocator) -> None:
        """`relocator` may be shared with others that run under the same lock."""
        self._parts = parts
        self._relocator = relocator

    def clean(self, victim: Victim, down: bool = False) -> Iterator[int]:
        """Move everything out of a sealed segment; yields the pages moved, piece by piece.

        Ends early when it is no longer what was chosen. `down`: by way of the cold codec, what
        has not been there. May raise `FullError`, with nothing lost.
        """
        if down:
            for piece in self._pieces(victim):
                yield self._down(piece, victim)
        for piece in self._pieces(victim):
            yield self._move(piece, victim)

    def living(self, victim: Victim) -> Iterator[list[tuple[int, list[int]]]]:
        """What lives in a segment, piece by piece: a unit's first slot, and its pages' entries.

        The entries are EMPTY where the page does not live there.
        """
        for piece in self._pieces(victim):
            with self._parts.locks[piece[0].slot >> CLUSTER_SHIFT]:
                alive = [(unit.slot, entries) for unit, entries in self._alive(piece, victim)]
            yield alive

    def _pieces(self, victim: Victim) -> Iterator[list[Found]]:
        """The segment's units, a few of one cluster at a time."""
        segment = victim.segment
        start = segment << SEGMENT_SHIFT
        slots = self._parts.geometry.slots
        found = units_in(self._parts.memory, start, start + SEGMENT_SIZE)
        known = (
            unit for unit in self._while_sealed(found, victim) if unit.slot + unit.pages <= slots
        )
        for _, units in groupby(known, lambda unit: unit.slot >> CLUSTER_SHIFT):
            while piece := list(islice(units, _PIECE)):
                yield piece

    def _while_sealed(self, found: Iterator[Found], victim: Victim) -> Iterator[Found]:
        """What has been freed may be a hole, and looking at it would allocate it."""
        while self._parts.log.is_sealed(*victim) and (unit := next(found, None)) is not None:
            yield unit

    def _move(self, piece: list[Found], victim: Victim) -> int:
        moved = 0
        broken = []
        with self._parts.locks[piece[0].slot >> CLUSTER_SHIFT]:
            for unit, entries in self._alive(piece, victim):
                if all(entries):
                    moved += self._relocator.copy(unit, entries)
                else:
                    broken.append((unit, entries))
        return moved + sum(self._relocator.mend(unit, entries) for unit, entries in broken)

    def _down(self, piece: list[Found], victim: Victim) -> int:
        """Move the hot pages of a piece, those of consecutive slots together."""
        hot: dict[int, int] = {}
        with self._parts.locks[piece[0].slot >> CLUSTER_SHIFT]:
            for unit, entries in self._alive(piece, victim):
                for slot, entry in enumerate(entries, unit.slot):
                    if entry and not entry & NOT_HOT:
                        hot[slot] = entry
        moved = 0
        while hot:
            first = slot = next(iter(hot))
            run: list[int] = []
            while slot in hot and len(run) < MAX_UNIT_PAGES:
                run.append(hot.pop(slot))
                slot += 1
            moved += self._relocator.down(first, run)
        return moved

    def _alive(self, piece: list[Found], victim: Victim) -> Iterator[tuple[Found, list[int]]]:
        """The units in which anything lives, with the entries that name them; lock held.

        The entries are those of the units' slots, EMPTY for one that names another unit or none.
        """
        for unit in piece:
            name = KIND_CACHE << KIND_SHIFT - UNIT_SHIFT | unit.position // ALIGNMENT
            entries = self._parts.table.entries(unit.slot, unit.pages)
            entries = [entry if entry >> UNIT_SHIFT == name else EMPTY for entry in entries]
            # If something lives here the segment cannot be filled anew while the lock is held;
            # if it has been before, these are not its units.
            if any(entries) and self._parts.log.sequence[victim.segment] == victim.sequence:
                yield unit, entries
