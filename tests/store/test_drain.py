"""The drain: everything on disk comes back to memory, each disk segment read once, in order."""

from __future__ import annotations

import pytest
from model.disks import Device, DeviceMaker, before_lock, device_maker, small_batches, units_on_disk
from model.moves import looks_of, without_room
from model.pages import made, noise, process_memory, text

from vswap.errors import FullError
from vswap.geometry import CLUSTER_SLOTS, SEGMENT_SIZE
from vswap.store import Policy, Selection
from vswap.store.drain import Drain
from vswap.store.entry import COLD, HUGE, IDLE, LOADED, OF_PAGE

make_device = pytest.fixture(device_maker)


@pytest.fixture
def device(make_device: DeviceMaker, monkeypatch: pytest.MonkeyPatch) -> Device:
    """With pages in several clusters on several disk segments, some of them dead."""
    small_batches(monkeypatch)
    made = make_device(slots=4 * CLUSTER_SLOTS, segments=32, disk=24)
    made.store_on_disk(CLUSTER_SLOTS - 20, noise(60))
    made.store_on_disk(CLUSTER_SLOTS - 60, text(40) + noise(10, 1))
    made.store_on_disk(3 * CLUSTER_SLOTS, text(40, 1))
    for slot in (CLUSTER_SLOTS - 60, CLUSTER_SLOTS - 57, CLUSTER_SLOTS + 4):
        made.discard(slot)
    made.write(5, text(8))
    made.disk.reads.clear()
    return made


def drain_of(device: Device) -> Drain:
    return Drain(device.store._parts, device.store._upkeep.jobs.relocator)


def do_all(device: Device, drain: Drain) -> int:
    with device.store._upkeep.lock:
        return sum(drain.pieces())


def test_everything_comes_back(device: Device) -> None:
    away = set(device.on_disk())
    assert do_all(device, drain_of(device)) == len(away)
    assert device.on_disk() == {}
    assert away < device.in_memory()
    assert device.store._parts.disk.log.full().segments.size == 0
    assert device.problems() == []


@pytest.mark.parametrize(
    "policy", [Policy("zstd-fast", 4), Policy("lz4", 1), Policy("zstd", 16)], ids=str
)
def test_real_pages_come_back_as_they_were(make_device: DeviceMaker, policy: Policy) -> None:
    device = make_device(policy, slots=2048, segments=32)
    device.store_on_disk(0, process_memory(1500))
    do_all(device, drain_of(device))
    assert device.problems() == []


def test_the_cost_is_counted_and_is_what_is_there(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each used cluster is visited once, each disk segment read once, in the disk's order."""
    segments = device.segments()
    looks = looks_of(device.store, monkeypatch)
    drain = drain_of(device)
    do_all(device, drain)
    assert len(looks) == len(set(looks)) == drain.walk.clusters_visited == 3
    assert drain.walk.segments_read == len(segments)
    offsets = [offset for offset, _ in device.disk.reads]
    assert [offset // SEGMENT_SIZE for offset in offsets] == segments
    assert offsets == sorted(offsets)


@pytest.mark.parametrize("times", [1, 2, 4])
def test_the_cost_is_linear(
    make_device: DeviceMaker, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Twice as much on disk costs twice as much."""
    small_batches(monkeypatch)
    device = make_device(slots=times * CLUSTER_SLOTS, segments=48, disk=48)
    for cluster in range(times):
        device.write(cluster * CLUSTER_SLOTS, noise(120, cluster))
    device.write_back()
    assert len(device.segments()) == 10 * times
    device.disk.reads.clear()
    drain = drain_of(device)
    do_all(device, drain)
    assert drain.walk.clusters_visited == times
    assert drain.walk.segments_read == len(device.disk.reads) == 10 * times


def test_nothing_is_written_to_the_disk(device: Device) -> None:
    before = len(device.disk.writes)
    do_all(device, drain_of(device))
    assert len(device.disk.writes) == before


def test_units_come_back_as_they_are(make_device: DeviceMaker) -> None:
    """Nothing is decompressed; kinds and marks of pages are what they were."""
    device = make_device(Policy("zstd", 16))
    device.write(0, text(16))
    device.store.recompress(Selection())
    device.write(16, noise(4))
    device.store.mark_idle()
    device.read(18)
    device.write(24, text(4))
    device.write_back()
    flags = {slot: entry & 0x1F for slot, entry in device.on_disk().items()}
    assert {flag & ~OF_PAGE for flag in flags.values()} == {0, HUGE, COLD}
    assert {flag & OF_PAGE for flag in flags.values()} == {0, IDLE, LOADED}
    before = {extent.pages for extent in units_on_disk(device)}
    do_all(device, drain_of(device))
    table = device.store._parts.table
    assert {slot: table.get(slot) & 0x1F for slot in flags} == flags
    assert before == {4, 16}


def test_of_a_unit_that_is_partly_dead_what_lives_comes_back(make_device: DeviceMaker) -> None:
    device = make_device()
    device.store_on_disk(0, text(4) + noise(4))
    for slot in (0, 2, 7):
        device.discard(slot)
    assert do_all(device, drain_of(device)) == 5
    assert device.in_memory() == {1, 3, 4, 5, 6}


def test_a_drain_that_is_given_up_leaves_all_readable(device: Device) -> None:
    """After any number of pieces."""
    drain = drain_of(device)
    pieces = drain.pieces()
    left = len(device.on_disk())
    with device.store._upkeep.lock:
        for _ in range(4):
            left -= next(pieces)
    assert len(device.on_disk()) == left > 0
    assert device.problems() == []
    do_all(device, drain_of(device))
    assert device.on_disk() == {}


def test_a_drain_that_finds_no_room_goes_on_where_it_was(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    relocator = device.store._upkeep.jobs.relocator
    take = relocator._appender._take
    without_room(monkeypatch, device.store, segments=0)
    drain = drain_of(device)
    away = len(device.on_disk())
    with device.store._upkeep.lock:
        pieces = drain.pieces()
        next(pieces)
        with pytest.raises(FullError):
            next(pieces)
    assert len(device.on_disk()) == away
    assert device.problems() == []
    monkeypatch.setattr(relocator._appender, "_take", take)
    assert do_all(device, drain) == away
    assert drain.walk.clusters_visited == 3
    assert device.problems() == []


def test_what_the_disk_does_not_give_stays_and_all_else_comes(device: Device) -> None:
    device.disk.unreadable = {1}
    lost = {slot for slot, entry in device.on_disk().items() if entry >> 38 & 0xFFFF == 1}
    do_all(device, drain_of(device))
    assert set(device.on_disk()) == lost
    assert device.wrong_books() == []
    device.disk.unreadable.clear()
    assert device.problems() == []


def test_a_damaged_unit_stays_and_all_else_comes(device: Device) -> None:
    extent = units_on_disk(device)[3]
    with device.disk.flipped(extent.segment, extent.offset + 20):
        do_all(device, drain_of(device))
        assert units_on_disk(device) == [extent]
    assert device.problems() == []


def test_what_was_found_may_have_moved_or_died_since(device: Device) -> None:
    drain = drain_of(device)
    pieces = drain.pieces()
    with device.store._upkeep.lock:
        next(pieces)
    device.discard(CLUSTER_SLOTS, 20)
    device.write(CLUSTER_SLOTS - 20, noise(4, 9))
    device.write(3 * CLUSTER_SLOTS + 2, text(1, 9))
    with device.store._upkeep.lock:
        for _ in pieces:
            pass
    assert device.on_disk() == {}
    assert device.problems() == []


@pytest.mark.parametrize("kind", ["text", "noise", "discard"])
def test_what_is_written_during_the_drain_is_what_is_there(
    make_device: DeviceMaker, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Before each of its locks in turn: the newest wins."""
    small_batches(monkeypatch)
    for step in range(99):
        device = make_device()
        device.store_on_disk(0, noise(6) + text(6))

        def meanwhile(device: Device = device) -> None:
            if kind == "discard":
                device.discard(3, 5)
            else:
                device.write(3, made(kind, 5, 8))

        with before_lock(monkeypatch, step, meanwhile) as came:
            do_all(device, drain_of(device))
        assert device.on_disk() == {}, step
        assert device.problems() == [], step
        if not came.called:
            break
    assert step > 3
