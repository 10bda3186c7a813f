"""The supervisor without a worker: what it decides, and what it leaves behind.

What it does with real workers is in tests/mount.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from process_support import Doing

from vswap import libc
from vswapd import fusemount, mounts
from vswapd.config import Settings
from vswapd.handover import Inheritance
from vswapd.held import Held, Record
from vswapd.lockholder import lock
from vswapd.messages import Link
from vswapd.notify import Ready
from vswapd.nursery import Nursery
from vswapd.offspring import Child
from vswapd.patience import MOST
from vswapd.sdnotify import Keeper, read_record
from vswapd.supervisor import Supervisor

if TYPE_CHECKING:
    from daemon.conftest import Systemd

SECONDS = 10
SETTINGS = Settings("m", "/nowhere/m", 64 << 20, threads=1).to_json()
RECORD = Record(SETTINGS, "/nowhere/m", mounted="0:39", region=0, signs=(0,))


def opened_memfd() -> int:
    fd = os.memfd_create("vswap-test")
    os.ftruncate(fd, 4096)
    return fd


@pytest.fixture
def held() -> Iterator[Held]:
    """A device whose connection is a pipe."""
    made = Held(RECORD, [opened_memfd()])
    made.connection, theirs = os.pipe()
    yield made
    os.close(theirs)
    for fd in (made.connection, *made.state):
        os.close(fd)


@pytest.fixture
def supervisor(held: Held) -> Iterator[Supervisor]:
    """Of a device that has started, with no process yet."""
    ready = Ready(None)
    ready.tell("ready")
    made = Supervisor(RECORD, ready, Keeper(None))
    made.inherit(held)
    yield made
    if not made.loop._closed:  # `run` has
        made.loop.close()


# --- Leaving no mount behind -----------------------------------------------------------


@pytest.fixture
def unmounted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The mount points that were detached, instead of detaching them."""
    gone: list[str] = []

    def unmount(mount_point: str, as_user: bool, lazy: bool = False) -> None:
        assert lazy
        gone.append(mount_point)

    monkeypatch.setattr(fusemount, "unmount", unmount)
    return gone


def mounted(monkeypatch: pytest.MonkeyPatch, device: str | None) -> None:
    monkeypatch.setattr(mounts, "top_mount", {"/nowhere/m": device}.get)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is, as after unmounting."""
    monkeypatch.setattr(Held, "is_closed", lambda _held: True)


@pytest.mark.usefixtures("closed")
def test_its_own_dead_mount_is_detached(
    supervisor: Supervisor, unmounted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(monkeypatch, "0:39")
    supervisor._leave()
    assert unmounted == ["/nowhere/m"]


def test_a_mount_that_is_not_dead_stays(
    supervisor: Supervisor,
    held: Held,
    systemd: Systemd,
    address: str,
    unmounted: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And its worker works on, and systemd keeps what the next supervisor needs."""
    supervisor.estate.keeper = keeper = Keeper(address)
    supervisor.inherit(held)
    mounted(monkeypatch, "0:39")
    child, other = serve(supervisor)
    supervisor._leave()
    assert unmounted == []
    assert child.pidfd is not None
    assert not select.select([child.pidfd], [], [], 0)[0]
    systemd.hear()
    assert {"vswap-fuse", "vswap-state0", "vswap-record"} <= set(systemd.names())
    end(supervisor, child)
    other.close()
    assert keeper.record_fd is not None
    os.close(keeper.record_fd)


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize(("there", "mine"), [("0:40", "0:39"), (None, "0:39"), ("0:40", None)])
def test_what_is_not_its_own_is_let_alone(
    there: str | None,
    mine: str | None,
    supervisor: Supervisor,
    held: Held,
    unmounted: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mounted(monkeypatch, there)
    held.note(mounted=mine)
    supervisor._leave()
    assert unmounted == []


@pytest.mark.usefixtures("closed")
def test_what_another_supervisor_has_now_is_let_alone(
    supervisor: Supervisor, unmounted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(monkeypatch, "0:39")
    supervisor.held_back = True
    supervisor._leave()
    assert unmounted == []


@pytest.mark.usefixtures("closed")
def test_a_mount_that_cannot_be_detached_is_no_error(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unmount(mount_point: str, as_user: bool, lazy: bool = False) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    mounted(monkeypatch, "0:39")
    monkeypatch.setattr(fusemount, "unmount", unmount)
    supervisor._leave()


# --- Standbys and workers --------------------------------------------------------------


def made_child(supervisor: Supervisor) -> tuple[Child, Link]:
    """A child process that waits to be killed, watched as the supervisor's standby."""
    link, theirs = Link.pair()
    pid = os.fork()
    if not pid:
        try:
            libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)  # also if a test fails
            signal.pause()
        finally:
            os._exit(1)
    child = Child(link)
    supervisor._standby = child
    supervisor.loop.watch(child.link, lambda: supervisor._on_child(child))
    other = Link(theirs)
    other.send("hello", pid=pid)
    supervisor._on_child(child)
    return child, other


def end(supervisor: Supervisor, child: Child, number: int = signal.SIGKILL) -> None:
    """Let a child end, and the supervisor hear of it."""
    assert child.pidfd is not None
    os.kill(child.pid, number)
    os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
    supervisor._on_death(child)


def test_last_words_are_heard_although_the_death_is_noticed_first(
    supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    child, other = made_child(supervisor)
    other.send("failed", why="there is no room")
    other.close()
    end(supervisor, child)
    assert "there is no room" in caplog.text


def test_a_standby_that_is_not_prepared_in_time_is_replaced(supervisor: Supervisor) -> None:
    child, other = made_child(supervisor)
    other.close()
    born = time.monotonic()
    supervisor._tick(born + 1)
    assert supervisor._standby is child
    child._made -= 31
    supervisor._tick(born + 1)
    assert child.pidfd is not None
    os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
    supervisor._on_death(child)
    assert supervisor._standby is None


def test_standbys_that_fail_beside_a_worker_are_tried_again_later(supervisor: Supervisor) -> None:
    """Nobody waits, so nobody would ask for it."""
    worker, other = made_child(supervisor)
    other.close()
    supervisor._worker, worker.serving_since = worker, time.monotonic()
    for _ in range(MOST):
        standby, other = made_child(supervisor)
        other.close()
        end(supervisor, standby, signal.SIGTERM)
    assert supervisor._patience.given_up
    supervisor._tick(supervisor._next_at + 1)
    assert not supervisor._patience.given_up
    supervisor._worker = None
    end(supervisor, worker)


def test_a_standby_is_given_the_state_and_then_the_connection(
    supervisor: Supervisor, held: Held
) -> None:
    child, other = made_child(supervisor)
    received = other.receive()
    assert received is not None
    message, fds = received
    assert message == {"is": "prepare", "history": False}
    assert [os.fstat(fd).st_ino for fd in fds] == [os.fstat(fd).st_ino for fd in held.state]
    supervisor._promote()
    assert supervisor.worker is None  # it is not prepared yet
    other.send("prepared", signs=[0], region=0)
    supervisor._on_child(child)
    held.note(init="00", reply="11", restarts=3)
    supervisor._promote()
    assert supervisor.worker == child.pidfd
    received = other.receive()
    assert received is not None
    message, (connection,) = received
    assert held.connection is not None
    assert os.fstat(connection).st_ino == os.fstat(held.connection).st_ino
    assert message == {
        "is": "serve",
        "init": "00",
        "reply": "11",
        "backing": None,
        "restarts": 3,
        "ended": None,
        "supervisor": os.getpid(),
    }
    for fd in (*fds, connection):
        os.close(fd)
    end(supervisor, child)
    other.close()


def test_a_standby_that_is_to_serve_goes_first(supervisor: Supervisor) -> None:
    """It may still be warming up, and wait for memory that waits for it."""
    child, other = prepared(supervisor)
    assert os.sched_getscheduler(child.pid) == os.SCHED_OTHER
    supervisor._promote()
    probe, far = made_child(supervisor)
    allowed = True
    try:
        os.sched_setscheduler(probe.pid, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        allowed = False
    expected = os.SCHED_RR if allowed else os.SCHED_OTHER
    assert os.sched_getscheduler(child.pid) == expected
    for each, link in ((child, other), (probe, far)):
        end(supervisor, each)
        link.close()


def test_no_standby_serves_while_somebody_else_decides(supervisor: Supervisor) -> None:
    child, other = made_child(supervisor)
    other.send("prepared", signs=[0], region=0)
    supervisor._on_child(child)
    supervisor.held_back = True
    supervisor._keep_up()
    assert supervisor.worker is None
    supervisor.held_back = False
    supervisor._keep_up()
    assert supervisor.worker == child.pidfd
    end(supervisor, child)
    other.close()
    supervisor._nursery.drop()


def test_a_predecessor_ends_before_a_standby_serves(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vswapd.succession.is_ending", lambda _pid: False)
    before, far = made_child(supervisor)
    assert before.pidfd is not None
    supervisor._standby = None
    supervisor.follow(os.dup(before.pidfd))
    child, other = made_child(supervisor)
    supervisor._promote()
    os.kill(before.pid, 0)  # it lives: nobody could serve yet
    other.send("prepared", signs=[0], region=0)
    supervisor._on_child(child)
    supervisor._promote()
    assert supervisor.worker is None
    ended = os.waitid(os.P_PIDFD, before.pidfd, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert ended.si_status == signal.SIGKILL
    supervisor._succession._on_end()
    supervisor._promote()
    assert supervisor.worker == child.pidfd
    for each, link in ((child, other), (before, far)):
        end(supervisor, each)
        link.close()


def test_a_predecessor_that_is_ending_is_not_waited_for(supervisor: Supervisor) -> None:
    before, far = made_child(supervisor)
    assert before.pidfd is not None
    supervisor._standby = None
    supervisor.follow(os.dup(before.pidfd))
    child, other = made_child(supervisor)
    other.send("prepared", signs=[0], region=0)
    supervisor._on_child(child)
    os.kill(before.pid, signal.SIGKILL)
    os.waitid(os.P_PIDFD, before.pidfd, os.WEXITED | os.WNOWAIT)
    supervisor._promote()
    assert supervisor.worker == child.pidfd
    received = [other.receive() for _ in range(2)]  # prepare, serve
    assert received[-1] is not None
    assert received[-1][0]["ended"] == before.pid
    for fd in [fd for got in received if got for fd in got[1]]:
        os.close(fd)
    for each, link in ((child, other), (before, far)):
        end(supervisor, each)
        link.close()


def prepared(supervisor: Supervisor) -> tuple[Child, Link]:
    """A standby that could serve."""
    child, other = made_child(supervisor)
    other.send("prepared", signs=[0], region=0)
    supervisor._on_child(child)
    return child, other


def test_who_works_on_the_state_ends_before_we_go_on(
    supervisor: Supervisor, held: Held, doing: Doing
) -> None:
    """Another supervisor's worker, of which we have heard nothing."""
    pid = doing(lambda: lock(held.state[0]))
    child, other = prepared(supervisor)
    supervisor.hold_back()
    supervisor.go_on()
    supervisor._promote()
    while supervisor.worker is None:  # its end is told, or seen
        supervisor.loop.wait(time.monotonic() + SECONDS)
        supervisor._promote()
    assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT) is not None
    assert supervisor.worker == child.pidfd
    end(supervisor, child)
    other.close()


def serve(supervisor: Supervisor) -> tuple[Child, Link]:
    """A worker that serves."""
    child, other = made_child(supervisor)
    other.send("prepared", signs=[0], region=0)
    supervisor._on_child(child)
    supervisor._promote()
    other.send("serving", threads=[])
    supervisor._on_child(child)
    return child, other


def test_each_worker_is_counted_when_it_has_ended(supervisor: Supervisor, held: Held) -> None:
    for restarts in range(1, 4):
        child, other = serve(supervisor)
        assert held.record.restarts == restarts - 1
        end(supervisor, child)
        other.close()
        assert (held.record.restarts, supervisor.worker) == (restarts, None)


def test_killed_workers_are_followed_for_ever(supervisor: Supervisor) -> None:
    for _ in range(MOST + 1):
        child, other = serve(supervisor)
        end(supervisor, child)
        other.close()
    assert (supervisor._patience.given_up, supervisor._patience.delay()) == (False, 0.0)


def heard(other: Link) -> list[str]:
    """The words that a child has been told and has not read yet."""
    words = []
    while select.select([other.fileno()], [], [], 0)[0] and (received := other.receive()):
        words.append(received[0]["is"])
        for fd in received[1]:
            os.close(fd)
    return words


def keep_up(supervisor: Supervisor) -> None:
    """One round, with no fork server."""
    supervisor._nursery.due_at = float("inf")
    supervisor._keep_up()


def test_a_standby_that_is_never_born_is_forgotten(supervisor: Supervisor) -> None:
    link, theirs = Link.pair()
    supervisor._standby = child = Child(link)
    child._made -= 60
    supervisor.loop.watch(child.link, lambda: supervisor._on_child(child))
    supervisor._tick(time.monotonic())
    assert supervisor._standby is None
    other = Link(theirs)
    assert other.receive() is None
    other.close()


def test_a_standby_hurries_when_nobody_serves(supervisor: Supervisor) -> None:
    worker, workers = serve(supervisor)
    standby, other = made_child(supervisor)
    keep_up(supervisor)
    assert heard(other) == ["prepare"]
    end(supervisor, worker)
    keep_up(supervisor)
    assert heard(other) == ["hurry"]
    end(supervisor, standby)
    late, others = made_child(supervisor)  # it was forked before that worker ended
    keep_up(supervisor)
    assert heard(others) == ["prepare", "hurry"]
    end(supervisor, late)
    for link in (workers, other, others):
        link.close()


def test_a_standby_hurries_when_a_predecessor_has_ended(supervisor: Supervisor) -> None:
    """Or a supervisor that decided until now."""
    process = subprocess.Popen(["sleep", "60"])
    supervisor.follow(os.pidfd_open(process.pid))
    supervisor.hold_back()
    child, other = made_child(supervisor)
    keep_up(supervisor)
    assert heard(other) == ["prepare"]
    supervisor.go_on()
    keep_up(supervisor)
    assert heard(other) == []
    process.kill()
    process.wait()
    supervisor._succession._on_end()
    keep_up(supervisor)
    assert heard(other) == ["hurry"]
    end(supervisor, child)
    other.close()


def test_a_standby_that_is_prepared_need_not_hurry(supervisor: Supervisor) -> None:
    worker, workers = serve(supervisor)
    standby, other = prepared(supervisor)
    heard(other)
    end(supervisor, worker)
    supervisor._hurry()
    assert heard(other) == []
    end(supervisor, standby)
    workers.close()
    other.close()


def test_the_fork_server_hurries_when_nobody_serves_and_there_is_no_standby(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurried: list[bool] = []
    monkeypatch.setattr(supervisor._nursery, "hurry", lambda: hurried.append(True))
    worker, workers = serve(supervisor)
    keep_up(supervisor)
    assert hurried == []
    end(supervisor, worker)
    keep_up(supervisor)
    keep_up(supervisor)
    assert hurried == [True, True]
    workers.close()


@pytest.mark.parametrize("why", ["held back", "predecessor", "no connection"])
def test_a_standby_does_not_hurry_while_another_one_serves(
    why: str, supervisor: Supervisor, held: Held
) -> None:
    process = subprocess.Popen(["sleep", "60"])
    connection = held.connection
    if why == "held back":
        supervisor.hold_back()
    elif why == "predecessor":
        supervisor.follow(os.pidfd_open(process.pid))
    else:
        held.connection = None
    child, other = made_child(supervisor)
    keep_up(supervisor)
    assert heard(other) == ["prepare"]
    end(supervisor, child)
    other.close()
    held.connection = connection
    supervisor._succession.forget()
    process.kill()
    process.wait()


def test_workers_that_fail_are_given_up_until_somebody_asks(
    supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(MOST):
        assert not supervisor._patience.given_up
        child, other = serve(supervisor)
        end(supervisor, child, signal.SIGTERM)
        other.close()
    assert supervisor._patience.given_up
    assert "vswap restart" in caplog.text
    supervisor.try_again()
    assert not supervisor._patience.given_up
    assert supervisor._status is None  # it goes on, and what is held is held


def test_nothing_is_promised_to_a_worker_while_somebody_else_decides(
    supervisor: Supervisor, held: Held
) -> None:
    """Another supervisor would not have what is held then, and what was written to it."""
    child, other = made_child(supervisor)
    other.send("prepared", signs=[0], region=0)
    supervisor._on_child(child)
    supervisor._promote()
    fd = opened_memfd()
    supervisor.hold_back()
    other.send("hold", [fd], path="/file")
    supervisor._on_child(child)
    assert held.record.backing is None
    supervisor.go_on()
    assert held.record.backing == "/file"
    received = [other.receive() for _ in range(3)]  # prepare, serve, and then
    assert received[-1] == ({"is": "held"}, [])
    held.drop_backing()
    for each in (fd, *[fd for got in received if got for fd in got[1]]):
        os.close(each)
    end(supervisor, child)
    other.close()


def died_with(supervisor: Supervisor, *messages: tuple[str, list[int]]) -> None:
    """A worker said this while somebody else decided, and has ended since."""
    child, other = serve(supervisor)
    supervisor.hold_back()
    for word, fds in messages:
        other.send(word, fds, path="/second")
    end(supervisor, child)
    other.close()


def copies_of(fd: int) -> int:
    """How many descriptors of this process are of the same file."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found += os.fstat(int(entry.name)).st_ino == os.fstat(fd).st_ino
    return found


def test_what_a_worker_that_has_ended_wanted_held_is_not(
    supervisor: Supervisor, held: Held
) -> None:
    """It was promised nothing, so nothing is on it."""
    fd = opened_memfd()
    died_with(supervisor, ("hold", [fd]))
    assert copies_of(fd) == 2
    supervisor.go_on()
    assert (held.backing, held.record.backing) == (None, None)
    assert copies_of(fd) == 1
    os.close(fd)


def test_what_a_worker_that_has_ended_let_go_of_is_let_go_of(
    supervisor: Supervisor, held: Held
) -> None:
    """What is on it is of no use any more."""
    first, second = opened_memfd(), opened_memfd()
    held.hold_backing(os.dup(first), "/first")
    died_with(supervisor, ("drop", []), ("hold", [second]))
    assert copies_of(first) == 2
    supervisor.go_on()
    assert (held.backing, held.record.backing) == (None, None)
    assert (copies_of(first), copies_of(second)) == (1, 1)
    os.close(first)
    os.close(second)


def test_what_a_worker_has_it_hold_outlives_the_worker(supervisor: Supervisor, held: Held) -> None:
    child, other = serve(supervisor)
    fd = opened_memfd()
    other.send("hold", [fd], path="/file")
    supervisor._on_child(child)
    received = [other.receive() for _ in range(3)]  # prepare, serve, and then
    assert received[-1] == ({"is": "held"}, [])
    end(supervisor, child)
    other.close()
    assert held.backing is not None
    assert os.fstat(held.backing).st_ino == os.fstat(fd).st_ino
    assert held.record.backing == "/file"
    child, other = made_child(supervisor)
    other.send("prepared", signs=[0], region=0)
    supervisor._on_child(child)
    supervisor._promote()
    other.receive()
    last = other.receive()
    assert last is not None
    assert (last[0]["backing"], len(last[1])) == ("/file", 2)
    assert os.fstat(last[1][1]).st_ino == os.fstat(fd).st_ino
    other.send("drop")
    supervisor._on_child(child)
    assert held.bundle()[-1][0] == "fuse"
    assert held.record.backing is None
    for each in (fd, *last[1], *[fd for got in received if got for fd in got[1]]):
        os.close(each)
    end(supervisor, child)
    other.close()


def test_the_history_of_a_worker_is_given_to_the_next_standby(
    supervisor: Supervisor, held: Held, systemd: Systemd, address: str
) -> None:
    """Behind the state, for it is no part of it; and systemd has it too, the newest alone."""
    supervisor.estate.keeper = keeper = Keeper(address)
    supervisor.inherit(held)
    child, other = serve(supervisor)
    first, second = opened_memfd(), opened_memfd()
    for fd in (first, second):
        other.send("history", [fd])
        supervisor._on_child(child)
    end(supervisor, child)
    other.close()
    systemd.hear()
    (kept,) = systemd.named("vswap-history")
    assert os.fstat(kept).st_ino == os.fstat(second).st_ino
    child, other = made_child(supervisor)
    received = other.receive()
    assert received is not None
    message, fds = received
    assert message == {"is": "prepare", "history": True}
    expected = [*held.state, second]
    assert [os.fstat(fd).st_ino for fd in fds] == [os.fstat(fd).st_ino for fd in expected]
    end(supervisor, child)
    other.close()
    assert held.history is not None
    assert keeper.record_fd is not None
    for fd in (first, second, held.history, keeper.record_fd, *fds):
        os.close(fd)


def kept_record(systemd: Systemd) -> Record:
    """What the next supervisor would find, should all processes be killed now."""
    systemd.hear()
    (fd,) = systemd.named("vswap-record")
    return read_record(fd)


def test_systemd_has_all_that_is_held(
    supervisor: Supervisor, held: Held, systemd: Systemd, address: str
) -> None:
    supervisor.estate.keeper = keeper = Keeper(address)
    supervisor.inherit(held)
    systemd.hear()
    for name, fd in held.bundle():
        kept = systemd.named(f"vswap-{name}")
        assert [os.fstat(each).st_ino for each in kept] == [os.fstat(fd).st_ino]
    assert kept_record(systemd) == held.record
    assert keeper.record_fd is not None
    os.close(keeper.record_fd)


def test_systemd_s_record_counts_the_workers(
    supervisor: Supervisor, held: Held, systemd: Systemd, address: str
) -> None:
    """Their number tells the file handles of one from those of another."""
    supervisor.estate.keeper = keeper = Keeper(address)
    supervisor.inherit(held)
    child, other = serve(supervisor)
    end(supervisor, child)
    other.close()
    assert keeper.record_fd is not None
    assert kept_record(systemd).restarts == 1
    os.close(keeper.record_fd)


def test_systemd_has_the_backing_that_is_attached_and_no_other(
    supervisor: Supervisor, held: Held, systemd: Systemd, address: str
) -> None:
    supervisor.estate.keeper = keeper = Keeper(address)
    supervisor.inherit(held)
    child, other = serve(supervisor)
    for path in ("/first", "/second"):
        fd = opened_memfd()
        other.send("hold", [fd], path=path)
        supervisor._on_child(child)
        systemd.hear()
        (kept,) = systemd.named("vswap-backing")
        assert os.fstat(kept).st_ino == os.fstat(fd).st_ino
        assert kept_record(systemd).backing == path
        other.send("drop")
        supervisor._on_child(child)
        assert kept_record(systemd).backing is None
        assert "vswap-backing" not in systemd.names()
        os.close(fd)
    end(supervisor, child)
    other.close()
    assert keeper.record_fd is not None
    os.close(keeper.record_fd)


def test_the_device_ends_when_its_connection_has(supervisor: Supervisor, held: Held) -> None:
    child, other = serve(supervisor)
    ours, theirs = os.pipe()
    os.close(theirs)
    real, held.connection = held.connection, ours  # as after unmounting
    end(supervisor, child)
    assert supervisor._status == 1  # it was killed
    held.connection = real
    os.close(ours)
    other.close()


# --- Before somebody serves ------------------------------------------------------------


class Told(Ready):
    """Nobody waits; `lines` is what would have been told."""

    def __init__(self) -> None:
        super().__init__(None)
        self.lines: list[str] = []

    def tell(self, line: str) -> bool:
        self.lines.append(line)
        return super().tell(line)


@pytest.fixture
def ready() -> Told:
    return Told()


@pytest.fixture
def inherited(held: Held, ready: Told) -> Iterator[Supervisor]:
    """Of a device that was there before, and of which it has told nobody yet that it serves."""
    made = Supervisor(RECORD, ready, Keeper(None))
    made.inherit(held)
    yield made
    if not made.loop._closed:  # `run` has
        made.loop.close()


def to_take(supervisor: Supervisor) -> tuple[Child, Link]:
    """A worker that was told to serve, and has not come to that."""
    child, other = prepared(supervisor)
    supervisor._promote()
    assert supervisor.worker == child.pidfd
    return child, other


def standing_by(supervisor: Supervisor) -> tuple[Child, Link]:
    supervisor.hold_back()
    return prepared(supervisor)


Begin = Callable[[Supervisor], tuple[Child, Link]]
whoever = pytest.mark.parametrize("begin", [to_take, standing_by])


@whoever
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_whoever_ends_before_it_serves_the_device_is_kept(
    begin: Begin,
    number: int,
    inherited: Supervisor,
    ready: Told,
    unmounted: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mounted(monkeypatch, "0:39")
    for _ in range(MOST + 1):
        inherited.held_back = False
        child, other = begin(inherited)
        end(inherited, child, number)
        other.close()
        assert (inherited._status, ready.lines) == (None, [])
    assert inherited._patience.given_up == (number == signal.SIGTERM)
    inherited._leave()
    assert unmounted == []


@whoever
def test_whoever_is_killed_the_device_is_not_given_back(
    begin: Begin, inherited: Supervisor, ready: Told
) -> None:
    """That says nothing of the code that is tried."""
    inherited.has_rival = True
    child, other = begin(inherited)
    end(inherited, child)
    assert (inherited._status, ready.lines) == (None, [])
    other.close()


@whoever
def test_whoever_fails_the_device_is_given_back_to_who_has_it_too(
    begin: Begin,
    inherited: Supervisor,
    ready: Told,
    held: Held,
    unmounted: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mounted(monkeypatch, "0:39")
    inherited.has_rival = True
    child, other = begin(inherited)
    other.send("failed", why="it is Friday")
    end(inherited, child, signal.SIGTERM)
    other.close()
    assert (inherited._status, ready.lines) == (2, ["error it is Friday"])
    inherited._leave()
    assert unmounted == []
    assert held.record.mounted == "0:39"


def test_once_somebody_serves_nothing_is_given_back(
    inherited: Supervisor, ready: Told, unmounted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one has heard so, and ends."""
    mounted(monkeypatch, "0:39")
    inherited.has_rival = True
    for _ in range(3):
        child, other = serve(inherited)
        end(inherited, child, signal.SIGTERM)
        other.close()
    inherited._leave()
    assert (inherited._status, ready.lines, unmounted) == (None, ["ready"], [])


@pytest.mark.parametrize("rival", [False, True])
@pytest.mark.parametrize("says", ["nothing", "why"])
def test_a_fork_server_that_ends_before_is_tried_again_if_there_is_something_to_lose(
    says: str, rival: bool, inherited: Supervisor, ready: Told
) -> None:
    code = "import sys, vswapd.messages as m; link = m.Link.of(int(sys.argv[-1]))"
    if says == "why":
        code += "; link.send('failed', why='it is Friday')"
    nursery = inherited._nursery
    nursery._command = [sys.executable, "-c", code]
    inherited.has_rival = rival
    nursery.keep_up(time.monotonic())
    while nursery._server is not None:
        inherited.loop.wait(time.monotonic() + SECONDS)
    why = "error it is Friday" if says == "why" else "error the fork server has ended"
    assert (inherited._status, ready.lines[:1]) == ((2, [why]) if rival else (None, []))


@pytest.mark.parametrize("rival", [False, True])
def test_a_signal_before_does_not_leave_alone_what_nobody_else_has(
    rival: bool, inherited: Supervisor, ready: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    unmounting = threading.Event()
    monkeypatch.setattr(fusemount, "unmount", lambda *_: unmounting.set())
    inherited.has_rival = rival
    inherited._on_signals(bytes([signal.SIGTERM]))
    if rival:
        assert (inherited._status, ready.lines) == (2, ["error interrupted"])
        assert not unmounting.is_set()
    else:
        assert unmounting.wait(SECONDS)
        assert (inherited._status, ready.lines) == (None, [])


def test_a_device_that_was_made_here_and_never_served_is_unmade(
    held: Held, ready: Told, unmounted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody relies on it."""
    mounted(monkeypatch, "0:39")
    made = Supervisor(RECORD, ready, Keeper(None))
    made.estate.hold(held)
    child, other = to_take(made)
    end(made, child)
    other.close()
    assert made._status == 2
    assert ready.lines == ["error the worker stopped before it was ready"]
    made._leave()
    assert unmounted == ["/nowhere/m"]
    made.loop.close()


# --- With the other supervisor ---------------------------------------------------------


@dataclass
class Heiress:
    """A supervisor that takes over, and the other's end of the link."""

    old: Link
    supervisor: Supervisor

    def heard(self) -> list[str]:
        """What the old one was told."""
        words = []
        while select.select([self.old], [], [], 0)[0]:
            received = self.old.receive()
            if received is None:
                break
            words.append(received[0]["is"])
        return words

    def end_old(self) -> None:
        """It has ended, whoever was forked here and has its end of the link, too."""
        self.old._socket.shutdown(socket.SHUT_RDWR)

    def hear(self) -> None:
        """Something has come."""
        self.supervisor.loop.wait(time.monotonic() + SECONDS)


@pytest.fixture
def heiress() -> Iterator[Heiress]:
    """A supervisor that was handed a device, and waits to be told to take it."""
    state, pipe = opened_memfd(), os.pipe()
    old, theirs = Link.pair()
    old.send("inherit", [state, pipe[0]], names=["state0", "fuse"], record=RECORD.to_json())
    inheritance = Inheritance(Link(theirs))
    supervisor = Supervisor(inheritance.held.record, inheritance, Keeper(None))
    inheritance.begin(supervisor)
    yield Heiress(old, supervisor)
    supervisor.loop.close()
    old.close()
    inheritance._link.close()
    held = inheritance.held
    assert held.connection is not None
    for fd in (state, *pipe, *held.state, held.connection):
        os.close(fd)


def take(heiress: Heiress) -> None:
    record = heiress.supervisor.estate.record.to_json()
    heiress.old.send("take", [], record=record, running=False)
    heiress.hear()
    assert not heiress.supervisor.held_back


def test_what_was_taken_is_given_back_to_the_other_one(heiress: Heiress) -> None:
    child, other = prepared(heiress.supervisor)
    take(heiress)
    heiress.supervisor._promote()
    other.send("failed", why="it is Friday")
    end(heiress.supervisor, child, signal.SIGTERM)
    other.close()
    assert heiress.heard() == ["able", "unable"]
    assert heiress.supervisor._status == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_taken_is_not_given_back_to_one_that_has_ended(
    number: int, heiress: Heiress
) -> None:
    child, other = prepared(heiress.supervisor)
    take(heiress)
    heiress.supervisor._promote()
    heiress.end_old()
    heiress.hear()
    end(heiress.supervisor, child, number)
    other.close()
    assert heiress.supervisor._status is None


def test_what_was_taken_is_not_given_back_to_one_whose_end_has_not_been_noticed_yet(
    heiress: Heiress,
) -> None:
    """Both may be noticed in the same round, the worker first."""
    child, other = prepared(heiress.supervisor)
    take(heiress)
    heiress.supervisor._promote()
    heiress.end_old()
    other.send("failed", why="it is Friday")
    end(heiress.supervisor, child, signal.SIGTERM)
    other.close()
    assert heiress.supervisor._status is None


def test_one_that_ends_before_it_hands_over_is_followed(heiress: Heiress) -> None:
    child, other = prepared(heiress.supervisor)
    heiress.end_old()
    heiress.hear()
    assert not heiress.supervisor.held_back
    heiress.supervisor._promote()
    end(heiress.supervisor, child)
    other.close()
    assert heiress.supervisor._status is None


# --- Faults of our own -----------------------------------------------------------------


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is started, and signals are as before in the end."""
    monkeypatch.setattr(Nursery, "keep_up", lambda _self, _now: None)
    monkeypatch.setattr("vswapd.supervisor._FAULT_SECONDS", 0, raising=False)
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


class Faulty:
    """Something that is always to be heard, and fails each time."""

    def __init__(self, supervisor: Supervisor, most: int) -> None:
        self.times, self._most, self._supervisor = 0, most, supervisor
        self._fd, other = os.pipe()
        os.close(other)
        supervisor.loop.watch(self._fd, self.fail)

    def fail(self) -> None:
        self.times += 1
        if self.times >= self._most:
            self._supervisor.stop(77)
        raise ZeroDivisionError

    def close(self) -> None:
        os.close(self._fd)


@pytest.mark.usefixtures("quiet", "unmounted")
def test_a_fault_does_not_end_the_supervisor(
    supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    faulty = Faulty(supervisor, 3)
    assert supervisor.run() == 77
    assert faulty.times == 3
    assert caplog.text.count("a fault in the supervisor") == 3
    assert "ZeroDivisionError" in caplog.text
    faulty.close()


@pytest.mark.usefixtures("quiet", "unmounted")
def test_a_fault_before_somebody_serves_does_not_either_if_there_is_something_to_lose(
    inherited: Supervisor,
) -> None:
    faulty = Faulty(inherited, 3)
    assert inherited.run() == 77
    faulty.close()


@pytest.mark.usefixtures("quiet", "unmounted")
def test_a_fault_ends_a_takeover_while_the_other_one_has_the_device(
    inherited: Supervisor,
) -> None:
    inherited.has_rival = True
    faulty = Faulty(inherited, 3)
    with pytest.raises(ZeroDivisionError):
        inherited.run()
    assert faulty.times == 1
    faulty.close()


@pytest.mark.usefixtures("quiet", "unmounted")
def test_a_fault_that_comes_each_time_keeps_nobody_waiting_for_ever(
    supervisor: Supervisor,
) -> None:
    faulty = Faulty(supervisor, 100)
    ours, theirs = os.pipe()
    os.close(theirs)
    supervisor.loop.watch(ours, lambda: supervisor.stop(0))
    assert supervisor.run() == 0
    faulty.close()
    os.close(ours)


@pytest.mark.usefixtures("quiet", "unmounted")
def test_while_nothing_can_be_kept_up_others_are_heard(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = 0

    def fail() -> None:
        nonlocal times
        times += 1
        if times >= 100:
            supervisor.stop(77)
        raise ZeroDivisionError

    monkeypatch.setattr(supervisor, "_keep_up", fail)
    ours, theirs = os.pipe()
    os.close(theirs)
    supervisor.loop.watch(ours, lambda: supervisor.stop(0))
    assert supervisor.run() == 0
    os.close(ours)
