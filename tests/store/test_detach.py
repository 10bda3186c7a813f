"""Taking the backing away while it is in use; and what stops that."""

from __future__ import annotations

import pytest
from model.disks import (
    EVERYTHING,
    Device,
    DeviceMaker,
    SpyBacking,
    device_maker,
    disk_clock,
    finish,
    small_batches,
    tight,
)
from model.moves import seal
from model.pages import noise, text
from model.stores import limit_of
from model.threads import run_threads

from vswap.errors import FullError, UserError
from vswap.geometry import PAGE_SIZE, SEGMENT_SIZE
from vswap.store.jobs import Job
from vswap.store.places import KEPT

make_device = pytest.fixture(device_maker)


@pytest.fixture
def device(make_device: DeviceMaker, monkeypatch: pytest.MonkeyPatch) -> Device:
    """With pages on seven disk segments, and some in memory."""
    small_batches(monkeypatch)
    made = make_device(disk=24)
    made.store_on_disk(0, noise(80))
    made.write(100, text(20))
    return made


def state(device: Device) -> tuple[str, str]:
    found = device.store.statistics()
    return found.backing_state, found.detach_result


def begin(device: Device, steps: int = 0) -> None:
    device.store.backing.begin_detach()
    for _ in range(steps):
        device.store.step()


# --- To the end -------------------------------------------------------------------------


def test_all_comes_back_and_the_backing_is_let_go(device: Device) -> None:
    used = len(device.segments())
    begin(device)
    assert state(device) == ("detaching", "")
    assert device.go_on_detaching() == "detached"
    assert state(device) == ("none", "detached")
    assert device.disk.closed
    assert device.on_disk() == {}
    found = device.store.statistics()
    assert (found.drain_visits, found.drain_reads) == (1, used)
    assert (found.backing_size, found.backing_pages, found.backing_segments_free) == (0, 0, 0)
    assert device.problems() == []


def test_an_empty_backing_is_let_go_at_once(make_device: DeviceMaker) -> None:
    device = make_device()
    assert device.detach() == "detached"
    assert device.disk.reads == []


def test_without_a_backing_there_is_nothing_to_detach(device: Device) -> None:
    assert device.detach() == "detached"
    with pytest.raises(UserError, match="no backing"):
        begin(device)
    device.store.backing.stop_detach()
    assert state(device) == ("none", "detached")


def test_a_second_detaching_at_the_same_time_is_refused(device: Device) -> None:
    begin(device, 2)
    with pytest.raises(UserError, match="being detached already"):
        begin(device)
    assert device.go_on_detaching() == "detached"


def test_what_was_used_of_the_budget_is_noted_at_the_end(device: Device) -> None:
    device.store.backing.set_writeback_limit(99_999)
    device.store.backing.enable_writeback_limit(True)
    left = device.store.statistics().writeback_limit_left
    device.detach()
    device.store.backing.attach(again := SpyBacking(4))
    assert device.store.statistics().writeback_limit == 0  # another backing, another limit
    assert again.note == b""
    device.detach()
    last = SpyBacking(4)
    last.note = device.disk.note
    device.store.backing.attach(last)
    assert device.store.statistics().writeback_limit_left == left


# --- Stopped ----------------------------------------------------------------------------


@pytest.mark.parametrize("steps", range(9))
def test_a_detaching_that_is_stopped_leaves_all_readable(device: Device, steps: int) -> None:
    """And can be begun anew."""
    begin(device, steps)
    device.store.backing.stop_detach()
    assert state(device) == ("attached", "stopped")
    assert device.problems() == []
    device.write(0, noise(4, 9))
    assert device.write_back() > 0  # it is in use again
    assert device.problems() == []
    assert device.detach() == "detached"


def test_writes_and_discards_go_on_while_pages_come_back(device: Device) -> None:
    begin(device)
    step = 0
    while device.store.backing.detaching:
        device.write(step * 8, noise(4, 50 + step))
        device.discard(step * 8 + 5, 2)
        assert device.read_wrong() == []
        device.store.step()
        step += 1
    assert step >= 8
    assert device.on_disk() == {}


def test_nothing_is_written_back_while_pages_come_back(device: Device) -> None:
    begin(device, 2)
    before = len(device.disk.writes)
    assert device.write_back() == 0
    assert device.store.backing.write_back(EVERYTHING) == 0
    jobs = device.store._upkeep.jobs
    assert jobs.write_back(jobs.sealed(1e9), 1e9) is None
    device.go_on_detaching()
    assert len(device.disk.writes) == before


@pytest.mark.parametrize("what", ["a command", "automatic", "cleaning the disk"])
@pytest.mark.parametrize("ending", ["detached", "stopped", "another backing"])
def test_what_was_half_done_is_not_written_to_a_backing_that_goes(
    device: Device, what: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the job is taken up again when that has ended."""
    jobs = device.store._upkeep.jobs
    device.write(100, noise(24, 4))
    seal(device.lane)
    if what == "automatic":
        device.write(90, noise(8, 5))
        seal(device.lane)
        job = jobs.write_back(jobs.sealed(1e9), 1e9)
    elif what == "a command":
        job = jobs.write_back_selected([EVERYTHING], 0.0)
    else:
        job = Job(jobs.restack.empty(device.store._parts.disk.log.full().segments))
    assert job is not None
    with device.store._upkeep.lock:
        jobs.do_piece(job)
    begin(device, 1)
    before = len(device.disk.writes)
    finish(device, job)
    assert len(device.disk.writes) == before
    assert device.problems() == []
    if ending == "stopped":
        device.store.backing.stop_detach()
    else:
        assert device.go_on_detaching() == "detached"
        if ending == "another backing":
            device.disk = SpyBacking(16)
            device.store.backing.attach(device.disk)
    finish(device, job)
    assert device.problems() == []


# --- No room ----------------------------------------------------------------------------


def test_what_memory_would_not_hold_is_not_begun(make_device: DeviceMaker) -> None:
    device = make_device(tight(4, 4096), slots=4096, segments=32, disk=16)
    for slot in range(0, 3000, 16):
        device.write(slot, noise(16, slot))
    with pytest.raises(UserError, match=r"memory would not hold .* raise memory_limit"):
        begin(device)
    assert state(device) == ("attached", "")
    assert device.problems() == []
    device.store.set_memory_limit(limit_of(20 + KEPT, 4096))
    assert device.detach() == "detached"


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_memory_that_becomes_short_ends_it_and_all_is_readable(
    make_device: DeviceMaker, steps: int
) -> None:
    device = make_device(tight(12, 4096), slots=4096, segments=16, disk=16)
    for slot in range(0, 1800, 16):
        device.write(slot, noise(16, slot))
    device.write_back()
    begin(device, steps)
    for slot in range(2048, 4096, 16):
        try:
            device.lane.write(slot * PAGE_SIZE, memoryview(noise(16, slot)))
        except FullError:
            break
        device.model.write(slot * PAGE_SIZE, noise(16, slot))
    assert device.go_on_detaching() == "memory"
    assert state(device) == ("attached", "memory")
    assert device.problems() == []
    assert device.store.statistics().mem_used_max <= device.store.statistics().mem_limit
    device.discard(2048, 2048)
    assert device.detach() == "detached"


def test_dead_space_in_memory_is_won_back_for_it(make_device: DeviceMaker) -> None:
    device = make_device(tight(10, 4096), slots=4096, segments=16, disk=16)
    for slot in range(0, 1000, 16):
        device.write(slot, noise(16, slot))
    device.write_back()
    for slot in range(1280, 1280 + 1600, 16):
        device.write(slot, noise(16, slot))
    for slot in range(1280, 1280 + 1600, 16):
        device.discard(slot, 12)
    assert device.detach() == "detached"
    assert device.problems() == []


# --- Unreadable -------------------------------------------------------------------------


def test_what_cannot_be_read_keeps_the_backing(device: Device) -> None:
    device.disk.unreadable = {2}
    assert device.detach() == "unreadable"
    assert state(device) == ("attached", "unreadable")
    assert not device.disk.closed
    assert device.segments() == [2]
    assert device.wrong_books() == []
    device.disk.unreadable.clear()
    assert device.problems() == []
    assert device.detach() == "detached"


def test_a_backing_with_what_is_lost_can_be_detached_when_that_was_discarded(
    device: Device,
) -> None:
    device.disk.data[2 * SEGMENT_SIZE : 3 * SEGMENT_SIZE] = bytes(SEGMENT_SIZE)
    assert device.detach() == "unreadable"
    for slot in device.on_disk():
        device.discard(slot)
    assert device.detach() == "detached"
    assert device.problems() == []


# --- Beside others ----------------------------------------------------------------------


def test_reads_that_wait_while_the_backing_goes_are_answered(device: Device) -> None:
    """Begun before, finished after: from memory then."""
    fetching = device.store.fetch_lane()
    parked = [device.lane.look(slot * PAGE_SIZE, PAGE_SIZE) for slot in range(0, 80, 7)]
    assert device.detach() == "detached"
    device.store.backing.attach(SpyBacking(4))
    for slot, read in zip(range(0, 80, 7), parked, strict=True):
        found = read if isinstance(read, tuple) else fetching.finish(read)  # type: ignore[arg-type]
        assert b"".join(found) == device.right(slot)
    assert device.store.statistics().failed_reads == 0


def test_readers_go_on_while_pages_come_back(device: Device) -> None:
    """Threads of their own, all the time."""
    done: list[int] = []

    def detach() -> None:
        assert device.detach() == "detached"
        done.append(1)

    def read() -> None:
        lane = device.store.lane()
        while not done:
            for slot in range(0, 80, 3):
                found = b"".join(lane.read(slot * PAGE_SIZE, PAGE_SIZE))
                assert found == device.model.page(slot)

    run_threads([detach, read, read])


def test_failures_of_writing_do_not_matter_to_it(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_clock(monkeypatch)
    device.disk.fails += [(5, 0)] * 2
    assert device.write_back() == 0
    assert state(device)[0] == "resting"
    assert device.detach() == "detached"
