"""Stores to test with: small ones, of a few clusters."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from model.memory import peek, words_in
from model.sealed import unit_on_disk

from vswap.codec import Bytes, by_number
from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE, SEGMENT_SIZE, Geometry
from vswap.store import Lane, Policy, Shape, State, Store, segments_for
from vswap.store.decoder import Decoder
from vswap.store.dictionary import Dictionary
from vswap.store.entry import FIRST_BACKING, FIRST_FILL, Extent, extent_of, fill_of, index_of

__all__ = [
    "DEFAULT_SLOTS",
    "StoreMaker",
    "content",
    "limit_of",
    "make_store",
    "pages_in",
    "state_of",
    "take_over",
]

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
    return Store(State.create(shape_of(slots, segments)), policy, wake)


def take_over(store: Store, policy: Policy | None = None) -> Store:
    """The store of the next worker, on the memory that the first one leaves as it is.

    The first is not to be used any more.
    """
    state = state_of(store)
    duplicates = [os.dup(fd) for fd in state.fds()]
    state.close()
    return Store(State.attach(state.shape, duplicates), policy or store._policy)


def shape_of(slots: int = DEFAULT_SLOTS, segments: int | None = None) -> Shape:
    """The shape of a store of `make_store`."""
    geometry = Geometry(slots * PAGE_SIZE)
    if segments is None:
        segments = segments_for(geometry, lanes=4)
    return Shape(geometry, segments, buffers=1, buffer_size=PAGE_SIZE)


def limit_of(segments: int, slots: int = DEFAULT_SLOTS) -> int:
    """The memory limit, in bytes, that lets a store of `make_store` have so many segments."""
    return shape_of(slots).overhead() + segments * SEGMENT_SIZE


def pages_in(store: Store) -> dict[int, bytes]:
    """Every page by slot, where that is not zeros, from what another worker would find.

    Nothing is believed of what this one has counted, and unlike a read it leaves no mark.
    """
    state = state_of(store)
    decoder = Decoder(
        state.segments.view, by_number(), lambda: Dictionary(state.dictionary).codec(1)
    )
    pages = {}
    units: dict[Extent, bytes] = {}
    for slot, found in words_in(state.table).items():
        if found >= FIRST_FILL:
            pages[slot] = peek(state.words, fill_of(found) * 8, 8) * (PAGE_SIZE // 8)
            continue
        if found >= FIRST_BACKING:
            extent = extent_of(found)
            if extent not in units:
                unit = unit_on_disk(store, extent)
                assert unit is not None, f"slot {slot}: its unit on disk is not what was written"
                units[extent] = unit
            data = decoder.decode(memoryview(units[extent]), 0, slot - index_of(found), slot)
        else:
            data, _ = decoder.unit(found, slot)
        pages[slot] = bytes(data[index_of(found) * PAGE_SIZE :][:PAGE_SIZE])
    return pages


def state_of(store: Store) -> State:
    """The state that a store works on."""
    return store._state


def content(lane: Lane, offset: int, size: int) -> bytes:
    """What the lane reads there."""
    buffers: list[Bytes] = list(lane.read(offset, size))
    return b"".join(buffers)
