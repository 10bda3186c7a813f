"""What a worker that is killed leaves on disk and in memory, at every step of the work on it.

The next worker is given the same backing (docs/concurrency.md, "What a crash leaves").
"""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from model.audit import audit
from model.disks import Device, SpyBacking, small_batches
from model.kills import DISK_STEPS, copy_of, killed_before
from model.pages import noise, text
from model.sealed import given_out
from model.stores import state_of, take_over

from vswap.errors import CorruptError, MediumError, UserError
from vswap.store import Policy, least_memory


@pytest.fixture(autouse=True)
def few_pages_fill_a_disk_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch)


def clean_the_disk(device: Device) -> None:
    """Empty three disk segments of which parts are dead."""
    jobs = device.store._upkeep.jobs
    victims = device.store._parts.disk.log.full().segments[:3]
    with device.store._upkeep.lock:
        for _ in jobs.restack.empty(victims):
            pass


def begin_and_stop(device: Device) -> None:
    device.store.backing.begin_detach()
    for _ in range(3):
        device.store.step()
    device.store.backing.stop_detach()


def overwrite_and_discard(device: Device) -> None:
    """What is on disk; the model is told of it by the successor, which does it again."""
    device.lane.write(0, memoryview(text(5, seed=9)))
    device.lane.discard(5 << 12, 55 << 12)


WORKS: dict[str, Callable[[Device], object]] = {
    "writing back": lambda device: device.write_back(),
    "cleaning the disk": clean_the_disk,
    "detaching": lambda device: device.detach(),
    "detaching that is stopped": begin_and_stop,
    "overwriting and discarding": overwrite_and_discard,
}


def prepared() -> Device:
    """Pages in memory and on five disk segments, of which parts are dead."""
    device = Device(Policy("lz4", 4, reserve=0), disk=24)
    device.store_on_disk(0, noise(30) + text(30))
    for slot in range(0, 60, 3):
        device.discard(slot)
    device.write(64, text(12) + noise(8))
    return device


def kill_at(step: int, name: str) -> tuple[bool, list[str]]:
    """Kill a worker there; whether it had such a step, and what is wrong with what it left."""
    with prepared() as device:
        with killed_before(step, device.store, DISK_STEPS) as kill:
            WORKS[name](device)
        if kill.left is None:
            device.damaged = name == "overwriting and discarding"
            return False, []
        before = given_out(kill.left.backing)
        device.take_over(kill.left)
        if name == "overwriting and discarding":
            device.write(0, text(5, seed=9))
            device.discard(5, 55)
        wrong = device.problems() + audit(device.store)
        begun = device.store.backing.detaching
        if begun and not name.startswith("detaching"):
            wrong.append("it is being detached, which nobody has asked for")
        if begun and device.go_on_detaching() != "detached":
            wrong.append("the next worker does not go on with detaching")
        if step % 3:
            return True, wrong
        if not device.store.statistics().backing:
            device.disk = SpyBacking(24)
            device.store.backing.attach(device.disk)
        device.write(90, noise(20))
        device.write_back()
        used = device.store._parts.disk.log.sequence[device.segments()]
        if device.disk.writes and given_out(state_of(device.store).backing) <= before:
            wrong.append("NONCE-ONCE: a sequence is given out again")
        if len(set(used.tolist())) != len(used):
            wrong.append("DISK-AGE: two fillings have the same sequence")
        return True, wrong + device.problems() + audit(device.store)


@pytest.mark.parametrize("name", WORKS)
def test_work_on_the_disk_that_is_cut_off_anywhere_has_changed_no_page(name: str) -> None:
    """BACK-COPY, MOVE-SAME, NONCE-ONCE: and the next worker goes on."""
    step, killed, lost = 0, True, {}
    while killed:
        killed, wrong = kill_at(step, name)
        if wrong:
            lost[step] = wrong
        step += 1
    assert step > 5
    assert lost == {}


# --- A backing that comes back, or another ------------------------------------------------


def test_what_is_on_disk_waits_for_the_backing() -> None:
    """Until it is attached again reads of it are EIO; all else works, the counts included."""
    with prepared() as device:
        on_disk = sorted(device.on_disk())
        backing = device.disk
        device.store = take_over(device.store)
        device.lane = device.store.lane()
        with pytest.raises((MediumError, CorruptError)):
            device.read(on_disk[0])
        assert device.read(64, 20) == device.right(64, 20)
        found = device.store.statistics()
        assert (found.backing_state, found.backing_pages) == ("none", len(on_disk))
        assert found.backing_segments_free == 0
        device.write(on_disk[0], noise())
        device.discard(on_disk[1])
        assert device.store.statistics().backing_segments_free == 0
        device.store.backing.attach(backing)
        assert device.problems() == []
        assert audit(device.store) == []


def test_all_pages_on_disk_can_die_before_it_comes_back() -> None:
    with prepared() as device:
        device.store = take_over(device.store)
        device.lane = device.store.lane()
        device.discard(0, 60)
        device.store.backing.attach(device.disk)
        assert device.room() == 24


def test_a_backing_that_is_too_small_is_refused() -> None:
    """It cannot be the one; the right one is still taken afterwards."""
    with prepared() as device:
        most = device.segments()[-1]
        device.store = take_over(device.store)
        device.lane = device.store.lane()
        with pytest.raises(UserError, match="is not the backing"):
            device.store.backing.attach(SpyBacking(most, "other"))
        assert device.store.statistics().backing_state == "none"
        device.store.backing.attach(device.disk)


def test_the_same_backing_is_used_whatever_has_become_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was cut off, and its label cannot be read: what memory holds is had all the same."""
    with prepared() as device:
        in_memory = min(device.in_memory())
        device.damaged = True
        device.store = take_over(device.store)
        device.lane = device.store.lane()
        cut_off = SpyBacking(1, "cut off")

        def fail() -> bytes:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(cut_off, "load_note", fail)
        with pytest.raises(UserError):
            device.store.backing.attach(cut_off)
        device.store.backing.attach(cut_off, again=True)
        assert device.store.statistics().backing_state == "attached"
        device.read(in_memory)
        with pytest.raises((MediumError, CorruptError)):
            device.read(max(device.on_disk()))


def test_another_backing_gives_no_page() -> None:
    """What it holds is not authentic."""
    with prepared() as device:
        slot = min(device.on_disk())
        device.damaged = True
        device.disk = SpyBacking(24, "other")
        device.take_over()
        with pytest.raises((MediumError, CorruptError)):
            device.read(slot)


# --- Detaching ------------------------------------------------------------------------------


def test_detaching_goes_on_with_the_next_worker() -> None:
    with prepared() as device:
        device.store.backing.begin_detach()
        device.store.step()
        device.store.step()
        left = len(device.on_disk())
        assert left
        device.take_over()
        assert device.store.statistics().backing_state == "detaching"
        assert device.write_back() == 0
        assert device.go_on_detaching() == "detached"
        device.disk = SpyBacking(24)
        device.take_over()
        assert device.store.statistics().backing_state == "attached"


def test_detaching_that_has_stopped_is_over_for_the_next_worker_too() -> None:
    with prepared() as device:
        begin_and_stop(device)
        device.take_over()
        assert not device.store.backing.detaching


def test_detaching_can_be_stopped_before_the_backing_is_back() -> None:
    with prepared() as device:
        device.store.backing.begin_detach()
        device.store = take_over(device.store)
        device.store.backing.stop_detach()
        device.store.backing.attach(device.disk)
        device.lane = device.store.lane()
        assert not device.store.backing.detaching
        assert device.store._parts.disk.takes_writes


def test_detaching_for_which_memory_has_become_too_little_ends_so() -> None:
    """As it would have for the first worker."""
    with prepared() as device:
        device.store_on_disk(0, noise(120))
        device.store.backing.begin_detach()
        device.store.set_memory_limit(least_memory(state_of(device.store).shape))
        device.store._log.set_limit(1)
        device.take_over()
        device.store._log.set_limit(1)
        assert device.store.backing.detaching
        assert device.go_on_detaching() == "memory"
        assert not state_of(device.store).backing.view.cast("Q")[5]
        device.store.set_memory_limit(None)


# --- The budget -----------------------------------------------------------------------------


def budget_of(device: Device) -> int:
    return device.store.statistics().writeback_limit_left


def test_a_crash_costs_nothing_of_the_budget() -> None:
    """BUDGET-AHEAD: the note in memory is exact, and the label's is ahead."""
    with prepared() as device:
        device.store.backing.set_writeback_limit(100_000)
        device.store.backing.enable_writeback_limit(True)
        for turn in range(5):
            device.write(0, noise(20, turn))
            device.write_back()
            left = budget_of(device)
            for _ in range(3):
                device.take_over()
                assert budget_of(device) == left


def test_a_note_that_is_torn_is_not_believed() -> None:
    """Nor is that of another backing, or of one that somebody has used since."""
    with prepared() as device:
        device.store.backing.set_writeback_limit(100_000)
        device.store.backing.enable_writeback_limit(True)
        device.write_back()
        left = budget_of(device)
        torn = copy_of(state_of(device.store))
        torn.backing.view[64 + 20] ^= 1
        device.take_over(torn)
        assert budget_of(device) < left
        other = SpyBacking(24)
        other.save_note(device.disk.note[:-1] + b"\1")
        other.data[:] = device.disk.data
        device.disk = other
        device.take_over()
        assert budget_of(device) == 0
