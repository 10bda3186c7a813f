"""The places of segments: how many may have memory, and how many are in which."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from model.logs import Harness, freed, unit

from vswap.errors import FullError
from vswap.store.places import KEPT

Maker = Callable[..., Harness]


# --- The limit --------------------------------------------------------------------------


def test_the_limit_bounds_what_is_taken(make_log: Maker) -> None:
    harness = make_log(8, limit=3)
    for _ in range(3):
        harness.take()
    with pytest.raises(FullError):
        harness.take()


def test_a_full_log_is_left_as_it_was(make_log: Maker) -> None:
    """LOG-PLACE: a take that fails has changed nothing."""
    harness = make_log(8, reserve=1, limit=2)
    segment = harness.take()
    harness.add(unit(segment), 1)
    harness.take()
    before = harness.snapshot()
    with pytest.raises(FullError):
        harness.take()
    assert harness.snapshot() == before


def test_without_a_limit_all_segments_can_be_taken(make_log: Maker) -> None:
    harness = make_log(3)
    for _ in range(3):
        harness.take()
    with pytest.raises(FullError):
        harness.take()


def test_a_limit_beyond_the_segments_there_are_is_theirs(make_log: Maker) -> None:
    harness = make_log(2, limit=100)
    assert harness.log.limit == 2
    harness.take()
    harness.take()
    with pytest.raises(FullError):
        harness.take()


def test_what_is_freed_can_be_taken_at_the_limit(make_log: Maker) -> None:
    harness = make_log(8, limit=1)
    segment = harness.take()
    harness.seal(segment)
    assert harness.take() == segment


def test_a_limit_that_is_raised_gives_room(make_log: Maker) -> None:
    harness = make_log(8, limit=3)
    for _ in range(3):
        harness.take()
    harness.log.set_limit(5)
    assert harness.log.room() == 2
    harness.log.set_limit(None)
    assert harness.log.room() == 5


def test_a_limit_that_is_lowered_leaves_the_cleaner_its_room(make_log: Maker) -> None:
    """And writers none, until enough has been freed."""
    harness = make_log(12)
    taken = [harness.take() for _ in range(8)]
    harness.log.set_limit(5)
    assert harness.log.room() == KEPT
    with pytest.raises(FullError):
        harness.log.take()
    for segment in taken[:6]:
        assert harness.log.room() == KEPT
        harness.seal(segment)
    assert harness.log.room() == 3
    harness.log.take()


@pytest.mark.parametrize("left", range(KEPT + 1))
@pytest.mark.parametrize("limit", [None, 4, 100])
def test_the_cleaners_room_is_no_more_than_there_are_segments(
    make_log: Maker, limit: int | None, left: int
) -> None:
    """LOG-PLACE: a limit set when all segments but a few are in use invents none."""
    harness = make_log(8)
    for _ in range(8 - left):
        harness.take()
    harness.log.set_limit(limit)
    assert harness.log.room() == left
    for _ in range(left):
        assert harness.take() < 8
    with pytest.raises(FullError):
        harness.take()


def test_what_is_freed_above_a_lowered_limit_is_given_back(make_log: Maker) -> None:
    """LOG-PLACE: the memory of it, too, or the limit would not bound memory."""
    harness = make_log(12)
    freed(harness, 8)
    taken = [harness.take() for _ in range(8)]
    harness.log.set_limit(5)
    harness.seal(taken[0])
    harness.seal(taken[1])
    harness.maintain(idle=False)
    assert harness.ready() == set()
    assert harness.region.with_memory() == set(taken[2:])
    for segment in taken[2:]:
        harness.seal(segment)
    harness.maintain(idle=False)
    assert len(harness.region.with_memory()) <= 5
    assert harness.log.room() == 5


def test_a_lowered_limit_does_not_rise_again_by_itself(make_log: Maker) -> None:
    """The cleaner takes and gives back: what it has freed is not for writers to take."""
    harness = make_log(12)
    taken = [harness.take() for _ in range(8)]
    harness.log.set_limit(4)
    for segment in taken[:3]:
        harness.log.take(0)
        harness.seal(segment)
    assert harness.log.room() == KEPT
    with pytest.raises(FullError):
        harness.log.take()


# --- How many are where -------------------------------------------------------------------


def test_statistics_count_the_segments_of_each_place(make_log: Maker) -> None:
    harness = make_log(8, reserve=2, limit=7)
    harness.maintain(idle=True)
    full = harness.take()
    harness.add(unit(full), 1)
    harness.seal(full)
    harness.take()
    statistics = harness.log.statistics()
    assert statistics.segments_open == 1
    assert statistics.segments_sealed == 1
    assert statistics.segments_ready == 0
    assert statistics.segments_busy == 0
    assert statistics.segments_in_use == 2
    assert statistics.segments_limit == 7
