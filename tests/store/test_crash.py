"""What a worker that is killed leaves to the next, at every step of a request.

The next worker executes the request again (docs/concurrency.md, "What a crash leaves"). Here a
kill is an exception that nothing catches, thrown before each of the calls that change the
state in turn. What is derived (counts, lists) is not looked at: the next worker makes it anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest
from model.device import ModelDevice
from model.moves import victim_of
from model.pages import filled, mixed, noise, text, zero
from model.stores import (
    DEFAULT_SLOTS,
    content,
    limit_of,
    make_store,
    pages_in,
    state_of,
)

from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE
from vswap.store import Lane, Policy, Selection, Store, appender, plan
from vswap.store.appender import Appender
from vswap.store.log import KEPT, Log
from vswap.store.region import Region
from vswap.store.table import SwapTable
from vswap.store.words import FillWords
from vswap.store.zeromap import Zeromap

STEPS = (
    (Appender, "append"),
    (Appender, "copy"),
    (Appender, "settle"),
    (SwapTable, "exchange"),
    (SwapTable, "empty"),
    (SwapTable, "replace"),
    (SwapTable, "mark"),
    (Zeromap, "clear"),
    (Zeromap, "set"),
    (FillWords, "take"),
    (FillWords, "publish"),
    (Log, "seal"),
    (Log, "publish"),
    (Log, "mark_cold"),
    (Region, "punch"),
)
"""The calls that change what a crash leaves."""

BASE = CLUSTER_SLOTS - 8
"""Where the requests go: around a cluster's end."""

BEFORE = text(4) + zero() + filled() + noise(6) + text(2, seed=1) + filled(2)
"""What was there: 16 pages, with a cluster's end in their middle."""


class KilledError(BaseException):
    """The worker is gone."""


@contextmanager
def killed_before(step: int) -> Iterator[list[str]]:
    """Throw `KilledError` instead of the call number `step`; answers the calls made."""
    made: list[str] = []

    def guarded(method: Callable[..., object], name: str) -> Callable[..., object]:
        def call(*args: object, **named: object) -> object:
            if len(made) == step:
                raise KilledError
            made.append(name)
            return method(*args, **named)

        return call

    patches = [
        patch.object(owner, name, guarded(getattr(owner, name), name)) for owner, name in STEPS
    ]
    for one in patches:
        one.start()
    try:
        yield made
    finally:
        for one in patches:
            one.stop()


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


def kill_at(step: int, request: Request, check: Callable[[Lane, ModelDevice], None]) -> bool:
    """Kill a worker there and check what it left; False if the request has no such step."""
    store = make_store(Policy())
    try:
        model = ModelDevice(DEFAULT_SLOTS)
        model.write(BASE * PAGE_SIZE, BEFORE)
        store.lane().write(BASE * PAGE_SIZE, memoryview(BEFORE))
        try:
            with killed_before(step):
                request(store.lane())
        except KilledError:
            check(store.lane(), model)
            return True
        return False
    finally:
        state_of(store).close()


@pytest.mark.parametrize("request_name", REQUESTS)
def test_a_request_can_be_executed_again(request_name: str) -> None:
    """Wherever it was cut off, the second time has the outcome of the first."""
    request = REQUESTS[request_name]
    lost = []

    def check(lane: Lane, model: ModelDevice) -> None:
        request(lane)
        request(model)
        if content(lane, 0, lane.size) != model.read(0, lane.size):
            lost.append(step)

    step = 0
    while kill_at(step, request, check):
        step += 1
    assert step > 1
    assert lost == []


@pytest.mark.parametrize("request_name", REQUESTS)
def test_what_the_request_is_not_about_is_as_it_was(request_name: str) -> None:
    """And every byte that it is about is as it was, as it shall be, or zero."""
    request = REQUESTS[request_name]
    odd = []

    def check(lane: Lane, model: ModelDevice) -> None:
        before = model.read(0, model.size)
        request(model)
        after = model.read(0, model.size)
        found = content(lane, 0, lane.size)
        for slot in range(DEFAULT_SLOTS):
            page = slice(slot * PAGE_SIZE, (slot + 1) * PAGE_SIZE)
            if (
                found[page] not in (before[page], after[page], zero())
                or before[page] == after[page] != found[page]
            ):
                odd.append((step, slot))

    step = 0
    while kill_at(step, request, check):
        step += 1
    assert odd == []


# --- Upkeep -----------------------------------------------------------------------------

SMALL_SEGMENT = 80 << 10
"""What is taken for a segment's size here, so that a few pages fill one."""

WORN = text(24) + noise(8) + filled(4) + text(28, seed=2) + zero(2) + mixed(14, 7)
"""What is worn: 80 pages, of units of four."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (appender, plan):
        monkeypatch.setattr(module, "SEGMENT_SIZE", SMALL_SEGMENT)


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


def kill_work_at(step: int, work: Work) -> tuple[bool, bool]:
    """Kill a worker there; whether it had such a step, and whether every page is as it was."""
    store = make_store(Policy("lz4", reserve=0))
    try:
        model = ModelDevice(DEFAULT_SLOTS)
        wear(model)
        wear(store.lane())
        killed = False
        try:
            with killed_before(step):
                work(store)
        except KilledError:
            killed = True
        unchanged = pages_in(store) == model.pages
        lane = store._lanes[0]
        return killed, unchanged and content(lane, 0, lane.size) == model.read(0, model.size)
    finally:
        state_of(store).close()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", WORKS)
def test_upkeep_that_is_cut_off_anywhere_has_changed_no_page(name: str) -> None:
    """MOVE-SAME: at any instant a slot names a whole unit that holds its page."""
    step, killed, lost = 0, True, []
    while killed:
        killed, unchanged = kill_work_at(step, WORKS[name])
        if not unchanged:
            lost.append(step)
        step += 1
    assert step > 2
    assert lost == []


def kill_write_at(step: int) -> tuple[bool, dict[int, bytes], dict[int, bytes]]:
    """Kill a worker that writes to a full store; if it was, what there is, and what was before."""
    store = make_store(Policy("stored", 1, limit_of(5 + KEPT), reserve=0))
    try:
        lane = store.lane()
        slots = 5 * (SMALL_SEGMENT // 4108)
        for slot in range(slots):
            lane.write(slot * PAGE_SIZE, memoryview(noise(1, slot)))
        for slot in range(slots):
            if slot % 8:
                lane.discard(slot * PAGE_SIZE, PAGE_SIZE)
        killed = False
        try:
            with killed_before(step):
                lane.write(slots * PAGE_SIZE, memoryview(noise(1, slots)))
        except KilledError:
            killed = True
        return killed, pages_in(store), {slot: noise(1, slot) for slot in range(0, slots, 8)}
    finally:
        state_of(store).close()


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
        with killed_before(-1) as made:
            wear(lane)
            for work in WORKS.values():
                work(store)
            lane.discard(0, lane.size)
        assert {name for _, name in STEPS} == set(made)
    finally:
        state_of(store).close()
