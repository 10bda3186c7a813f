"""Writing back: what goes to the disk, in what shape, and what comes back from there."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.disks import (
    EVERYTHING,
    Device,
    DeviceMaker,
    device_maker,
    disk_clock,
    small_batches,
    units_on_disk,
)
from model.effort import effort
from model.moves import entries_at, halves, seal, sealed_segments, segments_of, victim_of
from model.pages import filled, made, mixed, noise, process_memory, text, zero

from vswap.errors import CorruptError
from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE, SEGMENT_SIZE
from vswap.store import Policy, Selection
from vswap.store.batch import sealed_size
from vswap.store.entry import COLD, HUGE, IDLE, LOADED, OF_PAGE, extent_of, position_of
from vswap.store.unit import unit_length

make_device = pytest.fixture(device_maker)


@pytest.fixture
def device(make_device: DeviceMaker) -> Device:
    return make_device()


CONTENTS = {
    "a page": text(),
    "a page of noise": noise(),
    "a unit": text(4),
    "a huge unit": noise(4),
    "units that begin anywhere": text(11, 1),
    "of every kind": mixed(40, 3),
    "what a process has": process_memory(64),
}


@pytest.mark.parametrize("policy", [Policy("zstd-fast", 4), Policy("lz4", 1), Policy("zstd", 16)])
@pytest.mark.parametrize("what", CONTENTS)
def test_what_is_written_back_is_read_as_it_was(
    make_device: DeviceMaker, what: str, policy: Policy
) -> None:
    device = make_device(policy)
    device.write(3, CONTENTS[what])
    stored = device.in_memory()
    assert device.write_back() == len(stored) > 0
    assert set(device.on_disk()) == stored
    assert device.in_memory() == set()
    assert device.read_wrong() == []
    assert len(device.disk.writes) == 1


def test_whole_units_go_as_they_are(device: Device) -> None:
    """Header and payload, padded anew: nothing is compressed twice."""
    device.write(0, text(4) + noise(2) + halves(1, 3))
    memory, units = device.store._parts.memory, []
    for slot, pages in ((0, 4), (4, 4), (8, 1)):
        position = position_of(entries_at(device.store, slot, 1)[0])
        length = unit_length(memory, position)
        units.append((bytes(memory[position : position + length]), pages))
    device.write_back()
    disk = device.store._parts.disk
    found = dict.fromkeys(units_on_disk(device))
    assert [extent.size for extent in found] == [sealed_size(len(unit), n) for unit, n in units]
    for extent, (unit, _) in zip(found, units, strict=True):
        sealed = device.disk.data[extent.offset : extent.offset + extent.size]
        plain = disk.open(disk.log.sequence_of(0), extent.offset, sealed)
        assert plain is not None
        assert plain[: len(unit)] == unit


@pytest.mark.parametrize("dead", [(0,), (3,), (1,), (0, 2), (1, 2, 3), (0, 3)])
@pytest.mark.parametrize("maker", ["text", "noise"])
def test_of_a_unit_that_is_partly_dead_what_lives_is_written(
    device: Device, maker: str, dead: tuple[int, ...]
) -> None:
    """Each run of it as a unit of its own: what is dead costs nothing on disk."""
    device.write(8, made(maker, 4, 1))
    for at in dead:
        device.discard(8 + at)
    alive = {8 + at for at in range(4) if at not in dead}
    assert device.write_back() == len(alive)
    assert set(device.on_disk()) == alive
    assert sum(extent.pages for extent in units_on_disk(device)) == len(alive)
    assert all(bool(entry & HUGE) == (maker == "noise") for entry in device.on_disk().values())


def test_cold_units_of_sixteen_pages_stay_cold(make_device: DeviceMaker) -> None:
    device = make_device(Policy("zstd", 16))
    device.write(0, text(48))
    device.discard(20)
    device.store.recompress(Selection())
    assert device.write_back() == 47
    assert all(entry & COLD for entry in device.on_disk().values())
    assert device.store._parts.disk.log.ledger.totals().cold == 47
    assert max(extent.pages for extent in units_on_disk(device)) == 16


def test_what_is_no_unit_stays(device: Device) -> None:
    """Zeros and fill words have no room to win."""
    device.write(0, zero(4) + filled(4) + text(4))
    assert device.write_back() == 4
    assert sorted(device.on_disk()) == [8, 9, 10, 11]
    assert device.write_back() == 0
    assert len(device.disk.writes) == 1


def test_marks_on_pages_survive(device: Device) -> None:
    device.write(0, text(3))
    device.store.mark_idle()
    device.read(1)
    table = device.store._parts.table
    table.replace(2, table.get(2) & ~OF_PAGE)
    device.write_back()
    assert [entry & OF_PAGE for entry in device.on_disk().values()] == [IDLE, LOADED, 0]


def test_pages_of_several_clusters_go_together(make_device: DeviceMaker) -> None:
    device = make_device(slots=3 * CLUSTER_SLOTS)
    device.write(CLUSTER_SLOTS - 5, text(10))
    device.write(2 * CLUSTER_SLOTS + 7, noise(3))
    assert device.write_back() == 13
    assert len(device.disk.writes) == 1
    assert device.segments() == [0]


def test_only_what_is_selected_goes(device: Device) -> None:
    """Units of which anything is; and of the rest, nothing."""
    device.write(0, text(8) + noise(8))
    assert device.store.backing.write_back(Selection(huge=True, cold=None)) == 8
    assert sorted(device.on_disk()) == list(range(8, 16))
    assert device.write_back(0, 3) == 4
    assert sorted(device.on_disk()) == [0, 1, 2, 3, *range(8, 16)]


def test_more_than_a_disk_segment_goes_to_several(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_batches(monkeypatch)
    device.write(0, noise(80))
    assert device.write_back() == 80
    assert [offset // SEGMENT_SIZE for offset, _ in device.disk.writes] == list(range(7))
    assert device.segments() == list(range(7))


def test_a_full_disk_segment_is_nearly_full(make_device: DeviceMaker) -> None:
    """With what pages really are."""
    device = make_device(slots=2048, segments=32, disk=8)
    device.write(0, process_memory(2048))
    device.write_back()
    full = [size for _, size in device.disk.writes[:-1]]
    assert len(full) > 0
    assert min(full) > 0.95 * SEGMENT_SIZE


def test_segments_of_memory_are_emptied(make_device: DeviceMaker) -> None:
    """What automatic writeback does: what lives there goes, and the segment is free."""
    device = make_device()
    device.write(0, noise(40) + text(40))
    device.discard(5, 3)
    device.discard(61)
    seal(device.lane)
    (segment,) = sealed_segments(device.store)
    device.write(100, text(8))
    jobs = device.store._upkeep.jobs
    moved = sum(jobs.writeback.segments([victim_of(device.store, segment)]))
    assert moved == 76
    assert sealed_segments(device.store) == []
    assert sorted(device.in_memory()) == list(range(100, 108))


def test_one_disk_segment_is_filled_at_a_time(
    make_device: DeviceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit stays where it is."""
    small_batches(monkeypatch)
    device = make_device()
    device.write(0, noise(40))
    seal(device.lane)
    victims = [victim_of(device.store, one) for one in sealed_segments(device.store)]
    moved = sum(device.store._upkeep.jobs.writeback.segments(victims))
    assert 10 < moved < 16
    assert len(device.disk.writes) == 1
    assert len(device.in_memory()) == 40 - moved


def test_what_was_written_back_is_counted(device: Device) -> None:
    device.write(0, text(8))
    device.write_back()
    found = device.store.statistics()
    size = sum(extent.size for extent in units_on_disk(device))
    assert (found.writeback_pages, found.writeback_bytes) == (8, size)
    assert found.bd_writes == sum(size for _, size in device.disk.writes) // 4096
    assert (found.backing_pages, found.backing_data_size) == (8, size)
    assert found.bd_count == -(-size // 4096)
    assert found.orig_data_size == 8 * PAGE_SIZE
    assert found.compr_data_size == 0


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "partly dead"])
@pytest.mark.parametrize("byte", [0, 6, 7, 8, 12, 400])
def test_a_damaged_unit_stays_an_error_and_harms_no_other(
    device: Device, whole: bool, byte: int
) -> None:
    """Wherever it is then; and others of the same batch are as they were."""
    device.write(0, text(4) + text(4, 1) + noise(4))
    if not whole:
        device.discard(5)
    position = position_of(entries_at(device.store, 4, 1)[0])
    device.store._parts.memory[position + byte] ^= 0x10
    device.write_back()
    device.damaged = True
    for slot in (4, 6, 7):
        with pytest.raises(CorruptError):
            device.read(slot)
    assert device.read(0, 4) == text(4)
    assert device.read(8, 4) == noise(4)
    assert device.wrong_books() == []
    device.write(4, text(4))
    assert device.problems() == []


def test_what_cannot_be_decoded_stays_in_memory(device: Device) -> None:
    """What is left of a unit would have to be compressed anew."""
    device.write(0, text(4) + text(4, 1))
    device.discard(5)
    position = position_of(entries_at(device.store, 4, 1)[0])
    device.store._parts.memory[position + 100] ^= 0x10
    assert device.write_back() == 4
    assert device.in_memory() == {4, 6, 7}
    device.damaged = True


def test_nothing_is_written_without_need(device: Device) -> None:
    assert device.write_back() == 0
    assert device.disk.writes == []


@effort(25)
@given(
    requests=st.lists(
        st.tuples(
            st.sampled_from(("text", "noise", "mixed", "zero", "filled", "discard", "back")),
            st.integers(0, 60),
            st.integers(1, 20),
            st.integers(0, 9),
        ),
        min_size=3,
        max_size=30,
    )
)
def test_whatever_is_written_and_written_back_reads_as_it_was(
    requests: list[tuple[str, int, int, int]],
) -> None:
    """DISK-LIVE: and the books are right after each request."""
    with Device() as device:
        for kind, slot, count, seed in requests:
            if kind == "back":
                device.write_back(slot, count)
            elif kind == "discard":
                device.discard(slot, count)
            else:
                device.write(slot, made(kind, count, seed))
            assert device.wrong_books() == []
        device.write_back()
        assert device.problems() == []


def test_a_full_disk_is_no_harm(make_device: DeviceMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last free disk segment is kept; what finds no room stays in memory."""
    small_batches(monkeypatch)
    device = make_device(disk=4)
    device.write(0, noise(100))
    moved = device.write_back()
    assert device.segments() == [0, 1, 2]
    assert len(device.on_disk()) == moved < 100
    assert device.write_back() == 0
    assert device.read_wrong() == []
    device.discard(0, 20)
    assert device.write_back() > 0


def test_discards_and_overwrites_free_disk_segments(
    make_device: DeviceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DISK-REUSE"""
    small_batches(monkeypatch)
    device = make_device(disk=10)
    device.write(0, noise(100))
    device.write_back()
    used = len(device.segments())
    pages = device.store.statistics().backing_pages
    first = [slot for slot, entry in device.on_disk().items() if extent_of(entry).segment == 0]
    for slot in first[:-1]:
        device.discard(slot)
    assert device.room() == 10 - used
    device.write(first[-1], text())
    assert device.room() == 10 - used + 1
    assert device.store.statistics().backing_pages == pages - len(first)
    device.discard(0, 100)
    assert device.room() == 10
    assert device.store.statistics().bd_count == 0


def test_pages_come_to_the_same_disk_segments_again(
    make_device: DeviceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over and over, without a disk segment being lost."""
    small_batches(monkeypatch)
    device = make_device(disk=10)
    for turn in range(12):
        device.write(0, noise(60, turn))
        assert device.write_back() == 60
        assert device.problems() == []
    assert device.room() == 10 - len(device.segments())


def test_a_write_that_fails_is_not_tried_by_a_command_again_and_again(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_clock(monkeypatch)
    small_batches(monkeypatch)
    device.write(0, noise(60))
    device.disk.fails += [(errno.EIO, 0)] * 99
    assert device.store.backing.write_back(EVERYTHING) == 0
    assert len(device.disk.writes) == 2
    device.bad = 2
    assert segments_of(device.store, 0, 60)
