"""The policy: what to clean next, and whether to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.effort import effort

from vswap.geometry import SEGMENT_SIZE
from vswap.store.plan import (
    HIGH_WATERMARK,
    LEAST_GAIN,
    Mood,
    Outlook,
    Sealed,
    Victim,
    best,
    choose,
    duty,
    emptiest,
    hottest,
    mood,
)

NOW = 1000.0


@dataclass(frozen=True)
class Seg:
    """A sealed segment: shares of one of its bytes, hot pages, seconds since it was written."""

    dead: float = 0.0
    used: float = 1.0
    hot: int = 0
    age: float = 100.0


def sealed(*segments: Seg) -> Sealed:
    """Numbered from 10 on, so that no place is mistaken for a number."""
    used = np.array([segment.used * SEGMENT_SIZE for segment in segments], np.int32)
    dead = np.array([segment.dead * SEGMENT_SIZE for segment in segments], np.int32)
    return Sealed(
        segments=np.arange(10, 10 + len(segments)),
        sequence=np.arange(70, 70 + len(segments)),
        live=(used - dead).astype(np.int32),
        used=used,
        hot=np.array([segment.hot for segment in segments], np.int32),
        born=np.array([NOW - segment.age for segment in segments], np.float64),
    )


def victim(segment: int) -> Victim:
    """As `sealed` makes them."""
    return Victim(segment, segment + 60)


# --- How pressing it is -----------------------------------------------------------------


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("taken", [90, 91, 100, 103])
def test_it_presses_from_the_high_watermark_on(taken: int, busy: bool) -> None:
    """Whether requests come in or not; beyond the limit too, after it was lowered."""
    assert HIGH_WATERMARK == 0.9
    assert mood(Outlook(room=100 - taken, limit=100, busy=busy)) is Mood.PRESSING


@pytest.mark.parametrize(("busy", "expected"), [(False, Mood.QUIET), (True, Mood.BUSY)])
@pytest.mark.parametrize("taken", [0, 50, 89])
def test_below_it_requests_decide(taken: int, busy: bool, expected: Mood) -> None:
    assert mood(Outlook(room=100 - taken, limit=100, busy=busy)) is expected


# --- Which segment ----------------------------------------------------------------------


def test_at_equal_dead_share_the_older_is_cleaned() -> None:
    of = sealed(Seg(0.5, age=10), Seg(0.5, age=500), Seg(0.5, age=100))
    assert best(of, NOW) == victim(11)


def test_at_equal_age_the_emptier_is_cleaned() -> None:
    of = sealed(Seg(0.3), Seg(0.2), Seg(0.8), Seg(0.7))
    assert best(of, NOW) == victim(12)


def test_benefit_is_weighed_against_cost() -> None:
    """(1 - u) * age / (1 + u): a fuller one that is old enough goes before an emptier one."""
    younger, older = Seg(0.75, age=10), Seg(0.25, age=50)
    # 0.75 * 10 / 1.25 is 6, 0.25 * 50 / 1.75 is 7.14
    assert best(sealed(younger, older), NOW) == victim(11)
    assert best(sealed(younger, Seg(0.25, age=40)), NOW) == victim(10)


def test_the_youngest_still_have_an_age() -> None:
    """Written in this instant, or by a clock that is read before another: still to be cleaned."""
    assert best(sealed(Seg(0.2, age=0), Seg(0.5, age=-1)), NOW) == victim(11)


def test_what_is_as_good_as_full_is_not_cleaned() -> None:
    least = LEAST_GAIN
    assert best(sealed(Seg(least * 0.99, age=1e6), Seg(0.0)), NOW) is None
    assert best(sealed(Seg(least * 0.99, age=1e6), Seg(least, age=1)), NOW) == victim(11)


def test_of_nothing_nothing_is_chosen() -> None:
    none = sealed()
    assert best(none, NOW) is None
    assert emptiest(none) is None
    assert hottest(none) is None
    assert none.dead_bytes() == 0
    assert [choose(none, mood, NOW) for mood in Mood] == [None] * 3


def test_the_end_where_nothing_fitted_is_not_dead() -> None:
    """Else segments that cannot become denser would be cleaned again and again."""
    of = sealed(Seg(0.0, used=0.94), Seg(0.0, used=0.5))
    assert of.dead_bytes() == 0
    assert best(of, NOW) is None
    assert sealed(Seg(0.25, used=0.5)).dead.tolist() == [0.25]


def test_dead_bytes_are_those_of_all() -> None:
    of = sealed(Seg(0.5), Seg(0.25), Seg(0.0, used=0.5))
    assert of.dead_bytes() == 0.75 * SEGMENT_SIZE


def test_dead_bytes_of_many_segments_do_not_overflow() -> None:
    assert sealed(*[Seg(1.0)] * 5000).dead_bytes() == 5000 * SEGMENT_SIZE


@given(
    st.lists(
        st.builds(
            Seg,
            dead=st.integers(0, 64).map(lambda dead: dead / 64),
            age=st.floats(0.02, 1e6),
            hot=st.integers(0, 500),
        ),
        max_size=8,
    )
)
@effort(100)
def test_best_is_the_most_by_the_formula(segments: list[Seg]) -> None:
    worth = [
        (segment.dead * segment.age / (1 + (1 - segment.dead)), number)
        for number, segment in enumerate(segments, 10)
        if segment.dead >= LEAST_GAIN
    ]
    found = best(sealed(*segments), NOW)
    if not worth:
        assert found is None
    else:
        assert found is not None
        by_number = {number: score for score, number in worth}
        assert by_number[found.segment] == pytest.approx(max(worth)[0])


# --- Whether it is worth it -------------------------------------------------------------


@pytest.mark.parametrize(
    ("mood", "worth"), [(Mood.QUIET, 0.02), (Mood.PRESSING, 0.05), (Mood.BUSY, 0.25)]
)
def test_each_mood_has_its_threshold(mood: Mood, worth: float) -> None:
    """200 segments: 4, 10 and 50 of them must be dead."""
    less, enough = worth - 1 / 128, worth + 1 / 128
    assert choose(sealed(*[Seg(less)] * 200), mood, NOW) is None
    at = int(200 * enough)
    few_emptier = [Seg(1.0 if i < at else 0.0) for i in range(200)]
    assert choose(sealed(*few_emptier), mood, NOW) == victim(10)


@pytest.mark.parametrize("mood", Mood)
def test_less_than_a_segment_is_never_worth_it(mood: Mood) -> None:
    """What would be won is not one segment, and the next write would undo it."""
    assert choose(sealed(Seg(0.9)), mood, NOW) is None
    assert choose(sealed(Seg(0.5), Seg(0.5, age=1)), mood, NOW) == victim(10)


@pytest.mark.parametrize("mood", Mood)
def test_much_that_is_spread_too_thin_is_not_chosen(mood: Mood) -> None:
    """No single one would win as much as it must: cleaning comes to an end."""
    assert choose(sealed(*[Seg(LEAST_GAIN * 0.9)] * 1000), mood, NOW) is None


def test_beside_requests_more_is_done_the_more_is_dead() -> None:
    shares = [duty(sealed(*[Seg(dead)] * 4)) for dead in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert shares == pytest.approx([0.1, 1 / 9, 4 / 9, 1.0, 1.0])
    assert duty(sealed()) == 0.1


# --- Room at once -----------------------------------------------------------------------


def test_for_room_the_emptiest_goes_whatever_its_age() -> None:
    assert emptiest(sealed(Seg(0.5, age=1e6), Seg(0.8, age=0.1))) == victim(11)


def test_for_room_there_must_be_a_segment_to_win() -> None:
    """None if all the dead space there is would not make one."""
    assert emptiest(sealed(Seg(0.99))) is None
    assert emptiest(sealed(Seg(0.5), Seg(0.49))) is None
    assert emptiest(sealed(Seg(0.5), Seg(0.5))) == victim(10)


def test_what_is_left_where_the_cleaner_appends_makes_up_for_dead_space() -> None:
    """It is filled first, so less has to be won to be one segment more."""
    of = sealed(Seg(0.5), Seg(0.25))
    assert emptiest(of, 0.2) is None
    assert emptiest(of, 0.25) == victim(10)
    assert choose(of, Mood.QUIET, NOW, 0.2) is None
    assert choose(of, Mood.QUIET, NOW, 0.25) == victim(10)


def test_for_room_only_what_can_be_cleaned_counts() -> None:
    """Dead space in segments that are as good as full would not be won."""
    thin = [Seg(LEAST_GAIN * 0.9)] * 100
    assert emptiest(sealed(Seg(0.875), *thin)) is None
    assert emptiest(sealed(Seg(0.875), Seg(0.125), *thin)) == victim(10)


def test_the_hottest_has_the_most_hot_pages() -> None:
    assert hottest(sealed(Seg(hot=3), Seg(hot=9), Seg(hot=8, dead=0.9))) == victim(11)
    assert hottest(sealed(Seg(), Seg(dead=0.9))) is None


# --- Without some -----------------------------------------------------------------------


def test_without_none_is_all() -> None:
    of = sealed(Seg(0.5), Seg(0.3))
    assert of.without(set()) is of


def test_without_some_the_others_are_as_they_were() -> None:
    of = sealed(Seg(0.9, hot=3, age=1), Seg(0.5, hot=2, age=2, used=0.75), Seg(0.75, hot=1, age=3))
    left = of.without({10, 12, 99})
    assert left.segments.tolist() == [11]
    assert left.dead.tolist() == [0.5]
    assert left.hot.tolist() == [2]
    assert left.born.tolist() == [NOW - 2]
    assert left.dead_bytes() == 0.5 * SEGMENT_SIZE
    assert best(left, NOW) == victim(11)


def test_without_all_there_is_nothing() -> None:
    assert best(sealed(Seg(0.5)).without({10}), NOW) is None
