"""The processes that a supervisor has, as real ones."""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from descriptor_support import open_descriptors

from vswapd import memory
from vswapd.messages import Link
from vswapd.offspring import Child, ForkServer, Predecessor

SECONDS = 10

Forked = Callable[[Callable[[], object]], Child]


@pytest.fixture
def forked() -> Iterator[Forked]:
    """Makes a child process that does something, and then ends or waits to be ended."""
    children: list[Child] = []

    def fork(act: Callable[[], object]) -> Child:
        link, theirs = Link.pair()
        pid = os.fork()
        if not pid:
            try:
                link.close()
                act()
            finally:
                os._exit(1)
        theirs.close()
        child = Child(link)
        child.is_born(pid)
        children.append(child)
        return child

    yield fork
    for child in children:
        child.kill()
        if child.pidfd is not None:
            child.reap()


def ends(status: int) -> Callable[[], object]:
    return lambda: os._exit(status)


def kills_itself(number: int) -> Callable[[], object]:
    return lambda: os.kill(os.getpid(), number)


def wait_ended(pidfd: int) -> None:
    """Until a process has ended, which its descriptor then shows."""
    assert select.select([pidfd], [], [], SECONDS)[0]


# --- Child -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "killed", "status"),
    [
        pytest.param(ends(0), False, 0, id="well"),
        pytest.param(ends(2), False, 2, id="with a status"),
        pytest.param(ends(9), False, 9, id="with a status that is the number of a signal"),
        pytest.param(kills_itself(signal.SIGKILL), True, signal.SIGKILL, id="killed"),
        pytest.param(kills_itself(signal.SIGTERM), False, signal.SIGTERM, id="terminated"),
        pytest.param(kills_itself(signal.SIGALRM), False, signal.SIGALRM, id="by another signal"),
    ],
)
def test_it_is_known_how_a_child_has_ended(
    act: Callable[[], object], killed: bool, status: int, forked: Forked
) -> None:
    child = forked(act)
    assert child.pidfd is not None
    wait_ended(child.pidfd)
    assert child.reap() == (killed, status)


def test_a_child_that_is_killed_was_killed(forked: Forked) -> None:
    child = forked(signal.pause)
    assert child.pidfd is not None
    child.kill()
    wait_ended(child.pidfd)
    assert child.reap() == (True, signal.SIGKILL)


def test_a_child_that_has_ended_can_be_killed_and_ends_as_it_did(forked: Forked) -> None:
    child = forked(ends(3))
    assert child.pidfd is not None
    wait_ended(child.pidfd)
    child.kill()
    assert child.reap() == (False, 3)
    child.kill()


def test_nothing_is_left_of_who_was_reaped(forked: Forked) -> None:
    child = forked(ends(0))
    fds = [child.pidfd, child.link.fileno()]
    assert child.pidfd is not None
    wait_ended(child.pidfd)
    child.reap()
    assert child.pidfd is None
    assert not any(Path(f"/proc/self/fd/{fd}").exists() for fd in fds)
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, os.WNOHANG)


def test_who_was_never_born_leaves_nothing_either() -> None:
    link, theirs = Link.pair()
    theirs.close()
    child = Child(link)
    child.kill()
    assert child.reap() == (False, 0)
    assert link.fileno() == -1


def test_who_has_gone_before_it_was_greeted_is_told() -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    link, theirs = Link.pair()
    child = Child(link)
    with pytest.raises(ProcessLookupError):
        child.is_born(pid)
    assert child.pidfd is None
    child.reap()
    theirs.close()


def test_who_is_not_our_child_counts_as_killed() -> None:
    """Another supervisor's worker, whose end that one was told."""
    ours, theirs = os.pipe()
    middle = os.fork()
    if not middle:
        pid = os.fork()
        if pid:
            os.write(theirs, str(pid).encode())
            os._exit(0)
        signal.pause()
        os._exit(1)
    os.waitpid(middle, 0)
    link, other = Link.pair()
    child = Child(link)
    child.is_born(int(os.read(ours, 20)))
    assert child.pidfd is not None
    child.kill()
    wait_ended(child.pidfd)
    assert child.reap() == (True, signal.SIGKILL)
    for fd in (ours, theirs):
        os.close(fd)
    other.close()


def test_how_long_it_has_served(monkeypatch: pytest.MonkeyPatch) -> None:
    link, theirs = Link.pair()
    child = Child(link)
    assert child.served() is None
    child.serving_since = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: 107.5)
    assert child.served() == 7.5
    child.reap()
    theirs.close()


# --- Predecessor -----------------------------------------------------------------------


def test_a_predecessor_is_killed(forked: Forked) -> None:
    child = forked(signal.pause)
    assert child.pidfd is not None
    before = Predecessor(os.dup(child.pidfd))
    before.kill()
    before.kill()
    wait_ended(before.pidfd)
    before.close()
    assert child.reap() == (True, signal.SIGKILL)
    with suppress(OSError):
        os.fstat(before.pidfd)
        pytest.fail("it has been closed")


def test_a_predecessor_that_has_ended_need_not_be_killed(forked: Forked) -> None:
    child = forked(ends(0))
    assert child.pidfd is not None
    before = Predecessor(os.dup(child.pidfd))
    wait_ended(before.pidfd)
    assert child.reap() == (False, 0)
    before.kill()
    before.close()


def test_it_is_known_which_process_a_predecessor_is(forked: Forked) -> None:
    child = forked(signal.pause)
    assert child.pidfd is not None
    before = Predecessor(os.dup(child.pidfd))
    assert before.pid == child.pid
    before.kill()
    wait_ended(before.pidfd)
    child.reap()
    late = Predecessor(os.dup(before.pidfd))
    assert late.pid == -1  # nobody's any more, or somebody else's
    late.close()
    before.close()


def test_a_child_is_told_to_hurry_once_and_takes_precedence(forked: Forked) -> None:
    process = forked(signal.pause)
    link, theirs = Link.pair()
    child = Child(link)
    child.hurry()
    assert not child.hurries  # there is nobody yet
    child.is_born(process.pid)
    child.hurry()
    child.hurry()
    link.close()
    other = Link(theirs)
    assert other.receive() == ({"is": "hurry"}, [])
    assert other.receive() is None
    other.close()
    allowed = os.sched_getscheduler(process.pid) == os.SCHED_RR
    assert allowed == may_take_precedence()
    assert child.pidfd is not None
    os.close(child.pidfd)


def may_take_precedence() -> bool:
    pid = os.fork()
    if not pid:
        memory.take_precedence()
        os._exit(os.sched_getscheduler(0))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == os.SCHED_RR


def test_giving_precedence_to_one_that_has_ended_is_no_error(forked: Forked) -> None:
    child = forked(ends(0))
    assert child.pidfd is not None
    wait_ended(child.pidfd)
    child.reap()
    memory.give_precedence_to(child.pid)


# --- The fork server -------------------------------------------------------------------

SERVER = """
import os, sys
from vswapd.messages import Link
link = Link.of(int(sys.argv[-1]))
link.send("warm", warnings=[], arguments=sys.argv[1:-1], session=os.getsid(0), pid=os.getpid())
while (received := link.receive()) is not None:
    for fd in received[1]:
        child = Link.of(fd)
        child.send("hello", pid=os.getpid(), hurry=received[0]["hurry"])
        child.close()
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    """One that answers for its children."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    made = ForkServer([sys.executable, "-c", SERVER], '{"name": "m"}')
    yield made
    made.close()


def test_a_fork_server_is_told_the_settings_and_is_alone_in_its_session(
    server: ForkServer,
) -> None:
    """What a terminal sends is for the supervisor."""
    received = server.link.receive()
    assert received is not None
    message, _ = received
    assert message["is"] == "warm"
    assert message["arguments"] == ['{"name": "m"}', "--link-fd"]
    assert message["session"] == message["pid"] == server.process.pid


def test_each_child_has_a_link_of_its_own(server: ForkServer) -> None:
    children = [server.fork(hurry=False) for _ in range(3)]
    hello = {"is": "hello", "pid": server.process.pid, "hurry": False}
    for child in children:
        assert child.link.receive() == (hello, [])
        assert (child.pidfd, child.prepared, child.served()) == (None, False, None)
    for child in children:
        child.link.close()


@pytest.mark.parametrize("hurry", [False, True])
def test_a_child_is_made_in_a_hurry_if_nobody_serves(server: ForkServer, hurry: bool) -> None:
    child = server.fork(hurry=hurry)
    received = child.link.receive()
    assert received is not None
    assert (received[0]["hurry"], child.hurries) == (hurry, hurry)
    child.link.close()


def test_a_fork_server_that_has_ended_makes_children_whose_links_have(
    server: ForkServer,
) -> None:
    server.process.kill()
    server.process.wait()
    child = server.fork(hurry=False)
    assert child.link.receive() is None
    child.reap()


def test_closing_ends_a_fork_server_that_hears_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ForkServer([sys.executable, "-c", "import signal; signal.pause()"], "{}")
    made.close()
    assert made.process.returncode == -signal.SIGKILL


def test_a_program_that_is_not_there_is_an_error() -> None:
    """And leaves nothing open: it is tried again and again."""
    gc.collect()  # what other tests have left
    before = open_descriptors()
    with pytest.raises(FileNotFoundError):
        ForkServer(["/nowhere/vswap-forks"], "{}")
    assert open_descriptors() == before
