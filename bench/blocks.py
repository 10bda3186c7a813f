"""What a process writes to disks, request by request, as the kernel's block layer issues it.

From the tracepoint block_rq_issue, in an instance of the tracing file system of its own. Direct
I/O is issued by the thread that asks for it, so its number tells whose it is.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.peers import PeerError
from bench.peers.processes import threads_of

__all__ = ["large_share", "watching_writes"]

_TRACING = Path("/sys/kernel/tracing")
_BUFFER_KIB = "8192"
_WRITE = re.compile(r"block_rq_issue: \S+ (\S*W\S*) \d+ \(.*\) \d+ \+ (\d+)")
_SECTOR = 512
_SECONDS = 10.0


@contextmanager
def watching_writes(pids: Collection[int]) -> Iterator[list[int]]:
    """The sizes in bytes of what these processes write within; to be looked at afterwards.

    Raises `PeerError` where the kernel does not trace.
    """
    with _tracing() as instances, _issued(instances, pids) as sizes:
        yield sizes


@contextmanager
def _tracing() -> Iterator[Path]:
    """The folder of the tracing file system's instances; it is mounted for so long if need be."""
    instances = _TRACING / "instances"
    if instances.is_dir():
        yield instances
        return
    mount = ["mount", "-t", "tracefs", "tracefs", str(_TRACING)]
    done = subprocess.run(mount, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode or not instances.is_dir():
        raise PeerError(f"this kernel traces no block requests: {done.stderr.strip()}")
    try:
        yield instances
    finally:
        subprocess.run(["umount", str(_TRACING)], timeout=_SECONDS, check=False)


@contextmanager
def _issued(instances: Path, pids: Collection[int]) -> Iterator[list[int]]:
    instance = instances / f"vswap-bench-{os.getpid()}"
    event = instance / "events/block/block_rq_issue/enable"
    sizes: list[int] = []
    instance.mkdir()
    try:
        (instance / "buffer_size_kb").write_text(_BUFFER_KIB)
        (instance / "options/event-fork").write_text("1")
        numbers = [str(thread) for pid in pids for thread in threads_of(pid)]
        (instance / "set_event_pid").write_text(" ".join(numbers))
        event.write_text("1")
        yield sizes
        event.write_text("0")
        trace = (instance / "trace").read_text(errors="replace")
        sizes += [int(found[2]) * _SECTOR for found in _WRITE.finditer(trace)]
    finally:
        with suppress(OSError):
            event.write_text("0")
        instance.rmdir()


def large_share(sizes: Collection[int], least: int) -> float:
    """The share of the bytes that were written in requests of at least so many."""
    whole = sum(sizes)
    return sum(size for size in sizes if size >= least) / whole if whole else 0.0
