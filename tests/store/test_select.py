"""Which pages to move down: the masks, against one entry at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.effort import effort

from vswap.geometry import SEGMENT_SIZE
from vswap.store.entry import (
    COLD,
    EMPTY,
    FLAGS_MASK,
    HUGE,
    IDLE,
    INDEX_SHIFT,
    KIND_CACHE,
    KIND_SHIFT,
    LOADED,
    MAX_SEGMENTS,
    SHARE_MAX,
    pack,
    pack_backing,
    pack_fill,
    segment_of,
    share_of,
)
from vswap.store.select import Selection, in_cache, is_older

NOW = 1000.0
BORN = [NOW - 100, NOW - 20, NOW - 19.5, NOW, float("inf"), 0.0]
"""Segments of several ages, the last but one of them open."""

SEGMENTS = len(BORN)


def chosen(selection: Selection, entry: int, slot: int = 0) -> bool:
    """`Selection.mask` for one entry, of `slot`, as its description says it."""
    if entry >> KIND_SHIFT != KIND_CACHE:
        return False
    is_one = {COLD: selection.cold, HUGE: selection.huge}
    if any(one is not None and bool(entry & flag) != one for flag, one in is_one.items()):
        return False
    if selection.slots is not None and not selection.slots[0] <= slot < selection.slots[1]:
        return False
    if (selection.idle and not entry & IDLE) or share_of(entry) < selection.threshold:
        return False
    if selection.age <= 0:
        return True
    is_loaded = selection.loaded and bool(entry & LOADED)
    return is_loaded or BORN[segment_of(entry)] <= NOW - selection.age


def mask(selection: Selection, entries: list[int], slot: int = 0) -> list[bool]:
    made: list[bool] = selection.mask(
        np.array(entries, np.uint64), np.array(BORN, np.float64), NOW, slot
    ).tolist()
    return made


def cached(segment: int = 0, share: int = 400, flags: int = 0, index: int = 0) -> int:
    return pack(segment * SEGMENT_SIZE + 512, share, flags) + (index << INDEX_SHIFT)


cached_entries = st.builds(
    cached,
    segment=st.integers(0, SEGMENTS - 1),
    share=st.integers(1, SHARE_MAX // 4).map(lambda share: share * 4),
    flags=st.integers(0, FLAGS_MASK >> 1),
    index=st.integers(0, 15),
)
away_entries = st.builds(
    pack_backing,
    segment=st.integers(0, MAX_SEGMENTS - 1),
    offset=st.integers(0, 100).map(lambda at: at * 64),
    pages=st.integers(1, 16),
    share=st.integers(1, SHARE_MAX // 4).map(lambda share: share * 4),
    flags=st.integers(0, FLAGS_MASK >> 1),
)
entries = st.one_of(
    *(cached_entries, cached_entries, away_entries),
    *(st.just(EMPTY), st.integers(0, 4095).map(pack_fill)),
)
selections = st.builds(
    Selection,
    huge=st.sampled_from((None, False, True)),
    cold=st.sampled_from((None, False, True)),
    slots=st.none() | st.tuples(st.integers(0, 60), st.integers(0, 60)),
    idle=st.booleans(),
    threshold=st.sampled_from([0, 1, 3, 4, 5, 399, 400, 401, 2000, SHARE_MAX]),
    age=st.sampled_from([0.0, -1.0, 19.5, 20.0, 50.0, 1e9, float("inf")]),
    loaded=st.booleans(),
)


@given(st.lists(entries, max_size=40), selections, st.integers(0, 70))
@effort(500)
def test_the_mask_is_each_entrys_own(found: list[int], selection: Selection, slot: int) -> None:
    right = [chosen(selection, entry, at) for at, entry in enumerate(found, slot)]
    assert mask(selection, found, slot) == right


EVERY = [
    cached(segment, share, flags)
    for segment in range(SEGMENTS)
    for share in (100, 4100)
    for flags in range(FLAGS_MASK >> 1)
] + [EMPTY, pack_fill(0), pack_fill(7), pack_backing(0, 64, 4, 400, LOADED | IDLE)]

FIELDS = [
    Selection(),
    Selection(huge=True),
    Selection(idle=True),
    Selection(threshold=4100),
    Selection(age=20.0),
    Selection(age=20.0, loaded=True),
    Selection(loaded=True, age=float("inf")),
    Selection(huge=True, idle=True, threshold=200, age=1.0),
]
NEITHER = [
    Selection(cold=True),
    Selection(huge=None),
    Selection(cold=None),
    Selection(huge=None, cold=None),
    Selection(huge=None, cold=None, idle=True),
    Selection(huge=True, cold=None, threshold=200),
    Selection(huge=None, cold=True, age=20.0),
    Selection(huge=None, cold=None, slots=(20, 75)),
    Selection(slots=(0, 1)),
]
"""Of these some choose pages that have been through the cold codec."""


@pytest.mark.parametrize("selection", [*FIELDS, *NEITHER], ids=str)
def test_each_field_does_what_it_says(selection: Selection) -> None:
    """Of every sort of entry; none of the masks is all or nothing."""
    found = mask(selection, EVERY)
    assert found == [chosen(selection, entry, slot) for slot, entry in enumerate(EVERY)]
    assert any(found)
    assert not all(found)


@pytest.mark.parametrize(
    "changed",
    [
        *({"huge": True}, {"huge": None}, {"cold": True}, {"cold": None}),
        *({"idle": True}, {"threshold": 4100}, {"age": 20.0}, {"slots": (0, 40)}),
    ],
    ids=str,
)
def test_each_field_matters(changed: dict[str, object]) -> None:
    assert mask(replace(Selection(), **changed), EVERY) != mask(Selection(), EVERY)  # type: ignore[arg-type]


def test_loaded_pages_are_due_whatever_their_age() -> None:
    """But no others that are young: in an open segment all are."""
    young, loaded, old = cached(4), cached(4, flags=LOADED), cached(1)
    assert mask(Selection(age=20.0, loaded=True), [young, loaded, old]) == [False, True, True]
    assert mask(Selection(age=20.0), [young, loaded, old]) == [False, False, True]


def test_a_page_is_never_moved_down_twice() -> None:
    cold = [cached(flags=COLD | flags) for flags in (0, HUGE, LOADED, IDLE)]
    for selection in FIELDS:
        assert not any(mask(selection, cold))


def test_only_front_cache_entries_are_in_the_cache() -> None:
    away = pack_backing(0, 0, 1, 400, 0)
    found = np.array([EMPTY, cached(), pack_fill(3), cached(5, flags=COLD), away], np.uint64)
    assert in_cache(found).tolist() == [False, True, False, True, False]


def test_none_is_pages_of_either_sort() -> None:
    """Those that did compress and did not, and those that have been down and have not."""
    sorts = [cached(flags=flags) for flags in (0, HUGE, COLD, HUGE | COLD)]
    assert mask(Selection(huge=None, cold=None), sorts) == [True] * 4
    assert mask(Selection(huge=None), sorts) == [True, True, False, False]
    assert mask(Selection(cold=None), sorts) == [True, False, True, False]
    assert mask(Selection(huge=True, cold=True), sorts) == [False, False, False, True]


@pytest.mark.parametrize(
    ("slots", "right"),
    [
        ((0, 100), range(10, 14)),
        ((10, 14), range(10, 14)),
        ((11, 13), range(11, 13)),
        ((0, 11), range(10, 11)),
        ((13, 14), range(13, 14)),
        ((13, 500), range(13, 14)),
        ((0, 10), range(0)),
        ((14, 20), range(0)),
        ((12, 12), range(0)),
        ((13, 11), range(0)),
    ],
)
def test_slots_are_those_from_the_first_up_to_the_second(
    slots: tuple[int, int], right: range
) -> None:
    """Wherever the entries that are looked at begin."""
    found = mask(Selection(slots=slots), [cached()] * 4, slot=10)
    assert [slot for slot, one in enumerate(found, 10) if one] == list(right)


def test_a_segment_is_as_old_as_its_youngest_page() -> None:
    """What was written at the very instant asked for is old; what is open is not."""
    found = np.array([cached(segment) for segment in range(SEGMENTS)], np.uint64)
    born = np.array(BORN, np.float64)
    assert is_older(found, born, NOW - 20).tolist() == [True, True, False, False, False, True]
    assert not is_older(found, born, -float("inf")).any()


def test_entries_of_no_segment_are_looked_up_nowhere() -> None:
    """A fill word's number, or a disk segment's, is not taken for a segment's.

    It may lie beyond the last.
    """
    away = pack_backing(MAX_SEGMENTS - 1, 64, 2, 400, 0)
    found = np.array([pack_fill(4095), EMPTY, away], np.uint64)
    assert len(is_older(found, np.array(BORN[:1], np.float64), NOW)) == 3
    assert mask(Selection(age=20.0), found.tolist()) == [False, False, False]
