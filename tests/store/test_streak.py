"""Streaks: which reads follow one another, and what is to be read ahead of them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.effort import effort

from vswap.geometry import MAX_UNIT_PAGES
from vswap.store.streak import MOST, NEAR, STREAKS, Streaks

SLOTS = 10_000
AREAS = (0, 2000, 4000, 6000)[:STREAKS]
"""Where reads of one are nothing to those of another."""
assert len(AREAS) == STREAKS


def drain(streaks: Streaks, step: int = 1) -> list[int]:
    """Read ahead all that is to be, so many slots at a time; where each time began."""
    begun = []
    while (streak := streaks.pending()) is not None:
        begun.append(streak.next)
        streak.next += step
    return begun


def sequential(streaks: Streaks, slot: int, reads: int, pages: int = 1) -> list[list[int]]:
    """Read in order from `slot`; what is read ahead after each read."""
    ahead = []
    for at in range(slot, slot + reads * pages, pages):
        streaks.note(at, at + pages)
        ahead.append(drain(streaks))
    return ahead


@pytest.fixture
def streaks() -> Streaks:
    return Streaks(SLOTS)


# --- One --------------------------------------------------------------------------------


def test_before_any_read_there_is_nothing_to_do(streaks: Streaks) -> None:
    assert streaks.pending() is None


@pytest.mark.parametrize("pages", [1, 200])
@pytest.mark.parametrize("slot", [0, 1, NEAR, NEAR + 1, 5000, SLOTS - 1])
def test_one_read_is_no_streak(streaks: Streaks, slot: int, pages: int) -> None:
    """Nor is a large one. Before the first there is none that it could follow."""
    assert not streaks.note(slot, min(slot + pages, SLOTS))
    assert streaks.pending() is None


@pytest.mark.parametrize("gap", range(NEAR + 1))
def test_a_read_a_little_behind_the_last_goes_on_with_the_streak(
    streaks: Streaks, gap: int
) -> None:
    assert not streaks.note(100, 108)
    assert streaks.note(108 + gap, 116 + gap)
    assert drain(streaks)[0] == 116 + gap


@pytest.mark.parametrize(
    "slot",
    [
        pytest.param(116 + NEAR + 1, id="just too far"),
        pytest.param(5000, id="far behind"),
        pytest.param(114, id="over the last slots"),
        pytest.param(108, id="the same again"),
        pytest.param(100, id="the one before"),
        pytest.param(97, id="backwards"),
        pytest.param(0, id="far before"),
    ],
)
def test_any_other_read_begins_anew(streaks: Streaks, slot: int) -> None:
    sequential(streaks, 100, 2, 8)
    assert not streaks.note(slot, slot + 1)
    assert streaks.pending() is None
    assert streaks.note(slot + 1, slot + 2)
    assert drain(streaks)[0] == slot + 2


@pytest.mark.parametrize("pages", [1, 3, 8, 32, 200])
def test_what_is_read_ahead_follows_what_was_read(streaks: Streaks, pages: int) -> None:
    """Each slot once, and none is left out."""
    ahead = sequential(streaks, 50, 20, pages)
    assert ahead[0] == []
    found = [slot for slots in ahead for slot in slots]
    assert found[0] == 50 + 2 * pages
    if pages <= MOST:
        assert found == list(range(found[0], found[-1] + 1))
    for read, slots in enumerate(ahead, 1):
        end = 50 + read * pages
        assert all(end <= slot < end + MOST for slot in slots)


@pytest.mark.parametrize("pages", [1, 3, 8, 32])
def test_a_streak_is_read_ahead_as_far_as_it_has_come(streaks: Streaks, pages: int) -> None:
    """Farther with each read, and never farther than `MOST`, nor than what has been read."""
    streaks.note(0, pages)
    reached = []
    for end in range(2 * pages, 3 * MOST, pages):
        streaks.note(end - pages, end)
        reached.append(drain(streaks)[-1] + 1 - end)
        assert min(end - pages, MOST) <= reached[-1] <= min(end, MOST)
    assert reached == sorted(reached)
    assert reached[-1] == MOST


def test_slots_left_out_are_of_the_streak(streaks: Streaks) -> None:
    """It has come farther by them."""
    streaks.note(0, 1)
    streaks.note(11, 12)
    assert 11 <= len(drain(streaks)) <= 12


@pytest.mark.parametrize("pages", [1, 7, 8])
def test_nothing_is_read_ahead_beyond_the_device(pages: int) -> None:
    slots = 101
    streaks = Streaks(slots)
    found = []
    for at in range(0, slots, pages):
        streaks.note(at, min(at + pages, slots))
        found += drain(streaks)
    assert found[-1] == slots - 1


@pytest.mark.parametrize("slots", [1, 2, 3, 5])
def test_devices_may_be_as_small_as_can_be(slots: int) -> None:
    ahead = sequential(Streaks(slots), 0, slots)
    assert all(slot < slots for one in ahead for slot in one)


def test_a_new_streak_is_not_read_ahead_as_far_as_the_last_was(streaks: Streaks) -> None:
    sequential(streaks, 0, 200)
    ahead = sequential(streaks, 5000, 3)
    assert ahead[0] == []
    assert len(ahead[1]) <= 2
    assert len(ahead[1] + ahead[2]) <= 4


def test_a_new_streak_before_the_end_of_the_last_leaves_nothing_out(streaks: Streaks) -> None:
    """Nobody knows whether what had been read ahead is still kept."""
    ahead = sequential(streaks, 900, 4, 25)
    assert ahead[-1][-1] > 1050
    assert not streaks.note(960, 961)
    streaks.note(961, 1030)
    assert drain(streaks)[0] == 1030


def test_what_was_not_read_ahead_in_time_is_left_out(streaks: Streaks) -> None:
    """Requests came at once, so there was no time; those slots have been read now."""
    for slot in range(100, 140, 8):
        streaks.note(slot, slot + 8)
    assert drain(streaks)[0] == 140


@pytest.mark.parametrize("step", [2, 4, MAX_UNIT_PAGES])
@pytest.mark.parametrize("pages", [1, 2, 3, 5, 8])
def test_units_that_reach_farther_than_asked_are_not_read_ahead_again(
    streaks: Streaks, pages: int, step: int
) -> None:
    """Each is decoded at once, so `next` may be beyond what was to be read ahead."""
    begun = []
    for at in range(0, 300, pages):
        streaks.note(at, at + pages)
        begun += drain(streaks, step)
    assert len(begun) == len(set(begun))
    between = {later - one for one, later in pairwise(begun)}
    assert min(between) >= step


# --- Several ----------------------------------------------------------------------------


def alone(slot: int, reads: int, pages: int) -> list[list[int]]:
    return sequential(Streaks(SLOTS), slot, reads, pages)


@pytest.mark.parametrize("count", range(2, STREAKS + 1))
@pytest.mark.parametrize("pages", [1, 8, 40])
def test_streaks_in_turn_are_each_read_ahead_as_if_alone(
    streaks: Streaks, count: int, pages: int
) -> None:
    areas = AREAS[:count]
    ahead: dict[int, list[list[int]]] = {area: [] for area in areas}
    for at in range(0, 20 * pages, pages):
        for area in areas:
            streaks.note(area + at, area + at + pages)
            ahead[area].append(drain(streaks))
    for area in areas:
        assert ahead[area] == alone(area, 20, pages)


@effort(100)
@given(st.lists(st.sampled_from(AREAS), max_size=80), st.integers(1, 20))
def test_streaks_in_any_order_are_each_read_ahead_as_if_alone(order: list[int], pages: int) -> None:
    streaks = Streaks(SLOTS)
    ahead: dict[int, list[list[int]]] = {area: [] for area in AREAS}
    for area in order:
        at = area + len(ahead[area]) * pages
        streaks.note(at, at + pages)
        ahead[area].append(drain(streaks))
    for area, found in ahead.items():
        assert found == alone(area, len(found), pages)


def test_the_streak_that_was_read_last_is_the_one_that_is_read_ahead(streaks: Streaks) -> None:
    """What there was no time for of another is read ahead when that has been read again."""
    for at in range(0, 40, 8):
        for area in AREAS:
            streaks.note(area + at, area + at + 8)
    assert drain(streaks) == [AREAS[-1] + slot for slot in range(40, 72)]
    assert streaks.note(AREAS[0] + 40, AREAS[0] + 48)
    assert drain(streaks) == [AREAS[0] + slot for slot in range(48, 88)]


def test_a_read_of_no_streak_is_not_read_ahead_of(streaks: Streaks) -> None:
    """Nor is the streak that was read before it, for now."""
    for at in range(0, 40, 8):
        streaks.note(at, at + 8)
    assert not streaks.note(5000, 5001)
    assert streaks.pending() is None
    assert streaks.note(40, 48)
    assert drain(streaks)[0] == 48


def test_reads_here_and_there_end_no_streak_unless_there_are_many(streaks: Streaks) -> None:
    elsewhere = iter(range(1000, SLOTS, 50))
    for at in range(0, 80, 8):
        assert streaks.note(at, at + 8) is (at > 0)
        for _ in range(STREAKS - 1):
            slot = next(elsewhere)
            assert not streaks.note(slot, slot + 1)


@pytest.mark.parametrize("oldest", AREAS)
def test_one_more_replaces_the_streak_that_was_read_least_recently(
    streaks: Streaks, oldest: int
) -> None:
    """Not the one that began first."""
    kept = [area for area in AREAS if area != oldest]
    for area in AREAS:
        sequential(streaks, area, 2, 8)
    for area in kept:
        assert streaks.note(area + 16, area + 24)
    assert not streaks.note(8000, 8008)
    for area in kept:
        assert streaks.note(area + 24, area + 32)
    assert streaks.note(8008, 8016)
    assert not streaks.note(oldest + 16, oldest + 24)
    assert streaks.pending() is None


# --- Any reads --------------------------------------------------------------------------


turns = st.tuples(st.integers(1, 40), st.integers(0, 80), st.integers(1, MAX_UNIT_PAGES))
"""A read of so many pages, then so many units read ahead, of so many pages each."""
gaps = st.sampled_from((0, 0, 0, 0, 1, NEAR, NEAR + 1, -1, -40)) | st.integers(-300, 300)
reads = st.lists(st.tuples(st.integers(1, STREAKS + 1), gaps, turns), min_size=5, max_size=40)
"""By which of the reads before each lies, and how far from its end."""


@effort(300)
@given(reads, st.integers(50, 600))
def test_what_is_pending_lies_between_the_last_read_and_most(
    reads: list[tuple[int, int, tuple[int, int, int]]], slots: int
) -> None:
    """And is on the device, and of a streak, which the last read goes on with."""
    streaks = Streaks(slots)
    ends: list[int] = []
    for back, gap, (pages, steps, unit) in reads:
        near = ends[-min(back, len(ends))] if ends else 0
        slot = min(max(near + gap, 0), slots - 1)
        end = min(slot + pages, slots)
        follows = [0 <= slot - before <= NEAR for before in ends]
        goes_on = streaks.note(slot, end)
        assert any(follows) if goes_on else not any(follows[-1:])
        assert goes_on or streaks.pending() is None
        ends.append(end)
        for _ in range(steps):
            if (streak := streaks.pending()) is None:
                break
            assert end == streak.end <= streak.next < min(streak.until, slots)
            assert streak.until <= end + MOST
            streak.next += unit


@effort(300)
@given(st.lists(st.tuples(st.integers(0, NEAR), turns), min_size=2, max_size=40))
def test_each_slot_of_a_streak_is_read_ahead_once_at_most_and_none_is_left_out(
    reads: list[tuple[int, tuple[int, int, int]]],
) -> None:
    streaks = Streaks(SLOTS)
    end = reached = 0
    for gap, (pages, steps, unit) in reads:
        streaks.note(end + gap, end + gap + pages)
        end += gap + pages
        reached = max(reached, end)
        for _ in range(steps):
            if (streak := streaks.pending()) is None:
                break
            assert streak.next == reached
            streak.next += unit
            reached += unit
