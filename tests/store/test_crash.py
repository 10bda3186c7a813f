"""What a worker that is killed leaves to the next, at every step of a request.

The next worker executes the request again (docs/concurrency.md, "What a crash leaves"). Here a
kill is an exception that nothing catches, thrown before each of the calls that change the
state in turn. What is derived (counts, lists) is not looked at: the next worker makes it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest
from model.device import ModelDevice
from model.pages import mixed, noise, text, zero
from model.stores import DEFAULT_SLOTS, content, make_store, state_of

from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE
from vswap.store import Lane, Policy
from vswap.store.appender import Appender
from vswap.store.log import Log
from vswap.store.region import Region
from vswap.store.table import SwapTable
from vswap.store.zeromap import Zeromap

STEPS = (
    (Appender, "append"),
    (Appender, "settle"),
    (SwapTable, "exchange"),
    (Zeromap, "clear"),
    (Zeromap, "set"),
    (Log, "drop"),
    (Region, "punch"),
)
"""The calls that change what a crash leaves."""

BASE = CLUSTER_SLOTS - 8
"""Where the requests go: around a cluster's end."""

BEFORE = text(4) + zero(2) + noise(6) + text(4, seed=1)
"""What was there: 16 pages, with a cluster's end in their middle."""


class KilledError(BaseException):
    """The worker is gone."""


@contextmanager
def killed_before(step: int) -> Iterator[list[str]]:
    """Throw `KilledError` instead of the call number `step`; answers the calls made."""
    made: list[str] = []

    def guarded(method: Callable[..., object], name: str) -> Callable[..., object]:
        def call(*args: object) -> object:
            if len(made) == step:
                raise KilledError
            made.append(name)
            return method(*args)

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
    "a part of a page": write(100, b"part"),
    "a part of a zero page": write(4 * PAGE_SIZE + 100, b"part"),
    "the last byte of one page to the first of another": write(7 * PAGE_SIZE - 1, bytes(2)),
    "pages and parts of pages": write(100, noise(9, 6)),
    "a discard of pages": discard(PAGE_SIZE, 12 * PAGE_SIZE),
    "a discard of everything": discard(0, 16 * PAGE_SIZE),
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


def test_kills_come_before_every_step(lane: Lane) -> None:
    """Of requests that do all there is to do."""
    lane.write(BASE * PAGE_SIZE, memoryview(BEFORE))
    with killed_before(-1) as made:
        lane.write(BASE * PAGE_SIZE, memoryview(mixed(16, 3)))
        lane.discard(0, lane.size)
    assert {name for _, name in STEPS} == set(made)
