"""The ledger: live pages and bytes by segment, for any way of dropping them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.effort import effort

from vswap.geometry import SEGMENT_SIZE
from vswap.store.entry import (
    BACKING_ALIGNMENT,
    COLD,
    HUGE,
    IDLE,
    INDEX_SHIFT,
    LOADED,
    MAX_SEGMENTS,
    SHARE_MAX,
    pack,
    pack_backing,
    segment_of,
    share_of,
)
from vswap.store.ledger import Entries, Ledger, Totals

SEGMENTS = 6
NOTHING = Totals(0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Unit:
    """Some pages that were appended together."""

    segment: int
    offset: int
    pages: int
    share: int
    flags: int
    on_disk: bool = False
    """Then the segment is one of the disk, and the ledger the disk's."""

    def entries(self) -> list[int]:
        if self.on_disk:
            offset = self.offset // BACKING_ALIGNMENT * BACKING_ALIGNMENT
            first = pack_backing(self.segment, offset, self.pages, self.share, self.flags)
        else:
            first = pack(self.segment * SEGMENT_SIZE + self.offset, self.share, self.flags)
        return [first + (i << INDEX_SHIFT) for i in range(self.pages)]

    def add_to(self, ledger: Ledger) -> None:
        """Append it; it is staged then."""
        ledger.add(
            self.segment,
            pages=self.pages,
            size=self.share * self.pages,
            hot=0 if self.flags & (HUGE | COLD) else self.pages,
            huge=self.pages if self.flags & HUGE else 0,
            cold=self.pages if self.flags & COLD else 0,
        )


def units(segments: int = SEGMENTS, *, on_disk: bool = False) -> st.SearchStrategy[Unit]:
    return st.builds(
        Unit,
        segment=st.integers(0, segments - 1),
        offset=st.integers(0, SEGMENT_SIZE // 4 - 1).map(lambda at: at * 4),
        pages=st.integers(1, 16),
        share=st.integers(1, SHARE_MAX // 4).map(lambda share: share * 4),
        flags=st.sampled_from([0, HUGE, COLD, HUGE | COLD, LOADED, COLD | LOADED, IDLE | LOADED]),
        on_disk=st.just(on_disk),
    )


lists_of_units = st.booleans().flatmap(
    lambda on_disk: st.lists(units(on_disk=on_disk), min_size=1, max_size=12)
)
"""All in memory, or all on disk: entries of one kind."""


def ledger_of(made: list[Unit]) -> Ledger:
    ledger = Ledger(SEGMENTS)
    for unit in made:
        unit.add_to(ledger)
        ledger.publish(unit.pages)
    return ledger


def assert_counts(ledger: Ledger, alive: list[int]) -> None:
    """LOG-LIVE: everything counted is what one gets by counting these entries."""
    pages: Counter[int] = Counter()
    size: Counter[int] = Counter()
    hot: Counter[int] = Counter()
    for entry in alive:
        pages[segment_of(entry)] += 1
        size[segment_of(entry)] += share_of(entry)
        hot[segment_of(entry)] += not entry & (HUGE | COLD)
    for counted, right in ((ledger.pages, pages), (ledger.bytes, size), (ledger.hot, hot)):
        assert counted.tolist() == [right[segment] for segment in range(SEGMENTS)]
    assert ledger.totals() == Totals(
        live_pages=len(alive),
        live_bytes=size.total(),
        huge=sum(bool(entry & HUGE) for entry in alive),
        cold=sum(bool(entry & COLD) for entry in alive),
        staged=0,
    )


def as_array(entries: list[int]) -> Entries:
    return np.array(entries, np.uint64)


def test_a_new_ledger_has_nothing() -> None:
    ledger = Ledger(SEGMENTS)
    assert ledger.totals() == NOTHING
    assert all(ledger.is_empty(segment) for segment in range(SEGMENTS))


def test_what_is_appended_is_staged_until_it_is_published() -> None:
    """LOG-LIVE"""
    ledger = Ledger(SEGMENTS)
    unit = Unit(2, 0, 4, 400, 0)
    unit.add_to(ledger)
    assert ledger.totals() == Totals(4, 1600, 0, 0, staged=4)
    assert not ledger.is_empty(2)
    ledger.publish(3)
    assert ledger.totals().staged == 1
    assert ledger.pages[2] == 4


@pytest.mark.parametrize(
    ("flags", "hot", "huge", "cold"),
    [
        (0, 3, 0, 0),
        (LOADED | IDLE, 3, 0, 0),
        (HUGE, 0, 3, 0),
        (COLD, 0, 0, 3),
        (HUGE | COLD, 0, 3, 3),
    ],
)
@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("on_disk", [False, True])
def test_each_sort_is_counted_and_dropped(
    flags: int, hot: int, huge: int, cold: int, many: bool, on_disk: bool
) -> None:
    """LOG-LIVE, DISK-LIVE: a page that is neither huge nor cold is hot, and one may be both."""
    unit = Unit(1, 64, 3, 800, flags, on_disk)
    ledger = ledger_of([unit])
    assert (ledger.hot[1], ledger.huge, ledger.cold) == (hot, huge, cold)
    dead = unit.entries()
    assert ledger.drop(as_array(dead) if many else dead) == [1]
    assert_counts(ledger, [])


def test_huge_pages_ever_appended_only_grow() -> None:
    unit = Unit(1, 64, 3, 800, HUGE)
    ledger = ledger_of([unit, unit])
    ledger.drop(unit.entries())
    assert (ledger.huge, ledger.huge_since) == (3, 6)


@pytest.mark.parametrize("on_disk", [False, True])
def test_one_entry_alone_is_dropped_from_its_segment(on_disk: bool) -> None:
    """LOG-LIVE, DISK-LIVE: the commonest case has a way of its own."""
    unit = Unit(3, 0, 2, 400, 0, on_disk)
    ledger = ledger_of([unit])
    assert ledger.drop(unit.entries()[:1]) == []
    assert_counts(ledger, unit.entries()[1:])
    assert ledger.drop(unit.entries()[1:]) == [3]


@pytest.mark.parametrize("many", [False, True])
def test_nothing_dropped_empties_nothing(many: bool) -> None:
    unit = Unit(3, 0, 2, 400, 0)
    ledger = ledger_of([unit])
    assert ledger.drop(as_array([]) if many else []) == []
    assert_counts(ledger, unit.entries())


@pytest.mark.parametrize("many", [False, True])
def test_only_segments_that_these_pages_emptied_are_answered(many: bool) -> None:
    """A segment in which nothing lived before is none of them."""
    one, two = Unit(0, 0, 2, 400, 0), Unit(4, 0, 2, 400, 0)
    ledger = ledger_of([one, two])
    dead = [*two.entries(), one.entries()[0]]
    assert ledger.drop(as_array(dead) if many else dead) == [4]


@pytest.mark.parametrize("many", [False, True])
def test_staged_pages_keep_a_segment_from_being_empty(many: bool) -> None:
    """LOG-LIVE: a write that has not published yet counts."""
    unit = Unit(4, 0, 2, 400, 0)
    ledger = ledger_of([unit])
    Unit(4, 800, 1, 400, 0).add_to(ledger)
    dead = unit.entries()
    assert ledger.drop(as_array(dead) if many else dead) == []
    assert not ledger.is_empty(4)


def test_neighbouring_and_far_segments_are_told_apart() -> None:
    """The bounds by which a sorted list is cut: the last byte of one, the first of the next."""
    last, first = Unit(1, SEGMENT_SIZE - 4, 1, 4, 0), Unit(2, 0, 1, 4, 0)
    ledger = ledger_of([last, first, last])
    assert ledger.drop([*first.entries(), *last.entries()]) == [2]
    assert_counts(ledger, last.entries())


def test_neighbouring_and_far_disk_segments_are_told_apart() -> None:
    """DISK-LIVE: where a unit ends is not in the order of entries, but its page count is."""
    last = Unit(1, SEGMENT_SIZE - BACKING_ALIGNMENT, 16, 4, 0, on_disk=True)
    first = Unit(2, 0, 1, 4, 0, on_disk=True)
    far = Unit(SEGMENTS - 1, 0, 1, 4, 0, on_disk=True)
    ledger = ledger_of([last, first, far, last])
    assert ledger.drop([*far.entries(), *first.entries(), *last.entries()]) == [2, SEGMENTS - 1]
    assert_counts(ledger, last.entries())


@pytest.mark.parametrize("on_disk", [False, True])
def test_the_last_segment_of_all_can_be_dropped_from(on_disk: bool) -> None:
    """The bound after it does not fit the segment's bits."""
    ledger = Ledger(MAX_SEGMENTS)
    unit = Unit(MAX_SEGMENTS - 1, 0, 2, 400, 0, on_disk)
    unit.add_to(ledger)
    assert ledger.drop(unit.entries()) == [unit.segment]


def test_pages_become_cold_where_they_are() -> None:
    """LOG-LIVE: cold pages are not hot; huge ones were not before either."""
    plain, huge = Unit(1, 0, 4, 400, 0), Unit(1, 1600, 2, 4100, HUGE)
    ledger = ledger_of([plain, huge])
    marked = [*plain.entries()[:2], huge.entries()[0]]
    ledger.mark_cold(marked)
    alive = {*plain.entries(), *huge.entries()}
    assert_counts(ledger, [entry | COLD if entry in marked else entry for entry in alive])


@given(made=st.just([]) | lists_of_units, data=st.data())
@effort(150)
def test_a_list_an_array_and_counting_agree(made: list[Unit], data: st.DataObject) -> None:
    """LOG-LIVE, DISK-LIVE"""
    pages = [entry for unit in made for entry in unit.entries()]
    order = data.draw(st.permutations(range(len(pages))))
    cut = data.draw(st.integers(0, len(pages)))
    dead = [pages[i] for i in order[:cut]]
    alive = [pages[i] for i in order[cut:]]
    by_list, by_array = ledger_of(made), ledger_of(made)
    given_list = list(dead)
    emptied = by_list.drop(given_list)
    assert given_list == dead
    assert sorted(by_array.drop(as_array(dead))) == sorted(emptied)
    living = {segment_of(entry) for entry in alive}
    assert sorted(emptied) == sorted({segment_of(entry) for entry in dead} - living)
    assert_counts(by_list, alive)
    assert_counts(by_array, alive)


@given(made=lists_of_units, data=st.data())
@effort(60)
def test_any_sequence_of_drops_counts_right(made: list[Unit], data: st.DataObject) -> None:
    """LOG-LIVE, DISK-LIVE: in pieces, some as lists and some as arrays, and cold between."""
    alive = [entry for unit in made for entry in unit.entries()]
    ledger = ledger_of(made)
    while alive:
        count = data.draw(st.integers(1, len(alive)))
        piece, alive = alive[:count], alive[count:]
        first = [entry for entry in alive[:3] if not entry & COLD]
        ledger.mark_cold(first)
        alive[:3] = [entry | COLD for entry in alive[:3]]
        ledger.drop(as_array(piece) if data.draw(st.booleans()) else piece)
        assert_counts(ledger, alive)
