"""The write path: what is called between the units of one write."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest
from model.audit import audit
from model.moves import places, put_on_disk
from model.pages import filled, noise, text, zero
from model.stores import content
from model.threads import before_each

from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE
from vswap.store import Lane, Store
from vswap.store.appender import Appender
from vswap.store.locks import STRIPES


def put(lane: Lane, slot: int, data: bytes) -> None:
    lane.write(slot * PAGE_SIZE, memoryview(data))


class Between:
    """A lane of a store, and what happens between the units of its writes."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[str] = []
        self.lane = store.lane(between=lambda: self.steps.append("between"))
        before_each(monkeypatch, Appender, "append", lambda *_: self.steps.append("unit"))


@pytest.fixture
def between(store: Store, monkeypatch: pytest.MonkeyPatch) -> Between:
    """Units are of 4 pages."""
    return Between(store, monkeypatch)


@pytest.mark.parametrize(
    ("slot", "pages", "units", "times"),
    [
        *((0, 2, 1, 0), (0, 16, 4, 0), (0, 20, 5, 1), (2, 18, 5, 1), (0, 32, 8, 4)),
        *((CLUSTER_SLOTS - 4, 32, 8, 4), (0, 256, 64, 60)),
    ],
)
def test_something_may_be_done_between_units_while_16_pages_are_left(
    between: Between, slot: int, pages: int, units: int, times: int
) -> None:
    put(between.lane, slot, text(pages))
    assert between.steps == ["unit", "between"] * times + ["unit"] * (units - times)


def test_a_page_alone_is_done_at_once(between: Between) -> None:
    """Or a part of one."""
    put(between.lane, 0, text())
    between.lane.write(100, memoryview(b"a part of a page"))
    assert between.steps == ["unit", "unit"]


def test_between_units_no_lock_is_held(store: Store) -> None:
    """Each can be taken then, by the same thread."""
    times = 0

    def take_each() -> None:
        nonlocal times
        times += 1
        parts = store._parts
        cluster_locks = [parts.locks[cluster] for cluster in range(STRIPES)]
        for lock in (*cluster_locks, parts.log._lock, parts.words._lock, store._lanes_lock):
            assert lock.acquire(blocking=False)
            lock.release()

    lane = store.lane(between=take_each)
    for data in (text(64), noise(64), zero(16) + text(16)):
        put(lane, CLUSTER_SLOTS - 32, data)
    assert times >= 12 + 12 + 1


def test_between_units_another_lane_is_served(store: Store) -> None:
    """What a write is to put is not there until all of it is; what others write there goes."""
    other = store.lane()
    before, after = noise(32), text(32)
    found = []

    def serve() -> None:
        found.append(content(other, 0, 32 * PAGE_SIZE) == before)
        put(other, 100 + len(found), noise(1, len(found)))
        put(other, 3, before[3 * PAGE_SIZE : 4 * PAGE_SIZE])

    lane = store.lane(between=serve)
    put(other, 0, before)
    put(lane, 0, after)
    assert found == [True] * 4
    assert content(other, 0, 32 * PAGE_SIZE) == after
    for number in range(1, 5):
        assert content(other, (100 + number) * PAGE_SIZE, PAGE_SIZE) == noise(1, number)


def test_a_failure_between_units_leaves_what_was_there(store: Store) -> None:
    """As any other in a write does: the store is as it was."""
    times = 0

    def fail_late() -> None:
        nonlocal times
        times += 1
        if times == 3:
            raise ZeroDivisionError

    lane = store.lane(between=fail_late)
    put(store.lane(), 0, noise(32))
    with pytest.raises(ZeroDivisionError):
        put(lane, 0, text(32))
    assert content(lane, 0, 32 * PAGE_SIZE) == noise(32)
    put(lane, 0, text(32, 1))
    assert content(lane, 0, 32 * PAGE_SIZE) == text(32, 1)


# --- Over what is on disk ---------------------------------------------------------------


OVER: dict[str, Callable[[int], bytes]] = {
    "m": lambda seed: noise(1, 100 + seed),
    "w": lambda seed: filled(1, seed % 3),
    ".": lambda _: zero(),
}
"""A page that comes to be in memory, a fill word, and a zero page."""


@pytest.mark.parametrize(
    "come", ["m", "w", ".", "mmmm", "wwww", "....", "mw.m", ".wmw", "wm" * 8, "....wwwwmmmm" * 4]
)
@pytest.mark.parametrize("slot", [0, 3])
def test_what_is_written_over_pages_on_disk_is_there_and_they_are_dead(
    store: Store, lane: Lane, come: str, slot: int
) -> None:
    """DISK-LIVE: counted by the fill words, by memory's log and by the disk's, each its own."""
    before = b"".join(noise(1, seed) for seed in range(64))
    put_on_disk(store, lane, 0, before)
    assert places(store, 0, 64) == "d" * 64
    data = b"".join(OVER[one](at) for at, one in enumerate(come))
    put(lane, slot, data)
    count = len(come)
    assert places(store, 0, 64) == "d" * slot + come + "d" * (64 - slot - count)
    statistics = store.statistics()
    assert statistics.backing_pages == 64 - count
    assert statistics.stored_pages == come.count("m")
    assert (statistics.fill_pages, statistics.zero_pages) == (come.count("w"), come.count("."))
    right = before[: slot * PAGE_SIZE] + data + before[(slot + count) * PAGE_SIZE :]
    assert content(lane, 0, 64 * PAGE_SIZE) == right
    assert audit(store) == []


def test_a_write_over_pages_of_every_sort_buries_each_where_it_was(
    store: Store, lane: Lane
) -> None:
    """In one cluster and with one call: on disk, in memory, of one word, of zeros, empty."""
    put_on_disk(store, lane, 0, noise(8))
    put(lane, 2, filled(2) + text(2) + zero())
    lane.discard(7 * PAGE_SIZE, PAGE_SIZE)
    assert places(store, 0, 8) == "ddwwmm.."
    put(lane, 0, text(3, seed=1) + filled(2, seed=1) + zero() + text(2, seed=2))
    assert places(store, 0, 8) == "mmmww.mm"
    statistics = store.statistics()
    assert (statistics.backing_pages, statistics.stored_pages) == (0, 5)
    assert (statistics.fill_pages, statistics.zero_pages) == (2, 1)
    assert audit(store) == []


def test_the_last_page_that_is_written_over_frees_its_disk_segment(
    store: Store, lane: Lane
) -> None:
    """DISK-REUSE"""
    put_on_disk(store, lane, 0, noise(8))
    put_on_disk(store, lane, 8, noise(8, 1))
    free = store.statistics().backing_segments_free
    put(lane, 0, noise(7, 2))
    assert store.statistics().backing_segments_free == free
    put(lane, 7, filled())
    assert store.statistics().backing_segments_free == free + 1
    assert places(store, 0, 16) == "mmmmmmmwdddddddd"


def test_a_part_of_a_page_on_disk_is_written_and_the_rest_of_it_stays(
    store: Store, lane: Lane
) -> None:
    put_on_disk(store, lane, 0, noise(4))
    lane.write(PAGE_SIZE + 100, memoryview(b"a part of a page"))
    lane.discard(2 * PAGE_SIZE + 200, 50)
    assert places(store, 0, 4) == "dmmd"
    right = bytearray(noise(4))
    right[PAGE_SIZE + 100 : PAGE_SIZE + 116] = b"a part of a page"
    right[2 * PAGE_SIZE + 200 : 2 * PAGE_SIZE + 250] = bytes(50)
    assert content(lane, 0, 4 * PAGE_SIZE) == right


def test_a_write_that_fails_leaves_pages_on_disk_where_they_are(
    store: Store, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DISK-LIVE: what it had staged is abandoned, and nothing else has died."""

    def fail(*_: object) -> NoReturn:
        raise MemoryError

    put_on_disk(store, lane, 0, noise(8))
    before = store.statistics()
    with monkeypatch.context() as patches:
        patches.setattr(store._parts.table, "exchange", fail)
        with pytest.raises(MemoryError):
            put(lane, 0, text(4) + filled(2) + zero(2))
    after = store.statistics()
    assert places(store, 0, 8) == "d" * 8
    assert (after.backing_pages, after.stored_pages, after.same_pages) == (8, 0, 0)
    assert after.backing_dead_bytes == before.backing_dead_bytes
    assert content(lane, 0, 8 * PAGE_SIZE) == noise(8)
