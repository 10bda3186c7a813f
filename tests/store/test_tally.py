"""Sums over entries, compared with a sum over one entry after the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.audit_disk import live_in
from model.effort import effort

from vswap.geometry import SEGMENT_SIZE
from vswap.store.entry import COLD, HUGE, IDLE, INDEX_SHIFT, LOADED, pack, pack_backing, pack_fill
from vswap.store.tally import Tally, runs_in

SEGMENTS = 5

Unit = tuple[int, int, int, int, list[int]]
"""Segment, place divided by 64, pages, share divided by 4, and each page's flags."""

units = st.tuples(
    st.integers(0, SEGMENTS - 1),
    st.integers(0, SEGMENT_SIZE // 64 - 1),
    st.integers(1, 16),
    st.integers(1, 2047),
    st.lists(st.sampled_from((0, 0, COLD, HUGE, LOADED, IDLE | COLD)), min_size=16, max_size=16),
)


def entries_of(unit: Unit) -> list[int]:
    segment, place, pages, share, flags = unit
    first = pack(segment * SEGMENT_SIZE + place * 64, share * 4, 0)
    return [first + (i << INDEX_SHIFT) | flags[i] for i in range(pages)]


@effort(200)
@given(st.lists(units, min_size=1, max_size=20))
def test_a_tally_is_the_sum_over_its_entries(
    found: list[tuple[int, int, int, int, list[int]]],
) -> None:
    """LOG-LIVE: by segment and in all, whatever marks the pages of a unit have."""
    entries = [entry for unit in found for entry in entries_of(unit)]
    tally = Tally(SEGMENTS)
    half = len(entries) // 2  # in two parts, as the scan comes by them
    for part in (entries[:half], entries[half:]):
        if part:
            tally.add(runs_in(np.array(part, np.int64)))
    live, total = live_in(dict(enumerate(entries)))
    assert tally.segments.tolist() == sorted(live)
    assert {at: int(tally.pages[at]) for at in live} == {at: one.pages for at, one in live.items()}
    assert {at: int(tally.bytes[at]) for at in live} == {at: one.bytes for at, one in live.items()}
    assert {at: int(tally.hot[at]) for at in live} == {at: one.hot for at, one in live.items()}
    assert (tally.huge, tally.cold) == (total.huge, total.cold)
    for segment in live:
        places = [entry >> 20 for entry in entries if entry >> 38 & 0xFFFFFF == segment]
        assert int(tally.last[segment]) >> 20 == max(places)


def test_a_segment_may_hold_nothing_but_the_smallest_pages() -> None:
    """As many as 4 bytes each leave room for: the sums do not run into each other."""
    tally = Tally(2)
    entries = np.full(SEGMENT_SIZE // 4, pack(SEGMENT_SIZE, 4, 0), np.int64)
    tally.add(runs_in(entries))
    assert tally.pages.tolist() == tally.hot.tolist() == [0, SEGMENT_SIZE // 4]
    assert tally.bytes.tolist() == [0, SEGMENT_SIZE]


def test_a_segment_that_there_is_not() -> None:
    with pytest.raises(IndexError):
        Tally(2).add(runs_in(np.array([pack(2 * SEGMENT_SIZE, 4, 0)], np.int64)))


def test_runs_are_told_apart_by_unit_and_by_what_is_summed() -> None:
    unit = pack(0, 400, 0)
    entries = [0, 0, unit, unit + (1 << INDEX_SHIFT), unit + (2 << INDEX_SHIFT) | COLD]
    others = [pack_fill(3), pack_fill(3), pack_fill(4), pack_backing(1, 64, 2, 64, 0)]
    found = runs_in(np.array([*entries, *others], np.uint64).view(np.int64))
    assert found.lengths.tolist() == [2, 2, 1, 2, 1, 1]
    named = found.entries.view(np.uint64).tolist()
    assert named == [0, unit, unit | COLD, others[0], others[2], others[3]]
