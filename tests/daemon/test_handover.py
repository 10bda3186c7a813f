"""The old supervisor and its heir, where the heir is a program that does what the test says.

With real ones it is tried in tests/swap/test_restart.py.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from vswapd.config import Settings
from vswapd.handover import Heir
from vswapd.held import Held, Record
from vswapd.notify import Ready
from vswapd.sdnotify import Keeper
from vswapd.supervisor import Supervisor

SETTINGS = Settings("m", "/nowhere/m", 64 << 20, threads=1).to_json()
SECONDS = 10

HEIR = """
import socket, sys, json, time
link = socket.socket(fileno=int(sys.argv[-1]))
link.recv(65536)
"""


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    """Of a device whose connection is a pipe."""
    fd = os.memfd_create("test")
    os.ftruncate(fd, 4096)
    held = Held(Record(SETTINGS, "/nowhere/m", signs=(0,)), [fd])
    held.connection, theirs = os.pipe()
    ready = Ready(None)
    ready.tell("ready")
    made = Supervisor(held.record, ready, Keeper(None))
    made.inherit(held)
    yield made
    made.loop.close()
    for each in (fd, held.connection, theirs):
        os.close(each)


@pytest.fixture
def told() -> list[str]:
    return []


Begin = Callable[[str], Heir]


@pytest.fixture
def begin(supervisor: Supervisor, told: list[str]) -> Iterator[Begin]:
    """Starts an heir that is this Python code."""
    made: list[Heir] = []

    def start(code: str) -> Heir:
        made.append(Heir(supervisor, None, (sys.executable, "-c", HEIR + code), told.append))
        return made[-1]

    yield start
    for heir in made:
        heir.process.kill()
        heir.process.wait()


def listen(supervisor: Supervisor, until: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not until():
        assert time.monotonic() < end
        supervisor.loop.wait(end)


ABLE = """link.send(b'{"is": "able"}'); link.recv(65536)\n"""


def test_one_that_serves_takes_the_place(
    supervisor: Supervisor, begin: Begin, told: list[str]
) -> None:
    begin(ABLE + """link.send(b'{"is": "serving"}')""")
    listen(supervisor, lambda: bool(told))
    assert told == ["ok"]
    assert supervisor.held_back
    assert supervisor._status == 0


def test_one_that_is_not_able_changes_nothing(
    supervisor: Supervisor, begin: Begin, told: list[str]
) -> None:
    begin("""link.send(b'{"is": "unable", "why": "it is Friday"}')""")
    listen(supervisor, lambda: bool(told))
    assert told == ["error it is Friday"]
    assert not supervisor.held_back
    assert supervisor._status is None


@pytest.mark.parametrize("when", ["", ABLE], ids=["before", "after it was told to take the device"])
def test_one_that_says_what_nobody_knows_changes_nothing(
    when: str, supervisor: Supervisor, begin: Begin, told: list[str]
) -> None:
    """It is of a version to come."""
    begin(when + """link.send(b'{"is": "willing"}'); link.recv(65536)""")
    listen(supervisor, lambda: bool(told))
    assert told == ["error it says 'willing'"]
    assert not supervisor.held_back


@pytest.mark.parametrize("when", ["", ABLE], ids=["before", "after it was told to take the device"])
def test_one_that_dies_leaves_everything_to_the_old_one(
    when: str, supervisor: Supervisor, begin: Begin, told: list[str]
) -> None:
    begin(when)
    listen(supervisor, lambda: bool(told))
    assert told == ["error the new supervisor has ended"]
    assert not supervisor.held_back


@pytest.mark.parametrize("when", ["", ABLE], ids=["before", "after it was told to take the device"])
def test_one_that_hangs_is_ended(
    when: str, supervisor: Supervisor, begin: Begin, told: list[str]
) -> None:
    heir = begin(when + "time.sleep(1000)")
    listen(supervisor, lambda: supervisor.held_back or not when)
    heir.look(time.monotonic() + 50)
    assert heir.process.poll() is None
    heir.look(time.monotonic() + 70)
    listen(supervisor, lambda: bool(told))
    assert told == ["error the new supervisor has ended"]
    assert not supervisor.held_back
