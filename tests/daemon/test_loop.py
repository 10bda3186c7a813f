"""Waiting for several things at once: who is heard in a round, and who is not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from vswapd.loop import Loop

SECONDS = 10


class Pipe:
    """A pipe whose end is watched."""

    def __init__(self) -> None:
        self.fd, self.other = os.pipe()

    def fill(self) -> None:
        os.write(self.other, b"x")

    def empty(self) -> None:
        os.read(self.fd, 1)

    def close(self) -> None:
        for fd in (self.fd, self.other):
            with suppress(OSError):
                os.close(fd)


MakePipe = Callable[[], Pipe]


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def pipe() -> Iterator[MakePipe]:
    """Makes pipes, which are closed afterwards."""
    made: list[Pipe] = []

    def make() -> Pipe:
        made.append(Pipe())
        return made[-1]

    yield make
    for each in made:
        each.close()


def wait(loop: Loop) -> None:
    """One round, in which there is something to do."""
    loop.wait(time.monotonic() + SECONDS)


def test_all_that_has_come_is_heard_in_one_round(loop: Loop, pipe: MakePipe) -> None:
    heard: list[int] = []
    pipes = [pipe() for _ in range(5)]
    for number, each in enumerate(pipes):
        loop.watch(each.fd, lambda number=number: heard.append(number))  # type: ignore[misc]
        each.fill()
    wait(loop)
    assert sorted(heard) == [0, 1, 2, 3, 4]


def test_nothing_is_heard_of_who_has_nothing_to_say(loop: Loop, pipe: MakePipe) -> None:
    heard: list[str] = []
    silent, speaks = pipe(), pipe()
    loop.watch(silent.fd, lambda: heard.append("silent"))
    loop.watch(speaks.fd, lambda: heard.append("speaks"))
    speaks.fill()
    wait(loop)
    assert heard == ["speaks"]


def test_who_always_has_something_to_say_keeps_nobody_waiting(loop: Loop, pipe: MakePipe) -> None:
    heard: list[str] = []
    always = [pipe() for _ in range(2)]
    for each in always:
        each.fill()
        loop.watch(each.fd, lambda: heard.append("always"))  # and leaves it there
    wait(loop)
    late = pipe()
    loop.watch(late.fd, lambda: heard.append("late"))
    late.fill()
    heard.clear()
    wait(loop)
    assert sorted(heard) == ["always", "always", "late"]


def test_who_is_ignored_in_a_round_is_not_heard_in_it(loop: Loop, pipe: MakePipe) -> None:
    """What it would have been heard for has been closed, and forgotten."""
    heard: list[int] = []
    pipes = [pipe(), pipe()]

    def hear(number: int) -> None:
        heard.append(number)
        other = pipes[1 - number]
        loop.ignore(other.fd)
        other.close()

    for number, each in enumerate(pipes):
        loop.watch(each.fd, lambda number=number: hear(number))  # type: ignore[misc]
        each.fill()
    wait(loop)
    assert len(heard) == 1
    pipes[heard[0]].empty()
    loop.wait(time.monotonic())
    assert len(heard) == 1


def test_who_has_the_number_of_one_that_was_closed_is_not_heard_for_it(
    loop: Loop, pipe: MakePipe
) -> None:
    heard: list[str] = []
    pipes = [pipe(), pipe()]
    new = pipe()

    def hear(number: int) -> None:
        heard.append("old")
        other = pipes[1 - number]
        loop.ignore(other.fd)
        os.dup2(new.fd, other.fd)
        loop.watch(other.fd, lambda: heard.append("new"))
        pipes[number].empty()

    for number, each in enumerate(pipes):
        loop.watch(each.fd, lambda number=number: hear(number))  # type: ignore[misc]
        each.fill()
    wait(loop)
    assert heard == ["old"]
    new.fill()
    wait(loop)
    assert heard == ["old", "new"]


def test_who_is_watched_anew_in_a_round_is_heard_in_the_next(loop: Loop, pipe: MakePipe) -> None:
    heard: list[str] = []
    first, second = pipe(), pipe()

    def hear() -> None:
        heard.append("first")
        loop.ignore(first.fd)
        loop.watch(second.fd, lambda: heard.append("second"))

    loop.watch(first.fd, hear)
    first.fill()
    second.fill()
    wait(loop)
    assert heard == ["first"]
    wait(loop)
    assert heard == ["first", "second"]


def test_a_fault_keeps_nobody_waiting_for_ever(loop: Loop, pipe: MakePipe) -> None:
    """Whoever fails each time is not the only one who is heard."""
    heard: list[str] = []
    faulty, well = pipe(), pipe()

    def fail() -> None:
        raise ZeroDivisionError

    loop.watch(faulty.fd, fail)
    loop.watch(well.fd, lambda: heard.append("well"))
    faulty.fill()
    well.fill()
    for _ in range(10):
        with suppress(ZeroDivisionError):
            wait(loop)
    assert heard


def test_waking_ends_a_wait_of_which_nobody_hears_anything(loop: Loop, pipe: MakePipe) -> None:
    woken: list[bytes] = []
    loop.watch_signals((), woken.append)
    loop.wake()
    wait(loop)
    assert woken == [b"\0"]


def test_waking_after_the_end_is_nothing() -> None:
    made = Loop()
    made.close()
    made.wake()
