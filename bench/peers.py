"""Block devices to measure: each peer is a context manager that gives one.

Those that are served by a process are a loop device with direct I/O and 4 KiB blocks over a
file called `swap` on a FUSE mount, so that what differs is who serves the file. zram is the
kernel's own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.build import build

__all__ = ["CommandError", "Peer", "PeerError", "Zram", "nullfs", "swapping", "vswap", "zram"]

_SECONDS = 30.0
_COMMAND_SECONDS = 600.0
_SWAPOFF_SECONDS = 120.0
_ROOT = Path(__file__).resolve().parent.parent
_ZRAM = Path("/sys/class/zram-control")
_TICKS = os.sysconf("SC_CLK_TCK")


class PeerError(Exception):
    """This machine has no such device. One line that says why."""


class CommandError(Exception):
    """What a daemon says to a command that it refuses."""


@dataclass(frozen=True)
class Peer:
    """A block device, and the process and threads that serve it."""

    name: str
    device: str
    pid: int
    mount: Path

    def stats(self) -> dict[str, Any]:
        """What vswap says about itself."""
        found: dict[str, Any] = json.loads((self.mount / "stats.json").read_text())
        return found

    def command(self, line: str) -> str:
        """Have vswap carry out a command; its answer. Raises `CommandError`."""
        ctl = str(self.mount / "ctl")
        argv = ["sh", "-c", 'printf "%s\\n" "$1" >"$0"', ctl, line]
        done = subprocess.run(argv, capture_output=True, timeout=_COMMAND_SECONDS, check=False)
        said = Path(ctl).read_text().strip()
        if done.returncode:
            raise CommandError(f"{line}: {said}")
        return said

    def data_threads(self) -> list[int]:
        """The threads that serve requests: those vswap names, or all."""
        if (self.mount / "stats.json").exists():
            named: str = self.stats()["data_threads"]
            return [int(thread) for thread in named.split(",")]
        return [int(task.name) for task in Path(f"/proc/{self.pid}/task").iterdir()]

    def cpu_seconds(self) -> float:
        """Processor time of the serving process's threads so far, to the nanosecond."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def cpu_seconds_ever(self) -> float:
        """Processor time so far, of threads that have ended too, to the clock tick."""
        user, system = self._stat_fields()[11:13]
        return (int(user) + int(system)) / _TICKS

    def _stat_fields(self) -> list[str]:
        """/proc/PID/stat from the state on."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()

    def pss(self) -> dict[str, int]:
        """Bytes of the process's memory by sort: `Pss`, and `Pss_Shmem` (the state) of it."""
        lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()[1:]
        fields = (line.split() for line in lines)
        return {name.rstrip(":"): int(kib) << 10 for name, kib, *_ in fields}

    def minor_faults(self) -> int:
        """Minor page faults of the data threads so far."""
        return sum(_minor_faults(self.pid, thread) for thread in self.data_threads())


def _minor_faults(pid: int, thread: int) -> int:
    stat = Path(f"/proc/{pid}/task/{thread}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[7])


def _program(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"{argv[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def _served(argv: list[str], mount: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends; it must have put `swap` into `mount`."""
    environment = {**os.environ, "PYTHONPATH": f"{_ROOT}:{_ROOT / 'daemon'}"}
    process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _SECONDS
        while not (os.path.ismount(mount) and (mount / "swap").exists()):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{argv[0]} does not serve {mount}")
            time.sleep(0.05)
        yield process
    finally:
        subprocess.run(["umount", "--lazy", mount], timeout=_SECONDS, check=False)
        try:
            process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_SECONDS)


@contextmanager
def _loop(file: Path) -> Iterator[str]:
    device = _program(
        "losetup", "--direct-io=on", "--sector-size", "4096", "-f", "--show", str(file)
    )
    try:
        yield device
    finally:
        _program("losetup", "-d", device)


@contextmanager
def nullfs(size: int, threads: int, programs: Path) -> Iterator[Peer]:
    """The do-nothing C file system: the limit of the transport."""
    program = str(build("nullfs", programs))
    with ExitStack() as stack:
        mount = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        argv = [program, "--size", str(size), "--threads", str(threads), str(mount)]
        process = stack.enter_context(_served(argv, mount))
        device = stack.enter_context(_loop(mount / "swap"))
        yield Peer("do-nothing C", device, process.pid, mount)


@contextmanager
def vswap(size: int, **settings: object) -> Iterator[Peer]:
    """Ours, with `Settings` by name."""
    with ExitStack() as stack:
        mount = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vswap-")))
        text = json.dumps({"name": "bench", "mount": str(mount), "size": size, **settings})
        argv = [sys.executable, "-m", "vswapd.worker", text]
        process = stack.enter_context(_served(argv, mount))
        device = stack.enter_context(_loop(mount / "swap"))
        yield Peer("vswap", device, process.pid, mount)


# ---- swapping on one ----------------------------------------------------------------------


@contextmanager
def swapping(peer: Peer, priority: int = 1000) -> Iterator[None]:
    """Swap on a peer as `vswap up` does, before any other device."""
    _program("mkswap", peer.device)
    try:
        _program("swapon", "--discard", "--priority", str(priority), peer.device)
        yield
    finally:
        _swapoff(peer)


def _swapoff(peer: Peer) -> None:
    """End it. If that takes too long the server is killed: what waits for it fails then."""
    if f"{peer.device} " not in Path("/proc/swaps").read_text():
        return
    process = subprocess.Popen(["swapoff", peer.device])
    try:
        process.wait(_SWAPOFF_SECONDS)
    except BaseException:
        with suppress(ProcessLookupError):
            os.kill(peer.pid, signal.SIGKILL)
        process.wait(_SECONDS)
        raise
    if process.returncode:
        raise RuntimeError(f"swapoff {peer.device}: status {process.returncode}")


# ---- zram ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Zram:
    """One of the kernel's compressed block devices."""

    device: str

    def mm_stat(self) -> dict[str, int]:
        """Documentation/admin-guide/blockdev/zram.rst."""
        text = Path(f"/sys/block/{Path(self.device).name}/mm_stat").read_text()
        names = ("orig_data_size", "compr_data_size", "mem_used_total", "mem_limit", "mem_used_max")
        return dict(zip(names, map(int, text.split()), strict=False))


@contextmanager
def zram(size: int, algorithm: str = "lz4") -> Iterator[Zram]:
    """A zram device of its own. Raises `PeerError` where the kernel has none, or not that codec."""
    try:
        number = (_ZRAM / "hot_add").read_text().strip()
    except OSError as error:
        raise PeerError(f"this kernel has no zram: {error.strerror}") from None
    block = Path(f"/sys/block/zram{number}")
    try:
        try:
            (block / "comp_algorithm").write_text(algorithm)
            (block / "disksize").write_text(str(size))
        except OSError as error:
            raise PeerError(f"no zram with {algorithm}: {error.strerror}") from None
        yield Zram(f"/dev/zram{number}")
    finally:
        _remove_zram(number)


def _remove_zram(number: str) -> None:
    """Whoever looks at new block devices may have it open for a moment."""
    for _ in range(100):
        with suppress(OSError):
            (_ZRAM / "hot_remove").write_text(number)
            return
        time.sleep(0.05)
    raise RuntimeError(f"/dev/zram{number} could not be removed")
