"""Cleaning the disk: when free disk segments are few, and only if one is won by it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from model.disks import (
    Device,
    DeviceMaker,
    device_maker,
    disk_clock,
    finish,
    small_batches,
    tight,
    units_on_disk,
)
from model.moves import seal
from model.pages import noise, text

from vswap.errors import CorruptError, FullError
from vswap.geometry import PAGE_SIZE, SEGMENT_SIZE
from vswap.store import Policy, Selection
from vswap.store.disk_log import DiskLog, Filling
from vswap.store.entry import COLD, HUGE, Extent, extent_of, pack_backing
from vswap.store.jobs import Job
from vswap.store.region import Region
from vswap.store.restack import few_are_free, sparsest

make_device = pytest.fixture(device_maker)

MIB = SEGMENT_SIZE

# --- Which ------------------------------------------------------------------------------


@pytest.fixture
def region() -> Iterator[Region]:
    made = Region.create("disk log", DiskLog.region_size(64))
    yield made
    made.close()


def log_of(region: Region, live: list[float], size: int = 64) -> DiskLog:
    """A log of disk segments that were filled, and of which these shares live."""
    log = DiskLog(region)
    log.resize(size)
    for share in live:
        segment = log.take(0)
        of_page = 4096
        pages = 255
        log.fill(segment, Filling(log.next_sequence(), MIB, pages, pages * of_page, pages, 0, 0))
        dead = pages - round(share * pages)
        entries = [pack_backing(segment, at * of_page, 1, of_page, 0) for at in range(dead)]
        log.publish(pages, entries)
    return log


@pytest.mark.parametrize(
    ("live", "chosen"),
    [
        ([], None),
        ([0.9], None),
        ([0.1], None),  # it would only be moved
        ([0.5, 0.5], None),  # they would fill one, and nearly so
        ([0.45, 0.45], {0, 1}),
        ([0.99, 0.2, 0.99, 0.3], {1, 3}),
        ([0.6, 0.6, 0.6], {0, 1, 2}),
        ([0.7, 0.7, 0.7], None),
        ([0.95] * 16, None),  # hardly anything is dead
    ],
)
def test_so_many_are_chosen_as_win_one(
    region: Region, live: list[float], chosen: set[int] | None
) -> None:
    found = sparsest(log_of(region, live))
    assert (None if found is None else set(found.tolist())) == chosen


def test_those_of_which_most_is_dead_are_chosen(region: Region) -> None:
    live = [0.8, 0.3, 0.7, 0.1, 0.9, 0.2]
    found = sparsest(log_of(region, live))
    assert found is not None
    assert set(found.tolist()) <= {1, 3, 5}
    assert 3 in found.tolist()


def test_a_few_disk_segments_are_few(region: Region) -> None:
    log = log_of(region, [])
    for _ in range(61):
        assert not few_are_free(log)
        log.take(0)
    assert log.room() == 3
    log.take(0)
    assert few_are_free(log)


def test_of_a_large_disk_a_part_is_few() -> None:
    made = Region.create("disk log", DiskLog.region_size(640))
    log = DiskLog(made)
    log.resize(640)
    while not few_are_free(log):
        log.take(0)
    assert 10 <= log.room() < 30
    made.close()


def test_disk_segments_in_which_all_lives_are_left_alone(region: Region) -> None:
    """However much is lost between small units: written again they would lose as much.

    These are as units of 76 bytes fill a disk segment, padded to 128.
    """
    log = DiskLog(region)
    log.resize(16)
    for _ in range(14):
        pages = MIB // 128
        filling = Filling(log.next_sequence(), MIB, pages, pages * 128, pages, 0, 0)
        log.fill(log.take(0), filling)
        log.publish(pages, [])
    assert sparsest(log) is None


# --- What is done -----------------------------------------------------------------------


@pytest.fixture
def worn(make_device: DeviceMaker, monkeypatch: pytest.MonkeyPatch) -> Device:
    """A device with 8 disk segments that are half dead, in whole units and in parts of them."""
    small_batches(monkeypatch)
    device = make_device(disk=24)
    device.store_on_disk(0, noise(48) + text(48))
    for slot in range(0, 96, 3):
        device.discard(slot)
    for slot in range(8, 96, 16):
        device.discard(slot, 4)
    device.disk.writes.clear()
    return device


def empty(device: Device, segments: list[int] | None = None) -> int:
    """Clean these disk segments, or all that are in use."""
    store = device.store
    victims = store._parts.disk.log.full().segments if segments is None else np.array(segments, int)
    with store._upkeep.lock:
        return sum(store._upkeep.jobs.restack.empty(victims))


def test_what_lives_is_moved_together(worn: Device) -> None:
    device = worn
    before, alive = device.segments(), set(device.on_disk())
    used = device.store.statistics().backing_dead_bytes
    assert empty(device) == len(alive)
    assert set(device.on_disk()) == alive
    assert len(device.segments()) < len(before)
    assert device.store.statistics().backing_dead_bytes < used / 4
    assert device.store.statistics().backing_segments_cleaned == len(before)
    assert device.problems() == []


def test_whole_units_are_moved_as_they_are_and_of_others_what_lives(worn: Device) -> None:
    device = worn
    empty(device)
    assert sum(extent.pages for extent in units_on_disk(device)) == len(device.on_disk())


def test_kinds_and_marks_of_pages_survive(
    make_device: DeviceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_batches(monkeypatch)
    device = make_device(Policy("zstd", 16))
    device.write(0, text(32))
    device.write(32, noise(9))
    device.store.mark_idle()
    device.store.recompress(Selection())
    device.write_back()
    for slot in (3, 17, 40):
        device.discard(slot)
    flags = {slot: entry & 0x1F for slot, entry in device.on_disk().items()}
    assert {flag & (HUGE | COLD) for flag in flags.values()} == {HUGE, COLD}
    empty(device)
    assert {slot: entry & 0x1F for slot, entry in device.on_disk().items()} == flags


def test_what_died_or_moved_meanwhile_is_not_written(worn: Device) -> None:
    device = worn
    store = device.store
    victims = store._parts.disk.log.full().segments
    device.discard(0, 40)
    with store._upkeep.lock:
        moved = sum(store._upkeep.jobs.restack.empty(victims))
    assert moved == len(device.on_disk())


@pytest.mark.parametrize("segments", [[], [23]])
def test_nothing_is_done_with_disk_segments_that_are_free(
    worn: Device, segments: list[int]
) -> None:
    assert empty(worn, segments) == 0
    assert worn.disk.writes == []


def test_a_unit_that_the_disk_does_not_give_stays_where_it_is(worn: Device) -> None:
    device = worn
    device.disk.unreadable = {2}
    before = {slot for slot, entry in device.on_disk().items() if entry >> 38 & 0xFFFF == 2}
    empty(device)
    after = {slot for slot, entry in device.on_disk().items() if entry >> 38 & 0xFFFF == 2}
    assert before == after
    assert device.wrong_books() == []
    device.disk.unreadable.clear()
    assert device.problems() == []


@pytest.mark.parametrize("number", range(0, 12, 3))
def test_a_damaged_unit_stays_an_error_and_the_others_are_moved(worn: Device, number: int) -> None:
    device = worn
    extent = units_on_disk(device)[number]
    slots = [slot for slot, at in extents(device).items() if at == extent]
    device.disk.data[extent.segment * SEGMENT_SIZE + extent.offset + 40] ^= 1
    empty(device)
    assert {slot for slot, at in extents(device).items() if at == extent} == set(slots)
    for slot in slots:
        with pytest.raises(CorruptError):
            device.read(slot)
    device.discard(slots[0], slots[-1] - slots[0] + 1)
    assert device.problems() == []


def extents(device: Device) -> dict[int, Extent]:
    return {slot: extent_of(entry) for slot, entry in device.on_disk().items()}


def test_a_disk_that_does_not_take_it_changes_nothing(
    worn: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_clock(monkeypatch)
    device = worn
    before = device.on_disk()
    device.disk.fails += [(5, 0)] * 2
    empty(device, device.segments()[:2])
    device.bad = 2
    assert device.on_disk() == before
    assert device.problems() == []


def test_the_last_disk_segment_may_be_used_for_it(
    make_device: DeviceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives back what it takes."""
    small_batches(monkeypatch)
    device = make_device(disk=6)
    device.write(0, noise(100))
    device.write_back()
    assert device.room() == 1
    for slot in range(0, 100, 2):
        device.discard(slot)
    empty(device, device.segments()[:4])
    assert device.room() >= 2
    assert device.problems() == []


def test_without_any_room_nothing_is_lost(
    make_device: DeviceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_batches(monkeypatch)
    device = make_device(disk=4)
    device.write(0, noise(100))
    device.write_back()
    log = device.store._parts.disk.log
    log.take(0)
    with pytest.raises(FullError):
        empty(device)
    log.put_back(3, bad=False)
    assert device.problems() == []
    assert len(log.full().segments) == 3


# --- When -------------------------------------------------------------------------------


def next_job(device: Device) -> object:
    jobs = device.store._upkeep.jobs
    return jobs.write_back(jobs.sealed(1e9), 1e9)


def half_dead(device: Device, segments: int, share: int = 2) -> None:
    """Fill disk segments and let one page in so many live."""
    device.write(0, noise(12 * segments))
    device.write_back()
    for slot in range(12 * segments):
        if slot % share:
            device.discard(slot)


def test_the_disk_is_not_cleaned_while_there_is_room(
    make_device: DeviceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most dead space goes by itself; writing wears a disk."""
    small_batches(monkeypatch)
    device = make_device(disk=16)
    half_dead(device, 8)
    assert device.room() == 8
    assert next_job(device) is None


def test_the_disk_is_cleaned_when_free_disk_segments_are_few(
    make_device: DeviceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_batches(monkeypatch)
    device = make_device(disk=10)
    half_dead(device, 8)
    assert device.room() == 2
    job = next_job(device)
    assert isinstance(job, Job)
    finish(device, job)
    assert device.room() == 3
    assert device.store.statistics().backing_segments_cleaned >= 2
    assert next_job(device) is None


@pytest.mark.parametrize("unreadable", [{0}, {0, 1}, {0, 1, 2, 3}])
def test_disk_segments_that_cannot_be_emptied_do_not_stand_in_the_way(
    make_device: DeviceMaker, monkeypatch: pytest.MonkeyPatch, unreadable: set[int]
) -> None:
    """Of the sparsest ones nothing can be read. There is still room for what memory cannot hold."""
    small_batches(monkeypatch)
    device = make_device(slots=512, disk=6)
    half_dead(device, 4, share=12)
    device.disk.unreadable = unreadable
    device.write(100, noise(24))
    seal(device.lane)
    device.write(200, noise(24))
    seal(device.lane)
    for _ in range(4):
        job = next_job(device)
        if isinstance(job, Job):
            finish(device, job)
    device.disk.unreadable = set()
    assert [slot for slot in device.on_disk() if slot >= 100], "memory has won nothing"


def test_cleaning_that_wins_nothing_is_not_done_again_and_again(make_device: DeviceMaker) -> None:
    """Disk segments full of small units, all of which live."""
    device = make_device(Policy("lz4", 1), slots=32 * 1024, segments=64, disk=6)
    page = bytearray(PAGE_SIZE)
    for slot in range(0, 32 * 1024, 16):
        data = b"".join(
            bytes(page[:64]) + (slot + at).to_bytes(8, "little") * 5 + bytes(PAGE_SIZE - 104)
            for at in range(16)
        )
        device.write(slot, data)
    device.write_back()
    assert device.room() <= 2
    written = len(device.disk.writes)
    for _ in range(3):
        job = next_job(device)
        if isinstance(job, Job):
            finish(device, job)
    assert len(device.disk.writes) == written


def test_a_store_lives_on_what_is_won_by_cleaning(make_device: DeviceMaker) -> None:
    """More is written than memory and disk hold together, most of it over what was there."""
    device = make_device(tight(4, 4096), slots=4096, segments=16, disk=12)
    for turn in range(6):
        for slot in range(0, 2048, 16):
            # In another order each time, and not all: the dead are everywhere.
            at = slot * (2 * turn + 1) % 2048
            if (slot // 16 + turn) % 3:
                device.write(at, noise(16, turn * 4096 + slot))
    assert device.store.statistics().pool_limit_hit == 0
