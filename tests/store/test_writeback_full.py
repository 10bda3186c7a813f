"""A disk that is full: dead space on it is won back, and memory goes on without it."""

from __future__ import annotations

import errno
import time

import pytest
from model.disks import EVERYTHING, Device, DeviceMaker, device_maker, disk_clock, finish
from model.moves import Clock, new_clock, seal
from model.pages import noise, text

from vswap.store import Selection
from vswap.store.jobs import Job

make_device = pytest.fixture(device_maker)
clock = pytest.fixture(disk_clock)

DISK = 8


def of_page(slot: int) -> Selection:
    """What `writeback page_index=` takes."""
    return Selection(huge=None, cold=None, slots=(slot, slot + 1))


@pytest.fixture
def device(make_device: DeviceMaker) -> Device:
    return make_device(disk=DISK)


def test_many_small_writings_back_do_not_use_up_the_disk(device: Device, clock: Clock) -> None:
    """Each fills a disk segment with next to nothing; what lives in them is written together."""
    for slot in range(0, 40, 2):  # each page is a unit of its own
        device.write(slot, noise(1))
    assert [device.store.backing.write_back(of_page(slot)) for slot in range(0, 40, 2)] == [1] * 20
    assert set(device.on_disk()) == set(range(0, 40, 2))
    assert device.problems() == []


def test_what_one_command_selects_is_written_together(device: Device, clock: Clock) -> None:
    for slot in (3, 10, 20):
        device.write(slot, noise(1))
    assert device.store.backing.write_back(*map(of_page, (3, 10, 20))) == 3
    assert len(device.disk.writes) == 1
    assert device.problems() == []


def test_a_disk_that_becomes_full_is_no_want_of_memory(device: Device) -> None:
    """The job just ends, so that a writer who wants room looks for another one."""
    for slot in (0, 64):  # the younger one was just written, and stays
        device.write(slot, noise(64))
        seal(device.lane)
    jobs, log = device.store._upkeep.jobs, device.store._parts.disk.log
    now = time.monotonic() + 1000
    job = jobs.write_back(jobs.sealed(now), now)
    assert job is not None
    taken = [log.take(0) for _ in range(DISK)]
    assert finish(device, job) == 0
    assert jobs.sealed(now).segments.size  # what was to go is not set aside
    for segment in taken:
        log.put_back(segment, bad=False)
    assert device.problems() == []


def test_the_last_free_disk_segment_is_not_put_aside(
    make_device: DeviceMaker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BACK-FAILS: else nothing could be won back on the disk any more."""
    of_stores = new_clock(monkeypatch)
    device = make_device(disk=4)
    for slot in (0, 4, 12):
        device.write(slot, text(1))
        assert device.store.backing.write_back(of_page(slot)) == 1
    device.write(8, text(1))
    device.disk.fails += [(errno.EIO, 0)] * 2
    assert device.store.backing.write_back(of_page(8)) == 0
    for time_ in (clock, of_stores):
        time_.advance(1000)
    assert device.store.backing.write_back(EVERYTHING) == 1
    assert device.problems() == []


def test_what_was_read_wrong_once_comes_back(device: Device, clock: Clock) -> None:
    """Detaching reads a unit again by itself if it is not what was written."""
    device.write(0, text(8))
    device.write_back()
    reads = 0

    def damage(_segment: int) -> None:
        nonlocal reads
        reads += 1
        device.disk.data[100] ^= reads < 3  # there in the first read, gone in the second

    device.disk.before_read = damage
    assert device.detach() == "detached"
    assert reads > 1
    assert device.read_wrong() == []


def test_cleaning_that_wins_nothing_is_not_repeated(
    device: Device, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Units do not fit exactly: what is written together may take as many disk segments again."""
    device.write(0, noise(1))
    jobs, log = device.store._upkeep.jobs, device.store._parts.disk.log
    taken = [log.take(0) for _ in range(DISK - 1)]
    began: list[float] = []

    def in_vain(now: float) -> Job:
        began.append(now)
        return Job(iter([0, 0]))

    monkeypatch.setattr(jobs, "clean_disk", in_vain)
    assert device.write_back() == 0
    assert len(began) == 1
    for segment in taken:
        log.put_back(segment, bad=False)
    assert device.write_back() == 1
