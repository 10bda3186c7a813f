"""Any requests in any order, from one thread and from three, against a dict of pages.

The model is `ModelDevice`. Where the outcome is not determined (a write that found no room
half way, threads that wrote to the same slots) what is there must be one of the outcomes
that are allowed, and the model takes it over.

Appenders think that a segment is full after 80 KiB, so that segments are sealed, freed and
written over many times in a test's few requests.
"""

from __future__ import annotations

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
from model.pages import KINDS, stamped, zero
from model.stores import content, make_store, state_of
from model.threads import hurried, run_threads

from vswap.errors import FullError, NoDataError, RangeError
from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE, SEGMENT_SIZE
from vswap.store import Lane, Policy, appender
from vswap.store.unit import MAX_UNIT_SIZE

LANES = 3
SMALL_SEGMENT = 80 << 10
assert SMALL_SEGMENT > MAX_UNIT_SIZE
SLOTS = 2 * CLUSTER_SLOTS + 37
SIZE = SLOTS * PAGE_SIZE

styles = st.sampled_from((*KINDS, "zero", "mixed", "mixed"))
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


class Serial:
    """Makes pages of which no two are the same."""

    def __init__(self) -> None:
        self._next = 1

    def pages(self, slot: int, count: int, style: str, lane: int = 0) -> list[bytes]:
        chosen = random.Random(self._next)
        made = []
        for at in range(slot, slot + count):
            kind = chosen.choice((*KINDS, "zero")) if style == "mixed" else style
            made.append(zero() if kind == "zero" else stamped(kind, (at, lane, self._next)))
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
        elif self.kind == "discard":
            lane.discard(offset, size)
        else:
            try:
                lane.write(offset, memoryview(b"".join(self.pages)))
            except FullError:
                self.failed = True

    def leaves(self) -> dict[int, bytes]:
        """What it has made of which slots."""
        if self.failed or self.kind == "read":
            return {}
        return dict(enumerate(self.pages, self.slot))


def to_pages(data: bytes) -> list[bytes]:
    return [data[at : at + PAGE_SIZE] for at in range(0, len(data), PAGE_SIZE)]


op_drafts = st.lists(
    st.tuples(
        st.sampled_from(("write", "write", "discard", "read")),
        st.integers(CLUSTER_SLOTS - 24, CLUSTER_SLOTS + 24),
        st.integers(1, 24),
        styles,
    ),
    min_size=1,
    max_size=8,
)


class StoreMachine(RuleBasedStateMachine):
    """ONE-STATE, the TABLE and the LOG invariants are held by the audit at the end."""

    @initialize(
        codec=st.sampled_from(("lz4", "zstd", "stored")),
        unit_pages=st.sampled_from((1, 2, 4, 8, 16)),
        reserve=st.sampled_from((0, 1, 4)),
        limit=st.sampled_from((None, None, LANES + 2, LANES + 20)),
    )
    def open(self, codec: str, unit_pages: int, reserve: int, limit: int | None) -> None:
        self.limited = limit is not None
        self.small = patch.object(appender, "SEGMENT_SIZE", SMALL_SEGMENT)
        self.small.start()
        policy = Policy(codec, unit_pages, limit and limit * SEGMENT_SIZE, reserve)
        # Each sealed segment holds a page at least, so that without a limit there is room.
        self.store = make_store(policy, slots=SLOTS, segments=SLOTS + LANES + 1)
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

    @rule(idle=st.booleans())
    def maintain(self, idle: bool) -> None:
        self.store.maintain(idle)

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
        with hurried():
            run_threads([partial(self._run, ops) for ops in threads], timeout=20)
        self._check_reads(threads)
        self._collapse(threads)
        assert audit(self.store) == []

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
        assert self.store.statistics().stored_pages == len(self.model.pages)

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        try:
            assert content(self.lanes[0], 0, SIZE) == self.model.read(0, SIZE)
            assert audit(self.store) == []
        finally:
            self.small.stop()
            state_of(self.store).close()


StoreMachine.TestCase.settings = effort(150, steps=50)
TestStore = StoreMachine.TestCase
