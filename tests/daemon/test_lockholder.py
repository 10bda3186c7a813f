"""Which process works on a state: a child that locks, as a worker does."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator

import pytest
from process_support import Doing, end

from vswapd.lockholder import await_release, lock, lock_holders, unlock

SECONDS = 10


@pytest.fixture
def memfd() -> Iterator[int]:
    fd = os.memfd_create("test")
    os.ftruncate(fd, 4096)
    yield fd
    os.close(fd)


def test_nobody_holds_what_nobody_has_locked(memfd: int) -> None:
    assert lock_holders(memfd) == []


def test_who_has_locked_it_holds_it_until_it_ends(memfd: int, doing: Doing) -> None:
    pid = doing(lambda: lock(memfd))
    assert lock_holders(memfd) == [pid]
    end(pid)
    assert lock_holders(memfd) == []


def test_many_can_hold_it_and_are_all_seen(memfd: int, doing: Doing) -> None:
    pids = [doing(lambda: lock(memfd)) for _ in range(5)]
    assert sorted(lock_holders(memfd)) == sorted(pids)
    end(pids.pop(2))
    assert sorted(lock_holders(memfd)) == sorted(pids)


def test_a_lock_on_all_of_the_file_is_one_too(memfd: int, doing: Doing) -> None:
    """That of a worker of an earlier version."""
    pid = doing(lambda: fcntl.lockf(memfd, fcntl.LOCK_EX))
    assert lock_holders(memfd) == [pid]


def test_the_lock_is_of_the_file_and_not_of_the_descriptor(memfd: int, doing: Doing) -> None:
    pid = doing(lambda: lock(memfd))
    other = os.dup(memfd)
    assert lock_holders(other) == [pid]
    os.close(other)
    assert lock_holders(memfd) == [pid]


def test_a_child_of_who_has_locked_it_does_not_hold_it(memfd: int, doing: Doing) -> None:
    """POSIX locks are not inherited: a worker's own children do not keep it from a successor."""
    lock(memfd)
    ours, theirs = os.pipe()
    doing(lambda: os.write(theirs, repr(lock_holders(memfd)).encode()))
    assert os.read(ours, 100).decode() == repr([os.getpid()])
    os.close(ours)
    os.close(theirs)


def test_one_s_own_lock_is_nobody_s(memfd: int) -> None:
    lock(memfd)
    assert lock_holders(memfd) == []


def test_what_is_unlocked_is_held_no_longer(memfd: int, doing: Doing) -> None:
    def act() -> None:
        lock(memfd)
        unlock(memfd)

    doing(act)
    assert lock_holders(memfd) == []


def test_asking_locks_nothing(memfd: int, doing: Doing) -> None:
    lock_holders(memfd)
    pid = doing(lambda: lock(memfd))
    assert lock_holders(memfd) == [pid]


def test_its_release_can_be_waited_for(memfd: int, doing: Doing) -> None:
    pid = doing(lambda: lock(memfd))
    waiting = threading.Thread(target=await_release, args=(memfd, pid))
    waiting.start()
    end(pid)
    waiting.join(SECONDS)
    assert not waiting.is_alive()
    assert lock_holders(memfd) == []
