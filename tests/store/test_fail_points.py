"""Steps that fail, each in turn: what was taken off a list is put to use or back.

Of a write that fails nothing may stay counted: no segment would be freed that it has appended
to, and no number of a fill word be given to another. A cluster's table page comes with its first
entry and goes with its last, whatever size of request brought them, and if the kernel refuses
to take it back it is in nobody's way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.audit import audit
from model.device import ModelDevice
from model.effort import effort
from model.memory import data_pages
from model.pages import filled, mixed, noise, text, zero
from model.stores import DEFAULT_SLOTS, make_store, pages_in, state_of

from vswap.errors import FullError
from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE
from vswap.store import Lane, Policy, Selection, Store, appender, plan
from vswap.store.appender import Appender
from vswap.store.log import Log
from vswap.store.region import Region
from vswap.store.table import SwapTable
from vswap.store.words import FillWords
from vswap.store.writer import Writer

SMALL_SEGMENT = 80 << 10
"""What is taken for a segment's size, so that segments are taken and freed all the time."""

_MOST_CALLS = 500


@dataclass(frozen=True)
class Failure:
    """A call that fails, and how."""

    owner: type
    name: str
    error: type[Exception]

    @contextmanager
    def after(self, calls: int) -> Iterator[None]:
        """So many calls are made, and all that come after them fail."""
        method = getattr(self.owner, self.name)
        seen = 0

        def fail(*args: object, **named: object) -> object:
            nonlocal seen
            seen += 1
            if seen <= calls:
                return method(*args, **named)
            if seen > _MOST_CALLS:
                pytest.fail(f"{self.name} is called again and again, and does not succeed")
            raise self.error("not now")

        with patch.object(self.owner, self.name, fail):
            yield


STAGING = {
    "no segment is left": Failure(Log, "take", FullError),
    "a unit is not compressed": Failure(Writer, "_append", MemoryError),
    "a unit is not appended": Failure(Appender, "append", MemoryError),
    "a fill word is not taken": Failure(FillWords, "take", MemoryError),
}
"""Nothing has been changed yet when these fail."""

PUBLISHING = {
    "a cluster's entries are not exchanged": Failure(SwapTable, "exchange", MemoryError),
    "a table page is not given back": Failure(Region, "punch", OSError),
}
"""Some of the request's clusters may be done, and others not."""


@dataclass(frozen=True)
class Request:
    """A write or a discard of whole pages, mostly around a cluster's end."""

    kind: str
    slot: int
    pages: bytes

    def execute(self, lane: Lane | ModelDevice) -> None:
        offset, size = self.slot * PAGE_SIZE, len(self.pages)
        if self.kind == "discard":
            lane.discard(offset, size)
        elif isinstance(lane, Lane):
            lane.write(offset, memoryview(self.pages))
        else:
            lane.write(offset, self.pages)


MAKERS: dict[str, Callable[[int, int], bytes]] = {
    "text": text,
    "noise": noise,
    "mixed": mixed,
    "filled": filled,
    "zero": lambda count, _: zero(count),
    "discard": lambda count, _: zero(count),
}

requests = st.builds(
    lambda kind, slot, count, seed: Request(kind, slot, MAKERS[kind](count, seed)),
    st.sampled_from(sorted(MAKERS)),
    st.integers(CLUSTER_SLOTS - 30, CLUSTER_SLOTS + 10) | st.just(0),
    st.integers(1, 3) | st.integers(1, 60),
    st.integers(0, 6),
)


@contextmanager
def a_store() -> Iterator[Store]:
    with (
        patch.object(appender, "SEGMENT_SIZE", SMALL_SEGMENT),
        patch.object(plan, "SEGMENT_SIZE", SMALL_SEGMENT),
    ):
        store = make_store(Policy("lz4", 4, reserve=0))
        try:
            yield store
        finally:
            state_of(store).close()


def nothing_is_lost(store: Store) -> None:
    """What stands in the store can all be freed, and then nothing is left of it."""
    lane = store._lanes[0]
    for cluster in range(store.geometry.clusters):
        lane.write(cluster * CLUSTER_SLOTS * PAGE_SIZE, memoryview(text()))
    lane.discard(0, lane.size)
    assert audit(store) == []
    assert data_pages(state_of(store).table) == set()
    log = store._log.statistics()
    assert (log.pages_live, log.segments_sealed, log.segments_open) == (0, 0, len(store._lanes))


def fail_in(failure: Failure, before: list[Request], request: Request, step: int) -> None:
    """Execute `request`, with a step of it failing, and then once more."""
    with a_store() as store:
        lane, model = store.lane(), ModelDevice(DEFAULT_SLOTS)
        for one in before:
            one.execute(lane)
            one.execute(model)
        was = dict(model.pages)
        request.execute(model)
        failed = False
        with failure.after(step):
            try:
                request.execute(lane)
            except failure.error:
                failed = True
        found = pages_in(store)
        if not failed:
            assert found == model.pages
        for slot in found.keys() | was.keys() | model.pages.keys():
            assert found.get(slot) in (was.get(slot), model.pages.get(slot))
        # A page that could not be given back is no hole, and does no harm.
        kept = failure.owner is Region
        assert [one for one in audit(store) if not (kept and one.startswith("TABLE-HOLE"))] == []
        request.execute(lane)
        assert pages_in(store) == model.pages
        nothing_is_lost(store)


@pytest.mark.parametrize("what", STAGING)
@effort(40)
@given(before=st.lists(requests, max_size=4), request=requests, step=st.integers(0, 8))
def test_nothing_is_lost_when_staging_fails(
    what: str, before: list[Request], request: Request, step: int
) -> None:
    """STAGED-FIRST, LOG-LIVE and FILL-COUNT: what had been staged is withdrawn."""
    fail_in(STAGING[what], before, request, step)


@pytest.mark.parametrize("what", PUBLISHING)
@effort(40)
@given(before=st.lists(requests, max_size=4), request=requests, step=st.integers(0, 2))
def test_nothing_is_lost_when_publishing_fails(
    what: str, before: list[Request], request: Request, step: int
) -> None:
    """LOG-LIVE, FILL-COUNT and TABLE-COUNT: so is what the failed clusters were to hold."""
    fail_in(PUBLISHING[what], before, request, step)


def test_a_table_page_that_is_not_given_back_keeps_nothing_else() -> None:
    """LOG-LIVE and FILL-COUNT: the request's other clusters are published, or withdrawn."""
    before = [Request("write", CLUSTER_SLOTS - 4, text(8))]
    for rest in (noise(4), filled(4)):
        request = Request("write", CLUSTER_SLOTS - 4, zero(4) + rest)
        fail_in(PUBLISHING["a table page is not given back"], before, request, 0)


WORKS: dict[str, Callable[[Store], object]] = {
    "compact": Store.compact,
    "recompress": lambda store: store.recompress(Selection()),
    "recompress some": lambda store: store.recompress(Selection(), 30),
    "step": lambda store: [store.step() for _ in range(10)],
}

MOVING = {
    "no segment is left": Failure(Log, "take", FullError),
    "a unit is not appended": Failure(Appender, "append", MemoryError),
    "a unit is not copied": Failure(Appender, "copy", MemoryError),
}


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("what", MOVING)
@effort(15)
@given(before=st.lists(requests, min_size=3, max_size=10), step=st.integers(0, 6))
def test_no_page_is_lost_when_upkeep_fails(
    work: str, what: str, before: list[Request], step: int
) -> None:
    """MOVE-SAME and LOG-PLACE: and it comes to an end."""
    failure = MOVING[what]
    with a_store() as store:
        lane, model = store.lane(), ModelDevice(DEFAULT_SLOTS)
        for one in before:
            one.execute(lane)
            one.execute(model)
        with failure.after(step):
            try:
                WORKS[work](store)
            except MemoryError:
                assert failure.error is MemoryError
        assert pages_in(store) == model.pages
        assert audit(store) == []
        WORKS[work](store)
        store.compact()
        assert pages_in(store) == model.pages
        assert audit(store) == []
