"""`vswap top` as a person has it: in a terminal of 80 columns and 24 lines, which tmux is."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.harness import PAGE, Start, close, environment, eventually

pytestmark = pytest.mark.mount

SECONDS = 20
WIDTH, HEIGHT = 80, 24
PAGES = 512
NAME = f"tmux{os.getpid()}"


class Tmux:
    """A server of its own, with one pane."""

    def __init__(self, socket: Path, program: str) -> None:
        self._program = program
        self._socket = socket

    def __call__(self, *arguments: str) -> str:
        command = [self._program, "-S", str(self._socket), "-f", "/dev/null", *arguments]
        done = subprocess.run(
            command,
            env={**environment(), "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *command: str) -> None:
        self("new-session", "-d", "-x", str(WIDTH), "-y", str(HEIGHT), shlex.join(command))
        self("set-option", "remain-on-exit", "on")

    def picture(self) -> list[str]:
        return self("capture-pane", "-p").splitlines()

    def told(self, what: str) -> str:
        return self("display-message", "-p", f"#{{{what}}}").strip()

    def shows(self, text: str) -> bool:
        return any(text in line for line in self.picture())


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    program = shutil.which("tmux")
    if program is None:
        pytest.skip("there is no tmux")
    made = Tmux(tmp_path / "tmux", program)
    yield made
    if (tmp_path / "tmux").exists():
        made("kill-server")


def test_a_device_in_a_terminal(start: Start, tmux: Tmux) -> None:
    device = start(name=NAME)
    assert device.told == "ready", device.stderr()
    fd = os.open(device.swap, os.O_RDWR)
    try:
        os.pwrite(fd, os.urandom(PAGES * PAGE), 0)
        mount = str(device.mount)
        # After a shell, which says how it ended; the pane is there before the program is.
        tmux.start("sh", "-c", 'read -r go; "$@"; echo "ended: $?"; read -r go', "sh", *top(mount))
        tmux("send-keys", "Enter")
        assert eventually(lambda: tmux.shows(" pages/s"), SECONDS), tmux.picture()
        assert eventually(lambda: writes_are_seen(tmux, fd), SECONDS), tmux.picture()
    finally:
        close(fd)
    found = tmux.picture()
    assert len(found) <= HEIGHT
    assert max(map(len, found)) <= WIDTH
    lines = [line for line in found if line]
    assert lines[0].startswith("vswap top ")
    assert lines[0].endswith(", q quits")
    assert lines[1].startswith(f"{NAME}  64M  ")
    assert [line[:14].strip() for line in lines[2:]] == [
        *("in memory", "same pages", "on disk", "total"),
        *("swap-in", "reads", "cleaner", "recompressed", "freed"),
    ]
    assert "\u2588" in lines[2]
    assert "2.0M" in lines[2]
    assert tmux.told("alternate_on") == "1"

    tmux("send-keys", "q")
    assert eventually(lambda: tmux.shows("ended: 0"), SECONDS), tmux.picture()
    assert tmux.told("alternate_on") == "0"
    assert tmux.told("cursor_flag") == "1"
    assert not tmux.shows("vswap top")


def top(mount: str) -> list[str]:
    return [sys.executable, "-m", "vswapd", "top", mount, "--interval", "0.2"]


def writes_are_seen(tmux: Tmux, fd: int) -> bool:
    """Write, until a rate and percentiles of the last interval are shown."""
    os.pwrite(fd, b"x" * PAGE, 0)
    lines = [line for line in tmux.picture() if "swap-out" in line or "writes " in line]
    return len(lines) == 2 and " 0 pages/s" not in lines[0][40:] and "p99 " in lines[1][40:]
