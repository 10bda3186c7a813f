"""`vswap top` on a terminal, beside a real device."""

from __future__ import annotations

import os
import signal

import pytest
from daemon.test_cli_top import LEAVE, terminal
from mount.harness import PAGE, Start, halt

pytestmark = pytest.mark.mount

NAME = f"top{os.getpid()}"
PAGES = 512


def test_it_shows_a_device_that_stands_still_and_goes_on(start: Start) -> None:
    device = start(name=NAME)
    assert device.told == "ready", device.stderr()
    fd = os.open(device.swap, os.O_RDWR)
    try:
        os.pwrite(fd, os.urandom(PAGES * PAGE), 0)
    finally:
        os.close(fd)
    serving = device.serving()
    assert serving is not None
    with terminal(str(device.mount), "--interval", "0.2") as top:
        top.expect(b"2.0M")
        assert NAME.encode() in top.seen
        top.expect(b"pages/s")
        halt(serving)
        try:
            top.seen = b""
            top.expect(b"does not answer")
        finally:
            os.kill(serving, signal.SIGCONT)
        top.seen = b""
        top.expect(b"in memory")
        device.signal()
        top.expect(b"no vswap device is at ")
        top.press(b"q")
        assert top.wait() == 0
    assert LEAVE in top.seen


def test_a_device_that_hangs_does_not_keep_it(start: Start) -> None:
    device = start(name=NAME)
    serving = device.serving()
    assert serving is not None
    halt(serving)
    try:
        with terminal() as top:
            top.expect(b"q quits")
            top.press(b"q")
            top.expect(LEAVE)
            assert top.wait() == 0
    finally:
        os.kill(serving, signal.SIGCONT)
