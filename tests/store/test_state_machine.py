"""Any requests and any upkeep in any order, from one thread and from three, against a dict.

The model is `ModelDevice`. Where the outcome is not determined (a write that found no room
half way, threads that wrote to the same slots) what is there must be one of the outcomes
that are allowed, and the model takes it over.

Segments are taken for full after 80 KiB, disk segments after 160 KiB, so that they are sealed,
cleaned, freed and written over many times in a test's few requests.
"""

from __future__ import annotations

import errno
import math
import os
import random
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from model.audit import audit
from model.device import ModelDevice, pieces
from model.effort import effort
from model.memory import words_in
from model.moves import Clock
from model.pages import KINDS, filled, stamped, zero
from model.stores import content, limit_of, make_store, pages_in, state_of, take_over
from model.threads import hurried, run_threads

from vswap.errors import FullError, NoDataError, RangeError, UserError
from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE, SEGMENT_SIZE
from vswap.store import (
    Lane,
    Policy,
    Presence,
    Selection,
    appender,
    batch,
    derive,
    detach,
    plan,
    restack,
    spill,
)
from vswap.store import disk as disks
from vswap.store.backing import MemoryBacking
from vswap.store.disk_log import KEPT_ON_DISK
from vswap.store.entry import KIND_BACKING, KIND_SHIFT
from vswap.store.fetch import Parked
from vswap.store.places import KEPT
from vswap.store.unit import MAX_UNIT_SIZE

LANES = 3
SMALL_SEGMENT = 80 << 10
assert SMALL_SEGMENT > MAX_UNIT_SIZE
DISK_SEGMENT = 2 * SMALL_SEGMENT
SURELY_FILLED = DISK_SEGMENT - MAX_UNIT_SIZE - 64
"""What a full disk segment holds at least. Of a real one that is nearly all it has room for."""
SLOTS = 2 * CLUSTER_SLOTS + 37
SIZE = SLOTS * PAGE_SIZE

SEGMENTS = SLOTS + LANES + KEPT + 65
"""Each sealed segment holds a page at least, so that without a limit there is room for all."""

MOST_STEPS = 10 * SEGMENTS
"""After which detaching must have come to an end."""

LEAST = LANES + KEPT
"""Segments: the least that a store takes for its limit, which is made for one lane."""

STYLES = (*KINDS, "zero", "filled")
styles = st.sampled_from((*STYLES, "mixed", "mixed"))
lanes = st.integers(0, LANES - 1)

# Mostly around a cluster's end, the device's begin and its end, so that requests overlap.
slots = (
    st.integers(0, 40)
    | st.integers(CLUSTER_SLOTS - 20, CLUSTER_SLOTS + 20)
    | st.integers(SLOTS - 40, SLOTS - 1)
    | st.integers(0, SLOTS - 1)
)
counts = st.integers(1, 8) | st.integers(1, 64)
offsets = st.builds(
    lambda slot, inside: slot * PAGE_SIZE + inside,
    slots,
    st.sampled_from((0, 512, 2048, PAGE_SIZE - 1)) | st.integers(0, PAGE_SIZE - 1),
)
sizes = st.integers(1, PAGE_SIZE) | st.integers(1, 5 * PAGE_SIZE)

limits = st.sampled_from((None, None, LEAST, LEAST + 2, LEAST + 15))
ages = st.sampled_from((0.0, 0.0, 50.0, math.inf))
selections = st.builds(
    Selection,
    huge=st.booleans(),
    idle=st.booleans(),
    threshold=st.sampled_from((0, 0, 500, 3000)),
    age=ages,
    loaded=st.booleans(),
)
ranges = st.none() | st.tuples(slots, counts).map(lambda range_: (range_[0], sum(range_)))
to_write_back = st.builds(
    Selection,
    huge=st.sampled_from((None, None, False, True)),
    cold=st.sampled_from((None, None, False, True)),
    slots=ranges,
    idle=st.booleans(),
)
disk_sizes = st.sampled_from((1, 2, 3, 8, 20, 80))
"""Segments: too few to write to, few, and enough for everything."""


class Disk(MemoryBacking):
    """A backing of which so many of the next writes fail, having been done in part."""

    fails = 0

    def __init__(self, segments: int) -> None:
        super().__init__(segments * SEGMENT_SIZE)

    def write(self, offset: int, data: memoryview) -> None:
        if self.fails:
            self.fails -= 1
            super().write(offset, data[: len(data) // 8192 * 4096])
            raise OSError(errno.EIO, os.strerror(errno.EIO), self.name)
        super().write(offset, data)


class Serial:
    """Makes pages of which no two are the same, but for those of zeros or of one word."""

    def __init__(self) -> None:
        self._next = 1

    def pages(self, slot: int, count: int, style: str, lane: int = 0) -> list[bytes]:
        chosen = random.Random(self._next)
        made = []
        for at in range(slot, slot + count):
            kind = chosen.choice(STYLES) if style == "mixed" else style
            if kind in KINDS:
                made.append(stamped(kind, (at, lane, self._next)))
            else:  # a few words that come again and again
                made.append(zero() if kind == "zero" else filled(1, chosen.randrange(4)))
            self._next += 1
        return made


@dataclass(frozen=True)
class Waiting:
    """A read that waits for the disk, and what the slots held when it came."""

    slot: int
    read: Parked
    before: list[bytes]


@dataclass
class Op:
    """What one thread does in `concurrently`, and what came of it."""

    lane: int
    kind: str
    slot: int
    pages: list[bytes]
    failed: bool = False
    found: list[bytes] = field(default_factory=list)

    def run(self, lane: Lane) -> None:
        offset, size = self.slot * PAGE_SIZE, len(self.pages) * PAGE_SIZE
        if self.kind == "read":
            self.found = to_pages(content(lane, offset, size))
        elif self.kind == "scan":
            for slot in range(self.slot, self.slot + len(self.pages)):
                self.found.append(content(lane, slot * PAGE_SIZE, PAGE_SIZE))
                lane.read_ahead()
        elif self.kind == "discard":
            lane.discard(offset, size)
        else:
            try:
                lane.write(offset, memoryview(b"".join(self.pages)))
            except FullError:
                self.failed = True

    def leaves(self) -> dict[int, bytes]:
        """What it has made of which slots."""
        if self.failed or self.kind in ("read", "scan"):
            return {}
        return dict(enumerate(self.pages, self.slot))


def to_pages(data: bytes) -> list[bytes]:
    return [data[at : at + PAGE_SIZE] for at in range(0, len(data), PAGE_SIZE)]


op_drafts = st.lists(
    st.tuples(
        st.sampled_from(("write", "write", "write", "discard", "read", "scan")),
        st.integers(CLUSTER_SLOTS - 24, CLUSTER_SLOTS + 24),
        st.integers(1, 24),
        styles,
    ),
    min_size=1,
    max_size=8,
)


class StoreMachine(RuleBasedStateMachine):
    """ONE-STATE, and those of table, log, ledger and words are held by the audit at the end."""

    @initialize(
        codec=st.sampled_from(("lz4", "zstd-fast", "zstd", "stored")),
        unit_pages=st.sampled_from((1, 2, 4, 8, 16)),
        reserve=st.sampled_from((0, 1, 4)),
        limit=limits,
        loaded_first=st.booleans(),
        disk=st.none() | disk_sizes,
    )
    def open(
        self,
        codec: str,
        unit_pages: int,
        reserve: int,
        limit: int | None,
        loaded_first: bool,
        disk: int | None,
    ) -> None:
        self.limited = limit is not None
        self.lowered = False
        self.unknown = False
        self.clock = Clock(1000.0)
        self.patches = ExitStack()
        self.patches.enter_context(patch.object(disks, "time", self.clock))
        for size, modules in (
            (SMALL_SEGMENT, (appender, plan, detach, derive)),
            (DISK_SEGMENT, (batch, spill)),
            (SURELY_FILLED, (restack,)),
        ):
            for one in modules:
                self.patches.enter_context(patch.object(one, "SEGMENT_SIZE", size))
        self.patches.enter_context(patch.object(derive, "LEAST_TAIL", MAX_UNIT_SIZE))
        policy = Policy(codec, unit_pages, self._limit(limit), reserve, loaded_first)
        self.store = make_store(policy, slots=SLOTS, segments=SEGMENTS)
        self.lanes = [self.store.lane() for _ in range(LANES)]
        self.fetch_lane = self.store.fetch_lane()
        self.waiting: list[Waiting] = []
        self.disk: Disk | None = None
        self.model = ModelDevice(SLOTS)
        self.serial = Serial()
        if disk is not None:
            self.attach(disk)

    @staticmethod
    def _limit(segments: int | None) -> int | None:
        return None if segments is None else limit_of(segments, SLOTS)

    # --- One request at a time ----------------------------------------------------------

    @rule(lane=lanes, slot=slots, count=counts, style=styles)
    def write_pages(self, lane: int, slot: int, count: int, style: str) -> None:
        count = min(count, SLOTS - slot)
        data = b"".join(self.serial.pages(slot, count, style, lane))
        try:
            self.lanes[lane].write(slot * PAGE_SIZE, memoryview(data))
        except FullError:
            assert self.limited
            found = content(self.lanes[lane], slot * PAGE_SIZE, len(data))
            assert found == self.model.read(slot * PAGE_SIZE, len(data))
        else:
            self.model.write(slot * PAGE_SIZE, data)

    @rule(
        lane=lanes,
        slot=slots,
        count=st.integers(20, 160),
        style=styles,
        every=st.integers(2, 7),
        discard=st.booleans(),
    )
    def wear(self, lane: int, slot: int, count: int, style: str, every: int, discard: bool) -> None:
        """Leave segments behind of which parts are dead: every so many pages of a range."""
        self.write_pages(lane, slot, count, style)
        for at in range(slot, min(slot + count, SLOTS), every):
            if discard:
                self.discard_pages(lane, at, 1)
            else:
                self.write_pages(lane, at, 1, "text")

    @rule(lane=lanes, offset=offsets, size=sizes, style=styles)
    def write_bytes(self, lane: int, offset: int, size: int, style: str) -> None:
        size = min(size, SIZE - offset)
        data = b"".join(self.serial.pages(0, 6, style, lane))[:size]
        try:
            self.lanes[lane].write(offset, memoryview(data))
        except FullError:
            self._stopped_half_way(lane, offset, data)
        else:
            self.model.write(offset, data)

    @rule(lane=lanes, offset=offsets, size=sizes)
    def discard_bytes(self, lane: int, offset: int, size: int) -> None:
        size = min(size, SIZE - offset)
        try:
            self.lanes[lane].discard(offset, size)
        except FullError:
            self._stopped_half_way(lane, offset, bytes(size))
        else:
            self.model.discard(offset, size)

    @rule(lane=lanes, slot=slots, count=counts | st.just(SLOTS))
    def discard_pages(self, lane: int, slot: int, count: int) -> None:
        offset, size = slot * PAGE_SIZE, min(count, SLOTS - slot) * PAGE_SIZE
        self.lanes[lane].discard(offset, size)
        self.model.discard(offset, size)

    def _stopped_half_way(self, lane: int, offset: int, data: bytes) -> None:
        """Some of the first pieces were done, and none of the others."""
        assert self.limited
        found = content(self.lanes[lane], offset, len(data))
        before = self.model.read(offset, len(data))
        done = [at - offset for at, _ in pieces(offset, len(data))]
        assert found in [data[:end] + before[end:] for end in done]
        self.model.write(offset, found)

    @rule(lane=lanes, offset=offsets, size=sizes | st.integers(0, 70 * PAGE_SIZE))
    def read(self, lane: int, offset: int, size: int) -> None:
        assert content(self.lanes[lane], offset, size) == self.model.read(offset, size)

    @rule(lane=lanes, slot=slots, count=counts)
    def read_pages(self, lane: int, slot: int, count: int) -> None:
        offset, size = slot * PAGE_SIZE, count * PAGE_SIZE
        assert content(self.lanes[lane], offset, size) == self.model.read(offset, size)

    @rule(
        lane=lanes,
        slot=slots,
        count=st.integers(1, 9),
        gap=st.sampled_from((0, 0, 0, 1, 5)),
        reads=st.integers(2, 12),
        turns=st.integers(0, 70),
    )
    def read_in_order(
        self, lane: int, slot: int, count: int, gap: int, reads: int, turns: int
    ) -> None:
        """With time for something between two requests; the last is read ahead of, too."""
        for at in range(slot, min(slot + reads * (count + gap), SLOTS), count + gap):
            self.read_pages(lane, at, count)
            self.read_ahead(lane, turns)

    @rule(lane=lanes, turns=st.integers(1, 70))
    def read_ahead(self, lane: int, turns: int) -> None:
        """What is prepared is not read yet: others may write before it is, and nobody may."""
        for _ in range(turns):
            if not self.lanes[lane].read_ahead():
                break

    @rule(lane=lanes, writer=lanes, slot=slots, times=st.integers(1, 6))
    def come_to_the_place_of_others(self, lane: int, writer: int, slot: int, times: int) -> None:
        """LOG-AGE: pages all of one size come to where some were that had been read ahead."""
        self.write_pages(writer, slot, 32, "noise")
        self.read_in_order(lane, slot, 4, 0, 4, 70)
        for _ in range(times):
            self.write_pages(writer, slot, 32, "noise")
        if slot + 16 < SLOTS:
            self.read_pages(lane, slot + 16, 16)

    @rule(lane=lanes, slot=slots, count=counts)
    def look(self, lane: int, slot: int, count: int) -> None:
        """What waits for the disk is finished later, when anything may have happened."""
        offset, size = slot * PAGE_SIZE, min(count, SLOTS - slot) * PAGE_SIZE
        found = self.lanes[lane].look(offset, size)
        before = self.model.read(offset, size)
        if isinstance(found, Parked):
            self.waiting.append(Waiting(slot, found, to_pages(before)))
        else:
            assert b"".join(found) == before

    @rule()
    def finish_looking(self) -> None:
        """GAP-EXACT: a page is what it was then, or what it is now."""
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            found = to_pages(b"".join(self.fetch_lane.finish(one.read)))
            assert len(found) == len(one.before)
            for slot, (page, before) in enumerate(zip(found, one.before, strict=True), one.slot):
                assert page in (before, self.model.page(slot))

    @rule(lane=lanes, offset=offsets, whence=st.sampled_from((os.SEEK_DATA, os.SEEK_HOLE)))
    def seek(self, lane: int, offset: int, whence: int) -> None:
        expected = self.model.seek(offset, whence)
        if expected is None:
            with pytest.raises(NoDataError):
                self.lanes[lane].seek(offset, whence)
        else:
            assert self.lanes[lane].seek(offset, whence) == expected

    @rule(lane=lanes, offset=offsets, beyond=st.integers(1, 2 * PAGE_SIZE))
    def reach_beyond_the_end(self, lane: int, offset: int, beyond: int) -> None:
        size = SIZE - offset + beyond
        with pytest.raises(RangeError):
            self.lanes[lane].write(offset, memoryview(bytes(size)))
        with pytest.raises(RangeError):
            self.lanes[lane].discard(offset, size)

    # --- Looking ------------------------------------------------------------------------

    @rule(slot=slots, count=counts | st.just(SLOTS))
    def presence(self, slot: int, count: int) -> None:
        count = min(count, SLOTS - slot)
        away = self._slots_on_disk()
        here = [at in self.model.pages and at not in away for at in range(slot, slot + count)]
        run = next((at for at, one in enumerate(here) if one != here[0]), count)
        answer = Presence.MIXED if run < count else Presence.ALL if here[0] else Presence.NONE
        assert self.store.presence(slot, count) == (answer, run)

    @rule()
    def check(self) -> None:
        findings = self.store.check()
        assert findings.problems == ()
        assert findings.pages == len(self.model.pages)

    # --- Upkeep -------------------------------------------------------------------------

    @rule()
    def maintain(self) -> None:
        self.store.maintain()
        self._is_unchanged()

    @rule(count=st.integers(1, 30), busy=st.booleans())
    def step(self, count: int, busy: bool) -> None:
        """As on a machine that is busy, or not."""
        upkeep = self.store._upkeep
        upkeep._busy, upkeep._seen = busy, (0, math.inf)
        for tier in upkeep._tiers:
            tier.due = 0.0
        assert all(self.store.step() >= 0 for _ in range(count))
        self._notice_detached()
        self._is_unchanged()

    @rule()
    def compact(self) -> None:
        self.store.compact()
        self._is_unchanged()

    @rule(selection=selections, most=st.sampled_from((None, None, 1, 40)))
    def recompress(self, selection: Selection, most: int | None) -> None:
        self.store.recompress(selection, most)
        self._is_unchanged()

    @rule()
    def recompress_all(self) -> None:
        """What is left then could not be moved: for want of room, or because it is huge."""
        self.store.recompress(Selection())
        statistics = self.store.statistics()
        if not self.limited:
            assert statistics.cold_pages >= statistics.stored_pages - statistics.huge_pages
        self._is_unchanged()

    @rule(age=ages)
    def mark_idle(self, age: float) -> None:
        marked = self.store.mark_idle(age)
        statistics = self.store.statistics()
        assert marked == statistics.stored_pages if not age else marked <= statistics.stored_pages
        self._is_unchanged()

    @rule()
    def time_passes(self) -> None:
        self.store._log.born -= 60.0
        self.clock.advance(1000.0)  # and so much at once for the disk: longer than writing rests

    @rule(limit=limits)
    def set_memory_limit(self, limit: int | None) -> None:
        """What is over it is given back as soon as there is maintenance; it is not at once."""
        self.store.set_memory_limit(self._limit(limit))
        self.limited = limit is not None
        self.store.maintain()
        log = self.store._log.statistics()
        self.lowered = log.segments_in_use + KEPT > log.segments_limit
        self._is_unchanged()

    @rule()
    def reach_the_limit(self) -> None:
        """By what died meanwhile, and by cleaning."""
        self.store.compact()
        self.store.maintain()
        log = self.store._log
        self.lowered = log._places.in_use > log.limit or log._places._ceiling > log.limit

    @rule(below=st.integers(1, LEAST))
    def set_a_limit_too_low(self, below: int) -> None:
        before = self.store.statistics().mem_limit
        with pytest.raises(UserError, match="memory limit must be at least"):
            self.store.set_memory_limit(self._limit(LEAST - below))
        assert self.store.statistics().mem_limit == before

    def _is_unchanged(self) -> None:
        assert pages_in(self.store) == self.model.pages

    # --- The next worker ----------------------------------------------------------------

    @rule()
    def take_over(self) -> None:
        """The worker dies between two requests, and its parked reads with it; the disk comes back.

        The limit that is in force outlives it, and so does detaching.
        """
        detaching, limit = self.store.backing.detaching, self.store.statistics().mem_limit
        self.store = take_over(self.store, replace(self.store._policy, memory_limit=None))
        self.waiting = []
        self.lanes = [self.store.lane() for _ in range(LANES)]
        if self.disk is not None:
            self.store.backing.attach(self.disk)
        self.fetch_lane = self.store.fetch_lane()
        log = self.store._log
        self.lowered = log._places.in_use > log.limit or log._places._ceiling > log.limit
        assert self.store.backing.detaching == detaching
        assert self.store.statistics().mem_limit == limit
        assert audit(self.store, lowered=self.lowered) == []
        self._is_unchanged()

    # --- The disk -----------------------------------------------------------------------

    @rule(segments=disk_sizes)
    def attach(self, segments: int) -> None:
        disk = Disk(segments)
        if self.disk is None:
            self.store.backing.attach(disk)
            self.disk = disk
        else:
            with pytest.raises(UserError, match="attached already"):
                self.store.backing.attach(disk)
        self._is_unchanged()

    def _disk(self) -> Disk:
        """The one that is attached, or one that is now.

        Which rules may run must not depend on it: detaching beside threads ends when it will.
        """
        if self.disk is None:
            self.attach(8)
        assert self.disk is not None
        return self.disk

    @rule(segments=st.integers(1, 9))
    def grow(self, segments: int) -> None:
        disk = self._disk()
        room = self.store.statistics().backing_segments_free
        size = disk.size + segments * SEGMENT_SIZE
        if self.store.backing.detaching:
            with pytest.raises(UserError, match="is being detached"):
                self.store.backing.grow(size)
            return
        if size > self.store._parts.disk.log.most * SEGMENT_SIZE:
            with pytest.raises(UserError, match="of a backing at most"):
                self.store.backing.grow(size)
            return
        self.store.backing.grow(size)
        statistics = self.store.statistics()
        assert statistics.backing_size == disk.size
        assert statistics.backing_segments_free >= room
        self._is_unchanged()

    @rule(selection=to_write_back)
    def write_back(self, selection: Selection) -> None:
        """All that is selected goes, unless the disk takes no more."""
        self._disk()
        before = self.store.statistics()
        moved = self.store.backing.write_back(selection)
        after = self.store.statistics()
        assert after.backing_pages == before.backing_pages + moved
        assert after.stored_pages == before.stored_pages - moved
        if before.backing_state == "detaching":
            assert moved == 0
        elif after.backing_state == "attached" and after.backing_segments_free > KEPT_ON_DISK:
            assert not self._selected(selection)
        self._is_unchanged()

    @rule(
        lane=lanes,
        slot=slots,
        count=st.integers(20, 160),
        style=styles,
        every=st.integers(2, 7),
        discard=st.booleans(),
    )
    def wear_the_disk(
        self, lane: int, slot: int, count: int, style: str, every: int, discard: bool
    ) -> None:
        """Leave disk segments behind of which parts are dead."""
        self.write_pages(lane, slot, count, style)
        self.write_back(Selection(huge=None, cold=None))
        for at in range(slot, min(slot + count, SLOTS), every):
            if discard:
                self.discard_pages(lane, at, 1)
            else:
                self.write_pages(lane, at, 1, style)

    @rule(turns=st.integers(1, 4))
    def spill(self, turns: int) -> None:
        """As a writer that finds no room; if few disk segments are free they are cleaned."""
        self._disk()
        upkeep = self.store._upkeep
        for _ in range(turns):
            with upkeep.lock:
                now = time.monotonic()
                job = upkeep.jobs.write_back(upkeep.jobs.sealed(now), now)
            if job is not None:
                upkeep._finish(job)
        self._is_unchanged()

    @rule(age=ages)
    def write_back_what_is_idle(self, age: float) -> None:
        """What has been read since stays."""
        self.store.mark_idle(age)
        self.write_back(Selection(huge=None, cold=None, idle=True))

    @rule(fails=st.integers(1, 3))
    def let_writes_fail(self, fails: int) -> None:
        self._disk().fails = fails

    @rule()
    def begin_to_detach(self) -> None:
        """Anything may come between this and the end."""
        self._disk()
        if self.store.backing.detaching:
            with pytest.raises(UserError, match="is being detached already"):
                self.store.backing.begin_detach()
            return
        try:
            self.store.backing.begin_detach()
        except UserError as error:
            assert "memory would not hold" in str(error)
            assert self.limited
        self._is_unchanged()

    @rule()
    def stop_detaching(self) -> None:
        self.store.backing.stop_detach()
        assert not self.store.backing.detaching
        self._notice_detached()

    @rule()
    def detach(self) -> None:
        """To the end, which is that all pages are in memory, or that there is no room for them."""
        if not self.store.backing.detaching:
            self.begin_to_detach()
        if not self.store.backing.detaching:
            return
        steps = 0
        while self.store.backing.detaching:
            self.store.step()
            steps += 1
            assert steps <= MOST_STEPS
        result = self.store.statistics().detach_result
        assert result == "detached" or (result == "memory" and self.limited)
        self._notice_detached()
        self._is_unchanged()

    def _notice_detached(self) -> None:
        """The disk goes with the last piece of detaching, whoever did it."""
        statistics = self.store.statistics()
        if self.disk is not None and not statistics.backing:
            assert statistics.detach_result == "detached"
            assert statistics.backing_pages == statistics.backing_size == 0
            assert statistics.backing_state == "none"
            self.disk = None

    def _slots_on_disk(self) -> set[int]:
        table = words_in(state_of(self.store).table)
        return {slot for slot, entry in table.items() if entry >> KIND_SHIFT == KIND_BACKING}

    def _selected(self, selection: Selection) -> list[int]:
        table = words_in(state_of(self.store).table)
        entries = np.array([table.get(slot, 0) for slot in range(SLOTS)], np.uint64)
        found: list[int] = np.flatnonzero(
            selection.mask(entries, self.store._log.born, 0.0)
        ).tolist()
        return found

    # --- Three at a time ----------------------------------------------------------------

    @rule(
        drafts=st.tuples(*[op_drafts] * LANES),
        beside=st.sampled_from(("nothing", "write back", "steps")),
    )
    def concurrently(
        self, drafts: tuple[list[tuple[str, int, int, str]], ...], beside: str
    ) -> None:
        """And what keeps the store small beside them."""
        threads = [
            [
                Op(lane, kind, slot, self.serial.pages(slot, count, style, lane))
                for kind, slot, count, style in ops
            ]
            for lane, ops in enumerate(drafts)
        ]
        for op in chain(*threads):
            if op.kind == "discard":
                op.pages = [zero()] * len(op.pages)
        self.unknown = True  # until it has been found out which of the threads' writes won
        with hurried():
            bodies = [partial(self._run, ops) for ops in threads]
            run_threads([*bodies, partial(self._work, beside)], timeout=60)
        self._check_reads(threads)
        self._collapse(threads)
        self.unknown = False
        self._notice_detached()
        assert audit(self.store, lowered=self.lowered) == []

    def _run(self, ops: list[Op]) -> None:
        for op in ops:
            op.run(self.lanes[op.lane])

    def _work(self, beside: str) -> None:
        for _ in range(10):
            if beside == "steps":
                self.store.step()
            elif beside == "write back" and self.disk is not None:
                self.store.backing.write_back(Selection(huge=None, cold=None))

    def _check_reads(self, threads: list[list[Op]]) -> None:
        """A page that was read is, whole, what it was before or what some thread wrote."""
        ops = list(chain(*threads))
        for read in ops:
            for slot, page in enumerate(read.found, read.slot):
                written = [op.leaves()[slot] for op in ops if slot in op.leaves()]
                assert page in [self.model.page(slot), *written]

    def _collapse(self, threads: list[list[Op]]) -> None:
        """A slot holds what one of the threads did to it last."""
        outcomes: dict[int, list[bytes]] = {}
        for ops in threads:
            last: dict[int, bytes] = {}
            for op in ops:
                last.update(op.leaves())
            for slot, page in last.items():
                outcomes.setdefault(slot, []).append(page)
        assert self.limited or not any(op.failed for op in chain(*threads))
        for slot, allowed in outcomes.items():
            found = content(self.lanes[0], slot * PAGE_SIZE, PAGE_SIZE)
            assert found in allowed
            self.model.put(slot, found)

    # --- Always -------------------------------------------------------------------------

    @invariant()
    def stored_pages_are_those_of_the_model(self) -> None:
        statistics = self.store.statistics()
        pages = statistics.stored_pages + statistics.backing_pages + statistics.fill_pages
        assert pages == len(self.model.pages)
        assert statistics.backing_corrupt == statistics.backing_failed_reads == 0

    def teardown(self) -> None:
        try:
            if hasattr(self, "store") and not self.unknown:
                self.finish_looking()
                assert content(self.lanes[0], 0, SIZE) == self.model.read(0, SIZE)
                assert audit(self.store, lowered=self.lowered) == []
        finally:
            if hasattr(self, "patches"):
                self.patches.close()
            if hasattr(self, "store"):
                self.store.close()
                state_of(self.store).close()


StoreMachine.TestCase.settings = effort(150, steps=50)
TestStore = StoreMachine.TestCase
