"""Regions: shared memory that costs what is touched of it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from model.memory import data_pages

from vswap.geometry import PAGE_SIZE
from vswap.store.region import Region

MakeRegion = Callable[[int], Region]


def test_a_new_region_is_zeros_and_costs_nothing(make_region: MakeRegion) -> None:
    region = make_region(1 << 40)
    assert region.size == 1 << 40
    assert region.allocated() == 0
    assert bytes(region.view[-8:]) == bytes(8)


def test_a_size_is_rounded_up_to_whole_pages(make_region: MakeRegion) -> None:
    assert [make_region(size).size for size in (1, PAGE_SIZE, PAGE_SIZE + 1)] == [
        PAGE_SIZE,
        PAGE_SIZE,
        2 * PAGE_SIZE,
    ]


def test_writing_allocates_only_the_pages_written(make_region: MakeRegion) -> None:
    region = make_region(16 * PAGE_SIZE)
    region.view[5 * PAGE_SIZE - 1 : 5 * PAGE_SIZE + 1] = b"ab"
    assert data_pages(region) == {4, 5}
    assert region.allocated() == 2 * PAGE_SIZE


def test_reading_a_hole_through_the_mapping_allocates_it(make_region: MakeRegion) -> None:
    """The trap that the counts of table and zeromap exist to keep out of."""
    region = make_region(4 * PAGE_SIZE)
    assert region.view[2 * PAGE_SIZE] == 0
    assert data_pages(region) == {2}


def test_populate_allocates_the_range_and_nothing_else(make_region: MakeRegion) -> None:
    region = make_region(16 * PAGE_SIZE)
    region.populate(4 * PAGE_SIZE, 8 * PAGE_SIZE)
    assert data_pages(region) == set(range(4, 12))


def test_populate_keeps_what_is_there(make_region: MakeRegion) -> None:
    region = make_region(4 * PAGE_SIZE)
    region.view[PAGE_SIZE : PAGE_SIZE + 4] = b"kept"
    region.populate(0, 4 * PAGE_SIZE)
    assert bytes(region.view[PAGE_SIZE : PAGE_SIZE + 4]) == b"kept"


def test_populate_beyond_the_end_fails_with_an_os_error(make_region: MakeRegion) -> None:
    region = make_region(4 * PAGE_SIZE)
    os.ftruncate(region.fd, 2 * PAGE_SIZE)
    with pytest.raises(OSError):
        region.populate(0, 4 * PAGE_SIZE)


def test_punch_gives_the_memory_back_and_leaves_zeros(make_region: MakeRegion) -> None:
    region = make_region(16 * PAGE_SIZE)
    region.view[:] = b"x" * region.size
    region.punch(4 * PAGE_SIZE, 8 * PAGE_SIZE)
    assert region.allocated() == 8 * PAGE_SIZE
    assert bytes(region.view[4 * PAGE_SIZE : 5 * PAGE_SIZE]) == bytes(PAGE_SIZE)
    assert region.view[4 * PAGE_SIZE - 1] == ord("x")
    assert region.view[12 * PAGE_SIZE] == ord("x")


def test_a_duplicate_of_the_descriptor_maps_the_same_memory(make_region: MakeRegion) -> None:
    region = make_region(2 * PAGE_SIZE)
    other = Region(os.dup(region.fd))
    try:
        region.view[PAGE_SIZE] = 7
        assert other.size == region.size
        assert other.view[PAGE_SIZE] == 7
    finally:
        other.close()


def test_the_descriptor_is_closed_on_exec(make_region: MakeRegion) -> None:
    region = make_region(PAGE_SIZE)
    assert fcntl.fcntl(region.fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_the_name_shows_in_the_maps_of_the_process() -> None:
    region = Region.create("some-name", PAGE_SIZE)
    try:
        assert "memfd:vswap-some-name" in Path("/proc/self/maps").read_text()
    finally:
        region.close()


def test_the_memory_is_left_out_of_core_dumps() -> None:
    """MADV_DONTDUMP shows as the flag dd."""
    region = Region.create("undumped", PAGE_SIZE)
    try:
        maps = Path("/proc/self/smaps").read_text().split("memfd:vswap-undumped", 1)[1]
        flags = maps.split("VmFlags:", 1)[1].splitlines()[0].split()
        assert "dd" in flags
    finally:
        region.close()


def test_close_leaves_the_views_usable() -> None:
    region = Region.create("closed", PAGE_SIZE)
    region.close()
    region.view[0] = 1
    assert region.view[0] == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(region.fd)


def test_data_is_found_without_being_looked_at(make_region: MakeRegion) -> None:
    region = make_region(64 * PAGE_SIZE)
    assert list(region.data()) == []
    assert region.next_data(0) is None
    for page in (3, 4, 9, 63):
        region.view[page * PAGE_SIZE + 100] = 1
    assert list(region.data()) == [(3, 5), (9, 10), (63, 64)]
    assert region.next_data(0) == 3 * PAGE_SIZE
    assert region.next_data(4 * PAGE_SIZE + 7) == 4 * PAGE_SIZE + 7
    assert region.next_data(5 * PAGE_SIZE) == 9 * PAGE_SIZE
    assert region.next_data(64 * PAGE_SIZE) is None
    assert region.read(4 * PAGE_SIZE + 99, 3) == b"\0\1\0"
    region.map(3 * PAGE_SIZE, 2 * PAGE_SIZE)
    assert data_pages(region) == {3, 4, 9, 63}


def test_looking_for_data_in_a_region_that_is_closed_is_an_error() -> None:
    region = Region.create("closed", PAGE_SIZE)
    region.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        region.next_data(0)
