"""Disks that do not take what is written, or do not give it back as it was."""

from __future__ import annotations

import errno

import pytest
from model.disks import (
    SMALL_BATCH,
    Device,
    DeviceMaker,
    SpyBacking,
    device_maker,
    disk_clock,
    finish,
    small_batches,
    tight,
    units_on_disk,
)
from model.moves import Clock, seal
from model.pages import noise, text

from vswap.errors import CorruptError, MediumError
from vswap.geometry import PAGE_SIZE, SEGMENT_SIZE
from vswap.store import Policy, Selection

make_device = pytest.fixture(device_maker)

FAULTS = {
    "EIO": (errno.EIO, 0),
    "ENOSPC": (errno.ENOSPC, 0),
    "a part is written": (errno.EIO, 8192),
    "all of it is written": (errno.EIO, SEGMENT_SIZE),
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return disk_clock(monkeypatch)


@pytest.fixture
def device(make_device: DeviceMaker, clock: Clock) -> Device:
    """With units of some kinds in memory."""
    made = make_device()
    made.write(0, text(10) + noise(10))
    made.discard(5)
    return made


PAGES = 19

# --- Writing ----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_written_in_one_place_is_written_in_another(
    device: Device, fault: str
) -> None:
    """BACK-FAILS: and the first place is left alone from then on."""
    device.disk.fails.append(FAULTS[fault])
    assert device.write_back() == PAGES
    assert [offset // SEGMENT_SIZE for offset, _ in device.disk.writes] == [0, 1]
    assert device.segments() == [1]
    device.bad = 1
    assert device.problems() == []
    found = device.store.statistics()
    assert found.backing_state == "attached"
    assert found.backing_failed_writes == 1
    assert found.bd_writes == device.disk.writes[1][1] // 4096
    for turn in range(5):
        device.write(0, noise(20, turn))
        device.write_back()
        assert 0 not in device.segments()


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_written_stays_in_memory(device: Device, fault: str, clock: Clock) -> None:
    """BACK-FAILS: nothing has changed but counters, and writing rests for a while."""
    before = device.store.statistics()
    device.disk.fails += [FAULTS[fault]] * 2
    assert device.write_back() == 0
    device.bad = 2
    assert len(device.in_memory()) == PAGES
    assert device.problems() == []
    found = device.store.statistics()
    assert found.backing_failed_writes == 2
    assert found.backing_state == "resting"
    assert found.backing_segments_free == before.backing_segments_free - 2
    assert (found.writeback_pages, found.bd_writes, found.bd_count) == (0, 0, 0)
    assert found.compr_data_size == before.compr_data_size
    # Nothing is tried for a while, and then again.
    clock.advance(4)
    assert device.write_back() == 0
    assert len(device.disk.writes) == 2
    clock.advance(2)
    assert device.store.statistics().backing_state == "attached"
    assert device.write_back() == PAGES
    assert device.segments() == [2]
    assert device.store.statistics().backing_failed_writes == 2


def test_writing_that_fails_again_rests_for_longer(device: Device, clock: Clock) -> None:
    device.disk.fails += [(errno.EIO, 0)] * 4
    for rest in (5, 10):
        assert device.write_back() == 0
        clock.advance(rest - 1)
        assert device.store.statistics().backing_state == "resting"
        clock.advance(1)
        assert device.store.statistics().backing_state == "attached"
    assert device.write_back() == PAGES
    device.bad = 4


def test_places_that_are_bad_are_used_again_after_attaching_anew(
    device: Device, clock: Clock
) -> None:
    device.disk.fails += [(errno.EIO, 0)] * 2
    assert device.write_back() == 0
    assert device.detach() == "detached"
    device.disk = SpyBacking(8)
    device.store.backing.attach(device.disk)
    assert device.write_back() == PAGES
    assert device.segments() == [0]


def test_a_failed_write_counts_even_if_there_is_no_other_place(
    make_device: DeviceMaker, clock: Clock
) -> None:
    """BACK-FAILS: it is said to somebody, and writing rests."""
    device = make_device(disk=2)
    device.write(0, noise(8))
    device.disk.fails += [(errno.EIO, 0)] * 2
    assert device.write_back() == 0
    device.bad = 1
    assert device.problems() == []
    found = device.store.statistics()
    assert found.backing_failed_writes == 1
    assert found.backing_state == "resting"


def test_what_is_refused_by_the_note_is_no_fault_of_the_disk_segment(
    device: Device, clock: Clock
) -> None:
    """The label of the backing cannot be written for once; its disk segments can."""
    device.store.backing.set_writeback_limit(10_000)
    device.store.backing.enable_writeback_limit(True)
    device.store._parts.disk.budget.set_limit(20_000)  # so that a note is due
    device.disk.note_fails = 1
    assert device.write_back() == 0
    assert device.disk.writes == []
    assert device.problems() == []
    clock.advance(1000)
    assert device.write_back() == PAGES
    assert device.problems() == []


def test_a_disk_that_fails_is_not_tried_while_it_rests_even_by_a_job_that_has_begun(
    make_device: DeviceMaker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BACK-FAILS: cleaning of the disk writes several disk segments."""
    small_batches(monkeypatch)
    device = make_device(disk=16)
    device.store_on_disk(0, noise(108))
    assert device.room() == 7
    for slot in range(0, 108, 4):
        device.discard(slot, 2)
    device.disk.writes.clear()
    device.disk.fails += [(errno.EIO, 0)] * 99
    restack = device.store._upkeep.jobs.restack
    with device.store._upkeep.lock:
        for _ in restack.empty(device.store._parts.disk.log.full().segments):
            pass
    device.bad = len(device.disk.writes)
    assert device.problems() == []
    assert len(device.disk.writes) == 2


def test_memory_that_finds_no_disk_is_full_at_its_limit_and_nothing_is_lost(
    make_device: DeviceMaker, clock: Clock
) -> None:
    """And goes on when the disk is well again."""
    device = make_device(tight(4, 4096, "stored", 1), slots=4096, segments=32, disk=32)
    device.disk.fails += [(errno.EIO, 0)] * 9999
    written = 0
    while written < 4096 and not fails(device, written):
        written += 16
    assert 512 < written < 2048
    assert device.on_disk() == {}
    assert device.read_wrong() == []
    assert device.store.statistics().backing_failed_writes >= 1
    device.bad = len(device.disk.writes)
    device.disk.fails.clear()
    clock.advance(1000)
    device.store.step()
    device.rest()
    for slot in range(written, written + 1024, 16):
        assert not fails(device, slot)
    assert len(device.on_disk()) > 512


def fails(device: Device, slot: int) -> bool:
    """Write 16 pages there; whether there was no room for them."""
    data = noise(16, slot)
    try:
        device.lane.write(slot * PAGE_SIZE, memoryview(data))
    except OSError:
        raise
    except Exception as error:
        assert getattr(error, "errno", None) == errno.ENOSPC, error
        return True
    device.model.write(slot * PAGE_SIZE, data)
    return False


# --- Reading ----------------------------------------------------------------------------


@pytest.fixture
def on_disk(make_device: DeviceMaker, monkeypatch: pytest.MonkeyPatch) -> Device:
    """A device with pages on three disk segments, and some in memory."""
    small_batches(monkeypatch)
    device = make_device()
    device.store_on_disk(0, noise(30))
    device.write(100, text(8))
    assert device.segments() == [0, 1, 2]
    return device


def slots_in(device: Device, segment: int) -> list[int]:
    return [slot for slot, entry in device.on_disk().items() if entry >> 38 & 0xFFFFFF == segment]


def test_a_page_that_the_disk_does_not_give_is_an_error_and_no_other_page(on_disk: Device) -> None:
    device = on_disk
    device.disk.unreadable = {1}
    lost = slots_in(device, 1)
    for slot in range(device.model.slots):
        if slot in lost:
            with pytest.raises(MediumError) as caught:
                device.read(slot)
            assert caught.value.errno == errno.EIO
        else:
            assert device.read(slot) == device.right(slot)
    found = device.store.statistics()
    assert found.backing_failed_reads >= found.failed_reads == len(lost)
    assert found.backing_corrupt == 0
    assert device.wrong_books() == []
    device.disk.unreadable.clear()
    assert device.problems() == []


def test_a_read_of_which_a_part_cannot_be_had_fails_as_a_whole(on_disk: Device) -> None:
    device = on_disk
    device.disk.unreadable = {1}
    with pytest.raises(MediumError):
        device.read(0, device.model.slots)
    assert device.store.statistics().failed_reads == 1
    device.disk.unreadable.clear()


def test_a_page_that_cannot_be_read_can_be_overwritten_and_discarded(on_disk: Device) -> None:
    """It is not needed for that; but for a write of a part of it."""
    device = on_disk
    device.disk.unreadable = {1}
    lost = slots_in(device, 1)
    with pytest.raises(MediumError):
        device.lane.write(lost[0] * PAGE_SIZE + 512, memoryview(b"part"))
    device.write(lost[0], text())
    device.write(lost[0], b"part", at=512)
    for slot in lost[1:]:
        device.discard(slot)
    assert device.problems() == []
    assert device.segments() == [0, 2]


@pytest.mark.parametrize("bit", [0, 7])
@pytest.mark.parametrize("byte", [0, 1, 11, 12, 100, 4107, 4108, 4123])
def test_a_page_of_which_a_bit_has_changed_is_an_error(
    make_device: DeviceMaker, byte: int, bit: int
) -> None:
    """Header, payload, padding or tag: never other data."""
    device = make_device(Policy("zstd-fast", 1))
    device.store_on_disk(0, noise(4))
    extent = units_on_disk(device)[2]
    with device.disk.flipped(0, extent.offset + byte, bit):
        with pytest.raises(CorruptError) as caught:
            device.read(2)
        assert caught.value.errno == errno.EIO
        for slot in (3, 1, 0):
            assert device.read(slot) == device.right(slot)
        found = device.store.statistics()
        assert (found.backing_corrupt, found.failed_reads, found.backing_failed_reads) == (1, 1, 0)


def test_the_check_finds_what_is_damaged(make_device: DeviceMaker) -> None:
    device = make_device(Policy("zstd-fast", 1))
    device.store_on_disk(0, noise(4))
    device.disk.data[units_on_disk(device)[2].offset + 99] ^= 1
    (problem,) = device.store.check().problems
    assert problem.startswith("UNIT: slot 2")
    device.damaged = True


def test_what_was_read_wrong_once_is_read_again(make_device: DeviceMaker) -> None:
    """Also if it was read ahead, with what comes before it."""
    device = make_device(Policy("zstd-fast", 1))
    device.store_on_disk(0, noise(8))
    with device.disk.flipped(0, units_on_disk(device)[5].offset + 99):
        assert [device.read(slot) for slot in range(5)] == [noise(8)[:PAGE_SIZE]] + [
            device.right(slot) for slot in range(1, 5)
        ]
        with pytest.raises(CorruptError):
            device.read(5)
    assert device.read(5) == device.right(5)


def test_what_lies_between_units_is_of_no_matter(make_device: DeviceMaker) -> None:
    device = make_device()
    device.store_on_disk(0, text(3) + noise(5))
    end = 0
    for extent in units_on_disk(device):
        for at in range(end, extent.offset):
            device.disk.data[at] ^= 0xFF
        end = extent.offset + extent.size
    assert device.problems() == []


@pytest.mark.parametrize("kind", ["zeros", "another disk segment", "an old state"])
def test_blocks_that_are_not_what_was_written_are_an_error(on_disk: Device, kind: str) -> None:
    """A disk that forgets, or mixes up, or goes back in time."""
    device = on_disk
    old = bytes(device.disk.data)
    if kind == "an old state":
        device.write(0, noise(30, 1))
        device.write_back()
        device.write(0, noise(30, 2))
        device.write_back()  # in the same places as at first
        device.disk.data[:] = old
    elif kind == "zeros":
        device.disk.data[:] = bytes(len(old))
    else:
        device.disk.data[: 2 * SEGMENT_SIZE] = old[SEGMENT_SIZE:][: 2 * SEGMENT_SIZE]
    lost = [*slots_in(device, 0), *slots_in(device, 1)]
    assert lost
    fresh = device.store.lane()
    for slot in lost:
        with pytest.raises(CorruptError):
            fresh.read(slot * PAGE_SIZE, PAGE_SIZE)
    device.damaged = True


def test_a_disk_that_was_cut_off_is_an_error(on_disk: Device) -> None:
    device = on_disk
    rest = device.disk.data[SEGMENT_SIZE:]
    del device.disk.data[SEGMENT_SIZE:]
    for slot in slots_in(device, 2):
        with pytest.raises(MediumError):
            device.read(slot)
    for slot in slots_in(device, 0):
        assert device.read(slot) == device.right(slot)
    device.disk.data.extend(rest)


def test_a_unit_that_was_not_written_whole_is_never_named(
    make_device: DeviceMaker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BACK-COPY: whatever is in the place of a failed write."""
    small_batches(monkeypatch)
    device = make_device(disk=32)
    for turn in range(8):
        device.write(0, noise(30, turn))
        device.disk.fails.append((errno.EIO, turn * 8192 % SMALL_BATCH))
        device.write_back()
        assert device.read_wrong() == []
    device.bad = 8


def test_automatic_writeback_that_fails_leaves_the_victims_alone_for_a_while(
    make_device: DeviceMaker, clock: Clock
) -> None:
    device = make_device(slots=1024)
    device.write(0, noise(300))
    seal(device.lane)
    device.disk.fails += [(errno.EIO, 0)] * 2
    jobs = device.store._upkeep.jobs
    job = jobs.write_back(jobs.sealed(1e9), 1e9)
    assert job is not None
    assert finish(device, job) == 0
    assert jobs.write_back(jobs.sealed(1e9), 1e9) is None
    device.bad = 2
    clock.advance(6)
    job = jobs.write_back(jobs.sealed(2e9), 2e9)
    assert job is not None
    assert finish(device, job) > 200


def test_failures_do_not_keep_a_selection_from_what_can_be_written(
    device: Device, clock: Clock
) -> None:
    device.disk.fails += [(errno.EIO, 0), (0, 0), (errno.EIO, 0), (0, 0)]
    assert device.store.backing.write_back(Selection(huge=True)) == 8
    assert device.store.backing.write_back(Selection()) == 11
    device.bad = 2
    assert device.problems() == []
