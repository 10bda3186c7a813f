"""Telling whoever waits for the start what became of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress

import pytest

from vswap.errors import UserError
from vswapd.notify import Ready, reason


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ours, theirs = os.pipe()
    yield ours, theirs
    for fd in (ours, theirs):
        with suppress(OSError):
            os.close(fd)


def test_a_line_is_told_and_the_pipe_closed(pipe: tuple[int, int]) -> None:
    ours, theirs = pipe
    Ready(theirs).tell("ready")
    assert os.read(ours, 100) == b"ready\n"
    assert os.read(ours, 100) == b""


def test_only_the_first_line_is_told(pipe: tuple[int, int]) -> None:
    ours, theirs = pipe
    ready = Ready(theirs)
    ready.tell("ready")
    ready.tell("error something later")
    assert os.read(ours, 100) == b"ready\n"


@pytest.mark.parametrize("line", ["ready", "error it does not start"])
def test_a_lock_is_let_go_when_it_is_told(line: str, pipe: tuple[int, int]) -> None:
    ours, theirs = pipe
    ready = Ready(None, theirs)
    assert not os.get_inheritable(theirs)
    os.fstat(theirs)
    ready.tell(line)
    assert os.read(ours, 100) == b""


def test_nobody_need_wait() -> None:
    Ready(None).tell("ready")


def test_who_waited_may_be_gone(pipe: tuple[int, int]) -> None:
    ours, theirs = pipe
    os.close(ours)
    Ready(theirs).tell("ready")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(theirs)


def test_a_path_that_is_no_utf8_can_be_told(pipe: tuple[int, int]) -> None:
    """As bytes, which is how the kernel and os.fsencode have it."""
    ours, theirs = pipe
    Ready(theirs).tell(f"error cannot mount on {os.fsdecode(b'/mnt/' + bytes([255]))}: why")
    assert os.read(ours, 100) == b"error cannot mount on /mnt/\xff: why\n"


def test_a_reason_is_one_line(pipe: tuple[int, int]) -> None:
    """Whoever waits reads one line, and a path may hold line ends."""
    ours, theirs = pipe
    Ready(theirs).tell("error cannot mount on /mnt/a\nready\n: why")
    assert os.read(ours, 100).count(b"\n") == 1


def test_it_is_known_whether_anything_was_told() -> None:
    ready = Ready(None)
    assert not ready.told
    ready.tell("error why")
    assert ready.told


def test_a_descriptor_that_is_not_open_is_a_user_error() -> None:
    with pytest.raises(UserError, match="descriptor 999999 is not open"):
        Ready(999999)


def test_who_is_started_does_not_inherit_it(pipe: tuple[int, int]) -> None:
    """Or whoever waits would never see the end."""
    _, theirs = pipe
    os.set_inheritable(theirs, True)
    Ready(theirs)
    assert not os.get_inheritable(theirs)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("no room"), "no room"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "cannot start: Too many open files"),
        (ZeroDivisionError(), "cannot start: ZeroDivisionError"),
        (ZeroDivisionError("a fault"), "cannot start: a fault"),
        (KeyboardInterrupt(), "interrupted"),
        (ExceptionGroup("several", [ExceptionGroup("more", [UserError("first")])]), "first"),
    ],
)
def test_a_reason_is_short(error: BaseException, line: str) -> None:
    assert reason(error) == line
