"""The log: where each segment is in its life, how much of it is alive, and how old it is."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

import pytest
from model.logs import Harness, each_page, freed, unit

from vswap.errors import FullError
from vswap.store import entry
from vswap.store.places import HOLE, KEPT, OPEN, READY, SEALED

Maker = Callable[..., Harness]


# --- A segment's life -------------------------------------------------------------------


def test_a_new_log_is_all_holes(make_log: Maker) -> None:
    """LOG-PLACE"""
    harness = make_log(4)
    assert harness.states() == [HOLE] * 4
    assert harness.region.allocated() == 0


def test_take_opens_segments_each_once(make_log: Maker) -> None:
    """LOG-PLACE: what is taken is taken by nobody else."""
    harness = make_log(4)
    assert sorted(harness.take() for _ in range(4)) == [0, 1, 2, 3]
    assert harness.states() == [OPEN] * 4


def test_a_sealed_segment_with_live_pages_stays(make_log: Maker) -> None:
    """LOG-REUSE"""
    harness = make_log(3)
    segment = harness.take()
    harness.add(unit(segment), 2)
    harness.seal(segment)
    assert harness.states() == [SEALED, HOLE, HOLE]
    assert {harness.take(), harness.take()} == {1, 2}
    with pytest.raises(FullError):
        harness.take()


def test_a_sealed_segment_is_freed_when_its_last_page_dies(make_log: Maker) -> None:
    """LOG-REUSE"""
    harness = make_log(1)
    segment = harness.take()
    harness.add(unit(segment), 2)
    harness.seal(segment)
    first, last = each_page(unit(segment), 2)
    harness.drop([first])
    assert harness.states() == [SEALED]
    harness.drop([last])
    assert harness.states() == [READY]
    assert harness.take() == segment


def test_an_open_segment_is_not_freed_when_its_last_page_dies(make_log: Maker) -> None:
    """LOG-REUSE: its appender still writes to it."""
    harness = make_log(1)
    segment = harness.take()
    harness.add(unit(segment), 1)
    harness.drop([unit(segment)])
    assert harness.states() == [OPEN]


def test_a_segment_sealed_when_empty_is_freed_at_once(make_log: Maker) -> None:
    """LOG-REUSE"""
    harness = make_log(1)
    harness.seal(harness.take())
    assert harness.states() == [READY]


def test_a_sealed_segment_with_staged_pages_stays(make_log: Maker) -> None:
    """LOG-REUSE: they are appended, and will be published any moment."""
    harness = make_log(1)
    segment = harness.take()
    harness.stage(unit(segment), 2)
    harness.seal(segment)
    assert harness.states() == [SEALED]
    harness.log.publish(2, [])
    assert harness.states() == [SEALED]


def test_a_freed_segment_is_taken_before_a_hole(make_log: Maker) -> None:
    """Its memory is there already; a hole would cost page faults."""
    harness = make_log(4)
    harness.seal(harness.take())
    again = harness.take()
    assert harness.states().count(HOLE) == 3
    assert harness.states()[again] == OPEN


# --- The cleaner's segments -------------------------------------------------------------


def test_the_last_segments_are_the_cleaners(make_log: Maker) -> None:
    """Without room to move live pages to, no dead space could be won back."""
    harness = make_log(8, limit=KEPT + 3)
    for _ in range(3):
        harness.log.take()
    before = harness.snapshot()
    with pytest.raises(FullError):
        harness.log.take()
    assert harness.snapshot() == before
    assert harness.log.room() == KEPT
    for _ in range(KEPT):
        harness.log.take(0)
    with pytest.raises(FullError):
        harness.log.take(0)


@pytest.mark.parametrize("kept", [0, 1, KEPT])
def test_take_leaves_as_many_as_are_to_be_kept(make_log: Maker, kept: int) -> None:
    harness = make_log(5)
    for _ in range(5 - kept):
        harness.log.take(kept)
    with pytest.raises(FullError):
        harness.log.take(kept)
    assert harness.log.room() == kept


def test_ready_segments_are_room_as_holes_are(make_log: Maker) -> None:
    harness = make_log(6)
    freed(harness, 3)
    assert harness.log.room() == 6
    harness.take()
    assert harness.log.room() == 5


# --- What is alive ----------------------------------------------------------------------


def test_add_counts_pages_and_the_sum_of_their_shares(make_log: Maker) -> None:
    """LOG-LIVE"""
    harness = make_log(2)
    segment = harness.take()
    harness.add(unit(segment, share=300), 4)
    harness.add(unit(segment, share=4000), 1)
    assert harness.log.ledger.pages[segment] == 5
    assert harness.log.ledger.bytes[segment] == 4 * 300 + 4000
    statistics = harness.log.statistics()
    assert (statistics.pages_live, statistics.bytes_live) == (5, 5200)
    assert harness.log.ledger.live_bytes == 5200


def test_what_is_appended_is_staged_until_it_is_published(make_log: Maker) -> None:
    """LOG-LIVE"""
    harness = make_log(2)
    segment = harness.take()
    harness.stage(unit(segment), 4)
    assert harness.log.statistics().pages_staged == 4
    harness.log.publish(3, [])
    assert harness.log.statistics().pages_staged == 1
    assert harness.log.statistics().pages_live == 4


def test_publish_counts_what_was_overwritten_as_dead(make_log: Maker) -> None:
    """LOG-LIVE: in one step, so that the sum never shows a page twice."""
    harness = make_log(2)
    segment = harness.take()
    harness.add(unit(segment, 300), 2)
    harness.stage(unit(segment, 400, offset=4096), 2)
    harness.log.publish(2, each_page(unit(segment, 300), 2))
    statistics = harness.log.statistics()
    assert (statistics.pages_live, statistics.bytes_live) == (2, 800)
    assert statistics.pages_staged == 0


def test_what_is_withdrawn_is_neither_staged_nor_alive(make_log: Maker) -> None:
    """LOG-LIVE"""
    harness = make_log(2)
    segment = harness.take()
    harness.add(unit(segment, 300), 2)
    before = harness.log.statistics()
    made = unit(segment, 400, entry.COLD, 4096)
    harness.stage(made, 3)
    harness.log.withdraw(each_page(made, 3))
    assert harness.log.statistics() == before


def test_to_withdraw_the_last_page_of_a_sealed_segment_frees_it(make_log: Maker) -> None:
    """LOG-REUSE"""
    harness = make_log(2)
    segment = harness.take()
    harness.stage(unit(segment), 2)
    harness.seal(segment)
    harness.log.withdraw(each_page(unit(segment), 2))
    assert harness.states()[segment] == READY


def test_huge_pages_are_counted_while_they_live_and_since_ever(make_log: Maker) -> None:
    """LOG-LIVE: `huge_pages` falls again, `huge_pages_since` does not."""
    harness = make_log(1)
    segment = harness.take()
    huge = unit(segment, 4108, entry.HUGE)
    harness.add(huge, 4)
    harness.add(unit(segment, 400, 0, 20_000), 2)
    assert harness.log.statistics().huge_pages == 4
    harness.drop(each_page(huge, 3))
    harness.drop(each_page(unit(segment, 400, 0, 20_000), 2))
    statistics = harness.log.statistics()
    assert (statistics.huge_pages, statistics.huge_pages_since) == (1, 4)


def test_cold_pages_are_counted_while_they_live(make_log: Maker) -> None:
    """LOG-LIVE: appended as such, or marked where they are; and no longer hot."""
    harness = make_log(1)
    segment = harness.take()
    cold, hot = unit(segment, 300, entry.COLD), unit(segment, 400, 0, 4096)
    harness.add(cold, 4)
    harness.add(hot, 3)
    assert harness.log.ledger.hot[segment] == 3
    harness.log.mark_cold(each_page(hot, 2))
    assert harness.log.ledger.hot[segment] == 1
    assert harness.log.statistics().pages_cold == 6
    harness.drop(each_page(cold, 4))
    harness.drop([page | entry.COLD for page in each_page(hot, 2)])
    assert harness.log.ledger.hot[segment] == 1
    assert harness.log.statistics().pages_cold == 0


def test_a_huge_page_marked_cold_was_not_hot_before(make_log: Maker) -> None:
    """LOG-LIVE"""
    harness = make_log(1)
    segment = harness.take()
    harness.add(unit(segment, 4108, entry.HUGE), 2)
    harness.log.mark_cold(each_page(unit(segment, 4108, entry.HUGE), 2))
    statistics = harness.log.statistics()
    assert (statistics.huge_pages, statistics.pages_cold) == (2, 2)
    assert harness.log.ledger.hot[segment] == 0


def test_one_publish_can_free_several_segments(make_log: Maker) -> None:
    """LOG-REUSE: in any order of their entries, and not those that keep a page."""
    harness = make_log(4)
    a, b, c = segments = [harness.take() for _ in range(3)]
    for segment in segments:
        harness.add(unit(segment), 2)
        harness.seal(segment)
    pages = {segment: each_page(unit(segment), 2) for segment in segments}
    mingled = [pages[a][0], pages[b][0], pages[a][1], pages[c][0], pages[b][1]]
    harness.drop(mingled)
    assert [harness.states()[segment] for segment in segments] == [READY, READY, SEALED]
    assert harness.log.ledger.pages[c] == 1


def test_to_drop_many_at_once_and_one_by_one_is_the_same(make_log: Maker) -> None:
    """LOG-LIVE: for entries of several segments in any order, of every sort."""
    at_once, one_by_one = make_log(6), make_log(6)
    numbers = random.Random(1)
    entries: list[int] = []
    for number in range(120):
        flags = numbers.choice((0, entry.HUGE, entry.COLD, entry.HUGE | entry.COLD, entry.LOADED))
        pages = numbers.randint(1, 16)
        first = unit(numbers.randrange(6), 4 * numbers.randint(1, 1027), flags, 4 * number)
        entries += each_page(first, pages)
        for harness in (at_once, one_by_one):
            harness.add(first, pages)
    for harness in (at_once, one_by_one):
        for _ in range(6):
            harness.take()
        for segment in range(5):
            harness.seal(segment)
    numbers.shuffle(entries)
    for dropped in (entries[:400], entries[400:-1]):
        at_once.drop(dropped)
        for page in dropped:
            one_by_one.drop([page])
        assert at_once.snapshot() == one_by_one.snapshot()
    assert at_once.log.statistics().pages_live == 1


def test_to_drop_nothing_changes_nothing(make_log: Maker) -> None:
    """LOG-LIVE"""
    harness = make_log(2)
    harness.add(unit(harness.take()), 2)
    before = harness.snapshot()
    harness.drop([])
    harness.log.withdraw([])
    assert harness.snapshot() == before


def test_publish_leaves_the_callers_list_alone(make_log: Maker) -> None:
    harness = make_log(2)
    one, other = harness.take(), harness.take()
    entries = [unit(other), unit(one)]
    for page in entries:
        harness.add(page, 1)
    harness.drop(entries)
    assert entries == [unit(other), unit(one)]


# --- How old it is ----------------------------------------------------------------------


def test_every_filling_of_a_segment_has_another_number(make_log: Maker) -> None:
    """LOG-AGE: taken again, or started over by its appender."""
    harness = make_log(2)
    numbers = []
    for _ in range(3):
        segment = harness.take()
        numbers.append(int(harness.log.sequence[segment]))
        assert harness.log.restart(segment)
        numbers.append(int(harness.log.sequence[segment]))
        harness.seal(segment)
    assert len(set(numbers)) == len(numbers)
    assert 0 not in numbers


def test_a_segment_in_which_something_lives_is_not_started_over(make_log: Maker) -> None:
    """LOG-AGE and LOG-REUSE: neither if that is only staged."""
    harness = make_log(2)
    segment = harness.take()
    harness.stage(unit(segment), 1)
    before = int(harness.log.sequence[segment])
    assert not harness.log.restart(segment)
    assert harness.log.sequence[segment] == before


def test_an_open_segment_is_of_no_age(make_log: Maker) -> None:
    """LOG-AGE: nothing in it is old, however long it has been open."""
    harness = make_log(2)
    segment = harness.take()
    assert harness.log.born[segment] == math.inf


def test_a_sealed_segment_is_as_old_as_its_youngest_page(
    make_log: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LOG-AGE: which the appender says, or which was written just now."""
    monkeypatch.setattr(time, "monotonic", lambda: 500.0)
    harness = make_log(4)
    moved, written = harness.take(), harness.take()
    for segment in (moved, written):
        harness.add(unit(segment), 1)
    harness.log.seal(moved, 1000, 123.0)
    harness.log.seal(written, 1000)
    assert (harness.log.born[moved], harness.log.born[written]) == (123.0, 500.0)
    harness.drop([unit(moved)])
    assert harness.log.born[harness.take()] == math.inf


def test_sealed_says_of_each_sealed_segment_what_lives_in_it(make_log: Maker) -> None:
    harness = make_log(8)
    one, open_one, other = (harness.take() for _ in range(3))
    for segment, flags in ((one, 0), (open_one, 0), (other, entry.COLD)):
        harness.add(unit(segment, 400, flags), 3)
    harness.log.seal(one, 5000, 10.0)
    harness.log.seal(other, 6000, 20.0)
    harness.drop([unit(one)])
    sealed = harness.log.sealed()
    assert sealed.segments.tolist() == [one, other]
    assert sealed.live.tolist() == [800, 1200]
    assert sealed.used.tolist() == [5000, 6000]
    assert sealed.hot.tolist() == [2, 0]
    assert sealed.born.tolist() == [10.0, 20.0]
    assert sealed.dead_bytes() == 4200 + 4800


def test_sealed_is_a_copy(make_log: Maker) -> None:
    harness = make_log(4)
    segment = harness.take()
    harness.add(unit(segment), 3)
    harness.log.seal(segment, 5000, 10.0)
    sealed = harness.log.sealed()
    harness.drop(each_page(unit(segment), 3))
    assert (sealed.segments.tolist(), sealed.live.tolist()) == ([segment], [1200])
    assert harness.log.sealed().segments.tolist() == []
