"""Any requests and any upkeep in any order, from one thread and from three, against a dict.

The model is `ModelDevice`. Where the outcome is not determined (a write that found no room
half way, threads that wrote to the same slots) what is there must be one of the outcomes
that are allowed, and the model takes it over.

Segments are taken for full after 80 KiB, so that they are sealed, cleaned, freed and written
over many times in a test's few requests.
"""

from __future__ import annotations

import math
import os
import random
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from unittest.mock import patch

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from model.audit import audit
from model.device import ModelDevice, pieces
from model.effort import effort
from model.pages import KINDS, filled, stamped, zero
from model.stores import content, limit_of, make_store, pages_in, state_of
from model.threads import hurried, run_threads

from vswap.errors import FullError, NoDataError, RangeError, UserError
from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE
from vswap.store import Lane, Policy, Presence, Selection, appender, plan
from vswap.store.log import KEPT
from vswap.store.unit import MAX_UNIT_SIZE

LANES = 3
SMALL_SEGMENT = 80 << 10
assert SMALL_SEGMENT > MAX_UNIT_SIZE
SLOTS = 2 * CLUSTER_SLOTS + 37
SIZE = SLOTS * PAGE_SIZE

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
    )
    def open(
        self, codec: str, unit_pages: int, reserve: int, limit: int | None, loaded_first: bool
    ) -> None:
        self.limited = limit is not None
        self.lowered = False
        self.unknown = False
        self.patches = [
            patch.object(one, "SEGMENT_SIZE", SMALL_SEGMENT) for one in (appender, plan)
        ]
        for one in self.patches:
            one.start()
        memory_limit = None if limit is None else limit_of(limit, SLOTS)
        policy = Policy(codec, unit_pages, memory_limit, reserve, loaded_first)
        # Each sealed segment holds a page at least, so that without a limit there is room.
        self.store = make_store(policy, slots=SLOTS, segments=SLOTS + LANES + KEPT + 65)
        self.lanes = [self.store.lane() for _ in range(LANES)]
        self.model = ModelDevice(SLOTS)
        self.serial = Serial()

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
        here = [at in self.model.pages for at in range(slot, slot + count)]
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

    @rule(limit=limits)
    def set_memory_limit(self, limit: int | None) -> None:
        """What is over it is given back as soon as there is maintenance; it is not at once."""
        self.store.set_memory_limit(None if limit is None else limit_of(limit, SLOTS))
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
        self.lowered = log._in_use > log.limit or log._ceiling > log.limit

    @rule(below=st.integers(1, LEAST))
    def set_a_limit_too_low(self, below: int) -> None:
        before = self.store.statistics().mem_limit
        with pytest.raises(UserError, match="memory limit must be at least"):
            self.store.set_memory_limit(limit_of(LEAST - below, SLOTS))
        assert self.store.statistics().mem_limit == before

    def _is_unchanged(self) -> None:
        assert pages_in(self.store) == self.model.pages

    # --- Three at a time ----------------------------------------------------------------

    @rule(drafts=st.tuples(*[op_drafts] * LANES))
    def concurrently(self, drafts: tuple[list[tuple[str, int, int, str]], ...]) -> None:
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
            run_threads([partial(self._run, ops) for ops in threads], timeout=60)
        self._check_reads(threads)
        self._collapse(threads)
        self.unknown = False
        assert audit(self.store, lowered=self.lowered) == []

    def _run(self, ops: list[Op]) -> None:
        for op in ops:
            op.run(self.lanes[op.lane])

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
        assert statistics.stored_pages + statistics.fill_pages == len(self.model.pages)

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        try:
            if not self.unknown:
                assert content(self.lanes[0], 0, SIZE) == self.model.read(0, SIZE)
                assert audit(self.store, lowered=self.lowered) == []
        finally:
            for one in self.patches:
                one.stop()
            state_of(self.store).close()


StoreMachine.TestCase.settings = effort(150, steps=50)
TestStore = StoreMachine.TestCase
