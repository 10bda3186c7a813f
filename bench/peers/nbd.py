"""nbdkit's compressed memory, behind nbdfuse: a block server made for other things.

nbdfuse(1) starts nbdkit(1) and speaks NBD with it over one connection, whose requests 16
threads of nbdkit serve. Four connections (nbdfuse --unix) were no faster, and took twice the
memory for threads.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.peers import processes
from bench.peers.peer import Peer, PeerError, Stored
from bench.peers.served import loop, mount_point, served
from vswap.geometry import PAGE_SIZE
from vswapd.swapdev import swap_area

__all__ = ["Nbdkit", "nbdkit"]

SECTOR = 512
_BLOCK = Path("/sys/block")
_LOOK_SECONDS = 0.2
_SETTLE_SECONDS = 10.0
_SETTLED = 256 << 10  # a thread's stack is 8 MiB
_WRITTEN_SECTORS = 6  # of a block device's stat, Documentation/block/stat.rst


@dataclass(frozen=True)
class Nbdkit(Peer):
    """A device of nbdkit's.

    `size` is in bytes. `empty` is how much nbdkit had allocated, in bytes, before anything was
    written. `written` is what the device has counted until then, in pages, for loop devices
    are used again.
    """

    size: int = field(kw_only=True)
    empty: int = field(kw_only=True)
    written: int = field(kw_only=True)

    def stored(self) -> Stored:
        """Its pool is what nbdkit has allocated since it was empty.

        It tells no pages, so these are the least of what is known: those of the device, those
        written so far, and those in use by /proc/swaps, which counts zero pages that the
        kernel kept.
        """
        pool = max(0, _allocated(self.pids) - self.empty)
        pages = min(self.size // PAGE_SIZE, _written_pages(self.device) - self.written)
        if area := swap_area(self.device):
            pages = min(pages, area.used // PAGE_SIZE)
        return Stored(pages, pool, self.pss()["Pss"] - pool)


def _written_pages(device: str) -> int:
    """Pages that a block device has been given so far."""
    fields = (_BLOCK / Path(device).name / "stat").read_text().split()
    return int(fields[_WRITTEN_SECTORS]) * SECTOR // PAGE_SIZE


def _allocated(pids: Sequence[int]) -> int:
    """Bytes that nbdkit, the second of them, has in memory of its own: no files."""
    return processes.pss(pids[1:])["Pss_Anon"]


def _settled(pids: Sequence[int]) -> int:
    """The same, when its threads have started and locked what they have."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    before, now = 0, _allocated(pids)
    while abs(now - before) > _SETTLED and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        before, now = now, _allocated(pids)
    return now


@contextmanager
def nbdkit(size: int, allocator: str = "zstd") -> Iterator[Nbdkit]:
    """nbdkit's memory plugin. It compresses 32 KiB at a time. Raises `PeerError`.

    `--swap` is what its manual asks for when one swaps on it. It locks the stacks and heaps of
    all threads in memory, hundreds of megabytes that lie beside the pool.
    """
    for name in ("nbdfuse", "nbdkit"):
        if shutil.which(name) is None:
            raise PeerError(f"the program {name} is not installed")
    server = ["nbdkit", "--exit-with-parent", "--swap", "memory", str(size)]
    with mount_point() as mount:
        argv = ["nbdfuse", str(mount / "swap"), "[", *server, f"allocator={allocator}", "]"]
        with served(argv, mount) as pids, loop(mount / "swap") as device:
            empty = _settled(pids)
            written = _written_pages(device)
            name = f"nbdkit {allocator}"
            yield Nbdkit(name, device, True, pids, None, size=size, empty=empty, written=written)
