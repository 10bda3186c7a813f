"""What moves pages in a store, taken apart, and a clock to set."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from model.pages import noise, stamped

from vswap.codec import Bytes, Codec
from vswap.errors import FullError
from vswap.geometry import CLUSTER_SHIFT, PAGE_SIZE, SEGMENT_SIZE
from vswap.store import Lane, Selection, Store, jobs, log, relocate, store, upkeep
from vswap.store.backing import MemoryBacking
from vswap.store.cleaner import Cleaner
from vswap.store.entry import KIND_SHIFT, UNIT_SHIFT, position_of, segment_of
from vswap.store.mover import Mover
from vswap.store.places import SEALED
from vswap.store.plan import Victim
from vswap.store.relocate import Relocator
from vswap.store.unit import Found, units_in

__all__ = [
    "EVERYTHING",
    "MOVES",
    "Clock",
    "Hooked",
    "HookedDisk",
    "cleaner_of",
    "copy_at",
    "discard",
    "entries_at",
    "halves",
    "looks_of",
    "mover_of",
    "names",
    "new_clock",
    "places",
    "put",
    "put_on_disk",
    "relocator_of",
    "seal",
    "sealed_segments",
    "segments_of",
    "twins",
    "unit_at",
    "victim_of",
    "without_room",
]


class Clock:
    """Stands in for the module `time` where a store asks for it."""

    def __init__(self, now: float) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def new_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that all stores go by, and that goes only when told."""
    clock = Clock(1000.0)
    for module in (jobs, log, relocate, store, upkeep):
        monkeypatch.setattr(module, "time", clock)
    return clock


class Hooked:
    """A codec that calls `hook` once, the next time it compresses, or so many times later.

    Pages are compressed between being loaded and being published, with no lock held: here is
    where others get in between.
    """

    def __init__(
        self, codec: Codec, hook: Callable[[], object] = lambda: None, before: int = 0
    ) -> None:
        self._codec = codec
        self._hook = hook
        self._before = before
        self.number = codec.number
        self.calls = 0

    def compress(self, data: Bytes) -> Bytes:
        self.calls += 1
        if self.calls == self._before + 1:
            self._hook()
        return self._codec.compress(data)

    def decompress(self, data: Bytes, size: int) -> Bytes:
        return self._codec.decompress(data, size)


class HookedDisk(MemoryBacking):
    """A backing that calls `hook` once, the next time it is written to.

    What is written back is then on its way: copied, and not named by any slot yet.
    """

    def __init__(self, segments: int = 8, hook: Callable[[], object] = lambda: None) -> None:
        super().__init__(segments * SEGMENT_SIZE)
        self.hook = hook

    def write(self, offset: int, data: memoryview) -> None:
        hook, self.hook = self.hook, lambda: None
        hook()
        super().write(offset, data)


EVERYTHING = Selection(huge=None, cold=None)
"""All pages in memory."""


def put_on_disk(of: Store, lane: Lane, slot: int, data: bytes) -> None:
    """Write pages to `slot` and on, and back to the disk, with all that is in memory."""
    if not of.statistics().backing:
        of.backing.attach(HookedDisk())
    put(lane, slot, data)
    of.backing.write_back(EVERYTHING)
    assert not of.statistics().stored_pages


def places(of: Store, slot: int, count: int) -> str:
    """Where each page is: empty or zero (.), in memory (m), on disk (d), or a fill word (w)."""
    return "".join(".mdw"[entry >> KIND_SHIFT] for entry in entries_at(of, slot, count))


def cleaner_of(of: Store) -> Cleaner:
    return of._upkeep.jobs.cleaner


def mover_of(of: Store) -> Mover:
    return of._upkeep.jobs.mover


def relocator_of(of: Store) -> Relocator:
    """The one that cleaner and mover share. What it appends to counts as the upkeep's."""
    return of._upkeep.jobs.relocator


def without_room(monkeypatch: pytest.MonkeyPatch, of: Store, segments: int = 0) -> None:
    """Let what is moved have so many segments more, and then no other."""
    left = [segments]

    def take() -> int:
        if not left[0]:
            raise FullError("no segment is free")
        left[0] -= 1
        return of._parts.log.take(0)

    monkeypatch.setattr(relocator_of(of)._appender, "_take", take)


def put(lane: Lane, slot: int, data: bytes) -> None:
    """Write pages to `slot` and on."""
    lane.write(slot * PAGE_SIZE, memoryview(data))


def seal(lane: Lane) -> None:
    """Let the lane go on in another segment: what it has appended may be cleaned."""
    lane._writer._appender._roll()


def entries_at(of: Store, slot: int, count: int) -> list[int]:
    with of._parts.locks[slot >> CLUSTER_SHIFT]:
        return of._parts.table.entries(slot, count)


def segments_of(of: Store, slot: int, count: int) -> set[int]:
    """The segments that these slots, all of them stored, live in."""
    return {segment_of(entry) for entry in entries_at(of, slot, count)}


def sealed_segments(of: Store) -> list[int]:
    state = of._parts.log._places.state
    return [segment for segment, place in enumerate(state) if place == SEALED]


def unit_at(of: Store, slot: int) -> Found:
    """The unit that a slot names."""
    position = position_of(entries_at(of, slot, 1)[0])
    end = position // SEGMENT_SIZE * SEGMENT_SIZE + SEGMENT_SIZE
    return next(units_in(of._parts.memory, position, end))


def names(entries: list[int]) -> list[int]:
    """The units that entries name, in order and each once."""
    return list(dict.fromkeys(entry >> UNIT_SHIFT for entry in entries if entry))


def copy_at(of: Store, slot: int, entries: list[int]) -> int:
    """Let the unit at a slot be copied for these entries of its slots."""
    unit = unit_at(of, slot)
    with of._parts.locks[slot >> CLUSTER_SHIFT]:
        return relocator_of(of).copy(unit, entries)


def discard(lane: Lane, *slots: int) -> None:
    for slot in slots:
        lane.discard(slot * PAGE_SIZE, PAGE_SIZE)


def halves(seed: int, pages: int = 1) -> bytes:
    """Pages that compress to about a half."""
    return b"".join(stamped("half", (seed, i, 0)) for i in range(pages))


def twins(of: Store, lane: Lane, slot: int = 0) -> list[int]:
    """Write sixteen pages of noise that are all the same, discard every other; their entries.

    Together they take the room of one; apart, each would take as much.
    """
    put(lane, slot, noise() * 16)
    discard(lane, *range(slot + 1, slot + 16, 2))
    entries = entries_at(of, slot, 16)
    assert [bool(entry) for entry in entries] == [True, False] * 8
    return entries


def by_copy(of: Store) -> int:
    return copy_at(of, 0, entries_at(of, 0, 4))


def by_mend(of: Store) -> int:
    return relocator_of(of).mend(unit_at(of, 0), entries_at(of, 0, 4))


def by_down(of: Store) -> int:
    return relocator_of(of).down(0, entries_at(of, 0, 3))


MOVES = (by_copy, by_mend, by_down)
"""Each moves slots 0 to 2, which are what is left of a unit of four."""


def victim_of(store: Store, segment: int) -> Victim:
    """A segment as the policy would choose it now."""
    return Victim(segment, int(store._log.sequence[segment]))


def looks_of(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The clusters that are looked at from now on."""
    seen: list[int] = []
    page = store._parts.table.page

    def look(cluster: int) -> object:
        seen.append(cluster)
        return page(cluster)

    monkeypatch.setattr(store._parts.table, "page", look)
    return seen
