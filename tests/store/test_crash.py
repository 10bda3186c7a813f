"""What a worker that is killed leaves to the next, at every step of a request.

The next worker derives its books from the memory and executes the request again
(docs/concurrency.md, "What a crash leaves"). It is killed as `model.kills` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from model.audit import audit
from model.device import ModelDevice
from model.kills import STEPS, Kill, killed_before
from model.moves import victim_of
from model.pages import filled, mixed, noise, text, zero
from model.stores import DEFAULT_SLOTS, content, limit_of, make_store, pages_in, state_of

from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE
from vswap.store import Lane, Policy, Selection, Store, appender, derive, plan
from vswap.store.places import KEPT
from vswap.store.unit import MAX_UNIT_SIZE

BASE = CLUSTER_SLOTS - 8
"""Where the requests go: around a cluster's end."""

BEFORE = text(4) + zero() + filled() + noise(6) + text(2, seed=1) + filled(2)
"""What was there: 16 pages, with a cluster's end in their middle."""


Request = Callable[[Lane | ModelDevice], object]


def write(offset: int, data: bytes) -> Request:
    """A write at `offset` from the first page of BASE on."""
    at = BASE * PAGE_SIZE + offset
    return lambda to: to.write(at, memoryview(data) if isinstance(to, Lane) else data)  # type: ignore[arg-type]


def discard(offset: int, size: int) -> Request:
    """A discard, likewise."""
    return lambda to: to.discard(BASE * PAGE_SIZE + offset, size)


REQUESTS = {
    "a page": write(PAGE_SIZE, noise(1, 5)),
    "a page of zeros": write(PAGE_SIZE, zero()),
    "pages over a cluster's end": write(0, mixed(16, 3)),
    "zeros over a cluster's end": write(0, zero(16)),
    "a page of one word": write(PAGE_SIZE, filled(1, 1)),
    "pages of one word over a cluster's end": write(0, filled(16, 2)),
    "the same word again, and others": write(4 * PAGE_SIZE, filled(2) + filled(2, 3) + text(2)),
    "zeros and a word in each other's place": write(4 * PAGE_SIZE, filled() + zero()),
    "a part of a page of one word": write(5 * PAGE_SIZE + 100, b"part"),
    "a part of a page": write(100, b"part"),
    "a part of a zero page": write(4 * PAGE_SIZE + 100, b"part"),
    "the last byte of one page to the first of another": write(7 * PAGE_SIZE - 1, bytes(2)),
    "pages and parts of pages": write(100, noise(9, 6)),
    "a discard of pages": discard(PAGE_SIZE, 12 * PAGE_SIZE),
    "a discard of everything": discard(0, 16 * PAGE_SIZE),
    "a discard of many pages": discard(-40 * PAGE_SIZE, 80 * PAGE_SIZE),
    "a discard of a part of a page": discard(100, 200),
    "a discard of pages and parts of pages": discard(100, 9 * PAGE_SIZE),
}


def successor_of(kill: Kill, store: Store) -> Store:
    """The store of the next worker, which must find nothing to be wrong."""
    assert kill.left is not None
    return Store(kill.left, store._policy)


_GOES_ON = 3
"""After every so many kills the next worker is put to work, which takes as long as all the rest."""


def goes_on(store: Store, model: ModelDevice) -> list[str]:
    """What is wrong when a store that was taken over is written to, in and out of the way."""
    lane = store._lanes[0]
    for at, data in ((0, mixed(9, 30)), (BASE, text(12, seed=31)), (BASE + 40, noise(30, 32))):
        lane.write(at * PAGE_SIZE, memoryview(data))
        model.write(at * PAGE_SIZE, data)
    lane.discard((BASE + 5) * PAGE_SIZE, 20 * PAGE_SIZE)
    model.discard((BASE + 5) * PAGE_SIZE, 20 * PAGE_SIZE)
    store.compact()
    wrong = audit(store)
    if content(lane, 0, lane.size) != model.read(0, model.size):
        wrong.append("a page is lost by what was done after")
    return wrong


def odd_pages(found: bytes, before: bytes, after: bytes) -> list[int]:
    """The slots that hold neither what they did nor what they should, nor zeros on the way."""
    odd = []
    for slot in range(DEFAULT_SLOTS):
        page = slice(slot * PAGE_SIZE, (slot + 1) * PAGE_SIZE)
        allowed = (before[page], after[page], zero())
        if found[page] not in allowed or before[page] == after[page] != found[page]:
            odd.append(slot)
    return odd


def kill_at(step: int, request: Request) -> list[str] | None:
    """Kill a worker there; what is wrong with what it left. None if there is no such step."""
    store = make_store(Policy(reserve=0))
    successor = None
    try:
        model = ModelDevice(DEFAULT_SLOTS)
        model.write(BASE * PAGE_SIZE, BEFORE)
        store.lane().write(BASE * PAGE_SIZE, memoryview(BEFORE))
        lane = store.lane()
        with killed_before(step, store) as kill:
            request(lane)
        if kill.left is None:
            return None
        successor = successor_of(kill, store)
        lane = successor.lane()
        wrong = audit(successor)
        before = model.read(0, model.size)
        request(model)
        after = model.read(0, model.size)
        wrong += [f"slot {slot}" for slot in odd_pages(content(lane, 0, lane.size), before, after)]
        request(lane)
        if content(lane, 0, lane.size) != after:
            wrong.append("it has another outcome when it is executed again")
        return wrong + (audit(successor) if step % _GOES_ON else goes_on(successor, model))
    finally:
        state_of(store).close()
        if successor is not None:
            state_of(successor).close()


@pytest.mark.parametrize("request_name", REQUESTS)
def test_a_request_can_be_executed_again(request_name: str) -> None:
    """Wherever it was cut off, the next worker's books are right, and no other page is touched.

    Every byte that the request is about is as it was, as it shall be, or zero. The second time has
    the outcome of the first.
    """
    request = REQUESTS[request_name]
    step, wrong = 0, {}
    while (found := kill_at(step, request)) is not None:
        if found:
            wrong[step] = found
        step += 1
    assert step > 1
    assert wrong == {}


# --- Upkeep -----------------------------------------------------------------------------

SMALL_SEGMENT = 80 << 10
"""What is taken for a segment's size here, so that a few pages fill one."""

WORN = text(24) + noise(8) + filled(4) + text(28, seed=2) + zero(2) + mixed(14, 7)
"""What is worn: 80 pages, of units of four."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (appender, plan, derive):
        monkeypatch.setattr(module, "SEGMENT_SIZE", SMALL_SEGMENT)
    monkeypatch.setattr(derive, "LEAST_TAIL", MAX_UNIT_SIZE)


def wear(lane: Lane | ModelDevice) -> None:
    """Units with dead pages at their begin, their end and in their middle, and whole ones."""
    write(0, WORN)(lane)
    for page in (0, 3, 5, 10, 26, 37, 38, 42, 45, 50):
        write(page * PAGE_SIZE, text(1, seed=page))(lane)


Work = Callable[[Store], object]


def each_sealed(store: Store, down: bool) -> None:
    """Clean the segments that are sealed."""
    cleaner = store._upkeep.jobs.cleaner
    for segment in store._log.sealed().segments.tolist():
        for _ in cleaner.clean(victim_of(store, segment), down):
            pass


def move_down(store: Store) -> None:
    for _ in store._upkeep.jobs.mover.sweep(Selection(), 0.0):
        pass


def grow_old_and_step(store: Store) -> None:
    """The background, as long as it has something to do, on a machine that is quiet."""
    store._upkeep._busy, store._upkeep._seen = False, (0, math.inf)
    store._log.born -= 100.0
    while store.step() == 0:
        pass


WORKS: dict[str, Work] = {
    "cleaning": lambda store: each_sealed(store, down=False),
    "cleaning by way of the cold codec": lambda store: each_sealed(store, down=True),
    "moving down": move_down,
    "marking what stays as it is": lambda store: store.recompress(Selection(huge=True)),
    "compact": lambda store: store.compact(),
    "recompress": lambda store: store.recompress(Selection()),
    "the background": grow_old_and_step,
    "mark_idle": lambda store: store.mark_idle(),
    "reading": lambda store: content(store._lanes[0], 0, store.geometry.size),
}


def kill_work_at(step: int, work: Work) -> tuple[bool, list[str]]:
    """Kill a worker there; whether it had such a step, and what is wrong with what is left."""
    store = make_store(Policy("lz4", reserve=0))
    successor = store
    try:
        model = ModelDevice(DEFAULT_SLOTS)
        wear(model)
        wear(store.lane())
        with killed_before(step, store) as kill:
            work(store)
        if kill.left is not None:
            successor = successor_of(kill, store)
            successor.lane()
        wrong = audit(successor)
        if pages_in(successor) != model.pages:
            wrong.append("a page is lost")
        if kill.left is None or not step % _GOES_ON:
            work(successor)
            wrong += goes_on(successor, model)
        return kill.left is not None, wrong
    finally:
        state_of(store).close()
        if successor is not store:
            state_of(successor).close()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", WORKS)
def test_upkeep_that_is_cut_off_anywhere_has_changed_no_page(name: str) -> None:
    """MOVE-SAME: at any instant a slot names a whole unit that holds its page."""
    step, killed, lost = 0, True, {}
    while killed:
        killed, wrong = kill_work_at(step, WORKS[name])
        if wrong:
            lost[step] = wrong
        step += 1
    assert step > 2
    assert lost == {}


def kill_write_at(step: int) -> tuple[bool, dict[int, bytes], dict[int, bytes]]:
    """Kill a worker that writes to a full store; if it was, what there is, and what was before.

    The next one is still as full, and has its lanes all the same.
    """
    store = make_store(Policy("stored", 1, limit_of(5 + KEPT), reserve=0))
    successor = None
    try:
        lane = store.lane()
        slots = 5 * (SMALL_SEGMENT // 4108)
        for slot in range(slots):
            lane.write(slot * PAGE_SIZE, memoryview(noise(1, slot)))
        for slot in range(slots):
            if slot % 8:
                lane.discard(slot * PAGE_SIZE, PAGE_SIZE)
        with killed_before(step, store) as kill:
            lane.write(slots * PAGE_SIZE, memoryview(noise(1, slots)))
        before = {slot: noise(1, slot) for slot in range(0, slots, 8)}
        if kill.left is None:
            return False, pages_in(store), before
        successor = successor_of(kill, store)
        lanes = [successor.lane() for _ in range(3)]
        assert audit(successor, lowered=True) == []
        found = pages_in(successor)
        for lane in lanes:
            lane.write(slots * PAGE_SIZE, memoryview(noise(1, slots)))
        assert pages_in(successor) == {**before, slots: noise(1, slots)}
        assert audit(successor, lowered=True) == []
        return True, found, before
    finally:
        state_of(store).close()
        if successor is not None:
            state_of(successor).close()


@pytest.mark.usefixtures("small")
def test_a_write_that_cleans_to_make_room_is_cut_off_anywhere() -> None:
    """MOVE-SAME: what it writes is there or not, and everything else as it was."""
    step, killed, odd = 0, True, []
    while killed:
        killed, found, before = kill_write_at(step)
        new = found.keys() - before.keys()
        if {slot: found[slot] for slot in found.keys() - new} != before or len(new) > 1:
            odd.append(step)
        step += 1
    assert (len(new), step > 20) == (1, True)
    assert odd == []


@pytest.mark.usefixtures("small")
def test_kills_come_before_every_step() -> None:
    """Of requests and of upkeep that do all there is to do."""
    store = make_store(Policy("lz4", reserve=0))
    try:
        lane = store.lane()
        with killed_before(-1, store) as kill:
            wear(lane)
            for work in WORKS.values():
                work(store)
            lane.discard(0, lane.size)
        assert {name for _, name in STEPS} < set(kill.made)
    finally:
        state_of(store).close()
