"""Where a supervisor is asked to be replaced, over its real socket."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from vswapd.restarts import Desk, address_of, peer_of

SECONDS = 10
NOBODY = 65534


@dataclass
class Asked:
    """A desk, and how often somebody wanted a restart."""

    times: int = 0
    visitors: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.desk = Desk(self._ask)

    def _ask(self) -> None:
        self.times += 1

    def come(self) -> socket.socket:
        """A visitor who has been let in, or not."""
        visitor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.visitors.append(visitor)
        visitor.settimeout(SECONDS)
        visitor.connect(address_of(os.getpid()))
        self.let_in()
        return visitor

    def let_in(self) -> None:
        assert select.select([self.desk], [], [], SECONDS)[0]
        self.desk.on_visitor()


@pytest.fixture
def asked() -> Iterator[Asked]:
    made = Asked()
    yield made
    made.desk.close()
    for visitor in made.visitors:
        visitor.close()


def test_who_comes_asks_for_a_restart_and_is_told_how_it_went(asked: Asked) -> None:
    visitor = asked.come()
    assert asked.times == 1
    asked.desk.tell("ok")
    assert visitor.recv(100) == b"ok\n"
    assert visitor.recv(100) == b""


def test_all_who_wait_are_told_once(asked: Asked) -> None:
    visitors = [asked.come() for _ in range(3)]
    asked.desk.tell("error no room")
    late = asked.come()
    asked.desk.tell("ok")
    assert [visitor.recv(100) for visitor in visitors] == [b"error no room\n"] * 3
    assert [visitor.recv(100) for visitor in visitors] == [b""] * 3
    assert late.recv(100) == b"ok\n"
    assert asked.times == 4


def test_a_reason_may_hold_a_path_that_is_no_text(asked: Asked) -> None:
    visitor = asked.come()
    asked.desk.tell("error \udcff: no such thing")
    assert visitor.recv(100) == b"error \xff: no such thing\n"


def test_no_more_than_some_wait_at_a_time(asked: Asked) -> None:
    """Whoever may come could take all descriptors from the supervisor."""
    visitors = [asked.come() for _ in range(64)]
    for _ in range(3):
        assert asked.come().recv(100) == b""
    assert (asked.times, len(asked.desk._waiting)) == (64, 64)
    asked.desk.tell("ok")
    assert [visitor.recv(100) for visitor in visitors] == [b"ok\n"] * 64
    late = asked.come()
    asked.desk.tell("error later")
    assert late.recv(100) == b"error later\n"
    assert asked.times == 65


def test_who_has_gone_is_not_told(asked: Asked) -> None:
    gone, stays = asked.come(), asked.come()
    gone.close()
    asked.desk.tell("ok")
    assert stays.recv(100) == b"ok\n"


def test_who_goes_before_it_is_let_in_is_no_error(asked: Asked) -> None:
    visitor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    visitor.connect(address_of(os.getpid()))
    visitor.close()
    asked.let_in()
    asked.desk.tell("ok")


def test_nobody_there_is_no_error(asked: Asked) -> None:
    """Another has looked before."""
    asked.desk.on_visitor()
    assert asked.times == 0


def test_telling_nobody_is_nothing(asked: Asked) -> None:
    asked.desk.tell("ok")
    visitor = asked.come()
    asked.desk.tell("error later")
    assert visitor.recv(100) == b"error later\n"


def test_who_waits_at_the_end_sees_it(asked: Asked) -> None:
    visitor = asked.come()
    asked.desk.close()
    assert visitor.recv(100) == b""


def test_the_address_goes_with_the_supervisor(asked: Asked) -> None:
    asked.desk.close()
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor,
        pytest.raises(ConnectionRefusedError),
    ):
        visitor.connect(address_of(os.getpid()))
    again = Desk(lambda: None)
    again.close()


def test_each_supervisor_has_an_address_of_its_own() -> None:
    assert address_of(1) != address_of(2)
    assert address_of(1).startswith("\0")  # in no directory


def test_both_sides_know_each_other(asked: Asked) -> None:
    """Anybody may listen at an abstract address."""
    visitor = asked.come()
    assert peer_of(visitor) == (os.getpid(), os.geteuid())
    asked.desk.tell("ok")


def test_no_descriptor_is_inherited(asked: Asked) -> None:
    asked.come()
    assert not os.get_inheritable(asked.desk.fileno())
    assert not os.get_inheritable(asked.desk._waiting[0].fileno())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_who_is_somebody_else_is_turned_away(asked: Asked) -> None:
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setresuid(NOBODY, NOBODY, NOBODY)
            visitor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            visitor.settimeout(SECONDS)
            visitor.connect(address_of(os.getppid()))
            os.write(theirs, b"%d\n" % len(visitor.recv(100)))
        finally:
            os._exit(0)
    asked.let_in()
    os.waitpid(pid, 0)
    assert os.read(ours, 100) == b"0\n"
    assert (asked.times, asked.desk._waiting) == (0, [])
    os.close(ours)
    os.close(theirs)
