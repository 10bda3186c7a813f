"""How long is waited before the next worker, and when no more is tried."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from vswapd.patience import MOST, Patience

LONG = 10.0
"""Seconds after which a failure has a reason of its own."""

DELAYS = [0.0, 0.0, 0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
"""Before the next attempt, after one failure, two, and so on."""


@dataclass(frozen=True)
class Death:
    """How long it had served, None for not at all, and whether it was killed."""

    served: float | None = 1.0
    killed: bool = False


KILLED = Death(killed=True)
CRASHED = Death()
NEVER_SERVED = Death(None)
KILLED_BEFORE = Death(None, killed=True)


def after(*deaths: Death) -> Patience:
    patience = Patience()
    for death in deaths:
        patience.died(death.served, killed=death.killed)
    return patience


def test_at_first_nothing_is_waited_for() -> None:
    assert (Patience().delay(), Patience().given_up) == (0.0, False)


@pytest.mark.parametrize(
    ("deaths", "failures"),
    [
        pytest.param([KILLED], 0, id="killed while it served"),
        pytest.param([KILLED] * 1000, 0, id="killed again and again"),
        pytest.param([Death(0.0, killed=True)], 0, id="killed as soon as it served"),
        pytest.param([KILLED_BEFORE] * 1000, 0, id="killed before it served"),
        pytest.param([CRASHED], 1, id="failed while it served"),
        pytest.param([Death(0.0)], 1, id="failed as soon as it served"),
        pytest.param([NEVER_SERVED], 1, id="failed before it served"),
        pytest.param([CRASHED, NEVER_SERVED] * 2, 4, id="one kind after the other"),
        pytest.param([CRASHED, KILLED, CRASHED], 2, id="killed in between"),
        pytest.param([CRASHED, KILLED_BEFORE, CRASHED], 2, id="killed early in between"),
        pytest.param([CRASHED] * 5 + [Death(LONG)], 1, id="failed after long service"),
        pytest.param([CRASHED] * 5 + [Death(LONG - 0.1)], 6, id="not long enough"),
        pytest.param([CRASHED] * 5 + [Death(LONG, killed=True)], 0, id="killed after long service"),
    ],
)
def test_failures_in_a_row_are_counted(deaths: list[Death], failures: int) -> None:
    assert after(*deaths).failures == failures


@pytest.mark.parametrize("death", [CRASHED, NEVER_SERVED])
def test_three_are_followed_at_once_and_the_others_ever_more_slowly(death: Death) -> None:
    delays = [after(*[death] * count).delay() for count in range(1, MOST + 1)]
    assert delays == pytest.approx(DELAYS)


@pytest.mark.parametrize("death", [CRASHED, NEVER_SERVED])
def test_enough_is_enough(death: Death) -> None:
    assert [after(*[death] * count).given_up for count in (MOST - 1, MOST, MOST + 1)] == [
        False,
        True,
        True,
    ]


def test_who_is_killed_is_followed_at_once_whatever_came_before() -> None:
    """As before: it says nothing of the next one."""
    patience = after(*[CRASHED] * 3, KILLED)
    assert (patience.delay(), patience.given_up) == (0.0, False)


@pytest.mark.parametrize("death", [KILLED, KILLED_BEFORE])
def test_killing_gives_nothing_up(death: Death) -> None:
    patience = after(*[CRASHED] * (MOST - 1), *[death] * 100)
    assert not patience.given_up
    patience = after(*[death] * 1000)
    assert not patience.given_up


def test_many_that_are_killed_before_they_serve_are_followed_a_little_later() -> None:
    """By the kernel maybe, for want of memory, of which each new one takes some."""
    delays = [after(*[KILLED_BEFORE] * count).delay() for count in (1, MOST, MOST + 1, 1000)]
    assert delays == [0.0, 0.0, 0.1, 0.1]


@pytest.mark.parametrize("death", [KILLED, CRASHED, NEVER_SERVED])
def test_one_that_ends_otherwise_is_followed_at_once_again(death: Death) -> None:
    assert after(*[KILLED_BEFORE] * 100, death).delay() == 0.0
    assert after(*[KILLED_BEFORE] * 100, death, KILLED_BEFORE).delay() == 0.0


def test_however_many_fail_the_delay_is_bounded() -> None:
    assert after(*[CRASHED] * 100).delay() == 10.0


def test_who_asks_is_given_all_attempts_again() -> None:
    patience = after(*[CRASHED] * MOST)
    assert patience.given_up
    patience.asked()
    assert (patience.given_up, patience.delay()) == (False, 0.0)
    for _ in range(MOST):
        assert not patience.given_up
        patience.died(None, killed=False)
    assert patience.given_up
