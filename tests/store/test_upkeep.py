"""Upkeep: the right work at the right time, in bounded pieces, and an end to it."""

from __future__ import annotations

import pytest
from model.moves import (
    Clock,
    Hooked,
    discard,
    looks_of,
    new_clock,
    put,
    relocator_of,
    seal,
    sealed_segments,
    segments_of,
    without_room,
)
from model.pages import noise, text
from model.stores import StoreMaker, content, limit_of

from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE, SEGMENT_SIZE
from vswap.store import Lane, Policy, Selection, Store
from vswap.store.places import KEPT
from vswap.store.plan import LEAST_GAIN, duty

SLOTS = 8 * CLUSTER_SLOTS
PIECE = SEGMENT_SIZE // PAGE_SIZE


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return new_clock(monkeypatch)


@pytest.fixture
def big(clock: Clock, make: StoreMaker) -> Store:
    """A store whose time is the clock's, with room for all it is given."""
    assert clock.now
    return make(Policy(reserve=0), slots=SLOTS)


def quiet(clock: Clock) -> None:
    """Let time pass in which next to nothing was asked for."""
    clock.advance(10)


def busy(store: Store, clock: Clock, lane: Lane) -> None:
    """Let more requests be served, since just now, than the background gives way to."""
    clock.advance(0.1)
    store._upkeep._mood(clock.now)
    for _ in range(30):
        lane.read(0, PAGE_SIZE)
    clock.advance(0.1)


def filled(lane: Lane, pages: int, dead: int = 0) -> None:
    """Noise from slot 0 on, of which `dead` pages, scattered, are overwritten by zeros."""
    for slot in range(0, pages, 4):
        put(lane, slot, noise(4, seed=slot))
    seal(lane)
    discard(lane, *(slot * 7 % pages // 4 * 4 + slot * 7 % 4 for slot in range(dead)))


def done(store: Store) -> tuple[int, int, int]:
    """Segments cleaned, pages moved by that, pages moved down."""
    now = store.statistics()
    return now.segments_cleaned, now.pages_compacted, now.pages_recompressed


def work(store: Store, most: int = 2000) -> list[float]:
    """Steps until all is at rest; the pause after each."""
    pauses = [store.step()]
    while pauses[-1] != 2.0:
        pauses.append(store.step())
        assert len(pauses) < most, "the background does not come to rest"
    return pauses


# --- Moods ------------------------------------------------------------------------------


def test_when_quiet_dead_space_is_cleaned_until_little_is_left(big: Store, clock: Clock) -> None:
    lane = big.lane()
    filled(lane, 2048, dead=600)
    before = content(lane, 0, lane.size)
    assert big.statistics().dead_bytes > 2 * SEGMENT_SIZE
    quiet(clock)
    work(big)
    assert done(big)[0] >= 2
    assert big.statistics().dead_bytes < SEGMENT_SIZE
    assert content(lane, 0, lane.size) == before


def test_less_than_a_segment_of_dead_space_is_left_alone(big: Store, clock: Clock) -> None:
    filled(big.lane(), 2048, dead=200)
    quiet(clock)
    work(big)
    assert done(big)[:2] == (0, 0)


def test_when_busy_only_much_dead_space_is_worth_it(big: Store, clock: Clock) -> None:
    lane = big.lane()
    filled(lane, 2048, dead=400)
    clock.advance(100)
    busy(big, clock, lane)
    assert big.step() == 0.25
    assert done(big) == (0, 0, 0)
    discard(lane, *range(0, 1024, 3))
    busy(big, clock, lane)
    big.step()
    assert done(big)[1] > 0


def test_when_busy_a_part_of_the_time_is_left_to_requests(big: Store, clock: Clock) -> None:
    """So that the piece takes the share of the time that the policy gives it."""
    lane = big.lane()
    filled(lane, 2048)
    discard(lane, *range(0, 2048, 2))
    busy(big, clock, lane)
    relocator = relocator_of(big)
    relocator._hot = relocator._stored = Hooked(  # type: ignore[assignment]
        relocator._stored, lambda: clock.advance(0.02)
    )
    share = duty(big._log.sealed())
    assert 0.1 < share < 1
    assert big.step() == pytest.approx(0.02 / share - 0.02)


def test_when_busy_nothing_is_moved_down(big: Store, clock: Clock) -> None:
    """And what was begun is dropped: a sweep may take long."""
    lane = big.lane()
    for slot in range(0, 256, 4):
        put(lane, slot, text(4, seed=slot))
    seal(lane)
    clock.advance(30)
    assert [big.step(), big.step()] == [0.0, 0.0]  # none are loaded, some are old
    assert big.statistics().cold_pages == 16
    busy(big, clock, lane)
    for _ in range(5):
        assert big.step() == 0.25
    assert big.statistics().cold_pages == 16


def test_when_quiet_what_is_old_is_moved_down(big: Store, clock: Clock) -> None:
    lane = big.lane()
    for slot in range(0, 256, 4):
        put(lane, slot, text(4, seed=slot))
    seal(lane)
    clock.advance(19)
    work(big)
    assert big.statistics().cold_pages == 0
    clock.advance(6)
    work(big)
    assert big.statistics().cold_pages == 256


def test_when_memory_presses_what_is_hot_is_moved_down_however_young(
    clock: Clock, make: StoreMaker
) -> None:
    """Though requests are coming in."""
    slots, limit = 16 * CLUSTER_SLOTS, 24
    policy = Policy(memory_limit=limit_of(limit, slots), reserve=0)
    store = make(policy, slots=slots, segments=limit)
    lane = store.lane()
    for slot in range(0, 256, 4):
        put(lane, slot, text(4, seed=slot))
    while store._parts.log.room() > KEPT:
        slot += 4
        put(lane, slot, noise(4, seed=slot))
    before = content(lane, 0, lane.size)
    for _ in range(3):
        busy(store, clock, lane)
        store.step()
    assert store.statistics().cold_pages > 0
    assert content(lane, 0, lane.size) == before


def test_at_rest_memory_is_given_back(big: Store, clock: Clock) -> None:
    lane = big.lane()
    filled(lane, 2048)
    lane.discard(0, lane.size)
    assert big.statistics().segments_ready >= 7
    quiet(clock)
    assert work(big)[-1] == 2.0
    assert big.statistics().segments_ready == 0


# --- Pieces -----------------------------------------------------------------------------


def test_no_piece_moves_more_than_a_mebibyte(big: Store, clock: Clock) -> None:
    """Whoever wants `Upkeep.lock` waits for no more than that."""
    lane = big.lane()
    for slot in range(0, 3072, 16):
        put(lane, slot, text(16, seed=slot))
    seal(lane)
    filled_from = 3072
    for slot in range(filled_from, SLOTS, 4):
        put(lane, slot, noise(4, seed=slot))
    discard(lane, *range(filled_from, SLOTS, 3))
    clock.advance(30)
    moved = 0
    for _ in range(2000):
        pause = big.step()
        now = sum(done(big)[1:])
        assert now - moved <= PIECE
        moved = now
        if pause == 2.0:
            break
    assert moved > 3072


def test_a_step_without_room_comes_again_soon(
    big: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = big.lane()
    filled(lane, 2048, dead=600)
    quiet(clock)
    with monkeypatch.context() as patch:
        without_room(patch, big)
        assert big.step() == pytest.approx(0.1)
    work(big)
    assert big.statistics().dead_bytes < SEGMENT_SIZE


def test_a_segment_that_was_cleaned_in_vain_is_left_alone_for_a_second(
    big: Store, clock: Clock
) -> None:
    """A write that will soon be published keeps it."""
    lane = big.lane()
    for slot in range(0, 128, 4):
        put(lane, slot, noise(4, seed=slot))
    staged = lane._writer._stage(1000, memoryview(noise(4)))
    (segment,) = segments_of(big, 0, 128)
    seal(lane)
    discard(lane, *range(64))
    assert big.compact() == 0
    assert sealed_segments(big) == [segment]
    assert big._upkeep.jobs.sealed(clock.now).segments.tolist() == []
    clock.advance(1.5)
    assert big._upkeep.jobs.sealed(clock.now).segments.tolist() == [segment]
    with big._parts.locks[1]:
        big._parts.put(1000, 4, staged)


# --- Sweeps -----------------------------------------------------------------------------


def test_a_sweep_that_finds_nothing_is_not_repeated_at_once(
    big: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for what is loaded, one for what is old: then five seconds of nothing."""
    lane = big.lane()
    put(lane, 0, text(4))
    quiet(clock)
    seen = looks_of(big, monkeypatch)
    work(big)
    assert seen == [0, 0]
    clock.advance(4)
    work(big)
    assert seen == [0, 0]
    clock.advance(2)
    work(big)
    assert seen == [0, 0, 0, 0]


@pytest.mark.parametrize("loaded_first", [True, False])
def test_loaded_pages_go_first(clock: Clock, make: StoreMaker, loaded_first: bool) -> None:
    """Whoever read them has them in memory: however young, if that is wanted."""
    store = make(Policy(reserve=0, loaded_first=loaded_first), slots=SLOTS)
    lane = store.lane()
    for slot in range(0, 64, 4):
        put(lane, slot, text(4, seed=slot))
    content(lane, 16 * PAGE_SIZE, 16 * PAGE_SIZE)
    clock.advance(1)
    work(store)
    assert store.statistics().cold_pages == (16 if loaded_first else 0)


# --- For a command ----------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 16, 40, None])
def test_recompress_moves_about_as_many_as_it_may(big: Store, most: int | None) -> None:
    lane = big.lane()
    for slot in range(0, 128, 4):
        put(lane, slot, text(4, seed=slot))
    before = content(lane, 0, lane.size)
    moved = big.recompress(Selection(), most)
    assert moved == big.statistics().pages_recompressed == big.statistics().cold_pages
    assert moved == (128 if most is None else -(-most // 16) * 16)
    assert content(lane, 0, lane.size) == before


def test_compact_leaves_little_dead_space(big: Store) -> None:
    """Whatever the age, and without regard to what would be worth it in the background."""
    lane = big.lane()
    filled(lane, 3072, dead=900)
    before = content(lane, 0, lane.size)
    assert big.compact() == done(big)[0] > 0
    sealed = big._parts.log.sealed()
    assert (sealed.dead < LEAST_GAIN).all()
    assert big.statistics().dead_bytes < 0.03 * big.statistics().segment_bytes
    assert content(lane, 0, lane.size) == before
    assert big.compact() == 0
