"""Run every path of a request once, before there are requests.

Under memory pressure is the wrong time to read code from a disk or to grow the heap for the
first time. What has been touched is resident, and locked if the machine allows it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from vswap.errors import FullError, RequestError
from vswap.geometry import PAGE_SIZE, Geometry
from vswap.store import Lane, Policy, Selection, Shape, State, Store, least_memory
from vswap.store.backing import MemoryBacking

__all__ = ["steps", "warm_up", "warm_up_backing"]

_SIZE = 4 << 20
_REQUEST = 1 << 20
_WORD = b"warmword"


def warm_up(policy: Policy) -> None:
    """Serve a scratch device's every kind of request, and the refusals; and keep it small."""
    for step in steps(policy):
        step()


def steps(policy: Policy) -> Iterator[Callable[[], object]]:
    """What `warm_up` does, in pieces to be called one after the other. It may be left early."""
    state, store = _scratch(policy)
    try:
        lane = store.lane()
        for data in _samples():
            yield partial(_serve, lane, data)
        yield partial(_serve_others, lane)
        yield partial(_keep_small, store, lane)
        yield partial(_fill, store, lane, least_memory(state.shape))
        yield partial(_leave, store, lane)
    finally:
        state.close()


def warm_up_backing(policy: Policy) -> None:
    """Write a scratch device's pages back, read them, and bring them home again."""
    state, store = _scratch(policy)
    lane = store.lane()
    store.backing.attach(MemoryBacking(_SIZE))
    lane.write(0, _sample())
    store.backing.write_back(Selection(huge=None, cold=None))
    for size in (_REQUEST, PAGE_SIZE, 512):
        lane.read(0, size)
    lane.write(512, _sample()[:512])
    store.check()
    store.backing.begin_detach()
    while store.backing.detaching:
        store.step()
    store.close()
    state.close()


def _scratch(policy: Policy) -> tuple[State, Store]:
    state = State.create(Shape(Geometry(_SIZE), segments=24, buffers=1, buffer_size=PAGE_SIZE))
    # The real device's limit says nothing about this one.
    return state, Store(state, replace(policy, memory_limit=None))


def _samples() -> Iterator[memoryview]:
    yield _sample()
    yield memoryview(bytes(_REQUEST))
    yield memoryview(_WORD * (_REQUEST // len(_WORD)))
    yield memoryview(os.urandom(_REQUEST))


def _serve(lane: Lane, data: memoryview) -> None:
    for size in (_REQUEST, 32 * PAGE_SIZE, 5 * PAGE_SIZE, PAGE_SIZE, 512):
        for offset in (0, _REQUEST, 3 * PAGE_SIZE):
            lane.write(offset, data[:size])
            lane.read(offset, size)
    lane.seek(0, os.SEEK_HOLE)


def _serve_others(lane: Lane) -> None:
    lane.discard(PAGE_SIZE, 3 * PAGE_SIZE)
    with suppress(RequestError):
        lane.write(_SIZE, memoryview(bytes(PAGE_SIZE)))


def _leave(store: Store, lane: Lane) -> None:
    lane.discard(0, _SIZE)
    store.maintain()
    store.statistics()


def _keep_small(store: Store, lane: Lane) -> None:
    """What the background does, and commands: moving down, cleaning, checking."""
    lane.write(0, _sample())
    store.step()
    store.mark_idle()
    for huge in (False, True):
        store.recompress(Selection(huge=huge, idle=True))
    for offset in range(0, _REQUEST, 2 * PAGE_SIZE):  # dead space, with live pages between it
        lane.discard(offset, PAGE_SIZE)
    store.compact()
    lane.read(0, _REQUEST)
    store.check()


def _fill(store: Store, lane: Lane, limit: int) -> None:
    """Write until there is no room: first a writer cleans for itself, then it is refused."""
    store.set_memory_limit(limit)
    with suppress(FullError):
        for offset in range(0, _SIZE, _REQUEST):
            lane.write(offset, memoryview(os.urandom(_REQUEST)))


def _sample() -> memoryview:
    """Something that compresses as real memory does: this package's own code."""
    text = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py")))
    return memoryview((text * (_REQUEST // len(text) + 1))[:_REQUEST])
