"""Reads of pages on disk: exact, however they are mixed with others, and whatever has changed."""

from __future__ import annotations

import errno
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.disks import Device, DeviceMaker, device_maker, small_batches, units_on_disk
from model.effort import effort
from model.moves import entries_at
from model.pages import filled, made, noise, process_memory, text, zero
from model.threads import run_threads

from vswap.errors import CorruptError, MediumError
from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE
from vswap.store import FetchLane, Gap, Parked, Policy
from vswap.store.backing import BLOCK
from vswap.store.entry import extent_of, index_of
from vswap.store.fetch import KEPT_UNITS

make_device = pytest.fixture(device_maker)


@pytest.fixture
def device(make_device: DeviceMaker) -> Device:
    """With pages of noise on disk: units of four, from slot 0 on."""
    made = make_device(slots=1024, segments=32)
    made.store_on_disk(0, noise(200))
    made.disk.reads.clear()
    return made


def parked(device: Device, slot: int, count: int = 1, at: int = 0) -> Parked:
    """A read that waits for the disk."""
    offset = slot * PAGE_SIZE + at
    found = device.lane.look(offset, count * PAGE_SIZE)
    assert isinstance(found, Parked)
    return found


def finished(lane: FetchLane, read: Parked) -> bytes:
    return b"".join(lane.finish(read))


# --- What is read -----------------------------------------------------------------------


@pytest.mark.parametrize("pages", [1, 4, 16])
def test_only_the_blocks_that_a_unit_covers_are_read(make_device: DeviceMaker, pages: int) -> None:
    device = make_device(Policy("zstd-fast", pages))
    device.store_on_disk(0, noise(96))
    before = device.store.statistics().bd_reads
    device.disk.reads.clear()
    device.read(70)
    extent = extent_of(device.on_disk()[70])
    first = extent.offset // BLOCK * BLOCK
    size = -(-(extent.offset + extent.size) // BLOCK) * BLOCK - first
    assert device.disk.reads == [(first, size)]
    assert device.store.statistics().bd_reads - before == size // BLOCK


def test_a_unit_is_kept_for_those_who_want_more_of_it(device: Device) -> None:
    for slot in (42, 40, 43, 41):
        assert device.read(slot) == device.right(slot)
    assert len(device.disk.reads) == 1
    lane = device.store.lane()
    assert b"".join(lane.read(40 * PAGE_SIZE, 4 * PAGE_SIZE)) == device.right(40, 4)
    assert len(device.disk.reads) == 1


def test_few_units_are_kept(device: Device) -> None:
    device.store_on_disk(200, noise(4 * KEPT_UNITS + 4, 1))
    for slot in range(200, 204 + 4 * KEPT_UNITS, 4):
        device.read(slot)
    device.write(200, noise(4, 3))  # that one is out of the way
    fetched = device.store._fetched
    assert len(fetched._units) <= KEPT_UNITS


def test_who_reads_in_order_asks_the_disk_less_often_than_there_are_units(device: Device) -> None:
    for slot in range(200):
        assert device.read(slot) == device.right(slot)
    assert len(units_on_disk(device)) == 50
    assert len(device.disk.reads) < 15


def test_what_has_died_is_not_read_from_what_was_kept(device: Device) -> None:
    """Units and windows are found by the sequence of their disk segment."""
    for turn in range(1, 6):
        for slot in range(0, 200, 3):
            assert device.read(slot) == device.right(slot)
        device.write(0, noise(200, turn))
        device.write_back()  # to the same places, every other time
    assert device.problems() == []


def test_reading_leaves_the_page_where_it_is(device: Device) -> None:
    before = device.on_disk()
    assert device.read(7) == device.right(7)
    extents = {slot: extent_of(entry) for slot, entry in device.on_disk().items()}
    # (It may be brought back to memory, by those who think it worth it, but not to another place.)
    assert all(extent_of(before[slot]) == extent for slot, extent in extents.items())


def test_a_read_of_whole_pages_is_made_of_as_many_buffers_as_pieces(device: Device) -> None:
    read = parked(device, 6, 10)
    assert [gap.pages for gap in read.gaps] == [2, 4, 4]
    assert finished(device.store.fetch_lane(), read) == device.right(6, 10)


# --- Any mixture ------------------------------------------------------------------------

PIECES = st.lists(
    st.tuples(
        st.sampled_from(("text", "noise", "mixed", "zero", "filled")),
        st.integers(1, 12),
        st.booleans(),  # whether it goes to the disk
        st.integers(0, 20),
    ),
    min_size=1,
    max_size=12,
)


@effort(40)
@given(
    pieces=PIECES,
    ranges=st.lists(
        st.tuples(st.integers(0, 110 * PAGE_SIZE), st.integers(1, 40 * PAGE_SIZE)), max_size=8
    ),
    edge=st.sampled_from((0, CLUSTER_SLOTS - 20)),
)
def test_a_read_of_pages_here_and_there_is_what_they_hold(
    pieces: list[tuple[str, int, bool, int]], ranges: list[tuple[int, int]], edge: int
) -> None:
    """Memory, disk, zeros, fill words, holes, in any order, aligned or not."""
    with Device(slots=CLUSTER_SLOTS + 128) as device:
        slot = edge
        for kind, count, away, seed in pieces:
            device.write(slot, made(kind, count, seed))
            if away:
                device.write_back(slot, count)
            slot += count + seed % 2
        fetching = device.store.fetch_lane()
        for start, size in [(0, 130 * PAGE_SIZE), *ranges]:
            offset = edge * PAGE_SIZE + start
            right = device.model.read(offset, size)
            assert b"".join(device.lane.read(offset, size)) == right
            found = device.store.lane().look(offset, size)
            if isinstance(found, Parked):
                found = fetching.finish(found)
            assert b"".join(found) == right


@pytest.mark.parametrize("size", [1, 511, 512, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 20_000])
@pytest.mark.parametrize("at", [0, 1, 512, PAGE_SIZE - 1])
def test_a_part_of_pages_on_disk_is_that_part(device: Device, at: int, size: int) -> None:
    offset = 9 * PAGE_SIZE + at
    right = device.model.read(offset, size)
    assert b"".join(device.lane.read(offset, size)) == right


def test_a_read_ends_at_the_devices_end(make_device: DeviceMaker) -> None:
    device = make_device()
    device.store_on_disk(device.model.slots - 4, noise(4))
    read = parked(device, device.model.slots - 2, 9)
    assert finished(device.store.fetch_lane(), read) == device.right(device.model.slots - 2, 2)


def test_real_pages_are_read_as_they_were(make_device: DeviceMaker) -> None:
    device = make_device(slots=2048, segments=32)
    device.store_on_disk(0, process_memory(1500))
    for slot in range(0, 1500, 37):
        assert device.read(slot, 5) == device.right(slot, 5)


# --- GAP-EXACT --------------------------------------------------------------------------

Meanwhile = Callable[[Device], object]


def overwritten(device: Device) -> None:
    device.write(40, noise(8, 9))


def reused(device: Device) -> None:
    """All dies, and the disk segment is filled anew with the same slots, in the same places."""
    device.write(0, noise(200, 9))
    device.write_back()  # elsewhere
    device.write(0, noise(200, 8))
    device.write_back()  # and here again


def reused_for_others(device: Device) -> None:
    device.write(0, text(200, 9))
    device.store_on_disk(300, noise(200, 8))
    device.write(300, noise(200, 7))
    device.write_back()


def cleaned(device: Device) -> None:
    store = device.store
    with store._upkeep.lock:
        for _ in store._upkeep.jobs.restack.empty(store._parts.disk.log.full().segments):
            pass


MEANWHILE: dict[str, Meanwhile] = {
    "nothing": lambda _: None,
    "overwritten": overwritten,
    "overwritten in part": lambda device: device.write(41, text(2)),
    "a byte of it overwritten": lambda device: device.write(41, b"byte", at=77),
    "discarded": lambda device: device.discard(38, 20),
    "discarded in part": lambda device: device.discard(42),
    "made zeros and words": lambda device: device.write(40, zero(2) + filled(2)),
    "overwritten and written back": lambda device: device.store_on_disk(40, noise(8, 9)),
    "its disk segment filled anew": reused,
    "its disk segment filled with others": reused_for_others,
    "moved on the disk": cleaned,
    "moved to memory": lambda device: device.detach(),
    "read by others": lambda device: device.read(0, 200),
}


@pytest.mark.parametrize("meanwhile", MEANWHILE)
@pytest.mark.parametrize(("slot", "count", "at"), [(41, 1, 0), (40, 4, 0), (39, 9, 0), (41, 2, 99)])
def test_a_read_that_waited_is_what_was_there_or_what_is_there(
    device: Device, meanwhile: str, slot: int, count: int, at: int
) -> None:
    """GAP-EXACT: page by page the old or the new, and never an error."""
    size = count * PAGE_SIZE
    read = parked(device, slot, count, at)
    before = device.model.read(slot * PAGE_SIZE + at, size)
    MEANWHILE[meanwhile](device)
    after = device.model.read(slot * PAGE_SIZE + at, size)
    found = finished(device.store.fetch_lane(), read)
    assert len(found) == size
    edges = [0, *range(PAGE_SIZE - at, size, PAGE_SIZE), size]
    for start, end in pairwise(edges):
        assert found[start:end] in (before[start:end], after[start:end])
    assert device.store.statistics().failed_reads == 0
    assert device.store.statistics().backing_corrupt == 0


@pytest.mark.parametrize("meanwhile", ["overwritten", "its disk segment filled anew", "discarded"])
def test_what_is_overwritten_while_the_disk_is_read_is_never_an_error(
    device: Device, meanwhile: str
) -> None:
    """GAP-EXACT: each of the first reads of the disk is overtaken."""
    read = parked(device, 41)
    before = device.right(41)
    overtaken: list[int] = []

    def overtake(segment: int) -> None:
        if len(overtaken) < 3:
            overtaken.append(segment)
            MEANWHILE[meanwhile](device)

    device.disk.before_read = overtake
    found = finished(device.store.fetch_lane(), read)
    assert found in (before, device.right(41))
    assert overtaken
    assert device.store.statistics().failed_reads == 0


def test_a_read_is_an_error_only_if_the_page_is_still_there(device: Device) -> None:
    device.disk.unreadable = {0}
    lost, gone = parked(device, 8), parked(device, 40)
    device.write(40, noise(4, 9))
    lane = device.store.fetch_lane()
    assert finished(lane, gone) == device.right(40)
    with pytest.raises(MediumError) as caught:
        lane.finish(lost)
    assert caught.value.errno == errno.EIO
    assert lane.counters.failed_reads == 1
    device.disk.unreadable.clear()


def test_a_damaged_unit_is_an_error_only_if_the_page_is_still_there(device: Device) -> None:
    lost, gone = parked(device, 8), parked(device, 40)
    device.write(40, noise(4, 9))
    device.disk.data[:] = bytes(len(device.disk.data))
    lane = device.store.fetch_lane()
    assert finished(lane, gone) == device.right(40)
    with pytest.raises(CorruptError):
        lane.finish(lost)
    assert device.store.statistics().backing_corrupt == 1
    device.damaged = True


def test_a_read_that_failed_may_be_finished_again(device: Device) -> None:
    read = parked(device, 6, 10)
    lane = device.store.fetch_lane()
    device.disk.unreadable = {0}
    with pytest.raises(MediumError):
        lane.finish(read)
    device.disk.unreadable.clear()
    assert finished(lane, read) == device.right(6, 10)


# --- Reading ahead ----------------------------------------------------------------------


def test_what_was_fetched_ahead_needs_no_disk(device: Device) -> None:
    lane = device.store.fetch_lane()
    for slot in (60, 100):
        (gap,) = parked(device, slot).gaps
        lane.fetch_ahead(gap)
    reads = len(device.disk.reads)
    for slot in (60, 61, 100, 103):
        assert device.read(slot) == device.right(slot)
    assert len(device.disk.reads) == reads


def test_fetching_ahead_fails_silently(device: Device) -> None:
    (gap,) = parked(device, 60).gaps
    lane = device.store.fetch_lane()
    device.disk.unreadable = {0}
    lane.fetch_ahead(gap)
    device.disk.unreadable.clear()
    with device.disk.flipped(0, extent_of(gap.entry).offset + 30):
        lane.fetch_ahead(gap)
    device.write(60, text(4))
    lane.fetch_ahead(gap)
    assert lane.counters.failed_reads == 0
    assert device.store.statistics().backing_corrupt == 0


def test_a_lane_tells_what_will_be_wanted(device: Device) -> None:
    """A reader in order: what comes next is fetched by somebody else."""
    wanted: list[Gap] = []
    lane = device.store.lane(fetch_ahead=wanted.append)
    for slot in range(0, 24, 4):
        lane.read(slot * PAGE_SIZE, 4 * PAGE_SIZE)
        while lane.read_ahead():
            pass
    for gap in wanted:
        assert gap.slot >= 4
        assert gap.entry == entries_at(device.store, gap.slot, 1)[0]
    assert len({gap.slot - index_of(gap.entry) for gap in wanted}) == len(wanted)


# --- Writing a part ---------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 512, PAGE_SIZE - 512])
@pytest.mark.parametrize("kind", ["text", "noise"])
def test_a_part_of_a_page_on_disk_is_overwritten(
    make_device: DeviceMaker, at: int, kind: str
) -> None:
    device = make_device()
    device.store_on_disk(0, made(kind, 8, 1))
    device.write(5, b"\x07" * 512, at=at)
    assert set(device.on_disk()) == {0, 1, 2, 3, 4, 6, 7}
    assert device.problems() == []


def test_what_lies_over_the_ends_of_pages_on_disk_is_overwritten(device: Device) -> None:
    device.write(9, noise(3, 4)[: 2 * PAGE_SIZE + 100], at=PAGE_SIZE - 50)
    device.lane.discard(20 * PAGE_SIZE + 100, 3 * PAGE_SIZE)
    device.model.discard(20 * PAGE_SIZE + 100, 3 * PAGE_SIZE)
    assert device.problems() == []


def test_threads_read_what_others_write_and_write_back(
    make_device: DeviceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page is, at any time, one of those that were written to its slot."""
    small_batches(monkeypatch)
    device = make_device(slots=256, segments=64, disk=48)
    versions = [noise(64, seed) for seed in range(6)]
    allowed = [
        {version[at * PAGE_SIZE : (at + 1) * PAGE_SIZE] for version in versions} for at in range(64)
    ]
    device.write(0, versions[0])
    done: list[int] = []

    def write() -> None:
        try:
            for turn in range(1, 30):
                device.write(0, versions[turn % 6])
                device.write_back()
        finally:
            done.append(1)

    def read() -> None:
        lane, fetching = device.store.lane(), device.store.fetch_lane()
        while not done:
            for slot in range(0, 64, 5):
                found = lane.look(slot * PAGE_SIZE, PAGE_SIZE)
                page = fetching.finish(found) if isinstance(found, Parked) else found
                assert bytes(b"".join(page)) in allowed[slot]

    run_threads([write, read, read])
    assert device.store.statistics().failed_reads == 0
