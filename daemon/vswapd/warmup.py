"""Run every path of a request once, before there are requests.

Under memory pressure is the wrong time to read code from a disk or to grow the heap for the
first time. What has been touched is resident, and locked if the machine allows it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from vswap.errors import RequestError
from vswap.geometry import PAGE_SIZE, Geometry
from vswap.store import Policy, Shape, State, Store

__all__ = ["warm_up"]

_SIZE = 4 << 20
_REQUEST = 1 << 20


def warm_up(policy: Policy) -> None:
    """Serve a scratch device's every kind of request, and the refusals too."""
    shape = Shape(Geometry(_SIZE), segments=24, buffers=1, buffer_size=PAGE_SIZE)
    state = State.create(shape)
    store = Store(state, policy)
    lane = store.lane()
    for data in (_sample(), memoryview(bytes(_REQUEST)), memoryview(os.urandom(_REQUEST))):
        for size in (_REQUEST, 32 * PAGE_SIZE, 5 * PAGE_SIZE, PAGE_SIZE, 512):
            for offset in (0, _REQUEST, 3 * PAGE_SIZE):
                lane.write(offset, data[:size])
                lane.read(offset, size)
        lane.seek(0, os.SEEK_HOLE)
    lane.discard(PAGE_SIZE, 3 * PAGE_SIZE)
    lane.discard(0, _SIZE)
    with suppress(RequestError):
        lane.write(_SIZE, data)
    store.maintain()
    store.statistics()
    state.close()


def _sample() -> memoryview:
    """Something that compresses as real memory does: this package's own code."""
    text = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py")))
    return memoryview((text * (_REQUEST // len(text) + 1))[:_REQUEST])
