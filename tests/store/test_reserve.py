"""The reserve of ready segments, and the background that keeps it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from model.audit import holes
from model.logs import Harness, freed, woken_by

from vswap.geometry import SEGMENT_SIZE
from vswap.store.places import BUSY, HOLE, KEPT, READY

Maker = Callable[..., Harness]


# --- The reserve ------------------------------------------------------------------------


@pytest.mark.parametrize("idle", [False, True])
def test_maintain_fills_the_reserve_with_populated_segments(make_log: Maker, idle: bool) -> None:
    """LOG-PLACE: ready ones have memory behind them, holes have none."""
    harness = make_log(8, reserve=2)
    harness.maintain(idle)
    ready = harness.ready()
    assert len(ready) == 2
    assert harness.region.with_memory() == ready
    assert harness.region.allocated() == 2 * SEGMENT_SIZE


def test_maintain_keeps_the_reserve_when_segments_are_taken(make_log: Maker) -> None:
    harness = make_log(8, reserve=2)
    harness.maintain(idle=True)
    harness.take()
    harness.maintain(idle=True)
    assert harness.log.statistics().segments_ready == 2


def test_maintain_at_rest_gives_back_what_is_beyond_the_reserve(make_log: Maker) -> None:
    harness = make_log(8, reserve=2)
    freed(harness, 5)
    assert len(harness.ready()) == 5
    harness.maintain(idle=True)
    ready = harness.ready()
    assert len(ready) == 2
    assert harness.region.with_memory() == ready


@pytest.mark.parametrize(("in_use", "ready"), [(0, 2), (127, 2), (128, 2), (192, 3), (640, 8)])
def test_at_rest_the_reserve_is_no_more_than_a_share_of_what_is_used(
    make_log: Maker, in_use: int, ready: int
) -> None:
    """One in 64, two at least, and never more than was asked for."""
    harness = make_log(700, reserve=8)
    for _ in range(in_use):
        harness.take()
    freed(harness, 12)
    harness.maintain(idle=True)
    assert harness.log.statistics().segments_ready == ready


def test_maintain_with_nothing_to_do_changes_nothing(make_log: Maker) -> None:
    harness = make_log(8, reserve=2)
    harness.maintain(idle=True)
    before = harness.snapshot()
    harness.maintain(idle=True)
    assert harness.snapshot() == before


@pytest.mark.parametrize("idle", [False, True])
@pytest.mark.parametrize("taken", range(11))
def test_maintain_populates_up_to_the_limit_only(make_log: Maker, taken: int, idle: bool) -> None:
    """And comes to an end, however little is left of the limit, or the background hangs."""
    harness = make_log(16, reserve=8, limit=10)
    for _ in range(taken):
        harness.take()
    harness.maintain(idle)
    ready = harness.ready()
    assert taken + len(ready) <= 10
    assert harness.region.with_memory() == ready
    assert harness.log.room() == 10 - taken


@pytest.mark.parametrize("taken", range(11))
def test_what_is_ready_counts_towards_the_limit(make_log: Maker, taken: int) -> None:
    """Also when some was ready before: all that has memory behind it does."""
    harness = make_log(16, reserve=8, limit=10)
    freed(harness, 3)
    for _ in range(taken):
        harness.take()
    harness.maintain(idle=False)
    assert harness.log.statistics().segments_in_use <= 10


def test_a_busy_log_keeps_what_it_will_need_again(make_log: Maker) -> None:
    harness = make_log(12, reserve=2)
    freed(harness, 8)
    harness.maintain(idle=False)
    assert harness.log.statistics().segments_ready == 8


def test_a_busy_log_keeps_four_times_the_reserve_at_most(make_log: Maker) -> None:
    harness = make_log(12, reserve=2)
    freed(harness, 11)
    harness.maintain(idle=False)
    assert harness.log.statistics().segments_ready == 8
    assert harness.region.with_memory() == harness.ready()


# --- When the kernel refuses ------------------------------------------------------------


def test_a_failed_populate_puts_the_segment_back_as_a_hole(make_log: Maker) -> None:
    """LOG-PLACE: what is taken off a list is put to use or back."""
    harness = make_log(8, reserve=2)
    harness.region.refuse = 1
    with pytest.raises(OSError, match="no memory"):
        harness.maintain(idle=True)
    assert harness.states() == [HOLE] * 8
    assert sorted(holes(harness.log)) == list(range(8))
    assert harness.log.statistics().segments_in_use == 0


def test_maintain_tries_again_after_a_failed_populate(make_log: Maker) -> None:
    harness = make_log(8, reserve=2)
    harness.region.refuse = 1
    with pytest.raises(OSError, match="no memory"):
        harness.maintain(idle=True)
    harness.maintain(idle=True)
    assert harness.log.statistics().segments_ready == 2


def test_a_populate_that_fails_half_way_leaves_no_memory_behind(make_log: Maker) -> None:
    """LOG-PLACE: a hole has no memory behind it, or the limit would not bound memory."""
    harness = make_log(8, reserve=1)
    harness.region.refuse, harness.region.refused_after = 1, SEGMENT_SIZE // 2
    with pytest.raises(OSError, match="no memory"):
        harness.maintain(idle=True)
    assert harness.states() == [HOLE] * 8
    assert harness.region.allocated() == 0


def in_one_place(harness: Harness) -> bool:
    """Whether no segment is in maintenance, and each is where the lists say."""
    log, states = harness.log, harness.states()
    listed = {HOLE: holes(log), READY: list(log._places._ready), BUSY: []}
    return all(
        sorted(segments) == [s for s, state in enumerate(states) if state == place]
        for place, segments in listed.items()
    )


@pytest.mark.parametrize("refuse", [0, 1])
def test_a_failed_punch_loses_no_segment(make_log: Maker, refuse: int) -> None:
    """LOG-PLACE: given back because there are too many, or because populating has failed."""
    harness = make_log(8, reserve=1)
    if not refuse:
        freed(harness, 4)
    harness.region.refuse, harness.region.refuse_punch = refuse, 1
    with pytest.raises(OSError, match="interrupted"):
        harness.maintain(idle=True)
    assert in_one_place(harness)
    assert harness.log.statistics().segments_busy == 0
    assert harness.log.room() == 8


def test_room_is_coming_while_a_segment_is_in_maintenance(
    make_log: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that finds none must not fail for the moment that it takes."""
    harness = make_log(8, reserve=1, limit=KEPT + 1)
    freed(harness, 1)
    harness.log.set_limit(KEPT)
    harness.log.set_limit(KEPT + 1)
    seen = []
    punch = harness.region.punch

    def looking(offset: int, length: int) -> None:
        seen.append((harness.log.room(), harness.log.room_is_coming()))
        punch(offset, length)

    monkeypatch.setattr(harness.region, "punch", looking)
    harness.log._reserve._size = 0
    harness.maintain(idle=True)
    assert seen == [(KEPT, True)]
    harness.log.take()
    assert not harness.log.room_is_coming()


# --- Who wakes whom ---------------------------------------------------------------------


def test_taking_below_half_the_reserve_wakes_the_background(make_log: Maker) -> None:
    harness = make_log(12, reserve=4)
    harness.maintain(idle=False)
    assert woken_by(harness, [harness.log.take] * 4) == [0, 0, 1, 1]


def test_taking_the_only_segment_of_the_reserve_wakes_the_background(make_log: Maker) -> None:
    """None is below half of one."""
    harness = make_log(8, reserve=1)
    harness.maintain(idle=True)
    assert woken_by(harness, [harness.log.take]) == [1]


def test_a_log_that_keeps_no_reserve_is_not_woken_for_one(make_log: Maker) -> None:
    harness = make_log(8, reserve=0)
    assert woken_by(harness, [harness.log.take] * 3) == [0, 0, 0]


def test_freeing_beyond_the_reserve_wakes_the_background_once(make_log: Maker) -> None:
    """And once more beyond four times the reserve."""
    harness = make_log(12, reserve=2)
    taken = [harness.take() for _ in range(10)]
    seals = [partial(harness.seal, segment) for segment in taken]
    assert woken_by(harness, seals) == [0, 0, 1, 0, 0, 0, 0, 0, 1, 0]


def test_freeing_without_a_reserve_wakes_the_background(make_log: Maker) -> None:
    harness = make_log(8, reserve=0)
    taken = [harness.take() for _ in range(2)]
    assert woken_by(harness, [partial(harness.seal, segment) for segment in taken]) == [1, 0]


def test_freeing_above_the_limit_wakes_the_background(make_log: Maker) -> None:
    """Each time: there is memory to give back."""
    harness = make_log(8, reserve=2)
    taken = [harness.take() for _ in range(6)]
    assert woken_by(harness, [partial(harness.log.set_limit, 4)]) == [1]
    seals = [partial(harness.seal, segment) for segment in taken[:2]]
    assert woken_by(harness, seals) == [1, 1]
