"""What commands do with a store's backing: attach, grow, detach, write back, limit, look."""

from __future__ import annotations

import errno
from dataclasses import asdict

import pytest
from model.disks import (
    EVERYTHING,
    Device,
    DeviceMaker,
    SpyBacking,
    device_maker,
    disk_clock,
    small_batches,
)
from model.moves import entries_at
from model.pages import noise, process_memory, text
from model.stores import make_store, state_of

from vswap.errors import UserError
from vswap.geometry import SEGMENT_SIZE
from vswap.store import Policy, Selection
from vswap.store.backing import MemoryBacking
from vswap.store.budget import MAX_LIMIT
from vswap.store.disk_log import KEY_SIZE
from vswap.store.entry import position_of, share_of
from vswap.store.unit import HEADER, unit_length

make_device = pytest.fixture(device_maker)


@pytest.fixture
def device(make_device: DeviceMaker) -> Device:
    return make_device()


# --- Attach -----------------------------------------------------------------------------


def test_a_store_without_a_backing_says_so(device: Device) -> None:
    store = make_store(Policy())
    found = store.backing.statistics()
    assert (found.backing, found.backing_state, found.backing_size) == ("", "none", 0)
    assert (found.bd_count, found.bd_reads, found.bd_writes) == (0, 0, 0)
    assert not store.backing.detaching
    for call in (
        store.backing.begin_detach,
        lambda: store.backing.grow(SEGMENT_SIZE),
        lambda: store.backing.write_back(EVERYTHING),
        lambda: store.backing.set_writeback_limit(5),
        lambda: store.backing.enable_writeback_limit(True),
    ):
        with pytest.raises(UserError, match="no backing"):
            call()
    store.backing.stop_detach()
    store.close()
    state_of(store).close()


def test_a_second_backing_is_refused(device: Device) -> None:
    device.store_on_disk(0, text(8))
    other = SpyBacking(4, "other")
    with pytest.raises(UserError, match="disk is attached already"):
        device.store.backing.attach(other)
    assert device.store.statistics().backing == "disk"
    assert not other.closed


def test_a_backing_can_be_attached_again_and_again(device: Device) -> None:
    """The key stays; what lay on the last one is of no use."""
    key = bytes(device.store._parts.disk.log.key)
    assert any(key)
    for turn in range(4):
        device.store_on_disk(0, noise(20, turn))
        assert device.detach() == "detached"
        old = device.disk
        device.disk = SpyBacking(3 + turn, f"disk {turn}")
        device.disk.data[: len(old.data)] = old.data[: len(device.disk.data)]
        device.store.backing.attach(device.disk)
        assert device.store.statistics().backing == f"disk {turn}"
        assert device.room() == device.disk.size // SEGMENT_SIZE
    assert bytes(device.store._parts.disk.log.key) == key
    assert len(key) == KEY_SIZE


def test_of_a_backing_that_is_too_large_a_part_is_used(make_device: DeviceMaker) -> None:
    device = make_device(segments=16, disk=8)
    device.detach()
    most = device.store._parts.disk.log.most

    class Vast(MemoryBacking):
        size = (most + 7) * SEGMENT_SIZE

        def __init__(self) -> None:
            self.name, self.data, self.note = "vast", bytearray(), b""

    device.store.backing.attach(Vast())
    assert device.store.statistics().backing_size == most * SEGMENT_SIZE


def test_a_backing_without_a_whole_disk_segment_takes_nothing(make_device: DeviceMaker) -> None:
    for segments in (0, 1):
        device = make_device(disk=segments)
        device.write(0, text(8))
        assert device.write_back() == 0
        assert device.detach() == "detached"


def test_closing_a_store_lets_the_backing_go() -> None:
    store, backing = make_store(Policy()), SpyBacking(2)
    store.backing.attach(backing)
    store.close()
    assert backing.closed
    store.close()
    state_of(store).close()


# --- Grow -------------------------------------------------------------------------------


def test_growing_gives_room(make_device: DeviceMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch)
    device = make_device(disk=3)
    device.write(0, noise(60))
    moved = device.write_back()
    assert moved < 60
    assert device.room() == 1
    device.store.backing.grow(9 * SEGMENT_SIZE)
    assert device.room() == 7
    assert device.store.statistics().backing_size == 9 * SEGMENT_SIZE
    assert moved + device.write_back() == 60


def test_a_backing_does_not_shrink(device: Device) -> None:
    with pytest.raises(UserError, match="does not shrink"):
        device.store.backing.grow(7 * SEGMENT_SIZE)
    assert device.room() == 8


def test_more_than_can_be_used_is_refused(device: Device) -> None:
    most = device.store._parts.disk.log.most
    with pytest.raises(UserError, match="at most"):
        device.store.backing.grow((most + 1) * SEGMENT_SIZE)
    assert device.disk.size == 8 * SEGMENT_SIZE


def test_growing_that_fails_changes_nothing(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(device.disk, "grow", fail)
    with pytest.raises(OSError, match="no space"):
        device.store.backing.grow(9 * SEGMENT_SIZE)
    assert device.room() == 8


@pytest.mark.parametrize("meanwhile", ["written", "detached", "exchanged"])
def test_others_go_on_while_a_backing_grows(
    device: Device, meanwhile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes long, and nothing is locked."""
    grow = device.disk.grow
    other = SpyBacking(2, "other")

    def slowly(size: int) -> None:
        if meanwhile == "written":
            device.store_on_disk(0, noise(20))
        else:
            assert device.detach() == "detached"
        if meanwhile == "exchanged":
            device.store.backing.attach(other)
        grow(size)

    monkeypatch.setattr(device.disk, "grow", slowly)
    device.store.backing.grow(10 * SEGMENT_SIZE)
    sizes = {"written": 10, "detached": 0, "exchanged": 2}
    assert device.store.statistics().backing_size == sizes[meanwhile] * SEGMENT_SIZE


# --- Write back -------------------------------------------------------------------------


SELECTIONS = {
    "huge": (Selection(huge=True, cold=None), {8, 9, 10, 11}),
    "not huge": (Selection(cold=None), {0, 1, 2, 3, 16, 17, 18, 19}),
    "all": (EVERYTHING, {*range(12), 16, 17, 18, 19} - {4, 5, 6, 7}),
    "idle": (Selection(huge=None, cold=None, idle=True), {8, 9, 10, 11, 16, 17, 18, 19}),
    "some slots": (Selection(huge=None, cold=None, slots=(3, 9)), {0, 1, 2, 3, 8, 9, 10, 11}),
    "cold": (Selection(huge=None, cold=True), set[int]()),
    "costly": (Selection(huge=None, cold=None, threshold=4000), {8, 9, 10, 11}),
    "old": (Selection(huge=None, cold=None, age=1e9), set[int]()),
}


@pytest.mark.parametrize("which", SELECTIONS)
def test_a_command_writes_back_what_it_names(device: Device, which: str) -> None:
    """Whole units, of which anything is selected."""
    device.write(0, text(4))
    device.write(8, noise(4))
    device.write(16, text(4, 1))
    device.store.mark_idle()
    device.read(0, 4)
    selection, slots = SELECTIONS[which]
    assert device.store.backing.write_back(selection) == len(slots)
    assert set(device.on_disk()) == slots


def test_what_is_on_disk_is_not_written_again(device: Device) -> None:
    device.store_on_disk(0, noise(20))
    assert device.write_back() == 0
    assert len(device.disk.writes) == 1


# --- Limit ------------------------------------------------------------------------------


def test_a_limit_is_kept_with_the_backing(device: Device) -> None:
    device.store.backing.set_writeback_limit(12_345)
    device.store.backing.enable_writeback_limit(True)
    found = device.store.statistics()
    assert (found.writeback_limit, found.writeback_limit_enable) == (12_345, True)
    assert found.writeback_limit_left == 12_345
    device.detach()
    device.disk, before = SpyBacking(4), device.disk
    device.disk.note = before.note
    device.store.backing.attach(device.disk)
    found = device.store.statistics()
    assert (found.writeback_limit, found.writeback_limit_enable) == (12_345, True)


@pytest.mark.parametrize("limit", [-1, MAX_LIMIT + 1])
def test_what_is_no_limit_is_refused(device: Device, limit: int) -> None:
    with pytest.raises(UserError, match="limit"):
        device.store.backing.set_writeback_limit(limit)
    assert device.store.statistics().writeback_limit == 0


def test_a_limit_that_cannot_be_kept_is_an_error(device: Device) -> None:
    device.disk.note_fails = 1
    with pytest.raises(OSError, match="Input/output"):
        device.store.backing.set_writeback_limit(5)


def test_a_limit_of_nothing_forbids_writing(device: Device) -> None:
    device.store.backing.enable_writeback_limit(True)
    device.write(0, noise(8))
    assert device.write_back() == 0
    assert device.disk.writes == []


# --- Look -------------------------------------------------------------------------------


def test_statistics_are_what_is_there(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch)
    device.store_on_disk(0, noise(40) + text(4))
    for slot in (0, 1, 2, 3, 9, 20, 21):
        device.discard(slot)
    device.read(12)
    found = device.store.backing.statistics()
    live = sum(map(share_of, device.on_disk().values()))
    used = device.store._parts.disk.log.full().used.tolist()
    assert found.backing_pages == len(device.on_disk()) == 37
    assert found.backing_data_size == live
    assert found.bd_count == -(-live // 4096)
    assert found.backing_dead_bytes == sum(used) - live
    assert found.bd_reads == sum(size for _, size in device.disk.reads) // 4096
    assert found.bd_writes == sum(size for _, size in device.disk.writes) // 4096
    assert found.backing_segments_free == 8 - len(device.segments())
    assert found.backing_size == 8 * SEGMENT_SIZE
    assert asdict(found).items() <= asdict(device.store.statistics()).items()


def test_the_state_says_what_is_being_done(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = disk_clock(monkeypatch)
    backing = device.store.backing
    device.write(0, noise(8))
    assert backing.statistics().backing_state == "attached"
    device.disk.fails += [(errno.EIO, 0)] * 2
    assert device.write_back() == 0
    assert backing.statistics().backing_state == "resting"
    clock.advance(1000)
    assert backing.statistics().backing_state == "attached"
    assert device.write_back() == 8
    backing.begin_detach()
    assert backing.statistics().backing_state == "detaching"
    assert backing.detaching
    device.go_on_detaching()
    assert backing.statistics().backing_state == "none"
    assert not backing.detaching


# --- Secrets ----------------------------------------------------------------------------

PLANTED = b"a secret that is sixty-four bytes long and is on no disk at all!"
assert len(PLANTED) == 64


def test_nothing_plain_lies_on_the_backing(make_device: DeviceMaker) -> None:
    """Neither what was written, nor what was made of it: headers, payloads, padding."""
    device = make_device(slots=1024, segments=32, disk=16)
    device.write(0, PLANTED * 64 * 4)
    device.write(8, (PLANTED + noise()[64:]) * 4)
    device.write(16, noise(3) + PLANTED * 64)
    device.write(100, process_memory(200))
    payloads = set()
    memory = device.store._parts.memory
    for slot in sorted(device.in_memory()):
        position = position_of(entries_at(device.store, slot, 1)[0])
        unit = bytes(memory[position : position + unit_length(memory, position)])
        payloads.add(unit[HEADER.size :])
        payloads.add(unit[:32])
    device.write_back()
    device.discard(8)
    with device.store._upkeep.lock:
        log = device.store._parts.disk.log
        for _ in device.store._upkeep.jobs.restack.empty(log.full().segments):
            pass
    found = bytes(device.disk.data) + device.disk.note
    assert any(found)
    assert PLANTED not in found
    assert PLANTED[:16] not in found
    for payload in payloads:
        if len(payload) >= 32:
            assert payload[:32] not in found
            assert payload[-32:] not in found
    assert bytes(device.store._parts.disk.log.key) not in found
