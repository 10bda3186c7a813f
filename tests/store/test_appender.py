"""The appender: units one after the other, and from segment to segment."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from model.pages import noise, text

from vswap.codec import LZ4, STORED, Lz4, Stored, Zstd
from vswap.errors import FullError
from vswap.geometry import PAGE_SIZE, SEGMENT_SIZE
from vswap.store import entry
from vswap.store.appender import Appender
from vswap.store.log import _OPEN, _SEALED, Log
from vswap.store.region import Region
from vswap.store.unit import Decoder, unit_size

MakeRegion = Callable[[int], Region]

BIG = 16 * PAGE_SIZE
PER_SEGMENT = SEGMENT_SIZE // unit_size(BIG, 16)
"""How many of the largest units fit one segment."""


class Open:
    """A log of a few segments, and appenders to it."""

    def __init__(self, region: Region, limit: int | None = None) -> None:
        self.log = Log(region, reserve=0, limit=limit)
        self.memory = region.view
        self.decoder = Decoder(region.view, [Stored(), Lz4(), Zstd()])

    def appender(self) -> Appender:
        return Appender(self.log, self.memory)


@pytest.fixture
def opened(make_region: MakeRegion) -> Open:
    return Open(make_region(4 * SEGMENT_SIZE))


def fill(appender: Appender) -> list[int]:
    """As many of the largest units as one segment takes."""
    return [appender.append(16 * i, 16, STORED, noise(16)) for i in range(PER_SEGMENT)]


def test_an_entry_names_the_unit_that_was_appended(opened: Open) -> None:
    packed = Lz4().compress(text(3))
    made = opened.appender().append(40, 3, LZ4, packed)
    assert opened.decoder.unit(made, 40) == (text(3), 3)


def test_the_share_is_the_units_size_by_its_pages(opened: Open) -> None:
    packed = Lz4().compress(text(3))
    made = opened.appender().append(40, 3, LZ4, packed)
    assert entry.share_of(made) * 3 == unit_size(len(packed), 3)


def test_only_stored_units_are_huge(opened: Open) -> None:
    appender = opened.appender()
    assert appender.append(0, 1, STORED, noise()) & entry.HUGE
    assert not appender.append(0, 1, LZ4, Lz4().compress(text())) & entry.HUGE


def test_units_follow_each_other_without_gap_or_overlap(opened: Open) -> None:
    appender = opened.appender()
    made = [appender.append(i, 1, STORED, noise()) for i in range(3)]
    positions = [entry.position_of(one) for one in made]
    size = unit_size(PAGE_SIZE, 1)
    assert positions == [positions[0], positions[0] + size, positions[0] + 2 * size]
    assert positions[0] % SEGMENT_SIZE == 0


def test_what_is_appended_counts_as_live(opened: Open) -> None:
    """LOG-LIVE: from `settle` on, those not yet published too."""
    appender = opened.appender()
    packed = Lz4().compress(text(2))
    appender.append(0, 4, STORED, noise(4))
    appender.append(4, 2, LZ4, packed)
    appender.settle()
    assert opened.log.pages[0] == 6
    assert opened.log.bytes[0] == unit_size(4 * PAGE_SIZE, 4) + unit_size(len(packed), 2)
    assert opened.log.statistics().huge_pages == 4


def test_what_is_settled_is_counted_once(opened: Open) -> None:
    """LOG-LIVE"""
    appender = opened.appender()
    appender.append(0, 4, STORED, noise(4))
    appender.settle()
    before = opened.log.statistics()
    appender.settle()
    assert opened.log.statistics() == before


def test_a_segment_is_not_sealed_before_what_is_in_it_is_counted(opened: Open) -> None:
    """LOG-REUSE: it would seem empty, and be written over before it is published."""
    appender = opened.appender()
    fill(appender)
    appender.append(0, 16, STORED, noise(16))
    assert list(opened.log._state[:2]) == [_SEALED, _OPEN]
    assert opened.log.pages[0] == 16 * PER_SEGMENT
    assert opened.log.pages[1] == 0


def test_a_full_segment_is_sealed_and_another_opened(opened: Open) -> None:
    """LOG-PLACE"""
    appender = opened.appender()
    made = [*fill(appender), appender.append(0, 16, STORED, noise(16))]
    assert [entry.segment_of(one) for one in made] == [0] * PER_SEGMENT + [1]
    assert list(opened.log._state[:2]) == [_SEALED, _OPEN]


def test_a_unit_may_end_exactly_at_its_segments_end(opened: Open) -> None:
    appender = opened.appender()
    appender._used = SEGMENT_SIZE - unit_size(PAGE_SIZE, 1)
    made = appender.append(9, 1, STORED, noise())
    assert entry.segment_of(made) == 0
    assert opened.decoder.unit(made, 9) == (noise(), 1)


def test_a_unit_does_not_cross_into_the_next_segment(opened: Open) -> None:
    appender = opened.appender()
    appender.append(0, 1, STORED, noise())
    appender._used = SEGMENT_SIZE - unit_size(PAGE_SIZE, 1) + entry.ALIGNMENT
    made = appender.append(9, 1, STORED, noise())
    assert entry.position_of(made) == SEGMENT_SIZE


def test_a_full_log_changes_nothing(make_region: MakeRegion) -> None:
    """LOG-PLACE: the segment stays open, and what it counts stays as it was."""
    opened = Open(make_region(4 * SEGMENT_SIZE), limit=1)
    appender = opened.appender()
    fill(appender)
    appender.settle()
    before = (opened.log.statistics(), bytes(opened.log._state), vars(appender).copy())
    with pytest.raises(FullError):
        appender.append(0, 16, STORED, noise(16))
    assert (opened.log.statistics(), bytes(opened.log._state), vars(appender)) == before


def test_a_unit_that_still_fits_is_taken_after_one_that_did_not(make_region: MakeRegion) -> None:
    opened = Open(make_region(SEGMENT_SIZE))
    appender = opened.appender()
    fill(appender)
    with pytest.raises(FullError):
        appender.append(0, 16, STORED, noise(16))
    made = appender.append(3, 1, STORED, noise())
    assert opened.decoder.unit(made, 3) == (noise(), 1)


def test_a_full_segment_whose_units_all_died_is_filled_again(opened: Open) -> None:
    """LOG-REUSE: it is open, and nobody can be reading what no entry names."""
    appender = opened.appender()
    units = fill(appender)
    appender.settle()
    for made in units:
        opened.log.drop([made + (i << entry.INDEX_SHIFT) for i in range(16)])
    made = appender.append(0, 16, STORED, noise(16))
    assert entry.position_of(made) == 0
    assert list(opened.log._state[:2]) == [_OPEN, 0]


def test_a_full_segment_with_a_unit_not_yet_counted_is_not_filled_again(opened: Open) -> None:
    """LOG-LIVE: what is staged lives."""
    appender = opened.appender()
    units = fill(appender)
    appender.settle()
    for made in units[:-1]:
        opened.log.drop([made + (i << entry.INDEX_SHIFT) for i in range(16)])
    staged = appender.append(0, 1, STORED, noise())
    opened.log.drop([units[-1] + (i << entry.INDEX_SHIFT) for i in range(16)])
    made = appender.append(16, 16, STORED, noise(16))
    assert entry.segment_of(made) != entry.segment_of(staged)


def test_appenders_have_segments_of_their_own(opened: Open) -> None:
    """LOG-PLACE"""
    one, other = opened.appender(), opened.appender()
    entries = [one.append(0, 1, STORED, noise()), other.append(0, 1, STORED, noise())]
    assert len({entry.segment_of(made) for made in entries}) == 2


def test_an_appender_takes_its_segment_when_it_is_made(make_region: MakeRegion) -> None:
    """`FullError` here rather than at the first write."""
    opened = Open(make_region(SEGMENT_SIZE))
    opened.appender()
    with pytest.raises(FullError):
        opened.appender()
