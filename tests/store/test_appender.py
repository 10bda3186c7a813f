"""The appender: units one after the other, and from segment to segment."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from model.pages import noise, text

from vswap.codec import LZ4, STORED, Lz4, by_number
from vswap.errors import FullError
from vswap.geometry import PAGE_SIZE, SEGMENT_SIZE
from vswap.store import entry
from vswap.store.appender import Appender
from vswap.store.decoder import Decoder
from vswap.store.log import Log
from vswap.store.places import KEPT, OPEN, SEALED
from vswap.store.region import Region
from vswap.store.unit import unit_size

MakeRegion = Callable[[int], Region]

BIG = 16 * PAGE_SIZE
PER_SEGMENT = SEGMENT_SIZE // unit_size(BIG, 16)
"""How many of the largest units fit one segment."""


class Open:
    """A log of a few segments, and appenders to it."""

    def __init__(self, region: Region, limit: int | None = None) -> None:
        self.log = Log(region, reserve=0, limit=limit)
        self.memory = region.view
        self.decoder = Decoder(region.view, by_number())

    def appender(self) -> Appender:
        return Appender(self.log, self.memory, self.log.take)

    def drop(self, entry_of_first: int, pages: int) -> None:
        """All pages of a unit are dead."""
        dead = [entry_of_first + (i << entry.INDEX_SHIFT) for i in range(pages)]
        self.log.publish(0, dead)


@pytest.fixture
def opened(make_region: MakeRegion) -> Open:
    return Open(make_region(8 * SEGMENT_SIZE))


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
    assert opened.log.ledger.pages[0] == 6
    assert opened.log.ledger.bytes[0] == unit_size(4 * PAGE_SIZE, 4) + unit_size(len(packed), 2)
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
    assert list(opened.log._places.state[:2]) == [SEALED, OPEN]
    assert opened.log.ledger.pages[0] == 16 * PER_SEGMENT
    assert opened.log.ledger.pages[1] == 0


def test_a_full_segment_is_sealed_and_another_opened(opened: Open) -> None:
    """LOG-PLACE"""
    appender = opened.appender()
    made = [*fill(appender), appender.append(0, 16, STORED, noise(16))]
    assert [entry.segment_of(one) for one in made] == [0] * PER_SEGMENT + [1]
    assert list(opened.log._places.state[:2]) == [SEALED, OPEN]


def test_a_unit_may_end_exactly_at_its_segments_end(opened: Open) -> None:
    appender = opened.appender()
    appender.ensure(1)
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


def test_in_a_full_log_the_segment_is_sealed_all_the_same(make_region: MakeRegion) -> None:
    """LOG-PLACE: it may be what is cleaned for room. What it counts stays as it was."""
    opened = Open(make_region(8 * SEGMENT_SIZE), limit=KEPT + 1)
    appender = opened.appender()
    fill(appender)
    appender.settle()
    live = opened.log.ledger.totals()
    for _ in range(2):
        with pytest.raises(FullError):
            appender.append(0, 16, STORED, noise(16))
        assert (opened.log.ledger.totals(), opened.log._places.state[0]) == (live, SEALED)


def test_after_it_found_no_room_it_goes_on_when_there_is_some(make_region: MakeRegion) -> None:
    opened = Open(make_region(8 * SEGMENT_SIZE), limit=KEPT + 1)
    appender = opened.appender()
    fill(appender)
    with pytest.raises(FullError):
        appender.append(0, 16, STORED, noise(16))
    opened.log.set_limit(8)
    made = appender.append(3, 1, STORED, noise())
    assert opened.decoder.unit(made, 3) == (noise(), 1)


def test_a_full_segment_whose_units_all_died_is_filled_again(opened: Open) -> None:
    """LOG-REUSE: it is open, and nobody can be reading what no entry names."""
    appender = opened.appender()
    units = fill(appender)
    appender.settle()
    for made in units:
        opened.drop(made, 16)
    made = appender.append(0, 16, STORED, noise(16))
    assert entry.position_of(made) == 0
    assert list(opened.log._places.state[:2]) == [OPEN, 0]


def test_a_full_segment_with_a_unit_not_yet_counted_is_not_filled_again(opened: Open) -> None:
    """LOG-LIVE: what is staged lives."""
    appender = opened.appender()
    units = fill(appender)
    appender.settle()
    for made in units[:-1]:
        opened.drop(made, 16)
    staged = appender.append(0, 1, STORED, noise())
    opened.drop(units[-1], 16)
    made = appender.append(16, 16, STORED, noise(16))
    assert entry.segment_of(made) != entry.segment_of(staged)


def test_appenders_have_segments_of_their_own(opened: Open) -> None:
    """LOG-PLACE"""
    one, other = opened.appender(), opened.appender()
    entries = [one.append(0, 1, STORED, noise()), other.append(0, 1, STORED, noise())]
    assert len({entry.segment_of(made) for made in entries}) == 2


def test_an_appender_takes_its_segment_when_it_needs_it(opened: Open) -> None:
    """The cleaner's may never need one."""
    appender = opened.appender()
    assert opened.log.statistics().segments_open == 0
    appender.ensure(1)
    assert opened.log.statistics().segments_open == 1


def test_an_appender_that_gets_no_segment_has_appended_nothing(make_region: MakeRegion) -> None:
    """`FullError` from whoever gives segments, here the log at its limit."""
    opened = Open(make_region(KEPT * SEGMENT_SIZE))
    appender = opened.appender()
    for _ in range(2):
        with pytest.raises(FullError):
            appender.append(0, 1, STORED, noise())
    appender.settle()
    assert opened.log.statistics().pages_live == 0


# --- Room -------------------------------------------------------------------------------


def test_what_room_was_made_for_can_be_appended_without_asking(opened: Open) -> None:
    """Under a cluster's lock nobody may wait for room."""
    appender = opened.appender()
    while appender._used + unit_size(BIG, 16) <= SEGMENT_SIZE or appender._segment is None:
        appender.append(0, 16, STORED, noise(16))
    appender.ensure(unit_size(BIG, 16))
    appender._take = lambda: pytest.fail("it asks for room")
    appender.append(0, 16, STORED, noise(16))
    assert opened.log.statistics().segments_open == 1


def test_room_for_what_is_there_is_not_asked_for(opened: Open) -> None:
    appender = opened.appender()
    appender.ensure(1)
    appender.ensure(SEGMENT_SIZE)
    assert opened.log.statistics().segments_open == 1
    appender.append(0, 1, STORED, noise())
    appender.ensure(SEGMENT_SIZE - unit_size(PAGE_SIZE, 1))
    assert bytes(opened.log._places.state[:2]) == bytes((OPEN, 0))


# --- Flags, and how old it is -----------------------------------------------------------


def test_what_is_appended_is_counted_by_its_sort(opened: Open) -> None:
    """LOG-LIVE: hot is what is neither huge nor cold, and one page may be both of these."""
    appender = opened.appender()
    packed = Lz4().compress(text(3))
    assert appender.append(0, 3, LZ4, packed) & entry.FLAGS_MASK == 0
    assert appender.append(4, 3, LZ4, packed, entry.COLD) & entry.FLAGS_MASK == entry.COLD
    assert appender.append(8, 2, STORED, noise(2)) & entry.FLAGS_MASK == entry.HUGE
    made = appender.append(12, 1, STORED, noise(), entry.COLD)
    assert made & entry.FLAGS_MASK == entry.HUGE | entry.COLD
    appender.settle()
    statistics = opened.log.statistics()
    assert opened.log.ledger.hot[0] == 3
    assert (statistics.huge_pages, statistics.pages_cold) == (3, 4)
    assert statistics.pages_staged == statistics.pages_live == 9


def sealed_born(opened: Open, appender: Appender) -> float:
    """Fill the segment, and answer how old it is then."""
    segment = appender._segment
    assert segment is not None
    opened.log.add(segment, 1, 4, 1, 0, 0)  # something that keeps it
    while appender._segment == segment:
        appender.append(0, 16, STORED, noise(16))
    return float(opened.log.born[segment])


def test_a_segment_of_what_is_written_is_born_when_it_is_sealed(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LOG-AGE"""
    monkeypatch.setattr(time, "monotonic", lambda: 777.0)
    appender = opened.appender()
    appender.append(0, 1, STORED, noise())
    assert sealed_born(opened, appender) == 777.0


def test_a_segment_of_what_is_moved_is_as_old_as_its_youngest_page(opened: Open) -> None:
    """LOG-AGE: cleaning does not make anything young."""
    appender = opened.appender()
    for born in (30.0, 50.0, 40.0):
        appender.written_at(born)
        appender.append(0, 1, STORED, noise())
    assert sealed_born(opened, appender) == 50.0


def test_a_segment_is_not_as_young_as_what_is_in_the_one_before(opened: Open) -> None:
    """LOG-AGE"""
    appender = opened.appender()
    appender.written_at(50.0)
    appender.append(0, 1, STORED, noise())
    appender.written_at(20.0)
    assert sealed_born(opened, appender) == 50.0
    assert sealed_born(opened, appender) == 20.0


# --- Whole units from somewhere else ----------------------------------------------------


def appended(opened: Open, appender: Appender) -> tuple[int, memoryview]:
    """A unit of four pages at slot 40: its entry and its bytes."""
    packed = Lz4().compress(text(4))
    made = appender.append(40, 4, LZ4, packed)
    start = entry.position_of(made)
    return made, opened.memory[start : start + unit_size(len(packed), 4)]


def test_a_unit_that_is_copied_is_the_same_unit_somewhere_else(opened: Open) -> None:
    appender = opened.appender()
    made, unit = appended(opened, opened.appender())
    copy = appender.copy(unit, 4, 0)
    assert entry.segment_of(copy) != entry.segment_of(made)
    assert opened.decoder.unit(copy, 40) == (text(4), 4)
    assert entry.share_of(copy) == entry.share_of(made)


@pytest.mark.parametrize("live", [1, 2, 3, 4])
def test_the_pages_that_live_share_all_of_a_copied_unit(opened: Open, live: int) -> None:
    """LOG-LIVE: or the segment would seem emptier than it can be made."""
    _, unit = appended(opened, opened.appender())
    appender = opened.appender()
    copy = appender.copy(unit, live, entry.COLD)
    appender.settle()
    segment = entry.segment_of(copy)
    assert len(unit) - entry.ALIGNMENT * live < live * entry.share_of(copy) <= len(unit)
    assert opened.log.ledger.pages[segment] == live
    assert opened.log.ledger.bytes[segment] == live * entry.share_of(copy)
    assert opened.log.statistics().pages_cold == live


def test_the_share_of_a_copied_unit_fits_its_field(opened: Open) -> None:
    """LOG-LIVE: of sixteen pages that did not compress one may be left."""
    made = opened.appender().append(0, 16, STORED, noise(16))
    start = entry.position_of(made)
    appender = opened.appender()
    copy = appender.copy(opened.memory[start : start + unit_size(BIG, 16)], 1, entry.HUGE)
    appender.settle()
    assert entry.share_of(copy) == entry.SHARE_MAX
    assert copy & entry.FLAGS_MASK == entry.HUGE
    assert opened.decoder.unit(copy, 0) == (noise(16), 16)
    assert opened.log.ledger.bytes[entry.segment_of(copy)] == entry.SHARE_MAX


def test_a_copy_that_finds_no_room_counts_nothing(make_region: MakeRegion) -> None:
    """LOG-LIVE"""
    opened = Open(make_region(8 * SEGMENT_SIZE), limit=KEPT + 1)
    appender = opened.appender()
    made = fill(appender)
    appender.settle()
    start = entry.position_of(made[0])
    live = opened.log.ledger.totals()
    with pytest.raises(FullError):
        appender.copy(opened.memory[start : start + unit_size(BIG, 16)], 16, entry.HUGE)
    assert opened.log.ledger.totals() == live
