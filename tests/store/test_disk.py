"""The backing as the store uses it: attached and let go, read ahead, at rest after failures."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from model.disks import SpyBacking, disk_clock
from model.moves import Clock
from model.pages import noise, text
from model.threads import run_threads

from vswap.codec import STORED
from vswap.errors import UserError
from vswap.geometry import PAGE_SIZE, SEGMENT_SIZE
from vswap.store.backing import BLOCK, UNIT_BLOCKS, aligned
from vswap.store.batch import Batch, sealed_size
from vswap.store.disk import Disk
from vswap.store.disk_log import DiskLog
from vswap.store.entry import extent_of, pack_backing
from vswap.store.region import Region
from vswap.store.unit import pack_unit
from vswap.store.windows import WINDOW_SIZE, WINDOWS, Windows


@pytest.fixture
def disk() -> Iterator[Disk]:
    region = Region.create("disk log", DiskLog.region_size(8))
    yield Disk(region)
    region.close()


@pytest.fixture
def backing(disk: Disk) -> SpyBacking:
    """Four disk segments, attached to `disk`."""
    made = SpyBacking(4)
    disk.attach(made)
    return made


def fill(disk: Disk, units: int, segment: int = 1) -> tuple[list[int], int]:
    """Fill a disk segment with units of a page of noise; their entries and the sequence."""
    batch = Batch(disk)
    batch.begin()
    for number in range(units):
        unit = pack_unit(number, 1, STORED, noise(1, number))
        assert batch.add(number, [number + 1], {(1, 1)}, unit, 0)
    disk.write(segment, batch.blocks())
    filling = batch.filling()
    disk.log.fill(segment, filling)
    return [placed.entry(segment) for placed in batch], filling.sequence


def page(disk: Disk, entry: int, sequence: int) -> bytes | None:
    found = disk.unit(entry, sequence, aligned(UNIT_BLOCKS))
    return None if found is None else found[12 : 12 + PAGE_SIZE]


# --- Attaching --------------------------------------------------------------------------


def test_without_a_backing_there_is_nothing(disk: Disk) -> None:
    assert not disk.attached
    assert not disk.takes_writes
    assert not disk.may_write()
    assert disk.name == ""
    assert disk.unit(pack_backing(0, 0, 1, 400, 0), 1, aligned(UNIT_BLOCKS)) is None
    with pytest.raises(UserError, match="no backing"):
        disk.require()
    disk.let_go()


def test_a_second_backing_is_refused(disk: Disk, backing: SpyBacking) -> None:
    with pytest.raises(UserError, match="disk is attached already"):
        disk.attach(SpyBacking(4, "another"))
    assert disk.require() is backing


def test_a_backing_whose_note_cannot_be_read_is_not_attached(disk: Disk) -> None:
    class Unreadable(SpyBacking):
        def load_note(self) -> bytes:
            raise OSError(errno.EIO, "no")

    with pytest.raises(OSError, match="no"):
        disk.attach(Unreadable(4))
    assert not disk.attached
    assert disk.log.size == 0
    disk.attach(SpyBacking(4))
    assert disk.log.size == 4


def test_a_backing_is_closed_when_it_is_let_go(disk: Disk, backing: SpyBacking) -> None:
    disk.let_go()
    assert backing.closed
    assert not disk.attached
    disk.let_go()
    disk.attach(SpyBacking(2))
    assert disk.log.size == 2


def test_a_backing_that_keeps_no_note_can_be_let_go(disk: Disk, backing: SpyBacking) -> None:
    backing.note_fails = 1
    disk.let_go()
    assert backing.closed


def test_a_backing_is_closed_only_when_nobody_reads_from_it(
    disk: Disk, backing: SpyBacking
) -> None:
    entries, sequence = fill(disk, 2)
    reading, let_go = threading.Event(), threading.Event()
    found = []

    def wait(_: int) -> None:
        reading.set()
        assert let_go.wait(20)
        assert not backing.closed

    def let_it_go() -> None:
        assert reading.wait(20)
        disk.let_go()
        disk.log.publish(2, entries)
        disk.attach(SpyBacking(2, "the next"))
        let_go.set()

    backing.before_read = wait
    run_threads([lambda: found.append(page(disk, entries[0], sequence)), let_it_go])
    assert found == [noise(1, 0)]
    assert backing.closed
    assert disk.name == "the next"


def test_what_was_on_the_last_backing_is_not_on_the_next(disk: Disk, backing: SpyBacking) -> None:
    entries, sequence = fill(disk, 3)
    disk.let_go()
    disk.log.publish(3, entries)
    disk.attach(SpyBacking(4))
    for entry in entries:
        assert page(disk, entry, sequence) is None


# --- Reading ----------------------------------------------------------------------------


def test_only_the_blocks_of_a_unit_are_read(disk: Disk, backing: SpyBacking) -> None:
    """Of units that are read in no order."""
    entries, sequence = fill(disk, 60)
    for number in (50, 3, 33):
        backing.reads.clear()
        before = disk.reads
        assert page(disk, entries[number], sequence) == noise(1, number)
        extent = extent_of(entries[number])
        start = extent.offset // BLOCK * BLOCK
        size = -(-(extent.offset + extent.size) // BLOCK) * BLOCK - start
        assert backing.reads == [(SEGMENT_SIZE + start, size)]
        assert disk.reads - before == size // BLOCK


def test_units_read_in_order_are_read_ahead(disk: Disk, backing: SpyBacking) -> None:
    count = 250
    entries, sequence = fill(disk, count)
    for number, entry in enumerate(entries):
        assert page(disk, entry, sequence) == noise(1, number)
    reads = backing.reads
    assert len(reads) <= 2 * -(-SEGMENT_SIZE // (WINDOW_SIZE - 2 * BLOCK))
    assert sum(size for _, size in reads) < 1.1 * SEGMENT_SIZE
    assert max(offset + size for offset, size in reads) <= 2 * SEGMENT_SIZE
    assert disk.reads == sum(size for _, size in reads) // BLOCK


def test_no_more_is_read_ahead_than_was_written(disk: Disk, backing: SpyBacking) -> None:
    entries, sequence = fill(disk, 5)
    for number, entry in enumerate(entries):
        assert page(disk, entry, sequence) == noise(1, number)
    written = backing.writes[0][1]
    assert max(offset + size for offset, size in backing.reads) == SEGMENT_SIZE + written


def test_what_was_read_ahead_is_not_taken_for_what_was_written_since(
    disk: Disk, backing: SpyBacking
) -> None:
    """The disk segment is freed and filled anew, at the same places."""
    entries, sequence = fill(disk, 20)
    for entry in entries[:5]:
        assert page(disk, entry, sequence) is not None
    disk.log.publish(20, entries)
    disk.log.resize(4)
    backing.data[:] = bytes(len(backing.data))
    again, newer = fill(disk, 20)
    assert again == entries
    assert newer != sequence
    backing.reads.clear()
    for number, entry in enumerate(entries):
        assert page(disk, entry, newer) == noise(1, number)
    assert backing.reads
    # What is still in a window may be had, and is what it was; what is on the disk may not.
    assert page(disk, entries[19], sequence) in (None, noise(1, 19))


def use_up_windows(disk: Disk) -> None:
    """Let others read in order in so many places that every window is theirs."""
    entries, sequence = fill(disk, 250, segment=0)
    for start in range(0, 250, 250 // WINDOWS):
        for number in (start, start + 1):
            assert page(disk, entries[number], sequence) == noise(1, number)


def test_reading_ahead_that_fails_is_an_error_and_keeps_nothing(
    disk: Disk, backing: SpyBacking
) -> None:
    entries, sequence = fill(disk, 20)
    assert page(disk, entries[0], sequence) == noise(1, 0)
    backing.unreadable = {1}
    for _ in range(WINDOWS + 2):  # no window is lost by it
        with pytest.raises(OSError, match="Input/output error"):
            page(disk, entries[1], sequence)
    assert disk.failed_reads >= WINDOWS + 2
    backing.unreadable.clear()
    assert page(disk, entries[1], sequence) == noise(1, 1)
    assert page(disk, entries[2], sequence) == noise(1, 2)


@pytest.mark.parametrize("size", [64, 4 << 10, 64 << 10])
def test_an_entry_that_leads_beyond_the_disk_segment_is_no_unit(
    disk: Disk, backing: SpyBacking, size: int
) -> None:
    """A damaged entry: nothing is read that may be another segment's."""
    _, sequence = fill(disk, 3)
    share = min(size // 16 // 4 * 4, 8188)
    entry = pack_backing(1, SEGMENT_SIZE - 64, 16, max(share, 8), 0)
    backing.reads.clear()
    assert disk.unit(entry, sequence, aligned(UNIT_BLOCKS)) is None
    assert backing.reads == []


def test_a_window_that_others_use_up_at_once_is_no_reason_for_a_unit_to_be_missing(
    disk: Disk, backing: SpyBacking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading a window and looking into it others may take all of them."""
    entries, sequence = fill(disk, 20)
    assert page(disk, entries[0], sequence) == noise(1, 0)
    end = Windows.end

    def overtaken(windows: Windows, *args: Any, **named: Any) -> None:  # noqa: ANN401
        end(windows, *args, **named)
        monkeypatch.setattr(Windows, "end", end)
        use_up_windows(disk)

    monkeypatch.setattr(Windows, "end", overtaken)
    assert page(disk, entries[1], sequence) == noise(1, 1)


def test_two_who_read_in_the_same_place_read_it_once(disk: Disk, backing: SpyBacking) -> None:
    """Whoever comes second waits for what is being read, or finds it there."""
    entries, sequence = fill(disk, 60)
    assert page(disk, entries[0], sequence) == noise(1, 0)
    backing.reads.clear()
    reading = threading.Event()
    found: dict[int, bytes | None] = {}

    def second() -> None:
        assert reading.wait(20)
        found[2] = page(disk, entries[2], sequence)

    def first() -> None:
        found[1] = page(disk, entries[1], sequence)

    backing.before_read = lambda _: reading.set()
    run_threads([first, second])
    assert found == {1: noise(1, 1), 2: noise(1, 2)}
    assert len(backing.reads) == 1


# --- Writing ----------------------------------------------------------------------------


def test_what_is_written_is_counted_in_blocks(disk: Disk, backing: SpyBacking) -> None:
    fill(disk, 3)
    size = -(-3 * sealed_size(4108, 1) // BLOCK) * BLOCK
    assert backing.writes == [(SEGMENT_SIZE, size)]
    assert disk.writes == size // BLOCK


def test_writing_rests_after_failures_each_time_for_longer(
    disk: Disk, backing: SpyBacking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BACK-FAILS: and from the first success on it is as if nothing had been."""
    clock = disk_clock(monkeypatch)
    assert disk.may_write()
    assert [rest_of(disk, clock) for _ in range(9)] == [5, 10, 20, 40, 80, 160, 320, 600, 600]
    disk.write(0, aligned(BLOCK))
    assert rest_of(disk, clock) == 5


def rest_of(disk: Disk, clock: Clock) -> int:
    """Let writing fail; for how many seconds it rests."""
    disk.rest()
    seconds = 0
    while disk.rests:
        assert not disk.may_write()
        clock.advance(1)
        seconds += 1
    assert disk.may_write()
    return seconds


def test_a_new_backing_does_not_rest(disk: Disk, backing: SpyBacking) -> None:
    disk.rest()
    assert disk.rests
    disk.let_go()
    disk.attach(SpyBacking(4))
    assert not disk.rests
    assert disk.may_write()


def test_nothing_is_written_while_it_is_being_emptied(disk: Disk, backing: SpyBacking) -> None:
    disk.closed_for_writing = True
    assert not disk.takes_writes
    assert not disk.may_write()
    assert disk.attached


def test_a_used_up_budget_forbids_writing(disk: Disk, backing: SpyBacking) -> None:
    disk.budget.set_limit(SEGMENT_SIZE // BLOCK + 1)
    assert disk.may_write()
    disk.budget.enable(True)
    assert disk.may_write()
    assert disk.admit(2 * BLOCK)
    assert not disk.may_write()
    assert disk.budget.left == SEGMENT_SIZE // BLOCK - 1
    assert not disk.admit(SEGMENT_SIZE)
    assert disk.admit(SEGMENT_SIZE - BLOCK)
    assert disk.budget.left == 0
    disk.budget.enable(False)
    assert disk.may_write()


def test_what_was_used_of_the_budget_outlives_the_daemon(disk: Disk, backing: SpyBacking) -> None:
    disk.budget.set_limit(1000)
    disk.budget.enable(True)
    disk.save_budget()
    assert disk.admit(200 * BLOCK)
    disk.let_go()
    disk.attach(backing_with(backing.note))
    assert (disk.budget.limit, disk.budget.enabled, disk.budget.left) == (1000, True, 800)


def backing_with(note: bytes) -> SpyBacking:
    made = SpyBacking(4)
    made.note = note
    return made


def test_nothing_is_admitted_while_writing_rests_or_the_backing_goes(
    disk: Disk, backing: SpyBacking, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = disk_clock(monkeypatch)
    disk.budget.set_limit(1000)
    disk.rest()
    assert not disk.admit(BLOCK)
    clock.advance(1000)
    disk.closed_for_writing = True
    assert not disk.admit(BLOCK)
    disk.closed_for_writing = False
    assert disk.budget.left == 1000
    assert disk.admit(BLOCK)
    assert disk.budget.left == 999
    disk.let_go()
    assert not disk.admit(BLOCK)


def test_what_cannot_be_noted_is_not_admitted(
    disk: Disk, backing: SpyBacking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BUDGET-AHEAD: the note comes before the write."""
    clock = disk_clock(monkeypatch)
    disk.budget.set_limit(1000)
    disk.budget.enable(True)
    backing.note_fails = 1
    assert not disk.admit(BLOCK)
    assert disk.rests
    clock.advance(1000)
    assert disk.admit(BLOCK)
    assert len(backing.notes) == 1


def test_growing_gives_room(disk: Disk, backing: SpyBacking) -> None:
    backing.grow(6 * SEGMENT_SIZE)
    assert disk.log.room() == 4
    disk.use_all_of(backing)
    assert (disk.log.size, disk.log.room()) == (6, 6)


def test_a_backing_that_has_been_let_go_may_grow_as_it_likes(
    disk: Disk, backing: SpyBacking
) -> None:
    disk.let_go()
    disk.attach(SpyBacking(2))
    backing.grow(6 * SEGMENT_SIZE)
    disk.use_all_of(backing)
    assert disk.log.size == 2


def test_nothing_plain_lies_on_the_backing(disk: Disk, backing: SpyBacking) -> None:
    batch = Batch(disk)
    batch.begin()
    plain = text()
    assert batch.add(0, [1], {(1, 1)}, pack_unit(0, 1, STORED, plain), 0)
    disk.write(0, batch.blocks())
    assert any(backing.data)
    for at in range(0, PAGE_SIZE - 16, 16):
        assert plain[at : at + 16] not in backing.data
