"""The loop device and the swap area on it: made, enabled, disabled and taken apart.

losetup, mkswap, swapon and swapoff run as programs, never in a process of ours that has
other things open: a process that holds /dev/fuse and a file of its own mount cannot exit.
Each has a time limit, because each can wait for a daemon that hangs; only swapoff may take
as long as it takes, and is `interrupt`ed instead.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from vswap.errors import UserError

__all__ = [
    "MIN_SWAP_SIZE",
    "Ended",
    "SwapArea",
    "attach_loop",
    "check_free_loop",
    "detach_loop",
    "disable_swap",
    "enable_swap",
    "give_up",
    "has_label",
    "make_swap",
    "parse_meminfo",
    "parse_swaps",
    "restrict",
    "room_for_swapoff",
    "run_program",
    "shortage",
    "start_program",
    "start_swapoff",
    "still_out",
    "swap_area",
    "swap_areas",
    "unescape",
]

MIN_SWAP_SIZE = 40 << 10  # mkswap's: ten pages
PROGRAM_SECONDS = 30.0
SWAPOFF_MARGIN = (8 << 20, 32 << 20)
"""The least and the most that a machine is to be left with; between them, as much as comes back."""
_LABEL_CHARS = 16
_LABEL = slice(1052, 1052 + _LABEL_CHARS)  # union swap_header, include/linux/swap.h
_SWAP = b"SWAPSPACE2"
_SWAPS = Path("/proc/swaps")
_MEMINFO = Path("/proc/meminfo")
_SYS_BLOCK = Path("/sys/block")
_KILL_SECONDS = 1.0
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"  # missing on the PATH that `su` leaves
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")
_abandoned: list[subprocess.Popen[bytes]] = []  # kept, for Popen complains when it is dropped


@dataclass(frozen=True)
class SwapArea:
    """A line of /proc/swaps. `size` and `used` in bytes."""

    path: str
    size: int
    used: int
    priority: int


@dataclass(frozen=True)
class Ended:
    """How a program ended; `code` is negative for a signal."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def last_line(self) -> str:
        """What it said last, on stderr if it said anything there."""
        lines = (self.stderr.strip() or self.stdout.strip()).decode(errors="replace").splitlines()
        return lines[-1].strip() if lines else f"exit code {self.code}"


def check_free_loop() -> None:
    """Raise `UserError` unless a loop device can be had; nothing is attached."""
    _run("no loop device is free (detach one, or `modprobe loop`)", ["losetup", "-f"])


def attach_loop(path: str) -> str:
    """Attach `path` to a free loop device with direct I/O and 4 KiB blocks; returns it.

    Raises `UserError`, and then nothing is attached. The kernel falls back to buffered I/O
    without a word, and every page would be in memory twice: so it is asked what it did.
    """
    options = ["--direct-io=on", "--sector-size", "4096", "-f", "--show"]
    ended = _run(f"attaching {path} to a loop device failed", ["losetup", *options, path])
    loop = os.fsdecode(ended.stdout.strip())
    if (_SYS_BLOCK / Path(loop).name / "loop/dio").read_text().strip() != "1":
        detach_loop(loop)
        raise UserError(f"{loop} got no direct I/O on {path}; this kernel's loop driver lacks it")
    return loop


def detach_loop(loop: str) -> None:
    """Detach a loop device. Raises `UserError`."""
    _run(f"detaching {loop} failed", ["losetup", "-d", loop])


def restrict(loop: str, *, settled: bool = True) -> None:
    """Let only root read a loop device (mode 0600), for it shows what others had in memory.

    udev sets its own mode after each change it is told of, so what it has queued comes first. That
    takes seconds early in a boot, and is waited for only if the mode is to be `settled`.
    """
    if settled and Path("/run/udev/control").exists():
        with suppress(UserError):  # then its mode is what a disk has: closed to users too
            _run("waiting for udev failed", ["udevadm", "settle", "--timeout=5"])
    Path(loop).chmod(0o600)


def make_swap(loop: str, label: str) -> None:
    """Write a swap header, labelled with as much of `label` as it holds. Raises `UserError`."""
    _run(f"making swap on {loop} failed", ["mkswap", "-L", label[:_LABEL_CHARS], loop])


def has_label(loop: str, label: str) -> bool:
    """Whether what `make_swap` writes, with this label, is on a loop device. Raises `UserError`."""
    options = ["bs=4096", "count=1", "iflag=direct", "status=none"]
    header = _run(f"reading {loop} failed", ["dd", f"if={loop}", *options]).stdout
    found = header[_LABEL].rstrip(b"\0")
    return header.endswith(_SWAP) and found == os.fsencode(label[:_LABEL_CHARS])


def enable_swap(loop: str, priority: int | None) -> None:
    """Swap on `loop`, telling it of slots that become free. Raises `UserError`."""
    chosen = [] if priority is None else ["-p", str(priority)]
    _run(f"enabling swap on {loop} failed", ["swapon", "--discard", *chosen, loop])


def disable_swap(path: str) -> None:
    """Disable an area that nothing was swapped to yet, if it is enabled. Raises `UserError`."""
    if swap_area(path):
        _run(f"disabling swap on {path} failed", ["swapoff", path])


def start_swapoff(path: str) -> subprocess.Popen[bytes]:
    """Start swapoff. SIGINT stops it, and what is still swapped out stays so."""
    return start_program(["swapoff", path])


def parse_swaps(text: bytes) -> list[SwapArea]:
    """The areas in `text`, which is what /proc/swaps holds: sizes there are in KiB."""
    areas = []
    for line in text.splitlines()[1:]:
        path, _kind, size, used, priority = line.rsplit(maxsplit=4)
        name = unescape(path).removesuffix(" (deleted)")
        areas.append(SwapArea(name, int(size) << 10, int(used) << 10, int(priority)))
    return areas


def swap_areas() -> list[SwapArea]:
    """The swap areas that are enabled now."""
    return parse_swaps(_SWAPS.read_bytes())


def swap_area(path: str) -> SwapArea | None:
    """The enabled swap area at `path`, if there is one."""
    return next((area for area in swap_areas() if area.path == path), None)


def parse_meminfo(text: str, name: str) -> int:
    """The bytes that /proc/meminfo's `text` has for `name`, which it counts in KiB."""
    for line in text.splitlines():
        key, _colon, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) << 10
    raise KeyError(name)


def room_for_swapoff(area: SwapArea) -> int:
    """How many bytes are missing to take back all that is on `area`; 0 when there is room.

    What the daemon gives back meanwhile is not counted on: during swapoff the kernel sends
    no discards (swapfile.c: only with SWP_WRITEOK), so each page is held twice to the end.
    """
    available = parse_meminfo(_MEMINFO.read_text(), "MemAvailable")
    return shortage(replace(area, used=still_out(area)), swap_areas(), available)


def still_out(area: SwapArea) -> int:
    """How many bytes of what is on `area` are not in memory as well.

    A page that was read ahead is in use on its area until it is mapped. How many are so, the
    kernel only tells of all areas together: when others are in use, all of `area` counts.
    """
    if any(other.used for other in swap_areas() if other.path != area.path):
        return area.used
    return max(0, area.used - parse_meminfo(_MEMINFO.read_text(), "SwapCached"))


def shortage(area: SwapArea, areas: Sequence[SwapArea], available: int) -> int:
    """`room_for_swapoff` for a machine with these `areas` and `available` bytes of memory."""
    if not area.used:
        return 0
    elsewhere = sum(other.size - other.used for other in areas if other.path != area.path)
    least, most = SWAPOFF_MARGIN
    return max(0, area.used + min(max(least, area.used), most) - available - elsewhere)


def unescape(field: bytes) -> str:
    r"""Undo the octal escapes of files in /proc (`\040` is a space) and decode as a path."""
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field))


def _run(failure: str, argv: Sequence[str]) -> Ended:
    """Run a program that must succeed; else a `UserError`: `failure`, then what it said."""
    try:
        ended = run_program(argv, PROGRAM_SECONDS)
    except TimeoutError as error:
        raise UserError(f"{failure}: {error}") from None
    if ended.code:
        raise UserError(f"{failure}: {ended.last_line}")
    return ended


def run_program(argv: Sequence[str], timeout: float, stdin: bytes = b"") -> Ended:
    """Run a program to its end. It speaks the C locale, and `stdin` is all it can read.

    After `timeout` seconds, and when interrupted, it is killed, and left behind if it cannot
    be. Raises `TimeoutError`, or `UserError` for a program that is not installed.
    """
    process = start_program(argv, subprocess.PIPE if stdin else subprocess.DEVNULL)
    try:
        stdout, stderr = process.communicate(stdin or None, timeout)
    except BaseException as error:
        give_up(process)
        if isinstance(error, subprocess.TimeoutExpired):
            raise TimeoutError(f"{argv[0]} did not finish within {timeout:g} s") from None
        raise
    return Ended(process.returncode, stdout, stderr)


def start_program(
    argv: Sequence[str],
    stdin: int = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program, with its output in pipes and in a process group of its own.

    So a terminal's Ctrl-C does not reach it, and who started it decides what does. Its
    environment is ours, with `environment` instead of what is called the same.
    """
    program = shutil.which(argv[0], path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")
    if program is None:
        raise UserError(f"the program {argv[0]} is not installed")
    pipe, locale = subprocess.PIPE, {**os.environ, **(environment or {}), "LC_ALL": "C"}
    return subprocess.Popen(
        argv,
        executable=program,
        stdin=stdin,
        stdout=pipe,
        stderr=pipe,
        env=locale,
        process_group=0,
    )


def give_up(process: subprocess.Popen[bytes]) -> None:
    """Kill what `start_program` started, and wait only for a moment.

    On a dead mount it may be beyond killing.
    """
    process.kill()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):  # what stdin still had to give
                pipe.close()
    try:
        process.wait(_KILL_SECONDS)
    except subprocess.TimeoutExpired:
        _abandoned.append(process)
