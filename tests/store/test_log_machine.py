"""The log: any calls in any order that appenders, writers and the upkeep could make them in."""

from __future__ import annotations

import math
import random
from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from model.audit import holes
from model.effort import effort
from model.logs import Harness, each_page, unit

from vswap.errors import FullError
from vswap.store import entry
from vswap.store.places import BUSY, HOLE, KEPT, OPEN, READY, SEALED

SEGMENTS = 12
LIMIT = 9
RESERVE = 3

FLAGS = (0, entry.HUGE, entry.COLD, entry.HUGE | entry.COLD, entry.LOADED, entry.IDLE)


class LogMachine(RuleBasedStateMachine):
    """`live` are the entries that count: those in `staged` are not yet published."""

    def __init__(self) -> None:
        super().__init__()
        self.harness = Harness(SEGMENTS, RESERVE, LIMIT)
        self.log = self.harness.log
        self.limit = LIMIT
        self.open: list[int] = []
        self.sealed: dict[int, float] = {}
        self.live: list[int] = []
        self.staged: list[int] = []
        self.sequences: dict[int, int] = {}
        self.used_sequences = {0}
        self.units = 0

    def _live_in(self) -> Counter[int]:
        return Counter(entry.segment_of(page) for page in [*self.live, *self.staged])

    def _forget_freed(self) -> None:
        alive = self._live_in()
        self.sealed = {one: born for one, born in self.sealed.items() if alive[one]}

    def _taken(self) -> int:
        return len(self.open) + len(self.sealed)

    def _note_sequence(self, segment: int) -> None:
        """LOG-AGE: each filling of a segment has a number that none had before it."""
        sequence = int(self.log.sequence[segment])
        assert sequence not in self.used_sequences
        self.used_sequences.add(sequence)
        self.sequences[segment] = sequence

    # --- Appending ----------------------------------------------------------------------

    @rule(kept=st.sampled_from((KEPT, KEPT, 1, 0)))
    def take(self, kept: int) -> None:
        room = self.log.room()
        assert room >= self.limit - self._taken()
        try:
            segment = self.log.take(kept)
        except FullError:
            assert room <= kept
            return
        assert room > kept
        assert self._taken() + kept < self.limit or kept < KEPT
        assert segment not in self.open
        assert segment not in self.sealed
        assert not self._live_in()[segment]
        self.open.append(segment)
        self._note_sequence(segment)

    @precondition(lambda self: self.open)
    @rule(
        which=st.integers(0, 99),
        pages=st.integers(1, 16),
        share=st.integers(1, 1027),
        flags=st.sampled_from(FLAGS),
    )
    def stage(self, which: int, pages: int, share: int, flags: int) -> None:
        segment = self.open[which % len(self.open)]
        self.units += 1
        first = unit(segment, share * 4, flags, self.units * 4)
        self.harness.stage(first, pages)
        self.staged += each_page(first, pages)

    @precondition(lambda self: self.staged)
    @rule(count=st.integers(1, 40), dead=st.integers(0, 20), seed=st.integers(0, 1000))
    def publish(self, count: int, dead: int, seed: int) -> None:
        random.Random(seed).shuffle(self.live)
        published, self.staged = self.staged[:count], self.staged[count:]
        dropped, self.live = self.live[:dead], self.live[dead:]
        self.live += published
        self.log.publish(len(published), dropped)
        self._forget_freed()

    @precondition(lambda self: self.staged)
    @rule(count=st.integers(1, 40))
    def withdraw(self, count: int) -> None:
        withdrawn, self.staged = self.staged[:count], self.staged[count:]
        self.log.withdraw(withdrawn)
        self._forget_freed()

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 99))
    def restart(self, which: int) -> None:
        segment = self.open[which % len(self.open)]
        restarted = self.log.restart(segment)
        assert restarted == (not self._live_in()[segment])
        if restarted:
            self._note_sequence(segment)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 99), born=st.integers(1, 1000))
    def seal(self, which: int, born: int) -> None:
        segment = self.open.pop(which % len(self.open))
        self.log.seal(segment, 1000, float(born))
        self.sealed[segment] = born
        self._forget_freed()

    # --- What dies, or changes where it is ------------------------------------------------

    @precondition(lambda self: self.live)
    @rule(seed=st.integers(0, 1000), count=st.integers(1, 60))
    def drop(self, seed: int, count: int) -> None:
        random.Random(seed).shuffle(self.live)
        dropped, self.live = self.live[:count], self.live[count:]
        self.harness.drop(dropped)
        self._forget_freed()

    @precondition(lambda self: self.live)
    @rule(seed=st.integers(0, 1000), count=st.integers(1, 20))
    def mark_cold(self, seed: int, count: int) -> None:
        random.Random(seed).shuffle(self.live)
        marked = [page for page in self.live[:count] if not page & entry.COLD]
        self.log.mark_cold(marked)
        cold = set(marked)
        self.live = [page | entry.COLD if page in cold else page for page in self.live]

    # --- In the background --------------------------------------------------------------

    @rule(
        idle=st.booleans(),
        refuse=st.sampled_from((0, 0, 1)),
        refuse_punch=st.sampled_from((0, 0, 1)),
    )
    def maintain(self, idle: bool, refuse: int, refuse_punch: int) -> None:
        ready = len(self.harness.ready())
        region = self.harness.region
        region.refuse, region.refuse_punch = refuse, refuse_punch
        try:
            self.harness.maintain(idle)
        except OSError:
            return
        finally:
            region.refuse = region.refuse_punch = 0
        after = len(self.harness.ready())
        assert self._taken() + after <= max(self.limit, self._taken())
        assert after <= (RESERVE if idle else 4 * RESERVE)
        if self._taken() + RESERVE + KEPT < self.limit:
            assert after >= (2 if idle else min(max(ready, RESERVE), 4 * RESERVE))

    @rule(limit=st.integers(KEPT + 1, SEGMENTS) | st.none())
    def set_limit(self, limit: int | None) -> None:
        """The cleaner keeps what it had; whatever else there is of room is the limit's."""
        kept = min(self.log.room(), KEPT)
        self.log.set_limit(limit)
        self.limit = SEGMENTS if limit is None else limit
        assert self.log.room() == max(self.limit - self._taken(), kept)

    # --- Always -------------------------------------------------------------------------

    @invariant()
    def live_counts_are_right(self) -> None:
        """LOG-LIVE"""
        shares, hot = Counter[int](), Counter[int]()
        counted = [*self.live, *self.staged]
        for page in counted:
            shares[entry.segment_of(page)] += entry.share_of(page)
            hot[entry.segment_of(page)] += not page & (entry.HUGE | entry.COLD)
        live, ledger = self._live_in(), self.log.ledger
        assert ledger.pages.tolist() == [live[segment] for segment in range(SEGMENTS)]
        assert ledger.bytes.tolist() == [shares[segment] for segment in range(SEGMENTS)]
        assert ledger.hot.tolist() == [hot[segment] for segment in range(SEGMENTS)]
        statistics = self.log.statistics()
        assert statistics.pages_live == len(counted)
        assert statistics.pages_staged == len(self.staged)
        assert statistics.bytes_live == sum(shares.values())
        assert statistics.huge_pages == sum(bool(page & entry.HUGE) for page in counted)
        assert statistics.pages_cold == sum(bool(page & entry.COLD) for page in counted)

    @invariant()
    def segments_are_in_one_place_each(self) -> None:
        """LOG-PLACE and LOG-REUSE"""
        log, states = self.log, self.harness.states()
        ready = log._places._ready
        expected = [HOLE] * SEGMENTS
        for place, segments in ((READY, ready), (SEALED, self.sealed), (OPEN, self.open)):
            for segment in segments:
                expected[segment] = place
        assert states == expected
        assert BUSY not in states
        assert sorted(holes(log)) == [s for s, state in enumerate(states) if state == HOLE]
        assert len(set(ready)) == len(ready)
        statistics = log.statistics()
        assert statistics.segments_in_use == SEGMENTS - states.count(HOLE)
        assert statistics.segments_open == len(self.open)
        assert statistics.segments_sealed == len(self.sealed)
        assert statistics.segments_busy == 0

    @invariant()
    def memory_stays_below_the_ceiling(self) -> None:
        """What is above the limit is only what was there when the limit was lowered."""
        assert self.log.limit == self.limit
        assert max(self.limit, self._taken()) <= self.log._places._ceiling <= SEGMENTS
        assert self.log._places._ceiling <= max(self.limit, self._taken() + KEPT)

    @invariant()
    def ages_are_right(self) -> None:
        """LOG-AGE"""
        for segment in self.open:
            assert self.log.born[segment] == math.inf
        for segment, born in self.sealed.items():
            assert self.log.born[segment] == born
        for segment in [*self.open, *self.sealed]:
            assert self.log.sequence[segment] == self.sequences[segment]
        assert sorted(self.log.sealed().segments.tolist()) == sorted(self.sealed)

    def teardown(self) -> None:
        self.harness.region.close()


LogMachine.TestCase.settings = effort(100, steps=40)
TestLogMachine = LogMachine.TestCase
