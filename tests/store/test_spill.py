"""What is written back when memory is full, and that memory then holds out as long as the disk."""

from __future__ import annotations

import random

import numpy as np
import pytest
from model.disks import (
    Device,
    DeviceMaker,
    SpyBacking,
    device_maker,
    finish,
    small_batches,
    tight,
)
from model.moves import entries_at, put, seal, segments_of
from model.pages import noise, process_memory, text
from model.stores import limit_of

from vswap.errors import FullError
from vswap.geometry import PAGE_SIZE, SEGMENT_SIZE
from vswap.store import Policy
from vswap.store.budget import Budget
from vswap.store.places import KEPT
from vswap.store.plan import Victim
from vswap.store.spill import Marks, Spill, order

make_device = pytest.fixture(device_maker)

BLOCKS = SEGMENT_SIZE // PAGE_SIZE

# --- The order --------------------------------------------------------------------------


def sealed_one_by_one(device: Device, contents: list[bytes]) -> list[int]:
    """A segment of memory for each, the first 100 seconds old, the others 1 s younger each."""
    segments = []
    slot = 0
    for number, data in enumerate(contents):
        put(device.lane, slot, data)
        device.model.write(slot * PAGE_SIZE, data)
        (segment,) = segments_of(device.store, slot, len(data) // PAGE_SIZE)
        segments.append(segment)
        seal(device.lane)
        device.store._log.born[segment] = 1000.0 + number
        slot += len(data) // PAGE_SIZE
    return segments


def in_order(device: Device, now: float = 1100.0) -> list[int]:
    """The segments in the order in which they would go."""
    marks = Marks(device.store._parts, len(device.store._log.born))
    return [victim.segment for victim in order(device.store._log.sealed(), marks, now)]


def test_the_oldest_goes_first(make_device: DeviceMaker) -> None:
    device = make_device()
    segments = sealed_one_by_one(device, [text(8, seed) for seed in range(6)])
    assert in_order(device) == segments[:5]


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 16])
def test_the_youngest_eighth_never_goes(make_device: DeviceMaker, count: int) -> None:
    """However huge, and however loaded."""
    device = make_device(segments=32)
    segments = sealed_one_by_one(device, [text(6, seed) for seed in range(count - 1)] + [noise(6)])
    device.read(6 * (count - 1), 6)
    youngest = -(-count // 8)
    assert sorted(in_order(device)) == sorted(segments[: count - youngest])


@pytest.mark.parametrize("age", [10.0, 1e6])
def test_what_is_huge_goes_before_what_is_not(make_device: DeviceMaker, age: float) -> None:
    device = make_device()
    segments = sealed_one_by_one(device, [text(8), text(8, 1), noise(8), text(8, 2)])
    if age < 100:
        assert in_order(device, 1000 + age)[0] == segments[2]
    else:
        assert in_order(device, 1000 + age) == [segments[2], *segments[:2]]


def test_what_was_loaded_goes_before_what_was_not(make_device: DeviceMaker) -> None:
    device = make_device()
    segments = sealed_one_by_one(device, [text(8, seed) for seed in range(4)])
    device.read(16, 8)
    assert in_order(device) == [segments[2], *segments[:2]]


def test_more_of_it_huge_or_loaded_is_sooner(make_device: DeviceMaker) -> None:
    device = make_device()
    contents = [text(8), text(4) + noise(4), noise(8), noise(8, 1), text(8, 2)]
    segments = sealed_one_by_one(device, contents)
    device.read(24, 8)
    assert in_order(device, 1e6) == [segments[at] for at in (3, 2, 1, 0)]


def test_a_segment_that_is_old_enough_goes_before_a_huge_one(make_device: DeviceMaker) -> None:
    device = make_device()
    segments = sealed_one_by_one(device, [text(8), noise(8), text(8, 1)])
    device.store._log.born[segments[1]] = 1090.0
    device.store._log.born[segments[2]] = 1095.0
    assert in_order(device) == [segments[0], segments[1]]


def test_pages_that_have_died_do_not_count(make_device: DeviceMaker) -> None:
    device = make_device()
    segments = sealed_one_by_one(device, [text(4) + noise(8), text(8), text(8, 1)])
    device.discard(4, 8)
    marks = Marks(device.store._parts, len(device.store._log.born))
    assert marks.pages[segments[0]] == 4
    assert marks.huge[segments[0]] == 0


def test_marks_are_what_the_table_says(make_device: DeviceMaker) -> None:
    device = make_device(slots=1024)
    segments = sealed_one_by_one(device, [text(300), noise(100), text(100, 1)])
    device.read(10, 7)
    device.read(310, 3)
    device.write_back(0, 4)
    marks = Marks(device.store._parts, len(device.store._log.born))
    assert [marks.pages[at] for at in segments] == [296, 100, 100]
    assert [marks.huge[at] for at in segments] == [0, 100, 0]
    assert [marks.loaded[at] for at in segments] == [7, 3, 0]
    assert int(np.sum(marks.pages)) == 496


# --- What is chosen ---------------------------------------------------------------------


def chosen(spill: Spill, device: Device, now: float) -> list[Victim]:
    return spill.choose(device.store._log.sealed(), now)


def test_so_much_is_chosen_as_fills_a_disk_segment(make_device: DeviceMaker) -> None:
    device = make_device(slots=2048, segments=32)
    segments = sealed_one_by_one(device, [noise(100, seed) for seed in range(10)])
    found = chosen(Spill(device.store._parts), device, 1100.0)
    assert [victim.segment for victim in found] == segments[:3]


def test_what_was_filled_anew_since_is_not_chosen(make_device: DeviceMaker) -> None:
    device = make_device(slots=2048, segments=32)
    sealed_one_by_one(device, [noise(100, seed) for seed in range(10)])
    spill = Spill(device.store._parts)
    first = chosen(spill, device, 1100.0)
    device.discard(0, 300)
    second = chosen(spill, device, 1100.1)
    assert len(second) == 3
    assert not set(first) & set(second)
    sealed_one_by_one(device, [text(4), text(4, 1)])
    assert not {victim.segment for victim in first} & {
        victim.segment for victim in chosen(spill, device, 1100.2)
    }


def test_what_was_sealed_since_can_be_chosen_when_all_else_has_gone(
    make_device: DeviceMaker,
) -> None:
    """At once: a writer that finds no room does not wait."""
    device = make_device(slots=2048, segments=32)
    sealed_one_by_one(device, [noise(100, seed) for seed in range(4)])
    spill = Spill(device.store._parts)
    assert chosen(spill, device, 1100.0)
    device.discard(0, 400)
    sealed_one_by_one(device, [noise(100, seed) for seed in range(4)])
    assert chosen(spill, device, 1100.01)


# --- A store that spills ----------------------------------------------------------------

SLOTS = 8192


def fill(device: Device, first: int, count: int, seed: int = 0) -> int:
    """Write so many pages of noise; how many until the store was full."""
    for slot in range(first, first + count, 16):
        data = noise(16, (seed << 20) + slot)
        try:
            device.lane.write(slot * PAGE_SIZE, memoryview(data))
        except FullError:
            return slot - first
        device.model.write(slot * PAGE_SIZE, data)
    return count


def spilling(make_device: DeviceMaker, disk: int = 48) -> Device:
    """A device that may have four segments of memory for writers."""
    return make_device(tight(4, SLOTS), slots=SLOTS, segments=16, disk=disk)


def test_a_store_takes_many_times_its_memory(make_device: DeviceMaker) -> None:
    """With nothing done in the background, and never more than its limit."""
    device = spilling(make_device)
    assert fill(device, 0, SLOTS) == SLOTS
    found = device.store.statistics()
    assert found.failed_writes == 0
    assert found.mem_used_max <= found.mem_limit
    assert found.backing_pages > 6000
    assert found.writeback_pages < 1.2 * SLOTS
    assert device.read_wrong() == []


def test_a_store_that_is_written_over_and_over_takes_it_all(make_device: DeviceMaker) -> None:
    """Twice what the disk holds goes through it; dead space on it is won back."""
    device = spilling(make_device, disk=32)
    chance = random.Random(5)
    assert fill(device, 0, 4096) == 4096
    for turn in range(1, 400):
        slot = chance.randrange(4096 // 16) * 16
        assert fill(device, slot, 16, turn) == 16
    found = device.store.statistics()
    assert found.mem_used_max <= found.mem_limit
    assert device.read_wrong() == []


def test_the_background_spills_before_writers_must(make_device: DeviceMaker) -> None:
    device = spilling(make_device)
    assert fill(device, 0, 1024) == 1024
    device.rest()
    assert device.disk.writes
    assert device.store._log.room() > KEPT


def test_a_store_with_room_writes_nothing(make_device: DeviceMaker) -> None:
    device = make_device()
    fill(device, 0, 112)
    device.rest()
    assert device.disk.writes == []


def test_real_pages_are_spilled_and_come_back(make_device: DeviceMaker) -> None:
    device = make_device(
        Policy("lz4", 4, limit_of(3 + KEPT, SLOTS), reserve=0), slots=SLOTS, segments=16, disk=32
    )
    memory = process_memory(SLOTS)
    for at in range(0, len(memory) // PAGE_SIZE, 64):
        device.write(at, memory[at * PAGE_SIZE : (at + 64) * PAGE_SIZE])
    assert device.store.statistics().mem_used_max <= device.store.statistics().mem_limit
    assert device.read_wrong() == []


def test_a_full_disk_is_a_full_store_and_nothing_is_lost(make_device: DeviceMaker) -> None:
    device = spilling(make_device, disk=6)
    written = fill(device, 0, SLOTS)
    assert 5 * 250 + 3 * 250 < written < SLOTS
    assert device.read_wrong() == []
    found = device.store.statistics()
    assert found.pool_limit_hit == 1
    assert found.mem_used_max <= found.mem_limit
    assert device.room() <= 1
    # It goes on when something has been freed, and the background has made use of it.
    device.discard(0, 1024)
    device.rest()
    assert fill(device, 0, 768, seed=1) == 768


def test_a_backing_that_grows_takes_more(make_device: DeviceMaker) -> None:
    device = spilling(make_device, disk=6)
    written = fill(device, 0, SLOTS)
    device.store.backing.grow(20 * SEGMENT_SIZE)
    device.rest()
    assert fill(device, written, 2048) == 2048


# --- The budget -------------------------------------------------------------------------


class Day:
    """The time of day, in seconds since 1970."""

    def __init__(self) -> None:
        self.now = 100 * 86400.0 + 10

    def __call__(self) -> float:
        return self.now


def limited(device: Device, segments: int) -> Day:
    """Let so many disk segments be written a day."""
    day = Day()
    device.store._parts.disk.budget = Budget(now=day)
    device.store.backing.set_writeback_limit(segments * BLOCKS)
    device.store.backing.enable_writeback_limit(True)
    return day


def blocks_written(device: Device) -> int:
    return sum(size for _, size in device.disk.writes) // PAGE_SIZE


def test_a_used_up_budget_is_a_full_store_until_the_next_day(make_device: DeviceMaker) -> None:
    device = spilling(make_device)
    day = limited(device, 3)
    written = fill(device, 0, SLOTS)
    assert 2 * 250 + 3 * 250 < written < 8 * 256
    assert blocks_written(device) <= 3 * BLOCKS
    assert device.read_wrong() == []
    assert device.store.statistics().writeback_limit_left < BLOCKS
    device.rest()
    assert fill(device, written, 256) < 256
    day.now += 86400
    device.rest()  # it is the background that sees that there is room to be won again
    assert fill(device, written, 256) == 256
    assert blocks_written(device) <= 6 * BLOCKS
    assert device.read_wrong() == []


def test_a_limit_that_is_not_enabled_does_not_count(make_device: DeviceMaker) -> None:
    device = spilling(make_device)
    limited(device, 1)
    device.store.backing.enable_writeback_limit(False)
    assert fill(device, 0, 4096) == 4096


def test_a_command_stops_at_the_budget(make_device: DeviceMaker) -> None:
    device = make_device(slots=2048, segments=32, disk=16)
    limited(device, 2)
    assert fill(device, 0, 1024) == 1024
    assert 400 < device.write_back() < 600
    assert blocks_written(device) <= 2 * BLOCKS
    assert device.write_back() == 0


def test_cleaning_the_disk_stops_at_the_budget(
    make_device: DeviceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is due to be written is written another day."""
    small_batches(monkeypatch)
    device = make_device(disk=24, slots=512)
    fill(device, 0, 192)
    device.write_back()
    for slot in range(0, 192, 4):
        device.discard(slot, 2)
    limited(device, 1)
    device.disk.writes.clear()
    jobs = device.store._upkeep.jobs
    with device.store._upkeep.lock:
        for _ in jobs.restack.empty(device.store._parts.disk.log.full().segments[:16]):
            pass
    assert blocks_written(device) <= device.store.statistics().writeback_limit


def test_a_failed_write_is_not_tried_again_beyond_the_budget(make_device: DeviceMaker) -> None:
    device = make_device(slots=1024, disk=16)
    limited(device, 1)
    fill(device, 0, 512)
    device.disk.fails.append((5, SEGMENT_SIZE))
    device.write_back()
    device.bad = 1
    assert blocks_written(device) <= BLOCKS


def test_a_store_spills_again_after_its_backing_was_exchanged(make_device: DeviceMaker) -> None:
    device = spilling(make_device, disk=16)
    assert fill(device, 0, 1536) == 1536
    device.discard(0, 1280)
    assert device.detach() == "detached"
    device.disk = SpyBacking(16)
    device.store.backing.attach(device.disk)
    assert fill(device, 2048, 2048) == 2048
    assert entries_at(device.store, 2048, 1) != [0]


def test_jobs_that_begin_with_nothing_to_write_end(make_device: DeviceMaker) -> None:
    device = make_device()
    device.write(0, text(8))
    seal(device.lane)
    device.write(64, text(8))
    seal(device.lane)
    jobs = device.store._upkeep.jobs
    job = jobs.write_back(jobs.sealed(1e9), 1e9)
    assert job is not None
    device.discard(0, 128)
    assert finish(device, job) == 0
    assert device.disk.writes == []
