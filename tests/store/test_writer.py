"""The write path: what is called between the units of one write."""

from __future__ import annotations

import pytest
from model.pages import noise, text, zero
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
