"""What a process writes to disks, request by request, as the kernel's block layer issues it.

From the tracepoint block_rq_issue, in an instance of the tracing file system of its own. Direct
I/O is issued by the thread that asks for it, so its number tells whose it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.peers import PeerError
from bench.peers.processes import threads_of

__all__ = ["large_share", "watching_writes"]

_INSTANCES = Path("/sys/kernel/tracing/instances")
_BUFFER_KIB = "8192"
_WRITE = re.compile(r"block_rq_issue: \S+ (\S*W\S*) \d+ \(.*\) \d+ \+ (\d+)")
_SECTOR = 512


@contextmanager
def watching_writes(pids: Collection[int]) -> Iterator[list[int]]:
    """The sizes in bytes of what these processes write within; to be looked at afterwards.

    Raises `PeerError` where the kernel does not trace.
    """
    if not _INSTANCES.is_dir():
        raise PeerError("this kernel traces no block requests (mount tracefs)")
    instance = _INSTANCES / f"vswap-bench-{os.getpid()}"
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
