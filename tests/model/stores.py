"""Stores to test with: small ones, of a few clusters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from vswap.codec import Bytes
from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE, Geometry
from vswap.store import Lane, Policy, Shape, State, Store, segments_for

__all__ = ["DEFAULT_SLOTS", "StoreMaker", "content", "make_store", "state_of"]

DEFAULT_SLOTS = 2 * CLUSTER_SLOTS + 100
"""Two clusters and a part of one."""


class StoreMaker(Protocol):
    """What the fixture `make` is: `make_store`, audited at the test's end."""

    def __call__(
        self,
        policy: Policy = ...,
        *,
        slots: int = ...,
        segments: int | None = ...,
        wake: Callable[[], None] = ...,
    ) -> Store: ...


def make_store(
    policy: Policy,
    *,
    slots: int = DEFAULT_SLOTS,
    segments: int | None = None,
    wake: Callable[[], None] = lambda: None,
) -> Store:
    """A new store; its state is for the caller to close."""
    geometry = Geometry(slots * PAGE_SIZE)
    if segments is None:
        segments = segments_for(geometry, lanes=4)
    state = State.create(Shape(geometry, segments, buffers=1, buffer_size=PAGE_SIZE))
    return Store(state, policy, wake)


def state_of(store: Store) -> State:
    """The state that a store works on."""
    return store._state


def content(lane: Lane, offset: int, size: int) -> bytes:
    """What the lane reads there."""
    buffers: list[Bytes] = list(lane.read(offset, size))
    return b"".join(buffers)
