"""The supervisor without a worker: what it decides, and what it leaves behind.

What it does with real workers is in tests/mount.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from vswap import libc
from vswapd import fusemount, mounts
from vswapd.config import Settings
from vswapd.held import Held, Record
from vswapd.messages import Link
from vswapd.notify import Ready
from vswapd.offspring import Child
from vswapd.patience import MOST
from vswapd.sdnotify import Keeper, read_record
from vswapd.supervisor import Supervisor

if TYPE_CHECKING:
    from daemon.conftest import Systemd

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


def test_its_own_dead_mount_is_detached(
    supervisor: Supervisor, unmounted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(monkeypatch, "0:39")
    supervisor._leave()
    assert unmounted == ["/nowhere/m"]


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


def test_what_another_supervisor_has_now_is_let_alone(
    supervisor: Supervisor, unmounted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted(monkeypatch, "0:39")
    supervisor.held_back = True
    supervisor._leave()
    assert unmounted == []


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
    assert message == {"is": "prepare"}
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
    assert supervisor._server is not None
    supervisor.loop.ignore(supervisor._server.link)
    supervisor._server.close()


def test_a_predecessor_ends_before_a_standby_serves(supervisor: Supervisor) -> None:
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
    supervisor._on_end_before()
    supervisor._promote()
    assert supervisor.worker == child.pidfd
    for each, link in ((child, other), (before, far)):
        end(supervisor, each)
        link.close()


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


def kept_record(systemd: Systemd) -> Record:
    """What the next supervisor would find, should all processes be killed now."""
    systemd.hear()
    (fd,) = systemd.kept["vswap-record"]
    return read_record(fd)


def test_systemd_has_all_that_is_held(
    supervisor: Supervisor, held: Held, systemd: Systemd, address: str
) -> None:
    supervisor.estate.keeper = keeper = Keeper(address)
    supervisor.inherit(held)
    systemd.hear()
    kept = {name.removeprefix("vswap-"): fds for name, fds in systemd.kept.items()}
    for name, fd in held.bundle():
        assert [os.fstat(each).st_ino for each in kept[name]] == [os.fstat(fd).st_ino]
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
        (kept,) = systemd.kept["vswap-backing"]
        assert os.fstat(kept).st_ino == os.fstat(fd).st_ino
        assert kept_record(systemd).backing == path
        other.send("drop")
        supervisor._on_child(child)
        assert kept_record(systemd).backing is None
        assert "vswap-backing" not in systemd.kept
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
