"""`vswap top` as a command: on a terminal, and without one."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vswapd import samples
from vswapd.cli import main
from vswapd.mounts import Device

SOURCES = [str(Path(__file__).parents[2] / part) for part in ("", "daemon")]
SECONDS = 20.0
ENTER, LEAVE, SHOW_CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


ONE = """
import sys
from vswapd import samples
from vswapd.cli import main
from vswapd.mounts import Device
samples.devices = lambda: [Device("swap0", FOLDER)]
sys.exit(main(sys.argv[1:]))
"""
"""A program that takes a folder for the mount of the one device there is."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What stands for a device's mount."""
    stats = {"size": 1 << 30, "worker_pid": 7, "codec": "lz4", "pages_read": 5}
    stats |= {"read_count": 1, "read_p50_us": 10.0, "read_p99_us": 20.0, "read_buckets": "1"}
    (tmp_path / "stats.json").write_text(json.dumps(stats))
    return tmp_path


@pytest.fixture
def place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    """The one device there is: a directory in the place of its mount."""
    device = Device("swap0", str(folder))
    monkeypatch.setattr(samples, "devices", lambda: [device])
    return device


# --- Without a terminal ----------------------------------------------------------------


@pytest.mark.parametrize("args", [[], ["--once"]])
def test_one_picture_with_rates_as_text(
    args: list[str], place: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", "--interval", "0.1", *args]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "\x1b" not in said.out
    assert "\nswap0  1.0G  lz4 " in said.out
    assert "\n swap-in            0 pages/s      0/s " in said.out
    assert "\n reads, all     p50 10us   p99 20us " in said.out  # since the worker's start


def test_who_does_not_answer_is_said(place: Device, capsys: pytest.CaptureFixture[str]) -> None:
    Path(place.mount, "stats.json").unlink()
    assert main(["top", "--once", "--interval", "0.1"]) == 1
    said = capsys.readouterr()
    assert "does not answer\n the daemon of swap0 cannot be asked: " in said.out


def test_without_a_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(samples, "devices", list)
    assert main(["top", "--once"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "no vswap device is here; `vswap up` makes one\n")


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--interval", "0"], "--interval is 0.1 to 3600 seconds, not 0"),
        (["--interval", "-1"], "--interval is 0.1 to 3600 seconds, not -1"),
        (["--interval", "nan"], "--interval is 0.1 to 3600 seconds, not nan"),
        (["--interval", "inf"], "--interval is 0.1 to 3600 seconds, not inf"),
        (["--interval", "soon"], "Invalid value for '--interval': 'soon' is not a valid float"),
        (["no-such"], "no "),
    ],
)
def test_bad_input_is_one_line_and_2(
    args: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", *args]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"vswap: {reason}")
    assert said.err.count("\n") == 1


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--help"]) == 0
    assert "  vswap top swap0 --interval 5" in capsys.readouterr().out


# --- On a terminal ---------------------------------------------------------------------


@dataclass
class Terminal:
    """A terminal of 80 columns and 24 lines with `vswap top` on it; how it was set `before`."""

    process: subprocess.Popen[bytes]
    ours: int
    theirs: int
    before: list[Any]
    seen: bytes = b""

    def read(self, seconds: float = 0.05) -> bool:
        """Whether anything has been written within this time."""
        if not select.select([self.ours], [], [], seconds)[0]:
            return False
        self.seen += os.read(self.ours, 1 << 16)
        return True

    def expect(self, text: bytes) -> None:
        """Read until it was written."""
        end = time.monotonic() + SECONDS
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            self.read()

    def press(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def wait(self) -> int:
        """The exit code; the terminal's buffer must not be full for it."""
        end = time.monotonic() + SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < end, self.seen
            self.read()
        while self.read(0):
            pass
        return self.process.returncode


@contextmanager
def terminal(
    *args: str, kind: str = "xterm-256color", folder: Path | None = None, prelude: str = ""
) -> Iterator[Terminal]:
    """Beside the devices of this machine, or the one whose mount `folder` stands for."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": os.pathsep.join(SOURCES),
        "TERM": kind,
        "LC_ALL": "C.UTF-8",
    }
    program = ["-m", "vswapd"]
    if folder is not None:
        program = ["-c", prelude + ONE.replace("FOLDER", repr(str(folder)))]
    command = [sys.executable, "-W", "error", *program, "top", *args]
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - as in mount/
    )
    try:
        yield Terminal(process, ours, theirs, before)
    finally:
        process.kill()
        process.wait()
        for fd in (ours, theirs):
            os.close(fd)


def test_q_quits_and_the_terminal_is_as_it_was() -> None:
    with terminal() as top:
        top.expect(b"q quits")
        assert ENTER in top.seen
        assert termios.tcgetattr(top.theirs) != top.before
        top.press(b"xq")
        assert top.wait() == 0
        assert termios.tcgetattr(top.theirs) == top.before
    assert top.seen.rindex(LEAVE) > top.seen.rindex(b"q quits")
    assert top.seen.rindex(SHOW_CURSOR) > top.seen.rindex(b"q quits")
    assert b"Traceback" not in top.seen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, None])
def test_so_it_is_after_a_signal_and_ctrl_c(number: signal.Signals | None) -> None:
    with terminal() as top:
        top.expect(b"q quits")
        if number is None:
            top.press(b"\x03")
        else:
            top.process.send_signal(number)
        assert top.wait() == 130
        assert termios.tcgetattr(top.theirs) == top.before
    left = top.seen[top.seen.rindex(LEAVE) :]
    assert left.rstrip().endswith(b"vswap: interrupted")
    assert b"Traceback" not in top.seen


def test_a_terminal_that_can_do_nothing_gets_text(folder: Path) -> None:
    with terminal("--interval", "0.1", kind="dumb", folder=folder) as top:
        assert top.wait() == 0
    assert b"\x1b" not in top.seen
    assert b"swap-in            0 pages/s" in top.seen


def test_ctrl_z_leaves_it_running() -> None:
    with terminal() as top:
        top.expect(b"q quits")
        top.press(b"\x1aq")
        assert top.wait() == 0


def test_a_terminal_that_changes_its_size_is_drawn_anew(folder: Path) -> None:
    with terminal("--interval", "3600", folder=folder) as top:
        top.expect(b"swap-in")  # there will be no other look, and the title is above this one
        top.seen = b""
        fcntl.ioctl(top.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        top.process.send_signal(signal.SIGWINCH)
        top.expect(b"q quits")
        line = next(line for line in top.seen.split(b"\r\n") if b"q quits" in line)
        top.press(b"q")
        assert top.wait() == 0
    between = line[line.index(b"vswap top") + 9 : line.index(b"every")]
    assert between.count(b" ") > 100 - len("vswap topevery 3600 s, 12:00:00, q quits") - 5


def test_a_terminal_that_is_gone_ends_it() -> None:
    with terminal() as top:
        top.expect(b"q quits")
        fd = os.open(os.devnull, os.O_RDWR)
        os.dup2(fd, top.ours)
        os.dup2(fd, top.theirs)
        os.close(fd)
        assert top.process.wait(SECONDS) == 130


# --- What is short -------------------------------------------------------------------------

NO_THREADS = """
import threading
start, allowed = threading.Thread.start, ALLOWED
def short(self):
    global allowed
    allowed -= 1
    if allowed < 0:
        raise RuntimeError("can't start new thread")
    start(self)
threading.Thread.start = short
"""
NO_LOOK = """
from vswapd.samples import Watcher
def fail(self):
    raise ZeroDivisionError("a fault of ours")
Watcher.look = fail
"""


def test_a_device_that_no_thread_can_ask_is_shown_as_one_that_does_not_answer(folder: Path) -> None:
    prelude = NO_THREADS.replace("ALLOWED", "1")
    with terminal("--interval", "0.1", folder=folder, prelude=prelude) as top:
        top.expect(b"cannot be asked: can't start new thread")
        top.press(b"q")
        assert top.wait() == 0
    assert b"Traceback" not in top.seen


@pytest.mark.parametrize(
    ("prelude", "why"),
    [
        (NO_THREADS.replace("ALLOWED", "0"), "at: can't start new thread"),
        (NO_LOOK, "at any more: ZeroDivisionError: a fault of ours"),
    ],
)
def test_when_nobody_can_look_any_more_it_ends_with_one_line(
    prelude: str, why: str, folder: Path
) -> None:
    with terminal(folder=folder, prelude=prelude) as top:
        assert top.wait() == 2
    assert b"Traceback" not in top.seen
    left = top.seen[top.seen.rindex(LEAVE) :].decode().split("vswap: ")
    assert left[1:] == [f"the devices cannot be looked {why}\r\n"]
