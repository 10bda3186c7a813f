"""A standby as a real process, told what to do over its link, up to being told to serve."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Protocol

import pytest

from vswap.store import State
from vswapd import channel, memory, standby
from vswapd.config import Settings
from vswapd.control import Rings
from vswapd.lockholder import lock_holders
from vswapd.memory import Preparation
from vswapd.messages import Link, Message
from vswapd.offspring import Child
from vswapd.ownpages import Run
from vswapd.standby import shape_of

SECONDS = 30
SETTINGS = Settings(name="m", mount="/nowhere/m", size=64 << 20, threads=2)


class Forked(Protocol):
    """Makes a standby."""

    def __call__(self, settings: Settings, *, hurry: bool = False) -> Child: ...


@pytest.fixture
def forked() -> Iterator[Forked]:
    """Makes standbys, as the fork server does."""
    children: list[Child] = []

    def fork(settings: Settings, *, hurry: bool = False) -> Child:
        link, theirs = Link.pair()
        pid = os.fork()
        if not pid:
            status = 1
            try:
                link.close()
                os.close(2)  # what is logged is not for the tests' output
                os.open(os.devnull, os.O_WRONLY)
                own = Link.of(theirs.detach())
                preparation = Preparation(False, False, False)
                status = standby.main(own, settings, preparation, hurry=hurry)
            finally:
                os._exit(status)
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


def received(child: Child) -> tuple[Message, list[int]]:
    assert select.select([child.link], [], [], SECONDS)[0]
    found = child.link.receive()
    assert found is not None
    return found


def end_of(child: Child) -> tuple[bool, int]:
    assert child.pidfd is not None
    assert select.select([child.pidfd], [], [], SECONDS)[0]
    return child.reap()


@pytest.mark.parametrize(("is_told", "calls"), [(False, ["give"]), (True, ["give", "take"])])
def test_precedence_is_had_again_by_one_that_has_been_told_to_hurry(
    is_told: bool, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told before it came to give up what it has, and given it from outside before that, too."""
    called: list[str] = []
    monkeypatch.setattr(memory, "give_precedence", lambda: called.append("give"))
    monkeypatch.setattr(memory, "take_precedence", lambda: called.append("take"))
    link, theirs = Link.pair()
    with theirs:
        if is_told:
            link.send("hurry")
        own = Link(theirs)
        standby._give_way(own)
    link.close()
    assert called == calls


def test_it_says_who_it_is_first(forked: Forked) -> None:
    child = forked(SETTINGS)
    assert received(child) == ({"is": "hello", "pid": child.pid}, [])


def test_without_a_state_it_makes_one_for_the_supervisor_to_hold(forked: Forked) -> None:
    child = forked(SETTINGS)
    received(child)
    child.link.send("prepare")
    message, fds = received(child)
    assert message["is"] == "prepared"
    state = State.attach(shape_of(SETTINGS), fds)
    assert message["signs"] == channel.signs(state)
    assert fds[message["region"]] == state.buffers.fd
    state.close()


def test_a_state_that_is_held_is_used_and_not_sent_back(forked: Forked) -> None:
    state = State.create(shape_of(SETTINGS))
    child = forked(SETTINGS)
    received(child)
    child.link.send("prepare", state.fds())
    message, fds = received(child)
    assert (message["is"], fds) == ("prepared", [])
    assert message["signs"] == channel.signs(state)
    assert state.fds()[message["region"]] == state.buffers.fd
    assert state.buffers.allocated() == state.buffers.size  # it has been touched, in all of it
    assert state.segments.allocated() == 0
    state.close()


def test_a_history_that_is_held_is_no_part_of_the_state(forked: Forked) -> None:
    state, rings = State.create(shape_of(SETTINGS)), Rings.create()
    child = forked(SETTINGS)
    received(child)
    child.link.send("prepare", [*state.fds(), rings.fd], history=True)
    message, fds = received(child)
    assert (message["is"], fds) == ("prepared", [])
    rings.close()
    state.close()


@pytest.mark.parametrize("more", [{}, {"history": False}])
def test_a_supervisor_of_older_code_has_none(more: dict[str, bool], forked: Forked) -> None:
    state = State.create(shape_of(SETTINGS))
    child = forked(SETTINGS)
    received(child)
    child.link.send("prepare", state.fds(), **more)
    message, fds = received(child)
    assert (message["is"], fds) == ("prepared", [])
    state.close()


def test_a_state_of_another_shape_is_refused_with_the_reason(forked: Forked) -> None:
    state = State.create(shape_of(replace(SETTINGS, size=128 << 20)))
    child = forked(SETTINGS)
    received(child)
    child.link.send("prepare", state.fds())
    message, _ = received(child)
    assert message["is"] == "failed"
    assert "other sizes" in message["why"]
    assert end_of(child) == (False, 2)
    state.close()


@pytest.mark.parametrize("told", [0, 1])
def test_it_ends_with_its_supervisor(told: int, forked: Forked) -> None:
    """However far it has come; and quietly."""
    child = forked(SETTINGS)
    received(child)
    fds: list[int] = []
    if told:
        child.link.send("prepare")
        _, fds = received(child)
    child.link.close()
    assert end_of(child) == (False, 0)
    for fd in fds:
        os.close(fd)


def test_nobody_s_lock_is_taken_before_it_is_told_to_serve(forked: Forked) -> None:
    """The worker that serves has it."""
    child = forked(SETTINGS)
    received(child)
    child.link.send("prepare")
    _, fds = received(child)
    assert lock_holders(fds[0]) == []
    for fd in fds:
        os.close(fd)


def copy_for_ever(runs: Iterable[Run], go_on: Callable[[], bool]) -> list[Run]:
    """In the place of `make_own`."""
    while go_on():
        select.select([], [], [], 0.001)
    return list(runs)


@pytest.mark.parametrize("when", ["when it is forked", "while it prepares"])
def test_one_that_is_to_hurry_does_without_its_own_pages(
    when: str, forked: Forked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standby, "make_own", copy_for_ever)
    state = State.create(shape_of(SETTINGS))
    child = forked(SETTINGS, hurry=when == "when it is forked")
    received(child)
    child.link.send("prepare", state.fds())
    if when == "while it prepares":
        assert not select.select([child.link], [], [], 0.1)[0]
        child.link.send("hurry")
    assert received(child)[0]["is"] == "prepared"
    state.close()


def test_to_be_told_to_hurry_is_not_to_be_told_to_serve(forked: Forked) -> None:
    child = forked(SETTINGS)
    received(child)
    child.link.send("prepare")
    _, fds = received(child)
    child.link.send("hurry")
    child.link.close()  # had it served, it would have failed
    assert end_of(child) == (False, 0)
    for fd in fds:
        os.close(fd)


def test_the_shape_is_that_of_the_settings() -> None:
    shape = shape_of(SETTINGS)
    assert (shape.geometry.size, shape.buffers) == (64 << 20, 2)
    assert shape.buffer_size == channel.BUFFER_SIZE
    assert shape.header() != shape_of(replace(SETTINGS, threads=1)).header()


def test_it_can_be_killed_at_any_time(forked: Forked) -> None:
    child = forked(SETTINGS)
    received(child)
    child.link.send("prepare")
    child.kill()
    assert end_of(child) == (True, signal.SIGKILL)
