"""The budget: what is allowed in a day, and what a crash costs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from model.effort import effort

from vswap.errors import UserError
from vswap.store.backing import NOTE_SIZE
from vswap.store.budget import MAX_ADVANCE, MAX_LIMIT, Budget

Change = Callable[[bytes], bytes]

DAY = 86400
NOON = 20_000 * DAY + DAY // 2
LIMIT = 1600


class Clock:
    """A clock that goes when it is told to. In seconds."""

    def __init__(self, seconds: float = NOON) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def budget(clock: Clock) -> Budget:
    """One of `LIMIT` units that is enabled, and whose note says so."""
    budget = Budget(now=clock)
    budget.set_limit(LIMIT)
    budget.enable(True)
    save(budget)
    return budget


def save(budget: Budget) -> bytes:
    notes: list[bytes] = []
    budget.keep(notes.append)
    return notes[0]


def used(budget: Budget) -> int:
    """What it says was used today. The budget is of no use afterwards."""
    budget.set_limit(MAX_LIMIT)
    return MAX_LIMIT - budget.left


# --- A day ------------------------------------------------------------------------------


def test_a_new_budget_allows_everything_and_needs_no_note(clock: Clock) -> None:
    budget = Budget(now=clock)
    assert (budget.enabled, budget.limit, budget.left) == (False, 0, 0)
    assert budget.allows(MAX_LIMIT)
    budget.charge(1_000_000)
    assert budget.allows(MAX_LIMIT)
    assert not budget.note_due()


def test_the_limit_is_allowed_and_not_a_unit_more(budget: Budget) -> None:
    assert budget.allows(LIMIT)
    assert not budget.allows(LIMIT + 1)
    budget.charge(LIMIT - 1)
    assert budget.left == 1
    assert budget.allows(1)
    budget.charge(1)
    assert budget.left == 0
    assert not budget.allows(1)
    assert budget.allows(0)


def test_what_is_charged_beyond_the_limit_leaves_nothing(budget: Budget) -> None:
    budget.charge(LIMIT + 5)
    assert budget.left == 0


def test_a_new_day_refills(budget: Budget, clock: Clock) -> None:
    budget.charge(LIMIT)
    clock.seconds = 20_001 * DAY - 0.001
    assert budget.left == 0
    clock.seconds = 20_001 * DAY
    assert budget.left == LIMIT


def test_days_in_which_nothing_was_used_do_not_add_up(budget: Budget, clock: Clock) -> None:
    clock.seconds += 9 * DAY
    assert budget.left == LIMIT


def test_a_clock_that_is_set_back_refills_nothing(budget: Budget, clock: Clock) -> None:
    budget.charge(600)
    clock.seconds -= 3 * DAY
    assert budget.left == LIMIT - 600


def test_days_are_counted_on_from_a_clock_that_was_set_back(budget: Budget, clock: Clock) -> None:
    budget.charge(600)
    clock.seconds -= 3 * DAY
    assert budget.left == LIMIT - 600
    clock.seconds += DAY
    assert budget.left == LIMIT


def test_a_restart_under_a_clock_that_was_set_back_refills_nothing(
    budget: Budget, clock: Clock
) -> None:
    budget.charge(600)
    note = budget.to_note(final=True)
    clock.seconds -= 3 * DAY
    assert Budget(note, clock).left == LIMIT - 600


def test_the_refill_is_at_midnight(budget: Budget, clock: Clock) -> None:
    assert budget.refill_seconds() == DAY // 2
    clock.seconds = 20_001 * DAY - 0.25
    assert budget.refill_seconds() == 0.25
    clock.seconds = 20_001 * DAY
    assert budget.refill_seconds() == DAY


# --- Settings ---------------------------------------------------------------------------


def test_another_limit_does_not_give_back_what_was_used(budget: Budget) -> None:
    budget.charge(600)
    budget.set_limit(1000)
    assert budget.left == 400
    budget.set_limit(500)
    assert budget.left == 0
    assert not budget.allows(1)
    budget.set_limit(LIMIT)
    assert budget.left == LIMIT - 600


def test_what_is_written_while_it_is_not_enabled_counts(budget: Budget) -> None:
    budget.enable(False)
    budget.charge(600)
    assert budget.allows(LIMIT)
    assert budget.left == LIMIT - 600
    budget.enable(True)
    assert not budget.allows(LIMIT - 599)
    assert budget.allows(LIMIT - 600)


@pytest.mark.parametrize("limit", [-1, MAX_LIMIT + 1])
def test_what_is_no_limit_is_refused(budget: Budget, limit: int) -> None:
    with pytest.raises(UserError, match=f"not {limit}$"):
        budget.set_limit(limit)
    assert budget.limit == LIMIT


def test_the_highest_limit_fits_the_note(budget: Budget, clock: Clock) -> None:
    budget.set_limit(MAX_LIMIT)
    budget.charge(MAX_LIMIT)
    restored = Budget(save(budget), clock)
    assert (restored.limit, restored.left) == (MAX_LIMIT, 0)


# --- Notes ------------------------------------------------------------------------------


def test_the_layout_of_a_note_is_kept(budget: Budget) -> None:
    """A later version must still read it."""
    budget.charge(7)
    note = budget.to_note(final=True)
    assert note.hex() == "0101204e00000000000040060000000000000700000000000000"


def test_a_clean_stop_loses_nothing(budget: Budget, clock: Clock) -> None:
    budget.charge(123)
    restored = Budget(budget.to_note(final=True), clock)
    assert (restored.enabled, restored.limit, restored.left) == (True, LIMIT, LIMIT - 123)


def test_a_clean_stop_tells_what_was_written_while_it_was_not_enabled(
    budget: Budget, clock: Clock
) -> None:
    budget.enable(False)
    budget.charge(123)
    restored = Budget(budget.to_note(final=True), clock)
    assert (restored.enabled, restored.left) == (False, LIMIT - 123)


def test_a_note_of_yesterday_is_of_no_weight_but_for_its_settings(
    budget: Budget, clock: Clock
) -> None:
    budget.charge(LIMIT)
    note = save(budget)
    clock.seconds += DAY
    restored = Budget(note, clock)
    assert (restored.enabled, restored.limit, restored.left) == (True, LIMIT, LIMIT)


@pytest.mark.parametrize(
    ("limit", "advance"),
    [(0, 1), (1, 1), (31, 1), (32, 2), (1600, 100), (1 << 30, MAX_ADVANCE)],
)
def test_a_note_runs_ahead_by_a_part_of_the_limit(clock: Clock, limit: int, advance: int) -> None:
    budget = Budget(now=clock)
    budget.set_limit(limit)
    budget.charge(5)
    assert used(Budget(save(budget), clock)) == 5 + advance


def test_the_note_is_due_when_its_advance_is_used_up(budget: Budget) -> None:
    for _ in range(3):
        budget.charge(100)
        assert not budget.note_due()
        budget.charge(1)
        assert budget.note_due()
        save(budget)
        assert not budget.note_due()


def test_a_note_that_could_not_be_saved_stays_due(budget: Budget) -> None:
    def fail(_note: bytes) -> None:
        raise OSError("the medium")

    budget.charge(101)
    with pytest.raises(OSError, match="the medium"):
        budget.keep(fail)
    assert budget.note_due()
    save(budget)
    assert not budget.note_due()


def test_to_make_a_note_is_not_to_save_it(budget: Budget) -> None:
    budget.charge(101)
    budget.to_note()
    assert budget.note_due()


def test_what_is_charged_while_a_note_is_saved_is_not_in_it(budget: Budget) -> None:
    budget.keep(lambda _note: budget.charge(101))
    assert budget.note_due()


def test_a_setting_that_is_changed_while_a_note_is_saved_is_not_in_it(budget: Budget) -> None:
    budget.keep(lambda _note: budget.set_limit(LIMIT - 1))
    assert budget.note_due()


def test_a_final_note_is_kept_exactly(budget: Budget, clock: Clock) -> None:
    notes: list[bytes] = []
    budget.charge(7)
    budget.keep(notes.append, final=True)
    assert Budget(notes[0], clock).left == LIMIT - 7
    assert not budget.note_due()
    budget.charge(1)
    assert budget.note_due()


def test_notes_are_saved_one_at_a_time(budget: Budget) -> None:
    """Or an older one could be there last."""
    notes: list[bytes] = []
    others: list[threading.Thread] = []

    def slowly(note: bytes) -> None:
        budget.charge(500)
        others.append(threading.Thread(target=budget.keep, args=(notes.append,)))
        others[0].start()
        others[0].join(0.05)  # it cannot end: it waits for this one
        notes.append(note)

    budget.keep(slowly)
    others[0].join()
    assert len(notes) == 2
    assert not budget.note_due()
    assert used(Budget(notes[0], Clock())) < 500 < used(Budget(notes[1], Clock()))


def test_another_limit_makes_the_note_due(budget: Budget) -> None:
    budget.set_limit(LIMIT)
    assert not budget.note_due()
    budget.set_limit(LIMIT + 1)
    assert budget.note_due()
    save(budget)
    assert not budget.note_due()


def test_enabling_and_disabling_makes_the_note_due(budget: Budget) -> None:
    for enabled in (False, True):
        budget.enable(enabled)
        assert budget.note_due()
        save(budget)
        assert not budget.note_due()


def test_another_day_makes_the_note_due(budget: Budget, clock: Clock) -> None:
    """Of a day to come a note says nothing: a crash would refill what was used of it."""
    for days in (1, -2):
        clock.seconds += days * DAY
        assert budget.note_due()
        save(budget)
        assert not budget.note_due()


def test_no_note_is_due_while_it_is_not_enabled(budget: Budget, clock: Clock) -> None:
    budget.enable(False)
    save(budget)
    budget.charge(LIMIT)
    clock.seconds += DAY
    budget.charge(LIMIT)
    assert not budget.note_due()


def test_after_a_clean_stop_the_next_write_makes_the_note_due(budget: Budget, clock: Clock) -> None:
    budget.charge(100)
    restored = Budget(budget.to_note(final=True), clock)
    assert not restored.note_due()
    restored.charge(1)
    assert restored.note_due()


@given(st.binary(max_size=NOTE_SIZE))
@effort(100)
def test_any_note_gives_a_budget(note: bytes) -> None:
    budget = Budget(note, Clock())
    assert 0 <= budget.left <= budget.limit <= MAX_LIMIT
    budget.charge(1)
    assert len(budget.to_note()) <= NOTE_SIZE


@pytest.mark.parametrize("change", [lambda n: n[:-1], lambda n: n + b"\0", lambda n: b"\2" + n[1:]])
def test_a_note_that_is_not_understood_is_none(budget: Budget, change: Change) -> None:
    restored = Budget(change(save(budget)), Clock())
    assert (restored.enabled, restored.limit, restored.left) == (False, 0, 0)


def test_threads_may_charge_at_once(budget: Budget) -> None:
    budget.set_limit(1_000_000)

    def work() -> None:
        for _ in range(2000):
            budget.charge(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.left == 1_000_000 - 8000


# --- Crashes ----------------------------------------------------------------------------


@dataclass
class Truth:
    """What was written, counted by one who never crashes: `used` of `day`, with the same rules."""

    day: int
    used: int = 0

    def turn(self, now: float) -> None:
        today = int(now // DAY)
        if today > self.day:
            self.used = 0
        self.day = today


class Crashing(RuleBasedStateMachine):
    """Daemons that write by the rules, under a clock that jumps, and are killed at any step."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.note = b""
        self.budget = Budget(now=self.clock)
        self.truth = Truth(int(NOON // DAY))

    def crash(self) -> None:
        self.budget = Budget(self.note, self.clock)
        if not self.budget.enabled:  # then the note promises nothing
            self.truth.used = used(Budget(self.note, self.clock))

    @rule(units=st.integers(0, 300), crash=st.sampled_from(["", "charged", "saving", "saved"]))
    def write(self, units: int, crash: str) -> None:
        if not self.budget.allows(units):
            return
        self.budget.charge(units)
        if crash == "charged":
            self.crash()
            return
        if self.budget.note_due():
            note = self.budget.to_note()
            if crash == "saving":
                self.crash()
                return
            self.note = note
            if crash == "saved":
                self.crash()
                return
            assert save(self.budget) == note
        self.truth.turn(self.clock())
        self.truth.used += units

    @rule(limit=st.integers(0, 2000), saved=st.booleans())
    def set_limit(self, limit: int, saved: bool) -> None:
        self.budget.set_limit(limit)
        self.keep_or_crash(saved)

    @rule(enabled=st.booleans(), saved=st.booleans())
    def enable(self, enabled: bool, saved: bool) -> None:
        self.budget.enable(enabled)
        self.keep_or_crash(saved)

    def keep_or_crash(self, saved: bool) -> None:
        if saved:
            self.note = save(self.budget)
        else:
            self.crash()

    @rule(hours=st.sampled_from([1, 7, 24, 60, -1, -24, -60]))
    def turn_clock(self, hours: int) -> None:
        self.clock.seconds += hours * 3600
        self.truth.turn(self.clock())

    @rule()
    def look(self) -> None:
        assert self.budget.left <= self.budget.limit

    @rule()
    def be_killed(self) -> None:
        self.crash()

    @rule()
    def stop_and_start(self) -> None:
        self.note = self.budget.to_note(final=True)
        self.crash()

    @precondition(lambda self: self.budget.enabled)
    @invariant()
    def the_note_is_ahead(self) -> None:
        """BUDGET-AHEAD, and so is the daemon that runs."""
        if Budget(self.note).enabled:
            assert used(Budget(self.note, self.clock)) >= self.truth.used
        running = Budget(self.budget.to_note(final=True), self.clock)
        assert used(running) >= self.truth.used


TestCrashing = Crashing.TestCase
TestCrashing.settings = effort(100, steps=40)


@given(
    limit=st.integers(0, 3000),
    steps=st.lists(
        st.tuples(
            st.integers(1, 400),
            st.sampled_from(["write", "write", "write", "crash", "crash while saving", "day"]),
        ),
        max_size=60,
    ),
)
@effort(200)
def test_a_day_never_takes_more_than_the_limit_and_a_crash_never_more_than_one_advance(
    limit: int, steps: list[tuple[int, str]]
) -> None:
    clock = Clock()
    budget = Budget(now=clock)
    budget.set_limit(limit)
    budget.enable(True)
    note = save(budget)
    advance = max(1, limit // 16)
    written = crashes = 0
    for units, what in steps:
        if what == "day":
            clock.seconds += DAY
            written = crashes = 0
        elif what == "crash":
            budget = Budget(note, clock)
            crashes += 1
        elif budget.allows(units):
            budget.charge(units)
            if budget.note_due():
                if what == "crash while saving":
                    budget = Budget(note, clock)
                    crashes += 1
                    continue
                note = save(budget)
            written += units
        assert written <= limit
        assert limit - budget.left <= written + crashes * advance
