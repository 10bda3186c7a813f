"""The fork server: that there is one when it is needed, whatever becomes of the last one."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from vswapd import memory
from vswapd.estate import Estate
from vswapd.held import Record
from vswapd.loop import Loop
from vswapd.nursery import LONGEST_SECONDS, Nursery
from vswapd.sdnotify import Keeper

SECONDS = 10
LINK = "import sys, vswapd.messages as m; link = m.Link.of(int(sys.argv[-1]))"
WARM = (
    f"{LINK}; link.send('warm', settings='mine', point='/m', warnings=['it is hot', 'it is hot'])"
)
STAYS = f"{WARM}; link.receive()"


@dataclass
class Asked:
    """What a nursery is told and tells."""

    is_needed: bool = True
    failures: list[str] = field(default_factory=list)


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def nursery(asked: Asked) -> Iterator[Nursery]:
    """With the time running only in what it is told."""
    estate, loop = Estate(Record("", "/nowhere/m"), Keeper(None)), Loop()
    made = Nursery(loop, estate, [], is_needed=lambda: asked.is_needed, fail=asked.failures.append)
    yield made
    made.drop()
    loop.close()


def runs(nursery: Nursery, code: str) -> None:
    nursery._command = [sys.executable, "-c", code]


def wait(nursery: Nursery) -> None:
    """Until something has been heard of it."""
    nursery._loop.wait(time.monotonic() + SECONDS)


def test_none_is_started_that_is_not_needed(nursery: Nursery, asked: Asked) -> None:
    asked.is_needed = False
    nursery.keep_up(0.0)
    assert nursery._server is None
    assert not nursery.is_able


def test_it_is_able_when_it_is_warm(nursery: Nursery, caplog: pytest.LogCaptureFixture) -> None:
    """And what the device is to be is known then; a warning is logged once."""
    runs(nursery, STAYS)
    nursery.keep_up(0.0)
    assert not nursery.is_able
    with caplog.at_level(logging.WARNING):
        wait(nursery)
    assert nursery.is_able
    assert (nursery._estate.record.settings, nursery._estate.record.point) == ("mine", "/m")
    assert caplog.messages == ["it is hot"]


def test_the_next_ones_are_started_ever_later_while_they_fail(
    nursery: Nursery, asked: Asked
) -> None:
    nursery._command = ["/nowhere/vswap-forks"]
    pauses = []
    now = 0.0
    for _ in range(8):
        nursery.keep_up(now)
        assert nursery._server is None
        pauses.append(nursery.due_at - now)
        nursery.keep_up(nursery.due_at - 0.1)  # too early
        now = nursery.due_at
    assert pauses == [1, 2, 4, 8, 16, 32, LONGEST_SECONDS, LONGEST_SECONDS]
    assert asked.failures == ["cannot start: No such file or directory"] * 8


def test_one_that_was_warm_starts_the_pauses_anew(nursery: Nursery) -> None:
    nursery._command = ["/nowhere/vswap-forks"]
    nursery.keep_up(0.0)
    nursery.keep_up(1.0)
    runs(nursery, STAYS)
    nursery.keep_up(3.0)
    wait(nursery)
    nursery.drop()
    nursery.keep_up(7.0)
    assert nursery.due_at == 8.0


@pytest.mark.parametrize("is_needed", [False, True])
def test_its_end_is_a_failure_only_while_it_is_needed(
    is_needed: bool, nursery: Nursery, asked: Asked
) -> None:
    """If not it is the next one's turn at once, when that is needed."""
    runs(nursery, WARM)
    nursery.keep_up(5.0)
    asked.is_needed = is_needed
    while nursery._server is not None:
        wait(nursery)
    ended = (["the fork server has ended"], 6.0)
    assert (asked.failures, nursery.due_at) == (ended if is_needed else ([], 0.0))


def test_one_that_is_started_while_nobody_serves_goes_first(nursery: Nursery) -> None:
    nursery.hurry()  # there is none
    runs(nursery, STAYS)
    nursery.keep_up(0.0)
    assert nursery._server is not None
    pid = nursery._server.process.pid
    nursery.hurry()
    first = os.sched_getscheduler(pid)
    may = os.fork()
    if not may:
        memory.take_precedence()
        os._exit(os.sched_getscheduler(0))
    assert first == os.waitstatus_to_exitcode(os.waitpid(may, 0)[1])


def test_why_it_cannot_is_told(nursery: Nursery, asked: Asked) -> None:
    runs(nursery, f"{LINK}; link.send('failed', why='it is Friday'); link.receive()")
    nursery.keep_up(0.0)
    wait(nursery)
    assert asked.failures == ["it is Friday"]
    assert not nursery.is_able
