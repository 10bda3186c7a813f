"""Which process works on a state: a child that locks, as a worker does."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from vswapd.lockholder import lock_holder


@pytest.fixture
def memfd() -> Iterator[int]:
    fd = os.memfd_create("test")
    os.ftruncate(fd, 4096)
    yield fd
    os.close(fd)


Forked = Callable[[Callable[[], object]], int]


@pytest.fixture
def forked() -> Iterator[Forked]:
    """Makes a child that does something, and then lives until it is killed."""
    children: list[int] = []

    def fork(act: Callable[[], object]) -> int:
        ours, theirs = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                act()
                os.write(theirs, b"done")
                signal.pause()
            finally:
                os._exit(1)
        children.append(pid)
        os.close(theirs)
        assert os.read(ours, 10) == b"done"
        os.close(ours)
        return pid

    yield fork
    for pid in children:
        with suppress(ChildProcessError):
            end(pid)


def end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_nobody_holds_what_nobody_has_locked(memfd: int) -> None:
    assert lock_holder(memfd) is None


def test_who_has_locked_it_holds_it_until_it_ends(memfd: int, forked: Forked) -> None:
    pid = forked(lambda: fcntl.lockf(memfd, fcntl.LOCK_EX))
    assert lock_holder(memfd) == pid
    end(pid)
    assert lock_holder(memfd) is None


def test_the_lock_is_of_the_file_and_not_of_the_descriptor(memfd: int, forked: Forked) -> None:
    pid = forked(lambda: fcntl.lockf(memfd, fcntl.LOCK_EX))
    other = os.dup(memfd)
    assert lock_holder(other) == pid
    os.close(other)
    assert lock_holder(memfd) == pid


def test_a_child_of_who_has_locked_it_does_not_hold_it(memfd: int, forked: Forked) -> None:
    """POSIX locks are not inherited: a worker's own children do not keep it from a successor."""
    fcntl.lockf(memfd, fcntl.LOCK_EX)
    holders: list[int | None] = []
    ours, theirs = os.pipe()
    forked(lambda: os.write(theirs, str(lock_holder(memfd)).encode()))
    holders.append(int(os.read(ours, 20)))
    os.close(ours)
    os.close(theirs)
    assert holders == [os.getpid()]


def test_one_s_own_lock_is_nobody_s(memfd: int) -> None:
    fcntl.lockf(memfd, fcntl.LOCK_EX)
    assert lock_holder(memfd) is None


def test_asking_locks_nothing(memfd: int, forked: Forked) -> None:
    lock_holder(memfd)
    pid = forked(lambda: fcntl.lockf(memfd, fcntl.LOCK_EX | fcntl.LOCK_NB))
    assert lock_holder(memfd) == pid
