"""Block devices to measure: each peer is a context manager that gives one.

Every peer is a loop device with direct I/O and 4 KiB blocks over a file called `swap` on a
FUSE mount, so that what differs is who serves the file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.build import build

__all__ = ["Peer", "nullfs", "vswap"]

_SECONDS = 30.0
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Peer:
    """A block device, and the process and threads that serve it."""

    name: str
    device: str
    pid: int
    mount: Path

    def data_threads(self) -> list[int]:
        """The threads that serve requests: those vswap names, or all."""
        stats = self.mount / "stats.json"
        if stats.exists():
            named: str = json.loads(stats.read_text())["data_threads"]
            return [int(thread) for thread in named.split(",")]
        return [int(task.name) for task in Path(f"/proc/{self.pid}/task").iterdir()]

    def cpu_seconds(self) -> float:
        """Processor time of the serving process so far, to the nanosecond."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

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
