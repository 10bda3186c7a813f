"""A device that `vswap up` made, and the way out when a test fails.

What a failed test leaves is undone in the one order that always works: abort the FUSE
connection (frees whoever waits for the daemon), swapoff, detach the loop device, unmount.
Every program has a time limit, and no process of the tests holds a file of the mount open
for longer than a read.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from descriptor_support import memory_file

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 60.0
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'daemon'}"}
PROGRAMS = {b"vswapd.supervise", b"vswapd.forkserver"}
_FUSECTL = Path("/sys/fs/fuse/connections")


def missing() -> str | None:
    if os.geteuid():
        return "needs root: loop devices and swap"
    for device in ("/dev/fuse", "/dev/loop-control"):
        if not Path(device).exists():
            return f"needs {device}"
    return None


def run(*argv: str, timeout: float = SECONDS) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, without a terminal."""
    return subprocess.run(
        argv,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def vswap(*arguments: str, timeout: float = SECONDS) -> subprocess.CompletedProcess[str]:
    """Run one vswap command."""
    return run(sys.executable, "-m", "vswapd", *arguments, timeout=timeout)


def start_vswap(*arguments: str) -> subprocess.Popen[str]:
    """Start one vswap command, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "vswapd", *arguments],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@dataclass(frozen=True)
class Device:
    """A device that is up."""

    mount: Path
    loop: str

    def status(self) -> dict[str, Any]:
        """Its part of `vswap status --json`."""
        done = vswap("status", str(self.mount), "--json")
        assert done.returncode == 0, done.stderr
        (device,) = json.loads(done.stdout)["devices"]
        assert isinstance(device, dict)
        return device

    def stats(self) -> dict[str, Any]:
        """Its statistics."""
        stats = self.status()["stats"]
        assert isinstance(stats, dict)
        return stats

    def memory_bytes(self, name: str) -> int:
        """What the daemon's memory file `vswap-NAME` takes, by the kernel's count of blocks."""
        return memory_file(int(self.status()["worker_pid"]), name).stat().st_blocks * 512


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait for another process to have done something."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        signal.sigtimedwait([], 0.05)


def swaps() -> str:
    """What the kernel swaps on."""
    return Path("/proc/swaps").read_text()


def loops_of(mount: Path) -> list[str]:
    """Loop devices over the mount's file."""
    found = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            if file.read_text().strip().startswith(f"{mount}/"):
                found.append(f"/dev/{file.parts[3]}")
    return found


def mounts(mount: Path) -> list[str]:
    """The lines of mountinfo for `mount`."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4] == str(mount)]


def daemons(mount: Path) -> list[int]:
    """Processes of the daemons that serve `mount`, but supervisors that were restarted."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit():
                argv = (entry / "cmdline").read_bytes().split(b"\0")
                ours = PROGRAMS.intersection(argv)
                if ours and f'"{mount}"'.encode() in b" ".join(argv):
                    found.append(int(entry.name))
    return found


def left_behind(mount: Path) -> list[str]:
    """Everything of a device on `mount` that is still there."""
    loops = loops_of(mount)
    swapped = [loop for loop in loops if f"{loop} " in swaps()]
    return [*swapped, *loops, *mounts(mount), *map(str, daemons(mount))]


def tear_down(mount: Path) -> None:
    """Free the machine from whatever is left of a device on `mount`."""
    loops = loops_of(mount)
    for line in mounts(mount):
        _abort(line.split()[2].partition(":")[2])
    for loop in loops:
        for argv in (["swapoff", loop], ["losetup", "-d", loop]):
            with suppress(subprocess.TimeoutExpired):
                run(*argv)
    for _ in mounts(mount):
        run("umount", "--lazy", str(mount))
    for pid in daemons(mount):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _abort(connection: str) -> None:
    if not any(_FUSECTL.iterdir()):
        run("mount", "-t", "fusectl", "fusectl", str(_FUSECTL))
    with suppress(OSError):
        (_FUSECTL / connection / "abort").write_text("1")
