"""Who worked on the state before: found, killed, and waited for until it has ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from process_support import Doing

from vswapd.ending import is_ending
from vswapd.estate import Estate
from vswapd.held import Held, Record
from vswapd.lockholder import lock
from vswapd.loop import Loop
from vswapd.sdnotify import Keeper
from vswapd.succession import Succession

SECONDS = 10


@pytest.fixture
def held() -> Iterator[Held]:
    """A device without a connection."""
    fd = os.memfd_create("vswap-test")
    os.ftruncate(fd, 4096)
    yield Held(Record("", "/nowhere/m"), [fd])
    os.close(fd)


@pytest.fixture
def succession(held: Held) -> Iterator[Succession]:
    """Of a device of which nobody knows who works on it."""
    loop, estate = Loop(), Estate(held.record, Keeper(None))
    estate.held = held
    made = Succession(loop, estate)
    yield made
    made.forget()
    loop.close()


@pytest.fixture
def locking(held: Held, doing: Doing) -> Callable[[], int]:
    """Makes processes that work on the state, and are nobody's workers here."""
    return lambda: doing(lambda: lock(held.state[0]))


def has_been_killed(pid: int) -> bool:
    return bool(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG))


def wait_killed(pid: int) -> None:
    """One that is ending comes to its end."""
    deadline = time.monotonic() + SECONDS
    while not has_been_killed(pid):
        assert time.monotonic() < deadline, "nobody has killed it"


def wait_over(succession: Succession) -> None:
    """Until nobody works on the state: an end is told, or seen."""
    deadline = time.monotonic() + SECONDS
    while not succession.is_over():
        assert time.monotonic() < deadline, "somebody goes on"
        succession._loop.wait(deadline)


def test_nobody_is_waited_for_of_whom_nothing_is_said(
    succession: Succession, locking: Callable[[], int]
) -> None:
    """Who is locked out by our own worker is no predecessor."""
    pid = locking()
    assert succession.is_over()
    assert not has_been_killed(pid)


def test_who_works_on_the_state_ends_first(
    succession: Succession, locking: Callable[[], int]
) -> None:
    """Another supervisor's worker, of which we have heard nothing."""
    pid = locking()
    succession.look_around()
    succession.find()
    assert succession.waits
    assert not has_been_killed(pid)  # not before somebody asks whether it is over
    wait_over(succession)
    wait_killed(pid)
    assert not succession.waits
    assert succession.ended == pid


def test_one_that_lives_is_killed_and_its_end_waited_for(
    succession: Succession, locking: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vswapd.succession.is_ending", lambda _pid: False)
    pid = locking()
    succession.follow(os.pidfd_open(pid))
    assert not succession.is_over()
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert not succession.is_over()  # it has ended, and that has not been told
    assert succession.ended is None
    succession._loop.wait(time.monotonic() + SECONDS)
    assert succession.is_over()
    assert succession.ended == pid


def test_who_works_on_the_state_after_a_predecessor_ends_too(
    succession: Succession, locking: Callable[[], int]
) -> None:
    """One served while the memory of one before it was unmapped, and waited for its lock."""
    first = locking()
    succession.follow(os.pidfd_open(first))
    second = locking()
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    wait_over(succession)
    wait_killed(second)
    assert succession.ended == second


def test_who_works_beside_one_that_is_ending_ends_too(
    succession: Succession, locking: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one takes a while to end, as one with much memory does."""
    first, second = locking(), locking()

    def ending(pid: int) -> bool:
        return pid == first or is_ending(pid)

    monkeypatch.setattr("vswapd.succession.is_ending", ending)
    monkeypatch.setattr("vswapd.ending.is_ending", ending)
    succession.ended = first
    succession.look_around()
    wait_over(succession)
    wait_killed(second)
    assert not has_been_killed(first)


def test_who_is_forgotten_lives(succession: Succession, locking: Callable[[], int]) -> None:
    pid = locking()
    succession.follow(os.pidfd_open(pid))
    succession.forget()
    assert succession.is_over()
    assert not has_been_killed(pid)
