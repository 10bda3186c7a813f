"""A batch: what is read back from the disk is, to the byte, what was added to it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.disks import SpyBacking
from model.effort import effort
from model.pages import noise, text

from vswap.codec import STORED, Lz4, Stored, Zstd
from vswap.geometry import PAGE_SIZE, SEGMENT_SIZE
from vswap.store.backing import BLOCK, UNIT_BLOCKS, aligned
from vswap.store.batch import Batch, Placed, sealed_size
from vswap.store.cipher import TAG_SIZE
from vswap.store.disk import Disk
from vswap.store.disk_log import DiskLog
from vswap.store.entry import (
    ALIGNMENT,
    BACKING_ALIGNMENT,
    COLD,
    HUGE,
    extent_of,
    segment_of,
    share_of,
)
from vswap.store.region import Region
from vswap.store.unit import MAX_UNIT_SIZE, pack_payload, pack_unit, unit_length

ORIGIN = {(1, 2)}
SEGMENT = 2


@pytest.fixture
def disk() -> Iterator[Disk]:
    with a_disk() as made:
        yield made


@contextmanager
def a_disk() -> Iterator[Disk]:
    """A disk of four segments, on memory of its own."""
    region = Region.create("disk log", DiskLog.region_size(8))
    made = Disk(region)
    made.attach(SpyBacking(4))
    yield made
    region.close()


@pytest.fixture
def batch(disk: Disk) -> Batch:
    made = Batch(disk)
    made.begin()
    return made


def unit_of(data: bytes, slot: int = 0) -> bytes:
    """Header and payload of these pages."""
    pages = len(data) // PAGE_SIZE
    return pack_unit(slot, pages, *pack_payload(Zstd(1, len(data)), data))


def add(batch: Batch, unit: bytes, pages: int, slot: int = 0, flags: int = 0) -> bool:
    return batch.add(slot, list(range(1, pages + 1)), ORIGIN, unit, flags)


def write(disk: Disk, batch: Batch, segment: int = SEGMENT) -> int:
    """Write it there; the sequence of that filling."""
    filling = batch.filling()
    disk.write(segment, batch.blocks())
    disk.log.fill(segment, filling)
    return filling.sequence


def test_a_new_batch_is_empty(batch: Batch) -> None:
    assert not batch
    assert list(batch) == []
    assert batch.size == 0


CONTENTS = {
    "a page": [text()],
    "a page of noise": [noise()],
    "sixteen pages": [text(16)],
    "sixteen pages of noise": [noise(16)],
    "sixteen pages that are all the same": [text() * 16],
    "of all sizes": [text(count, count) for count in range(1, 17)],
    "noise of all sizes": [noise(count, count) for count in range(1, 13)],
}


@pytest.mark.parametrize("what", CONTENTS)
def test_what_is_read_back_is_what_was_added(disk: Disk, batch: Batch, what: str) -> None:
    units = [unit_of(data) for data in CONTENTS[what]]
    for unit, data in zip(units, CONTENTS[what], strict=True):
        assert add(batch, unit, len(data) // PAGE_SIZE)
    sequence = write(disk, batch)
    for placed, unit in zip(batch, units, strict=True):
        found = disk.unit(placed.entry(SEGMENT), sequence, aligned(UNIT_BLOCKS))
        assert found is not None
        assert found[: len(unit)] == unit
        assert not any(found[len(unit) :])
        assert unit_length(memoryview(found), 0) == len(unit)


@effort(30)
@given(
    units=st.lists(
        st.tuples(st.integers(1, 16), st.integers(13, 4108), st.sampled_from((0, HUGE, COLD))),
        min_size=1,
        max_size=40,
    )
)
def test_any_units_come_back_from_where_their_entries_say(
    units: list[tuple[int, int, int]],
) -> None:
    with a_disk() as disk:
        batch = Batch(disk)
        batch.begin()
        contents = [noise(3, number)[:size] for number, (_, size, _) in enumerate(units)]
        for content, (pages, _, flags) in zip(contents, units, strict=True):
            assert add(batch, content, pages, flags=flags)
        sequence = write(disk, batch)
        end = 0
        for placed, content, (pages, _, flags) in zip(batch, contents, units, strict=True):
            entry = placed.entry(SEGMENT)
            extent = extent_of(entry)
            assert (extent.segment, extent.pages) == (SEGMENT, pages)
            assert extent.offset % BACKING_ALIGNMENT == 0
            assert end <= extent.offset < end + BACKING_ALIGNMENT
            end = extent.offset + extent.size
            assert extent.size == sealed_size(len(content), pages) == share_of(entry) * pages
            assert entry & (HUGE | COLD) == flags
            found = disk.unit(entry, sequence, aligned(UNIT_BLOCKS))
            assert found == content + bytes(extent.size - TAG_SIZE - len(content))
        assert batch.size == end


@pytest.mark.parametrize("pages", range(1, 17))
@pytest.mark.parametrize("length", [13, 100, 4108, 65_548])
def test_a_unit_is_padded_for_its_pages_to_share(length: int, pages: int) -> None:
    size = sealed_size(length, pages)
    step = math.lcm(BACKING_ALIGNMENT, ALIGNMENT * pages)
    assert size % step == 0
    assert length + TAG_SIZE <= size < length + TAG_SIZE + step


def test_each_batch_is_of_a_filling_of_its_own(disk: Disk, batch: Batch) -> None:
    """NONCE-ONCE"""
    sequences = []
    for _ in range(3):
        batch.begin()
        assert add(batch, unit_of(text()), 1)
        sequences.append(batch.filling().sequence)
    assert len(set(sequences)) == 3
    other = Batch(disk)
    other.begin()
    assert add(other, unit_of(text()), 1)
    assert other.filling().sequence not in sequences


def test_a_unit_of_another_filling_is_not_read(disk: Disk, batch: Batch) -> None:
    assert add(batch, unit_of(text()), 1)
    (placed,) = batch
    sequence = write(disk, batch)
    assert disk.unit(placed.entry(SEGMENT), sequence, aligned(UNIT_BLOCKS)) is not None
    assert disk.unit(placed.entry(SEGMENT), sequence + 1, aligned(UNIT_BLOCKS)) is None
    assert disk.unit(placed.entry(SEGMENT - 1), sequence, aligned(UNIT_BLOCKS)) is None


# --- Full -------------------------------------------------------------------------------


def filled_up(batch: Batch) -> None:
    """Fill it with noise until no more fits."""
    number = 0
    while add(batch, pack_unit(number, 1, STORED, noise(1, number)), 1, number):
        number += 1


def test_what_does_not_fit_changes_nothing(disk: Disk, batch: Batch) -> None:
    filled_up(batch)
    before = list(batch), batch.size, batch.filling(), bytes(batch.blocks())
    unit = unit_of(text())
    for _ in range(3):
        assert not add(batch, pack_unit(0, 16, STORED, noise(16)), 16)
    assert (list(batch), batch.size, batch.filling(), bytes(batch.blocks())) == before
    number = batch.size
    if number + sealed_size(len(unit), 1) + BACKING_ALIGNMENT <= SEGMENT_SIZE:
        assert add(batch, unit, 1)
    sequence = write(disk, batch)
    for placed in batch:
        assert disk.unit(placed.entry(SEGMENT), sequence, aligned(UNIT_BLOCKS)) is not None


def test_a_full_batch_is_as_large_as_a_segment_at_most(batch: Batch) -> None:
    filled_up(batch)
    assert SEGMENT_SIZE - 2 * PAGE_SIZE < batch.size <= SEGMENT_SIZE
    assert len(batch.blocks()) <= SEGMENT_SIZE


def test_the_last_byte_can_be_used(disk: Disk, batch: Batch) -> None:
    """Units of 64 KiB less the tag, to the end of the disk segment."""
    size = (64 << 10) - TAG_SIZE
    contents = [noise(16, number)[:size] for number in range(16)]
    for content in contents:
        assert add(batch, content, 16)
    assert batch.size == SEGMENT_SIZE
    assert not add(batch, b"more than nothing", 1)
    sequence = write(disk, batch, segment=3)
    for placed, content in zip(batch, contents, strict=True):
        assert disk.unit(placed.entry(3), sequence, aligned(UNIT_BLOCKS)) == content


def test_a_batch_that_is_begun_again_has_nothing_of_the_last(disk: Disk, batch: Batch) -> None:
    filled_up(batch)
    batch.begin()
    assert not batch
    assert add(batch, unit_of(text()), 1)
    size = batch.size
    blocks = bytes(batch.blocks())
    assert len(blocks) == -(-size // BLOCK) * BLOCK
    assert not any(blocks[size:])  # nothing of the last one follows
    write(disk, batch)


# --- Numbers ----------------------------------------------------------------------------


def test_a_filling_has_the_numbers_of_its_units(batch: Batch) -> None:
    plain, cold = unit_of(text(4)), unit_of(text(16, 1))
    huge = pack_unit(0, 2, *pack_payload(Stored(), noise(2)))
    assert add(batch, plain, 4)
    assert add(batch, huge, 2, flags=HUGE)
    assert add(batch, cold, 16, flags=COLD)
    assert add(batch, huge, 2, flags=HUGE | COLD)
    filling = batch.filling()
    assert (filling.pages, filling.hot, filling.huge, filling.cold) == (24, 4, 4, 18)
    sizes = [sealed_size(len(one), pages) for one, pages in ((plain, 4), (cold, 16))]
    assert filling.size == sum(sizes) + 2 * sealed_size(len(huge), 2)
    assert filling.used == batch.size >= filling.size


def test_it_keeps_what_is_needed_to_publish_it(batch: Batch) -> None:
    unit = pack_unit(5, 2, *pack_payload(Lz4(), text(2)))
    assert batch.add(5, [11, 12], ORIGIN, unit, COLD)
    size = sealed_size(len(unit), 2)
    assert list(batch) == [Placed(5, [11, 12], ORIGIN, 0, size // 2, COLD)]
    (placed,) = batch
    assert segment_of(placed.entry(9)) == 9


def test_the_largest_unit_fits(disk: Disk, batch: Batch) -> None:
    unit = pack_unit(0, 16, STORED, noise(16))
    assert len(unit) <= MAX_UNIT_SIZE
    assert add(batch, unit, 16, flags=HUGE)
    (placed,) = batch
    sequence = write(disk, batch)
    found = disk.unit(placed.entry(SEGMENT), sequence, aligned(UNIT_BLOCKS))
    assert found is not None
    assert found[: len(unit)] == unit
