"""Walking over what lives on disk: each used cluster once, then each disk segment, in order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.disks import Device, DeviceMaker, device_maker, small_batches
from model.effort import effort
from model.pages import made, mixed, noise, text

from vswap.codec import by_number
from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE, SEGMENT_SIZE
from vswap.store.backing import BLOCK
from vswap.store.decoder import Decoder
from vswap.store.entry import extent_of, index_of, segment_of
from vswap.store.walk import LivingUnit, OnDisk, Walk

make_device = pytest.fixture(device_maker)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_batches(monkeypatch)


@pytest.fixture
def device(make_device: DeviceMaker) -> Device:
    """With pages on some disk segments, of several clusters, and others in memory."""
    made = make_device(slots=4 * CLUSTER_SLOTS, disk=32)
    made.store_on_disk(CLUSTER_SLOTS - 20, noise(40))
    made.store_on_disk(100, mixed(40, 1))
    made.store_on_disk(CLUSTER_SLOTS * 3 - 8, text(16))
    made.write(50, text(30))
    for slot in (101, 104, 105, CLUSTER_SLOTS + 3):
        made.discard(slot)
    return made


def all_units(walk: Walk, found: OnDisk) -> list[LivingUnit]:
    return [unit for at in range(len(found.starts) - 1) for unit in walk.units(found, at)]


def pages_of(unit: LivingUnit) -> dict[int, bytes]:
    """The living pages by slot."""
    assert unit.data is not None
    decoder = Decoder(memoryview(b""), by_number())
    data = decoder.decode(memoryview(unit.data), 0, unit.slot, unit.slot)
    return {
        unit.slot + at: bytes(data[at * PAGE_SIZE : (at + 1) * PAGE_SIZE])
        for at, entry in enumerate(unit.entries)
        if entry
    }


def test_everything_on_disk_is_found(device: Device) -> None:
    found = Walk(device.store._parts).find()
    by_slot = dict(zip(found.slots.tolist(), found.entries.tolist(), strict=True))
    assert by_slot == device.on_disk()
    assert len(found.slots) == len(by_slot)


def test_it_is_found_in_the_order_of_the_disk(device: Device) -> None:
    found = Walk(device.store._parts).find()
    places = [(*extent_of(entry)[:2], index_of(entry)) for entry in found.entries.tolist()]
    assert places == sorted(places)
    assert len(set(places)) == len(places)
    segments = [segment_of(found.entries.tolist()[start]) for start in found.starts[:-1]]
    assert segments == device.segments()
    assert found.starts[-1] == len(places)
    for start, end in zip(found.starts, found.starts[1:], strict=False):
        assert len({place[0] for place in places[start:end]}) == 1


def test_each_used_cluster_is_looked_at_once(device: Device) -> None:
    walk = Walk(device.store._parts)
    walk.find()
    assert walk.clusters_visited == device.store.statistics().clusters_used == 4
    walk.find()
    assert walk.clusters_visited == 8


def test_nothing_is_found_on_an_empty_disk(make_device: DeviceMaker) -> None:
    device = make_device()
    device.write(0, text(8))
    walk = Walk(device.store._parts)
    found = walk.find()
    assert (len(found.slots), len(found.entries), found.starts) == (0, 0, [0])
    assert all_units(walk, found) == []
    assert walk.segments_read == 0


@pytest.mark.parametrize("wanted", [[0], [1, 2], [2, 0], [31], []])
def test_only_what_is_wanted_is_found(device: Device, wanted: list[int]) -> None:
    found = Walk(device.store._parts).find(np.array(wanted, np.int64))
    right = {slot for slot, entry in device.on_disk().items() if segment_of(entry) in wanted}
    assert set(found.slots.tolist()) == right
    assert len(found.starts) == len(set(wanted) & set(device.segments())) + 1


def test_units_are_what_was_written(device: Device) -> None:
    walk = Walk(device.store._parts)
    found: dict[int, bytes] = {}
    for unit in all_units(walk, walk.find()):
        pages = pages_of(unit)
        assert not set(pages) & set(found)
        found |= pages
    assert found == {slot: device.model.page(slot) for slot in device.on_disk()}


def test_of_a_unit_that_is_partly_dead_the_entries_tell_what_lives(
    make_device: DeviceMaker,
) -> None:
    device = make_device()
    device.store_on_disk(8, text(4))
    for slot in (8, 10):
        device.discard(slot)
    walk = Walk(device.store._parts)
    (unit,) = all_units(walk, walk.find())
    assert unit.slot == 8
    assert [bool(entry) for entry in unit.entries] == [False, True, False, True]
    assert sorted(pages_of(unit)) == [9, 11]


def test_each_disk_segment_is_read_once_and_no_more_of_it_than_lives(device: Device) -> None:
    """In one piece, of whole blocks, in the order of the disk."""
    walk = Walk(device.store._parts)
    found = walk.find()
    device.disk.reads.clear()
    all_units(walk, found)
    assert walk.segments_read == len(device.segments()) == len(device.disk.reads)
    assert device.disk.reads == sorted(device.disk.reads)
    for (offset, size), segment in zip(device.disk.reads, device.segments(), strict=True):
        extents = [extent_of(entry) for entry in device.on_disk().values()]
        mine = [extent for extent in extents if extent.segment == segment]
        first = min(extent.offset for extent in mine) // BLOCK * BLOCK
        end = max(extent.offset + extent.size for extent in mine)
        assert offset == segment * SEGMENT_SIZE + first
        assert size == -(-(end - first) // BLOCK) * BLOCK


def test_what_the_disk_does_not_give_is_without_data(device: Device) -> None:
    device.disk.unreadable = {1}
    walk = Walk(device.store._parts)
    units = all_units(walk, walk.find())
    lost = [unit for unit in units if unit.data is None]
    assert lost
    assert {segment_of(max(unit.entries)) for unit in lost} == {1}
    assert {segment_of(max(unit.entries)) for unit in units if unit.data is not None} == set(
        device.segments()
    ) - {1}
    device.disk.unreadable.clear()


def test_a_damaged_unit_is_without_data_and_no_other(device: Device) -> None:
    extent = extent_of(device.on_disk()[CLUSTER_SLOTS + 10])
    with device.disk.flipped(extent.segment, extent.offset + 77):
        walk = Walk(device.store._parts)
        units = all_units(walk, walk.find())
        lost = [unit for unit in units if unit.data is None]
        assert len(lost) == 1
        assert extent_of(max(lost[0].entries)) == extent


@effort(25)
@given(
    requests=st.lists(
        st.tuples(
            st.sampled_from(("text", "noise", "mixed", "discard", "back")),
            st.integers(0, 200),
            st.integers(1, 20),
            st.integers(0, 9),
        ),
        min_size=2,
        max_size=20,
    )
)
def test_whatever_is_on_disk_is_walked_over(requests: list[tuple[str, int, int, int]]) -> None:
    with Device(slots=256, disk=32) as device:
        for kind, slot, count, seed in requests:
            if kind == "discard":
                device.discard(slot, count)
            elif kind == "back":
                device.write_back(slot, count)
            else:
                device.write(slot, made(kind, count, seed))
        walk = Walk(device.store._parts)
        pages: dict[int, bytes] = {}
        for unit in all_units(walk, walk.find()):
            pages |= pages_of(unit)
        assert pages == {slot: device.model.page(slot) for slot in device.on_disk()}
