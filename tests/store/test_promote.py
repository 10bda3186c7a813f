"""Promotion: what is read from the disk again is in memory again."""

from __future__ import annotations

import pytest
from model.disks import Device, DeviceMaker, device_maker
from model.moves import entries_at
from model.pages import noise, text

from vswap.store import Policy
from vswap.store.entry import COLD, HUGE, LOADED
from vswap.store.fetch import Fetched

make_device = pytest.fixture(device_maker)


@pytest.fixture
def device(make_device: DeviceMaker) -> Device:
    """Pages on disk: units of 4 of text from slot 0 on, one of noise from slot 16 on."""
    device = make_device(Policy("zstd-fast", 4))
    device.write(0, text(8))
    device.store_on_disk(16, noise(4))
    return device


def read_from_disk(device: Device, slot: int, count: int = 1) -> None:
    """Read pages by a look at the disk: nothing is at hand."""
    device.store._fetched._units.clear()
    for window in device.store._parts.disk.windows._windows:
        window.sequence = 0
    assert device.read(slot, count) == device.right(slot, count)


def test_the_first_read_leaves_a_page_on_disk_and_marks_it(device: Device) -> None:
    read_from_disk(device, 1)
    assert {0, 1, 2, 3} <= set(device.on_disk())
    loaded = [bool(entry & LOADED) for entry in entries_at(device.store, 0, 4)]
    assert loaded == [False, True, False, False]
    assert device.store.statistics().promoted_pages == 0


def test_the_second_read_brings_its_unit_back(device: Device) -> None:
    for _ in range(2):
        read_from_disk(device, 1)
    assert device.in_memory() == {0, 1, 2, 3}
    assert device.store.statistics().promoted_pages == 4
    assert device.read_wrong() == []


def test_what_comes_back_counts_as_wanted(device: Device) -> None:
    """Not as loaded, which would make it the first to go again."""
    for _ in range(2):
        read_from_disk(device, 1)
    assert not any(entry & LOADED for entry in entries_at(device.store, 0, 4))


def test_huge_and_cold_pages_stay_what_they_are(device: Device) -> None:
    before = [entry & (HUGE | COLD) for entry in entries_at(device.store, 16, 4)]
    for _ in range(2):
        read_from_disk(device, 16, 4)
    assert device.in_memory() == {16, 17, 18, 19}
    assert [entry & (HUGE | COLD) for entry in entries_at(device.store, 16, 4)] == before
    assert all(before)


def test_other_pages_of_the_unit_do_not_count(device: Device) -> None:
    read_from_disk(device, 1)
    read_from_disk(device, 2)
    assert device.in_memory() == set()


def test_dead_pages_do_not_come_back(device: Device) -> None:
    read_from_disk(device, 1)
    device.write(2, noise())
    device.discard(3)
    read_from_disk(device, 1)
    assert device.in_memory() == {0, 1, 2}
    assert device.read_wrong() == []


def test_the_disk_has_the_space_again(device: Device) -> None:
    free = device.room()
    for slot in (0, 4, 16):
        for _ in range(2):
            read_from_disk(device, slot)
    assert device.on_disk() == {}
    assert device.room() == free + 1


def test_what_is_at_hand_is_not_read_from_the_disk(device: Device) -> None:
    read_from_disk(device, 1)
    for _ in range(3):
        assert device.read(1) == device.right(1)
    assert device.in_memory() == set()


def test_nothing_waits_for_a_promotion(device: Device) -> None:
    """Who has `Upkeep.lock` has something more urgent to do."""
    read_from_disk(device, 1)
    with device.store._upkeep.lock:
        read_from_disk(device, 1)
    assert device.in_memory() == set()
    read_from_disk(device, 1)
    assert device.in_memory() == {0, 1, 2, 3}


def test_without_room_in_memory_pages_stay_on_disk(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_from_disk(device, 1)
    monkeypatch.setattr("vswap.store.promote._LEFT", 10_000)
    read_from_disk(device, 1)
    assert device.in_memory() == set()
    assert device.read_wrong() == []


def test_a_check_promotes_nothing(device: Device) -> None:
    for _ in range(3):
        device.store._fetched = Fetched()
        assert device.store.check().problems == ()
    assert device.in_memory() == set()
    assert not any(entry & LOADED for entry in entries_at(device.store, 0, 4))


def test_a_page_that_is_written_while_it_is_promoted_is_the_new_one(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_from_disk(device, 1)
    promoter = device.store._promoter
    do_piece = promoter._jobs.do_piece

    def late(job: object) -> int | None:
        device.write(1, noise(1, 9))
        return do_piece(job)  # type: ignore[arg-type]

    monkeypatch.setattr(promoter._jobs, "do_piece", late)
    old = device.right(1)
    device.store._fetched._units.clear()
    assert device.read(1) == old  # it was asked for before the write
    assert device.read_wrong() == []
    assert {0, 2, 3} <= set(device.on_disk())
