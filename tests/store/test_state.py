"""The memory that outlives a worker: found again by the next, or refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from vswap.errors import StateError
from vswap.geometry import PAGE_SIZE, SEGMENT_SIZE, Geometry
from vswap.store import Shape, State
from vswap.store.dictionary import REGION_SIZE
from vswap.store.disk_log import KEY_SIZE

SHAPE = Shape(Geometry(1000 * PAGE_SIZE), segments=4, buffers=3, buffer_size=2 * PAGE_SIZE)
OTHER_SHAPES = {
    "size": Shape(Geometry(1001 * PAGE_SIZE), 4, 3, 2 * PAGE_SIZE),
    "segments": Shape(SHAPE.geometry, 5, 3, 2 * PAGE_SIZE),
    "buffers": Shape(SHAPE.geometry, 4, 2, 2 * PAGE_SIZE),
    "buffer_size": Shape(SHAPE.geometry, 4, 3, PAGE_SIZE),
}


@pytest.fixture
def state() -> Iterator[State]:
    made = State.create(SHAPE)
    yield made
    made.close()


Attach = Callable[..., State]


@pytest.fixture
def attach(state: State) -> Iterator[Attach]:
    """Attaches to duplicates of the state's descriptors, as another process would."""
    made: list[int] = []

    def attacher(shape: Shape = SHAPE) -> State:
        duplicates = [os.dup(fd) for fd in state.fds()]
        made.extend(duplicates)
        return State.attach(shape, duplicates)

    yield attacher
    for fd in made:
        os.close(fd)


def test_a_new_state_costs_two_pages(state: State) -> None:
    """The header's, and the one that holds the key."""
    assert sum(region.allocated() for region in state.regions()) == 2 * PAGE_SIZE
    assert state.header.allocated() == state.backing.allocated() == PAGE_SIZE


def test_each_state_has_a_key_of_its_own(state: State) -> None:
    """And nothing beside it: no sequence has been given out yet."""
    other = State.create(SHAPE)
    try:
        keys = {bytes(one.backing.view[:KEY_SIZE]) for one in (state, other)}
        assert len(keys) == 2
        assert bytes(KEY_SIZE) not in keys
    finally:
        other.close()
    assert not any(state.backing.view[KEY_SIZE:])


def test_the_regions_have_the_sizes_of_the_shape(state: State) -> None:
    assert [region.size for region in state.regions()] == [
        PAGE_SIZE,
        PAGE_SIZE,  # 64 bytes of zeromap for each of 2 clusters
        2 * PAGE_SIZE,
        8 * PAGE_SIZE,  # 4096 fill words
        REGION_SIZE,
        2 * PAGE_SIZE,  # the key, and 8 bytes for each of 76 disk segments
        4 * SEGMENT_SIZE,
        6 * PAGE_SIZE,
        32 * PAGE_SIZE,  # requests on their way
    ]


def test_the_overhead_is_all_but_the_segments(state: State) -> None:
    """What a memory limit must leave for it, whatever is stored."""
    others = [region.size for region in state.regions() if region is not state.segments]
    assert SHAPE.overhead() == sum(others)
    assert len(others) == 8


def test_no_region_can_cost_more_than_its_size(state: State) -> None:
    for region, size in zip(state.regions(), SHAPE.sizes().values(), strict=True):
        region.populate(0, region.size)
        assert region.allocated() == size


def test_attach_finds_the_same_memory(state: State, attach: Attach) -> None:
    other = attach()
    for number, (here, there) in enumerate(
        zip(state.regions()[1:], other.regions()[1:], strict=True), 1
    ):
        here.view[17] = number
        there.view[18] = number + 100
        assert (there.view[17], here.view[18]) == (number, number + 100)


def test_attach_keeps_the_shape(attach: Attach) -> None:
    assert attach().shape == SHAPE


def test_a_state_outlives_the_one_that_made_it(state: State) -> None:
    """As long as somebody, the supervisor that is, holds the descriptors."""
    first = State.create(SHAPE)
    duplicates = [os.dup(fd) for fd in first.fds()]
    first.segments.view[5] = 9
    first.close()
    second = State.attach(SHAPE, duplicates)
    try:
        assert second.segments.view[5] == 9
    finally:
        second.close()


def test_the_descriptors_come_in_the_order_of_the_regions(state: State) -> None:
    assert state.fds() == [region.fd for region in state.regions()]
    assert len(set(state.fds())) == 9


def test_buffers_do_not_overlap(state: State) -> None:
    for index in range(3):
        buffer = state.buffer(index)
        assert len(buffer) == 2 * PAGE_SIZE
        buffer[:] = bytes([index + 1]) * len(buffer)
    assert [state.buffer(index)[0] for index in range(3)] == [1, 2, 3]
    assert [state.buffer(index)[-1] for index in range(3)] == [1, 2, 3]


def test_the_header_is_what_it_has_always_been() -> None:
    """Another worker, perhaps of a later version, reads it."""
    assert SHAPE.header() == b"vswapmem" + bytes.fromhex(
        "04000000"  # version
        "03000000"  # buffers
        "00803e0000000000"  # size: 1000 pages
        "0400000000000000"  # segments
        "0020000000000000"  # buffer size
    )


@pytest.mark.parametrize("what", OTHER_SHAPES)
def test_another_shape_is_refused(attach: Attach, what: str) -> None:
    with pytest.raises(StateError, match="other sizes"):
        attach(OTHER_SHAPES[what])


@pytest.mark.parametrize("version", [1, 3, 5])
def test_another_version_is_refused_and_named(state: State, attach: Attach, version: int) -> None:
    state.header.view[8] = version
    with pytest.raises(StateError, match=rf"version {version}\b.*\b4\b"):
        attach()


def test_a_header_of_zeros_is_refused(state: State, attach: Attach) -> None:
    state.header.view[:] = bytes(PAGE_SIZE)
    with pytest.raises(StateError, match="no vswap header"):
        attach()


def test_a_magic_with_one_wrong_letter_is_refused(state: State, attach: Attach) -> None:
    state.header.view[7] ^= 1
    with pytest.raises(StateError, match="no vswap header"):
        attach()


@pytest.mark.parametrize("size", [0, 8, 39])
def test_a_descriptor_too_short_for_a_header_is_refused(state: State, size: int) -> None:
    """Not a struct.error, nor a ValueError of mmap: whoever attaches expects `StateError`."""
    short = os.memfd_create("short")
    os.ftruncate(short, size)
    try:
        with pytest.raises(StateError):
            State.attach(SHAPE, [short, *state.fds()[1:]])
    finally:
        os.close(short)


def test_close_closes_every_descriptor() -> None:
    closed = State.create(SHAPE)
    closed.close()
    for fd in closed.fds():
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_the_memory_limit_is_found_by_the_next_worker(state: State, attach: Attach) -> None:
    """None is a limit that was set, too: there is to be none."""
    assert not state.memory_limit_set
    for limit in (1 << 40, None, 64 << 20):
        state.keep_memory_limit(limit)
        found = attach()
        assert (found.memory_limit_set, found.memory_limit) == (True, limit)
