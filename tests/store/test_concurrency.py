"""Threads: what the locks promise, looked at under them.

They hold the rules of docs/concurrency.md one by one, without chance. test_load.py lets threads
race.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from model.moves import victim_of
from model.pages import mixed, noise, text, zero
from model.stores import DEFAULT_SLOTS, StoreMaker, content
from model.threads import before_each, run_threads

from vswap.errors import NoDataError
from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE
from vswap.store import Lane, Selection, Store, appender
from vswap.store.cache import FrontCache
from vswap.store.decoder import Decoder
from vswap.store.log import Log
from vswap.store.table import SwapTable
from vswap.store.zeromap import Zeromap

SIZE = DEFAULT_SLOTS * PAGE_SIZE
Method = Callable[..., Any]


def put(lane: Lane, slot: int, data: bytes) -> None:
    lane.write(slot * PAGE_SIZE, memoryview(data))


def everything(store: Store) -> None:
    """Requests and commands that go every way there is through the store."""
    lane = store.lane()
    end = CLUSTER_SLOTS * PAGE_SIZE
    for data in (text(40), mixed(600, 1)):
        put(lane, CLUSTER_SLOTS - 20, data)
    for slot in range(0, 900, 3):
        put(lane, slot, noise(1, slot))
    store.presence(0, DEFAULT_SLOTS)
    store.mark_idle()
    for down in (False, True):
        for segment in store._log.sealed().segments.tolist():
            assert sum(store._upkeep.jobs.cleaner.clean(victim_of(store, segment), down)) > 0
    put(lane, 0, text(40, seed=1))
    assert store.recompress(Selection()) > 0
    store.compact()
    store.step()
    assert store.check().problems == ()
    put(lane, CLUSTER_SLOTS - 20, zero(600))
    put(lane, 0, text())
    put(lane, 1, zero())
    lane.write(end - 100, memoryview(noise())[:200])
    for offset, size in ((0, PAGE_SIZE), (100, 200), (end - PAGE_SIZE, 9 * PAGE_SIZE), (0, SIZE)):
        lane.read(offset, size)
    for slot in range(0, 40, 8):
        lane.read(slot * PAGE_SIZE, 8 * PAGE_SIZE)
        while lane.read_ahead():
            pass
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        lane.seek(0, whence)
    lane.discard(100, 3 * PAGE_SIZE)
    lane.discard(0, SIZE)


# --- What is done under which lock ------------------------------------------------------


BY_RANGE = [
    (SwapTable, "entries"),
    (SwapTable, "exchange"),
    (SwapTable, "empty"),
    (Zeromap, "set"),
    (Zeromap, "clear"),
    (FrontCache, "presence"),
]


@pytest.mark.parametrize(
    ("owner", "name"), BY_RANGE, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_range_is_touched_under_its_clusters_lock(
    store: Store, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    """ONE-STATE and STABLE-PRESENCE: and it never spans clusters."""
    seen = []

    def check(slot: int, what: int | list[int], *_: int) -> None:
        seen.append(slot)
        count = what if isinstance(what, int) else len(what)
        assert slot // CLUSTER_SLOTS == (slot + count - 1) // CLUSTER_SLOTS
        assert store._parts.locks[slot // CLUSTER_SLOTS].locked()

    before_each(monkeypatch, owner, name, check)
    everything(store)
    assert seen


@pytest.mark.parametrize("name", ["get", "replace"])
def test_an_entry_is_looked_up_and_replaced_under_its_clusters_lock(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """ONE-STATE and MOVE-SAME"""
    seen = []

    def check(slot: int, *_: int) -> None:
        seen.append(slot)
        assert store._parts.locks[slot // CLUSTER_SLOTS].locked()

    before_each(monkeypatch, SwapTable, name, check)
    everything(store)
    assert seen


@pytest.mark.parametrize("name", ["release", "page", "mark"])
def test_a_table_page_is_handled_under_its_clusters_lock(
    store: Store, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """TABLE-HOLE: nobody may publish into a page that is being punched, or copied, or marked."""
    seen = []

    def check(cluster: int, *_: object) -> None:
        seen.append(cluster)
        assert store._parts.locks[cluster].locked()

    before_each(monkeypatch, SwapTable, name, check)
    everything(store)
    assert seen


def test_a_unit_is_decoded_under_its_clusters_lock(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LOG-REUSE and MOVE-READ: so that it cannot die, nor its segment be freed, meanwhile."""
    seen = []

    def check(_entry: int, slot: int, *_keep: bool) -> None:
        seen.append(slot)
        assert store._parts.locks[slot // CLUSTER_SLOTS].locked()

    before_each(monkeypatch, Decoder, "unit", check)
    everything(store)
    assert seen


def test_a_unit_is_complete_before_an_entry_names_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LOG-LIVE: complete in memory, and counted, or a crash or a free would lose it."""
    lane = store.lane()
    decoder = lane._reader._decoder
    seen = []

    def check(slot: int, entries: list[int]) -> None:
        for at, entry in enumerate(entries, slot):
            seen.append(at)
            assert decoder.unit(entry, at)[1] == 4
        assert store._parts.log.ledger.pages[lane._writer._appender._segment] >= len(entries)

    before_each(monkeypatch, SwapTable, "exchange", check)
    for slot in range(0, 64, 16):
        put(lane, slot, text(16, seed=slot))
    assert len(seen) == 64


def test_a_write_stages_all_its_units_before_it_frees_anything(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """STAGED-FIRST"""
    lane = store.lane()
    put(lane, CLUSTER_SLOTS - 8, text(16))
    steps: list[str] = []
    for owner, name in (
        (appender.Appender, "append"),
        (SwapTable, "exchange"),
        (Log, "publish"),
    ):
        before_each(monkeypatch, owner, name, lambda *_, step=name: steps.append(step))
    put(lane, CLUSTER_SLOTS - 8, noise(16))
    each_cluster = ["exchange", "publish"]
    assert steps == ["append"] * 4 + each_cluster * 2


def test_clusters_are_freed_one_lock_at_a_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread holds two cluster locks: stripes make any order of two a deadlock."""
    held = []

    def check(*_: int) -> None:
        held.append(sum(lock.locked() for lock in store._parts.locks._locks))

    for owner, name in BY_RANGE:
        before_each(monkeypatch, owner, name, check)
    everything(store)
    assert set(held) == {1}


def test_clusters_that_share_a_stripe_are_no_danger(make: StoreMaker) -> None:
    """256 clusters apart: a request over both takes the one lock twice, one after the other."""
    slots = 257 * CLUSTER_SLOTS
    lane = make(slots=slots, segments=4).lane()
    put(lane, 0, text())
    put(lane, slots - 1, text(seed=1))
    lane.discard(0, slots * PAGE_SIZE)
    run_threads([lambda: lane.read(0, slots * PAGE_SIZE)], timeout=20)


def test_a_reader_keeps_a_writer_of_its_slot_waiting(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LOG-REUSE: what it reads is not freed before it has been read, however long that takes."""
    reading, writing = store.lane(), store.lane()
    put(writing, 0, noise())
    freed_while_reading = []
    decoding = threading.Event()
    staged = threading.Event()
    unit = Decoder.unit

    def slow_unit(self: Decoder, entry: int, slot: int, keep: bool = False) -> object:
        decoding.set()
        assert staged.wait(20)
        freed_while_reading.append(store._parts.table.get(0) != entry)
        return unit(self, entry, slot, keep)

    def write() -> None:
        assert decoding.wait(20)
        put(writing, 0, noise(seed=1))

    monkeypatch.setattr(Decoder, "unit", slow_unit)
    before_each(monkeypatch, appender.Appender, "settle", staged.set)
    found: list[bytes] = []
    run_threads([lambda: found.append(content(reading, 0, PAGE_SIZE)), write])
    assert freed_while_reading == [False]
    assert found == [noise()]


def test_a_seek_finds_data_that_is_being_overwritten(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONE-STATE: the slot holds data before and after, so there is no time when it does not."""
    writing, seeking = store.lane(), store.lane()
    put(writing, 0, text())
    found: list[str] = []
    exchange = SwapTable.exchange

    def seek() -> None:
        try:
            found.append(str(seeking.seek(0, os.SEEK_DATA)))
        except NoDataError:
            found.append("no data")

    seeker = threading.Thread(target=seek, daemon=True)

    def overtaken(self: SwapTable, slot: int, entries: list[int]) -> list[int]:
        """A seek in the midst of the overwrite: it answers now, or waits for the lock."""
        seeker.start()
        seeker.join(0.2)
        return exchange(self, slot, entries)

    monkeypatch.setattr(SwapTable, "exchange", overtaken)
    put(writing, 0, noise())
    seeker.join(20)
    assert found == ["0"]
